//! Encoding of replies within a size limit.
//!
//! A record that does not fit ends the message: with TC set if it belongs to the answer or
//! authority section, silently if it is additional data (RFC 2181 section 9). Room for OPT is kept
//! from the start.
//!
//! Names are compressed against the names written before, case included, because owners and targets
//! keep the client's case. At most 64 suffixes are remembered, which bounds the work a
//! record costs whatever the number of records (names beyond them just stay longer). Names in record
//! data are compressed only where RFC 3597 section 4 allows it, so not in SRV.

use hickory_proto::op::ResponseCode;

use super::{Answer, ExtendedError};
use crate::message::{Edns, HEADER, Query, Question, Rejected, class, flag, option};
use crate::name::Name;
use crate::record::{RData, Record};

/// Largest reply over UDP and the size that we announce: no fragments on any usual path.
pub const UDP_LIMIT: usize = 1232;
/// Largest reply over UDP to a client without EDNS (RFC 1035 section 4.2.1).
pub const UDP_PLAIN: usize = 512;
/// Largest message over TCP.
pub const TCP_LIMIT: usize = 65_535;
/// Name suffixes remembered for compression.
const SUFFIXES: usize = 64;
/// Length of an OPT record without options.
const OPT: usize = 11;

/// How a reply travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// One datagram.
    Udp,
    /// Over a connection that is kept for this long when idle, in units of 100 ms.
    Tcp {
        /// Told to clients that ask (RFC 7828).
        idle: u16,
    },
    /// In the body of an HTTP response.
    Https,
    /// On a QUIC stream.
    Quic,
}

impl Transport {
    /// Queries come in datagrams, not over TCP.
    pub(crate) fn is_udp(self) -> bool {
        matches!(self, Self::Udp | Self::Quic)
    }
}

/// Appends the reply to `query` to `out`.
pub fn reply(query: &Query, answer: &Answer, transport: Transport, out: &mut Vec<u8>) {
    let flags = Flags::of(answer);
    let (mut writer, opt) = begin(query, &flags, answer.error.as_ref(), transport, out);
    let (answers, all_answers) = writer.section(&answer.answers);
    let (authority, all_authority) = match all_answers {
        true => writer.section(&answer.authority),
        false => (0, true),
    };
    let truncated = answer.truncated || !(all_answers && all_authority);
    let additional = match truncated {
        true => 0,
        false => writer.section(&answer.additional).0,
    };
    let flags = Flags { truncated, ..flags };
    writer.end(query, &flags, [answers, authority, additional], opt);
}

/// Appends a reply whose records were encoded before. `false` if it does not fit: nothing was
/// appended then.
pub(super) fn reply_with(
    query: &Query,
    flags: &Flags,
    error: Option<&ExtendedError>,
    counts: [u16; 3],
    records: &[u8],
    transport: Transport,
    out: &mut Vec<u8>,
) -> bool {
    let start = out.len();
    let (mut writer, opt) = begin(query, flags, error, transport, out);
    if writer.out.len() - start + records.len() > writer.limit {
        writer.out.truncate(start);
        return false;
    }
    writer.bytes(records);
    writer.end(query, flags, counts, opt);
    true
}

/// Encodes records that follow a question with this name, as many as fit into a message. Returns
/// how many there are of each section.
pub(super) fn sections(name: &Name, answer: &Answer, out: &mut Vec<u8>) -> [u16; 3] {
    let mut writer = Writer::new(out, TCP_LIMIT);
    writer.bytes(&[0; HEADER]);
    writer.name(name, true);
    writer.bytes(&[0; 4]);
    let answers = writer.section(&answer.answers).0;
    let authority = writer.section(&answer.authority).0;
    [answers, authority, writer.section(&answer.additional).0]
}

/// What the header of a reply says besides what it repeats of the query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flags {
    pub(super) rcode: ResponseCode,
    pub(super) authoritative: bool,
    pub(super) truncated: bool,
    pub(super) recursion_available: bool,
    pub(super) authentic: bool,
}

impl Flags {
    pub(super) fn of(answer: &Answer) -> Self {
        Self {
            rcode: answer.rcode,
            authoritative: answer.authoritative,
            truncated: answer.truncated,
            recursion_available: answer.recursion_available,
            authentic: answer.authentic,
        }
    }
}

