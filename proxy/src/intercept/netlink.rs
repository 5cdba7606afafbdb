//! nf_tables transactions over a netlink socket: attributes, messages, batches and their answers.
//!
//! A transaction is one datagram: a begin message, the changes, an end message (nfnetlink). The
//! kernel applies all of it or nothing, before the send returns, and answers each change that asked
//! for it with its result.

use std::io::{self, Read};

use nix::libc;
use socket2::{Domain, Protocol, Socket, Type};

use super::InterceptError;

const HEADER: usize = 16;
/// `nfgenmsg`, before the attributes of each message.
const FAMILY_HEADER: usize = 4;
const ERROR_HEADER: usize = HEADER + 4;
/// `res_id` of a begin or end message: which subsystem the batch is for.
const SUBSYSTEM: u16 = libc::NFNL_SUBSYS_NFTABLES as u16;
const REQUEST: u16 = libc::NLM_F_REQUEST as u16;
const ACK: u16 = libc::NLM_F_ACK as u16;
const CREATE: u16 = libc::NLM_F_CREATE as u16;
const APPEND: u16 = libc::NLM_F_APPEND as u16;
const NESTED: u16 = libc::NLA_F_NESTED as u16;

/// The largest answer: a refused message comes back whole.
const ANSWER: usize = 128 * 1024;

/// Writes attributes behind each other. Numbers are big-endian, as everywhere in nf_tables.
#[derive(Debug, Default)]
pub(super) struct Attributes(Vec<u8>);

impl Attributes {
    /// Raw bytes.
    pub(super) fn bytes(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        let start = self.open(kind);
        self.0.extend_from_slice(value);
        self.close(start)
    }

    /// Text with the NUL that the kernel expects.
    pub(super) fn string(&mut self, kind: u16, value: &str) -> &mut Self {
        let start = self.open(kind);
        self.0.extend_from_slice(value.as_bytes());
        self.0.push(0);
        self.close(start)
    }

    /// A 32-bit number.
    pub(super) fn number(&mut self, kind: u16, value: u32) -> &mut Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// Attributes within an attribute.
    pub(super) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        let start = self.open(kind | NESTED);
        fill(self);
        self.close(start)
    }

    /// Attributes that were written before.
    pub(super) fn append(&mut self, other: &Self) -> &mut Self {
        self.0.extend_from_slice(&other.0);
        self
    }

    fn open(&mut self, kind: u16) -> usize {
        let start = self.0.len();
        self.0.extend_from_slice(&[0, 0]);
        self.0.extend_from_slice(&kind.to_ne_bytes());
        start
    }

    fn close(&mut self, start: usize) -> &mut Self {
        let length = u16::try_from(self.0.len() - start)
            .expect("element lists are cut so that attributes stay below 64 KiB");
        self.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }
}

/// One transaction.
#[derive(Debug)]
pub(super) struct Batch {
    bytes: Vec<u8>,
    first: u32,
    next: u32,
}

impl Batch {
    /// Creates what does not exist yet.
    pub(super) fn create(&mut self, message: i32, fill: impl FnOnce(&mut Attributes)) {
        self.push(message, REQUEST | ACK | CREATE, fill);
    }

    /// Adds to the end, for rules.
    pub(super) fn append(&mut self, message: i32, fill: impl FnOnce(&mut Attributes)) {
        self.push(message, REQUEST | ACK | CREATE | APPEND, fill);
    }

    /// Deletes, and fails if it does not exist.
    pub(super) fn delete(&mut self, message: i32, fill: impl FnOnce(&mut Attributes)) {
        self.push(message, REQUEST | ACK, fill);
    }

    fn new(first: u32) -> Self {
        let mut batch = Self {
            bytes: Vec::new(),
            first,
            next: first,
        };
        batch.mark(libc::NFNL_MSG_BATCH_BEGIN);
        batch
    }

