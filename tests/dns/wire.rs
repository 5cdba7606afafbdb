//! Messages, written and read without the code under test.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

/// Types by number (RFC 1035 section 3.2.2 and later).
pub(crate) mod kind {
    pub(crate) const A: u16 = 1;
    pub(crate) const NS: u16 = 2;
    pub(crate) const CNAME: u16 = 5;
    pub(crate) const SOA: u16 = 6;
    pub(crate) const PTR: u16 = 12;
    pub(crate) const HINFO: u16 = 13;
    pub(crate) const MX: u16 = 15;
    pub(crate) const TXT: u16 = 16;
    pub(crate) const AAAA: u16 = 28;
    pub(crate) const SRV: u16 = 33;
    pub(crate) const OPT: u16 = 41;
    pub(crate) const HTTPS: u16 = 65;
    pub(crate) const ANY: u16 = 255;

    /// Its name.
    pub(crate) fn name(kind: u16) -> String {
        let name = match kind {
            A => "A",
            NS => "NS",
            CNAME => "CNAME",
            SOA => "SOA",
            PTR => "PTR",
            HINFO => "HINFO",
            MX => "MX",
            TXT => "TXT",
            AAAA => "AAAA",
            SRV => "SRV",
            OPT => "OPT",
            HTTPS => "HTTPS",
            ANY => "ANY",
            other => return format!("TYPE{other}"),
        };
        name.to_owned()
    }
}

/// Codes.
pub(crate) mod rcode {
    pub(crate) const NOERROR: u16 = 0;
    pub(crate) const SERVFAIL: u16 = 2;
    pub(crate) const NXDOMAIN: u16 = 3;
}

/// Flags as masks on the header's second word.
pub(crate) mod flag {
    pub(crate) const QR: u16 = 0x8000;
    pub(crate) const AA: u16 = 0x0400;
    pub(crate) const TC: u16 = 0x0200;
    pub(crate) const RD: u16 = 0x0100;
    pub(crate) const RA: u16 = 0x0080;
    pub(crate) const AD: u16 = 0x0020;
    pub(crate) const CD: u16 = 0x0010;
}

/// A query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Query {
    /// The name as typed, without the final dot; empty for the root.
    pub(crate) name: String,
    pub(crate) kind: u16,
    /// RD.
    pub(crate) recurse: bool,
    /// Size and DO of the OPT record.
    pub(crate) edns: Option<(u16, bool)>,
}

impl Query {
    /// A query as a stub resolver sends it.
    pub(crate) fn new(name: &str, kind: u16) -> Self {
        Self {
            name: name.to_owned(),
            kind,
            recurse: true,
            edns: None,
        }
    }

    /// The message.
    pub(crate) fn message(&self, id: u16) -> Vec<u8> {
        let flags = if self.recurse { flag::RD } else { 0 };
        let mut out = Vec::with_capacity(64);
        for word in [id, flags, 1, 0, 0, u16::from(self.edns.is_some())] {
            out.extend(word.to_be_bytes());
        }
        out.extend(name_bytes(&self.name));
        out.extend(self.kind.to_be_bytes());
        out.extend([0, 1]);
        if let Some((size, dnssec_ok)) = self.edns {
            out.push(0);
            out.extend(kind::OPT.to_be_bytes());
            out.extend(size.to_be_bytes());
            out.extend([0, 0, if dnssec_ok { 0x80 } else { 0 }, 0, 0, 0]);
        }
        out
    }
}

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}. {}", self.name, kind::name(self.kind))?;
        match self.edns {
            None => f.write_str(" no-edns")?,
            Some((size, false)) => write!(f, " edns={size}")?,
            Some((size, true)) => write!(f, " edns={size} do")?,
        }
        f.write_str(if self.recurse { "" } else { " no-rd" })
    }
}

/// A name in wire form, uncompressed.
pub(crate) fn name_bytes(name: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(name.len() + 2);
    for label in name.split('.').filter(|label| !label.is_empty()) {
        out.push(u8::try_from(label.len()).expect("a label"));
        out.extend(label.as_bytes());
    }
    out.push(0);
    out
}