/// Header, still empty, and question, with room kept for the OPT record that is returned.
fn begin<'a>(
    query: &Query,
    flags: &Flags,
    error: Option<&ExtendedError>,
    transport: Transport,
    out: &'a mut Vec<u8>,
) -> (Writer<'a>, Option<Vec<u8>>) {
    let limit = match (transport, query.edns) {
        (Transport::Tcp { .. } | Transport::Https | Transport::Quic, _) => TCP_LIMIT,
        (Transport::Udp, None) => UDP_PLAIN,
        (Transport::Udp, Some(edns)) => usize::from(edns.udp_size).clamp(UDP_PLAIN, UDP_LIMIT),
    };
    let opt = query
        .edns
        .map(|edns| opt_record(edns, flags.rcode, error, transport));
    let mut writer = Writer::new(out, limit - opt.as_ref().map_or(0, Vec::len));
    let question = &query.question;
    // Records are of the class that was asked for; ANY means IN here.
    if question.class == class::CH {
        writer.class = class::CH;
    }
    writer.bytes(&[0; HEADER]);
    writer.name(&question.name, true);
    writer.u16(question.record_type.into());
    writer.u16(question.class);
    (writer, opt)
}

/// Appends the reply to a message that is not looked up, unless there is to be silence.
pub fn rejection(rejected: &Rejected, transport: Transport, out: &mut Vec<u8>) {
    match rejected {
        Rejected::Silence => {}
        Rejected::Header { id, flags, rcode } => {
            let kept = flag::OPCODE | flag::RD | flag::CD;
            let flags = flag::QR | (flags & kept) | u16::from(rcode.low());
            out.extend_from_slice(&id.to_be_bytes());
            out.extend_from_slice(&flags.to_be_bytes());
            out.extend_from_slice(&[0; 8]);
        }
        Rejected::Code(query, rcode) => {
            reply(query, &Answer::code(*rcode, None), transport, out);
        }
    }
}

/// The OPT record of a reply. Of the flags only DO is repeated (RFC 3225); options that are not
/// understood are not.
fn opt_record(
    edns: Edns,
    rcode: ResponseCode,
    error: Option<&ExtendedError>,
    transport: Transport,
) -> Vec<u8> {
    let mut opt = Vec::with_capacity(64);
    opt.push(0);
    opt.extend_from_slice(&41u16.to_be_bytes());
    opt.extend_from_slice(&(UDP_LIMIT as u16).to_be_bytes());
    opt.push(rcode.high());
    opt.push(0);
    let flags: u16 = if edns.dnssec_ok { 0x8000 } else { 0 };
    opt.extend_from_slice(&flags.to_be_bytes());
    opt.extend_from_slice(&[0; 2]);
    if let (Transport::Tcp { idle }, true) = (transport, edns.keepalive) {
        push_option(&mut opt, option::KEEPALIVE, &idle.to_be_bytes(), b"");
    }
    if let Some(ExtendedError { code, text }) = error {
        push_option(
            &mut opt,
            option::EXTENDED_ERROR,
            &code.to_be_bytes(),
            text.as_bytes(),
        );
    }
    let length = (opt.len() - OPT) as u16;
    opt[OPT - 2..OPT].copy_from_slice(&length.to_be_bytes());
    opt
}

fn push_option(opt: &mut Vec<u8>, code: u16, head: &[u8], tail: &[u8]) {
    opt.extend_from_slice(&code.to_be_bytes());
    opt.extend_from_slice(&((head.len() + tail.len()) as u16).to_be_bytes());
    opt.extend_from_slice(head);
    opt.extend_from_slice(tail);
}

/// A query as sent to an upstream, with an OPT record that announces our size unless `edns` says that
/// it speaks none. DO is part of that record. Of `flags` RD and CD are sent.
pub fn query(id: u16, question: &Question, edns: Option<DnssecOk>, flags: u16) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER + question.name.wire().len() + 4 + OPT);
    let flags = flags & (flag::RD | flag::CD);
    for word in [id, flags, 1, 0, 0, u16::from(edns.is_some())] {
        out.extend_from_slice(&word.to_be_bytes());
    }
    out.extend_from_slice(question.name.wire());
    out.extend_from_slice(&u16::from(question.record_type).to_be_bytes());
    out.extend_from_slice(&class::IN.to_be_bytes());
    if let Some(DnssecOk(dnssec_ok)) = edns {
        let edns = Edns {
            udp_size: UDP_LIMIT as u16,
            dnssec_ok,
            keepalive: false,
        };
        let opt = opt_record(edns, ResponseCode::NoError, None, Transport::Udp);
        out.extend_from_slice(&opt);
    }
    out
}

/// The DO flag: DNSSEC records are wanted (RFC 3225).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DnssecOk(pub bool);

/// Appends to a message and remembers where names are.
struct Writer<'a> {
    out: &'a mut Vec<u8>,
    /// Where the message begins in `out`.
    start: usize,
    /// Length of the message above which a record does not fit.
    limit: usize,
    /// Offsets of name suffixes in the message.
    suffixes: [u16; SUFFIXES],
    known: usize,
    /// Class of records.
    class: u16,
}

impl<'a> Writer<'a> {
    fn new(out: &'a mut Vec<u8>, limit: usize) -> Self {
        Self {
            start: out.len(),
            out,
            limit,
            suffixes: [0; SUFFIXES],
            known: 0,
            class: class::IN,
        }
    }