    fn push(&mut self, message: i32, flags: u16, fill: impl FnOnce(&mut Attributes)) {
        let mut attributes = Attributes::default();
        fill(&mut attributes);
        let kind = (SUBSYSTEM << 8) | message as u16;
        self.message(kind, flags, libc::NFPROTO_INET as u8, 0, &attributes.0);
    }

    fn mark(&mut self, kind: i32) {
        self.message(kind as u16, REQUEST, 0, SUBSYSTEM, &[]);
    }

    fn message(&mut self, kind: u16, flags: u16, family: u8, resource: u16, body: &[u8]) {
        let length = (HEADER + 4 + body.len()) as u32;
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&flags.to_ne_bytes());
        self.bytes.extend_from_slice(&self.next.to_ne_bytes());
        // Port 0: the kernel fills in the socket's.
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&[family, 0]);
        self.bytes.extend_from_slice(&resource.to_be_bytes());
        self.bytes.extend_from_slice(body);
        self.next = self.next.wrapping_add(1);
    }
}

/// A socket to nf_tables in the namespace of the thread that opened it.
#[derive(Debug)]
pub(super) struct NfTables {
    socket: Socket,
    next: u32,
}

impl NfTables {
    pub(super) fn open() -> io::Result<Self> {
        let socket = Socket::new(
            Domain::from(libc::AF_NETLINK),
            Type::RAW,
            Some(Protocol::from(libc::NETLINK_NETFILTER)),
        )?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, next: 1 })
    }

    /// Fills a batch and has the kernel apply it as a whole.
    pub(super) fn transaction(
        &mut self,
        fill: impl FnOnce(&mut Batch),
    ) -> Result<(), InterceptError> {
        let mut batch = Batch::new(self.next);
        fill(&mut batch);
        let last_change = batch.next.wrapping_sub(1);
        batch.mark(libc::NFNL_MSG_BATCH_END);
        self.next = batch.next;
        let sent = self
            .socket
            .send(&batch.bytes)
            .map_err(InterceptError::Netlink)?;
        if sent != batch.bytes.len() {
            return Err(InterceptError::Unanswered);
        }
        self.answers(&batch, last_change)
    }

    /// Asks for one object and returns its attributes, the answer's only message.
    pub(super) fn get(
        &mut self,
        message: i32,
        fill: impl FnOnce(&mut Attributes),
    ) -> Result<Vec<u8>, InterceptError> {
        let mut batch = Batch {
            bytes: Vec::new(),
            first: self.next,
            next: self.next,
        };
        batch.push(message, REQUEST, fill);
        self.next = batch.next;
        let sent = self.socket.send(&batch.bytes);
        sent.map_err(InterceptError::Netlink)?;
        let mut buffer = vec![0; ANSWER];
        let length = (&self.socket)
            .read(&mut buffer)
            .map_err(InterceptError::Netlink)?;
        buffer.truncate(length);
        if let Some((_, code)) = Answers(&buffer).next() {
            let source = io::Error::from_raw_os_error(-code);
            return Err(InterceptError::Refused { change: 1, source });
        }
        if length < HEADER + FAMILY_HEADER {
            return Err(InterceptError::Unanswered);
        }
        Ok(buffer.split_off(HEADER + FAMILY_HEADER))
    }

    /// Reads the answers, which are all there when the send has returned.
    fn answers(&self, batch: &Batch, last_change: u32) -> Result<(), InterceptError> {
        let mut buffer = vec![0; ANSWER];
        let mut answered = false;
        let mut refused = None;
        loop {
            let length = match (&self.socket).read(&mut buffer) {
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(InterceptError::Netlink(error)),
            };
            for (sequence, code) in Answers(&buffer[..length]) {
                let change = sequence.wrapping_sub(batch.first);
                if change > last_change.wrapping_sub(batch.first) {
                    // Left over from a transaction whose answers could not be read.
                    continue;
                }
                answered |= sequence == last_change;
                if code != 0 && refused.is_none() {
                    refused = Some((change, io::Error::from_raw_os_error(-code)));
                }
            }
        }
        match refused {
            Some((change, source)) => Err(InterceptError::Refused { change, source }),
            None if answered => Ok(()),
            None => Err(InterceptError::Unanswered),
        }
    }
}