/// A record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Record {
    /// As spelled in the message.
    pub(crate) owner: String,
    pub(crate) kind: u16,
    pub(crate) class: u16,
    /// In the form of a zone file, names as spelled.
    pub(crate) data: String,
    /// Seconds.
    pub(crate) ttl: u32,
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = kind::name(self.kind);
        write!(f, "{} {} {kind} {}", self.owner, self.ttl, self.data)
    }
}

/// The OPT record of a reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Opt {
    pub(crate) size: u16,
    pub(crate) version: u8,
    pub(crate) dnssec_ok: bool,
    /// Codes of the options.
    pub(crate) options: Vec<u16>,
}

/// A reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) id: u16,
    /// The header's flags without code.
    pub(crate) flags: u16,
    /// With the upper bits that are in OPT.
    pub(crate) rcode: u16,
    /// The question section as it came.
    pub(crate) question: Vec<u8>,
    pub(crate) answer: Vec<Record>,
    pub(crate) authority: Vec<Record>,
    /// Without OPT.
    pub(crate) additional: Vec<Record>,
    pub(crate) opt: Option<Opt>,
    /// Bytes.
    pub(crate) length: usize,
}

impl Reply {
    /// Reads a message.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn read(message: &[u8]) -> Result<Self, String> {
        let mut reader = Reader { message, at: 0 };
        let (id, flags) = (reader.u16()?, reader.u16()?);
        let counts = [reader.u16()?, reader.u16()?, reader.u16()?, reader.u16()?];
        let start = reader.at;
        for _ in 0..counts[0] {
            reader.name()?;
            reader.take(4)?;
        }
        let mut reply = Self {
            id,
            flags: flags & !0x7f,
            rcode: flags & 0xf,
            question: message[start..reader.at].to_vec(),
            answer: Vec::new(),
            authority: Vec::new(),
            additional: Vec::new(),
            opt: None,
            length: message.len(),
        };
        reply.flags |= flags & (flag::AD | flag::CD);
        for (section, count) in counts.into_iter().enumerate().skip(1) {
            for _ in 0..count {
                reply.record(&mut reader, section)?;
            }
        }
        if reader.at != message.len() {
            return Err(format!("{} bytes too many", message.len() - reader.at));
        }
        Ok(reply)
    }

    fn record(&mut self, reader: &mut Reader<'_>, section: usize) -> Result<(), String> {
        let owner = reader.name()?;
        let (kind, class, ttl) = (reader.u16()?, reader.u16()?, reader.u32()?);
        let length = usize::from(reader.u16()?);
        let end = reader.at + length;
        if kind == kind::OPT {
            let mut options = Vec::new();
            while reader.at < end {
                options.push(reader.u16()?);
                let length = usize::from(reader.u16()?);
                reader.take(length)?;
            }
            self.rcode |= (ttl >> 24 << 4) as u16;
            self.opt = Some(Opt {
                size: class,
                version: (ttl >> 16) as u8,
                dnssec_ok: ttl & 0x8000 != 0,
                options,
            });
            return Ok(());
        }
        let data = reader.data(kind, length)?;
        if reader.at != end {
            return Err(format!("{owner} {}: data length", kind::name(kind)));
        }
        let record = Record {
            owner,
            kind,
            class,
            data,
            ttl,
        };
        match section {
            1 => self.answer.push(record),
            2 => self.authority.push(record),
            _ => self.additional.push(record),
        }
        Ok(())
    }

    /// A flag.
    pub(crate) fn has(&self, mask: u16) -> bool {
        self.flags & mask != 0
    }

    /// NOERROR without an answer.
    pub(crate) fn is_no_data(&self) -> bool {
        self.rcode == rcode::NOERROR && self.answer.is_empty()
    }

    /// The data of answers of this type, sorted.
    pub(crate) fn data(&self, kind: u16) -> Vec<&str> {
        let records = self.answer.iter().filter(|record| record.kind == kind);
        let mut data: Vec<&str> = records.map(|record| &*record.data).collect();
        data.sort_unstable();
        data
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rcode {}", self.rcode)?;
        for (name, mask) in [
            ("aa", flag::AA),
            ("tc", flag::TC),
            ("rd", flag::RD),
            ("ra", flag::RA),
            ("ad", flag::AD),
            ("cd", flag::CD),
        ] {
            if self.has(mask) {
                write!(f, " {name}")?;
            }
        }
        write!(f, " {} B", self.length)?;
        for (name, records) in [
            ("answer", &self.answer),
            ("authority", &self.authority),
            ("additional", &self.additional),
        ] {
            for record in records.iter().take(SHOWN) {
                write!(f, "\n      {name} {record}")?;
            }
            if records.len() > SHOWN {
                write!(f, "\n      {name} … {} records", records.len())?;
            }
        }
        match &self.opt {
            Some(opt) => write!(f, "\n      {opt:?}"),
            None => Ok(()),
        }
    }
}