    /// Appends the OPT record and fills in the header.
    fn end(mut self, query: &Query, reply: &Flags, counts: [u16; 3], opt: Option<Vec<u8>>) {
        let [answers, authority, mut additional] = counts;
        if let Some(opt) = opt {
            self.bytes(&opt);
            additional += 1;
        }
        let mut flags = flag::QR | (query.flags & (flag::RD | flag::CD));
        let mut set = |condition, mask| {
            if condition {
                flags |= mask;
            }
        };
        set(reply.authoritative, flag::AA);
        set(reply.truncated, flag::TC);
        set(reply.recursion_available, flag::RA);
        set(reply.authentic && query.wants_authentic(), flag::AD);
        // Without EDNS there is no room for the upper bits of an extended code; only BADVERS has any
        // here, and that is an answer to EDNS.
        flags |= u16::from(reply.rcode.low());
        let words = [query.id, flags, 1, answers, authority, additional];
        for (index, word) in words.into_iter().enumerate() {
            let at = self.start + 2 * index;
            self.out[at..at + 2].copy_from_slice(&word.to_be_bytes());
        }
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    fn u16(&mut self, value: u16) {
        self.bytes(&value.to_be_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.bytes(&value.to_be_bytes());
    }

    /// Writes records until one does not fit. Returns how many were written, and whether all were.
    fn section(&mut self, records: &[Record]) -> (u16, bool) {
        let mut written = 0;
        for record in records {
            let (end, known) = (self.out.len(), self.known);
            self.record(record);
            if self.out.len() - self.start > self.limit {
                self.out.truncate(end);
                self.known = known;
                return (written, false);
            }
            written += 1;
        }
        (written, true)
    }

    fn record(&mut self, record: &Record) {
        self.name(&record.name, true);
        self.u16(record.record_type().into());
        self.u16(self.class);
        self.u32(record.ttl);
        let length_at = self.out.len();
        self.u16(0);
        match &record.data {
            RData::A(addr) => self.bytes(&addr.octets()),
            RData::Aaaa(addr) => self.bytes(&addr.octets()),
            RData::Cname(name) | RData::Ns(name) | RData::Ptr(name) => self.name(name, true),
            RData::Srv(srv) => {
                self.u16(srv.priority);
                self.u16(srv.weight);
                self.u16(srv.port);
                self.name(&srv.target, false);
            }
            RData::Soa(soa) => {
                self.name(&soa.mname, true);
                self.name(&soa.rname, true);
                for value in [soa.serial, soa.refresh, soa.retry, soa.expire, soa.minimum] {
                    self.u32(value);
                }
            }
            RData::Other(_, data) => self.bytes(data),
        }
        let length = (self.out.len() - length_at - 2) as u16;
        self.out[length_at..length_at + 2].copy_from_slice(&length.to_be_bytes());
    }

    /// Writes a name; `compress` lets it end in a pointer to an earlier one.
    fn name(&mut self, name: &Name, compress: bool) {
        let wire = name.wire();
        let mut at = 0;
        while wire[at] != 0 {
            if compress && let Some(offset) = self.find(&wire[at..]) {
                self.u16(0xc000 | offset);
                return;
            }
            self.remember();
            let next = at + 1 + usize::from(wire[at]);
            self.out.extend_from_slice(&wire[at..next]);
            at = next;
        }
        self.out.push(0);
    }

    /// Remembers that a suffix begins at the end of the message.
    fn remember(&mut self) {
        let offset = self.out.len() - self.start;
        // A pointer has 14 bits.
        if self.known < SUFFIXES && offset < 0x4000 {
            self.suffixes[self.known] = offset as u16;
            self.known += 1;
        }
    }

    fn find(&self, wire: &[u8]) -> Option<u16> {
        let known = &self.suffixes[..self.known];
        known
            .iter()
            .copied()
            .find(|&offset| self.stands_at(offset, wire))
    }

    /// The name that begins at `offset` of the message, which we wrote ourselves, is `wire`.
    fn stands_at(&self, offset: u16, mut wire: &[u8]) -> bool {
        let message = &self.out[self.start..];
        let mut at = usize::from(offset);
        loop {
            let Some(&length) = message.get(at) else {
                return false;
            };
            if length >= 0xc0 {
                let Some(&low) = message.get(at + 1) else {
                    return false;
                };
                at = usize::from(length & 0x3f) << 8 | usize::from(low);
                continue;
            }
            let end = 1 + usize::from(length);
            if message.get(at..at + end) != wire.get(..end) {
                return false;
            }
            if length == 0 {
                return true;
            }
            at += end;
            wire = &wire[end..];
        }
    }
}

#[cfg(test)]
mod tests;