/// The value of an attribute, in a list of attributes.
pub(super) fn attribute(mut list: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let number = |at: usize| Some(u16::from_ne_bytes(list.get(at..at + 2)?.try_into().ok()?));
        let (length, kind) = (usize::from(number(0)?), number(2)?);
        if kind & !NESTED == wanted {
            return list.get(4..length);
        }
        if length < 4 {
            return None;
        }
        list = list.get(length.next_multiple_of(4)..)?;
    }
}

/// The (sequence number, error code) pairs of a datagram from the kernel.
struct Answers<'a>(&'a [u8]);

impl Iterator for Answers<'_> {
    type Item = (u32, i32);

    fn next(&mut self) -> Option<Self::Item> {
        let number = |bytes: &[u8], at: usize| bytes.get(at..at + 4)?.try_into().ok();
        loop {
            let length = number(self.0, 0).map(u32::from_ne_bytes)? as usize;
            if length < HEADER || length > self.0.len() {
                return None;
            }
            let message = &self.0[..length];
            self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or(&[]);
            let kind = u16::from_ne_bytes([message[4], message[5]]);
            if i32::from(kind) == libc::NLMSG_ERROR && length >= ERROR_HEADER {
                let sequence = number(message, 8).map(u32::from_ne_bytes)?;
                let code = number(message, HEADER).map(i32::from_ne_bytes)?;
                return Some((sequence, code));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_nested_and_padded() {
        let mut attributes = Attributes::default();
        attributes.nest(1, |inner| {
            inner.string(2, "ab").number(3, 5);
        });
        let mut expected = Vec::new();
        for part in [
            &20u16.to_ne_bytes()[..],
            &(1 | NESTED).to_ne_bytes(),
            &7u16.to_ne_bytes(),
            &2u16.to_ne_bytes(),
            b"ab\0\0",
            &8u16.to_ne_bytes(),
            &3u16.to_ne_bytes(),
            &[0, 0, 0, 5],
        ] {
            expected.extend_from_slice(part);
        }
        assert_eq!(attributes.0, expected);
    }

    #[test]
    fn attributes_are_found_and_garbage_is_none() {
        let mut attributes = Attributes::default();
        attributes.string(1, "abc").nest(4, |inner| {
            inner.number(2, 7);
        });
        let list = attributes.0;
        let nested = attribute(&list, 4).unwrap();
        assert_eq!(attribute(nested, 2), Some(&[0, 0, 0, 7][..]));
        assert_eq!(attribute(&list, 3), None);
        for cut in 0..list.len() {
            assert_eq!(attribute(&list[..cut], 4), None, "{cut}");
        }
        assert_eq!(attribute(&[0; 64], 4), None);
    }

    #[test]
    fn answers_are_read_past_other_messages_and_stop_at_garbage() {
        let message = |kind: u16, sequence: u32, code: i32| {
            let mut bytes = 20u32.to_ne_bytes().to_vec();
            bytes.extend_from_slice(&kind.to_ne_bytes());
            bytes.extend_from_slice(&[0, 0]);
            bytes.extend_from_slice(&sequence.to_ne_bytes());
            bytes.extend_from_slice(&[0; 4]);
            bytes.extend_from_slice(&code.to_ne_bytes());
            bytes
        };
        let error = libc::NLMSG_ERROR as u16;
        let mut datagram = message(error, 1, 0);
        datagram.extend(message(99, 2, 0));
        datagram.extend(message(error, 3, -17));
        assert_eq!(Answers(&datagram).collect::<Vec<_>>(), [(1, 0), (3, -17)]);
        for cut in 0..datagram.len() {
            assert!(Answers(&datagram[..cut]).count() <= 2, "{cut}");
        }
        assert_eq!(Answers(&[0xff; 64]).count(), 0);
    }
}