/// Records of a section that are printed.
const SHOWN: usize = 6;

struct Reader<'a> {
    message: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], String> {
        let end = self.at + length;
        let bytes = self.message.get(self.at..end).ok_or("cut off")?;
        self.at = end;
        Ok(bytes)
    }

    fn u8(&mut self) -> Result<u8, String> {
        Ok(self.take(1)?[0])
    }

    fn u16(&mut self) -> Result<u16, String> {
        Ok(u16::from_be_bytes(self.take(2)?.try_into().expect("two")))
    }

    fn u32(&mut self) -> Result<u32, String> {
        Ok(u32::from_be_bytes(self.take(4)?.try_into().expect("four")))
    }

    fn name(&mut self) -> Result<String, String> {
        let mut text = String::new();
        let mut after = None;
        for _ in 0..256 {
            match usize::from(self.u8()?) {
                0 => {
                    self.at = after.unwrap_or(self.at);
                    return Ok(if text.is_empty() { ".".into() } else { text });
                }
                high @ 0xc0.. => {
                    let target = (high & 0x3f) << 8 | usize::from(self.u8()?);
                    after.get_or_insert(self.at);
                    self.at = target;
                }
                length => {
                    let label = self.take(length)?;
                    text.push_str(&label.escape_ascii().to_string());
                    text.push('.');
                }
            }
        }
        Err("a name without end".to_owned())
    }

    fn data(&mut self, kind: u16, length: usize) -> Result<String, String> {
        Ok(match (kind, length) {
            (kind::A, 4) => Ipv4Addr::from(self.u32()?).to_string(),
            (kind::AAAA, 16) => {
                let octets: [u8; 16] = self.take(16)?.try_into().expect("sixteen");
                Ipv6Addr::from(octets).to_string()
            }
            (kind::NS | kind::CNAME | kind::PTR, _) => self.name()?,
            (kind::MX, _) => format!("{} {}", self.u16()?, self.name()?),
            (kind::SRV, _) => {
                let [priority, weight, port] = [self.u16()?, self.u16()?, self.u16()?];
                format!("{priority} {weight} {port} {}", self.name()?)
            }
            (kind::SOA, _) => {
                let mut text = format!("{} {}", self.name()?, self.name()?);
                for _ in 0..5 {
                    text.push_str(&format!(" {}", self.u32()?));
                }
                text
            }
            _ => self.take(length)?.escape_ascii().to_string(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_read_with_its_names_as_spelled() {
        let query = Query {
            edns: Some((1232, true)),
            ..Query::new("A.eXample", kind::A)
        };
        let mut message = query.message(7);
        message[2] |= 0x84;
        message[7] = 1;
        let opt = message.split_off(message.len() - 11);
        message.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 30, 0, 4, 10, 0, 0, 1]);
        message.extend(opt);
        let reply = Reply::read(&message).unwrap();
        assert!(reply.has(flag::QR) && reply.has(flag::AA) && !reply.has(flag::TC));
        assert_eq!(reply.answer[0].owner, "A.eXample.");
        assert_eq!(reply.data(kind::A), ["10.0.0.1"]);
        assert_eq!(reply.opt.unwrap().size, 1232);
    }
}
