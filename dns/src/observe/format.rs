//! Lines of the query log, with CoreDNS's placeholders.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;

use crate::answer::Answer;
use crate::config::LogClass;
use crate::message::flag;
use crate::metrics::labels::rcode_label;
use crate::name::Name;
use crate::record::RData;

/// Stands for what is not known.
const EMPTY: &str = "-";
/// Size that a client without EDNS takes over UDP, and everybody over TCP.
const SIZES: (u16, u16) = (512, 65_535);

/// A format, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Format(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Type,
    Name,
    Class,
    Proto,
    Size,
    Remote,
    Port,
    Rcode,
    ResponseSize,
    Duration,
    ResponseFlags,
    Id,
    Opcode,
    DnssecOk,
    BufferSize,
    Unknown,
}

/// A query and its reply, for a line.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) format: Arc<Format>,
    pub(crate) client: SocketAddr,
    pub(crate) is_udp: bool,
    pub(crate) id: u16,
    pub(crate) name: Name,
    pub(crate) record_type: RecordType,
    pub(crate) class: u16,
    /// Size that the client announced and whether DO was set.
    pub(crate) edns: Option<(u16, bool)>,
    pub(crate) request_size: usize,
    pub(crate) rcode: ResponseCode,
    /// The reply's flags.
    pub(crate) flags: u16,
    pub(crate) response_size: usize,
    pub(crate) duration: Duration,
}

/// The kind of an answer.
pub(crate) fn class_of(answer: &Answer) -> LogClass {
    let mut authority = answer.authority.iter();
    let has_soa = authority.any(|record| matches!(record.data, RData::Soa(_)));
    match answer.rcode {
        ResponseCode::NoError if answer.answers.is_empty() && has_soa => LogClass::Denial,
        ResponseCode::NoError => LogClass::Success,
        ResponseCode::NXDomain if has_soa => LogClass::Denial,
        _ => LogClass::Error,
    }
}

impl Format {
    /// Takes a format apart. What is no placeholder stays as it is.
    pub(crate) fn new(format: &str) -> Self {
        let mut pieces = Vec::new();
        let mut text = String::new();
        let mut rest = format;
        while let Some(end) = rest.find('}') {
            let (until, after) = rest.split_at(end + 1);
            rest = after;
            let start = until.rfind('{');
            let piece = start.and_then(|start| Piece::of(&until[start..]));
            match (start, piece) {
                (Some(start), Some(piece)) => {
                    text.push_str(&until[..start]);
                    if !text.is_empty() {
                        pieces.push(Piece::Text(std::mem::take(&mut text)));
                    }
                    pieces.push(piece);
                }
                _ => text.push_str(until),
            }
        }
        text.push_str(rest);
        if !text.is_empty() {
            pieces.push(Piece::Text(text));
        }
        Self(pieces)
    }
}

impl Piece {
    fn of(placeholder: &str) -> Option<Self> {
        Some(match placeholder {
            "{type}" => Self::Type,
            "{name}" => Self::Name,
            "{class}" => Self::Class,
            "{proto}" => Self::Proto,
            "{size}" => Self::Size,
            "{remote}" => Self::Remote,
            "{port}" => Self::Port,
            "{rcode}" => Self::Rcode,
            "{rsize}" => Self::ResponseSize,
            "{duration}" => Self::Duration,
            "{>rflags}" => Self::ResponseFlags,
            "{>id}" => Self::Id,
            "{>opcode}" => Self::Opcode,
            "{>do}" => Self::DnssecOk,
            "{>bufsize}" => Self::BufferSize,
            // Metadata has no plugin that would provide it, and which of our addresses was asked is
            // not known here.
            "{local}" => Self::Unknown,
            metadata if metadata.starts_with("{/") => Self::Unknown,
            _ => return None,
        })
    }
}

impl Entry {
    /// The line, without its end.
    pub(super) fn line(&self) -> String {
        let mut line = String::with_capacity(160);
        line.push_str("[INFO] ");
        for piece in &self.format.0 {
            self.piece(piece, &mut line);
        }
        line
    }

    fn piece(&self, piece: &Piece, line: &mut String) {
        // Writing to a string cannot fail.
        let _ = match piece {
            Piece::Text(text) => write!(line, "{text}"),
            Piece::Type => write!(line, "{}", type_text(self.record_type)),
            Piece::Name => write!(line, "{}", self.name.to_lowercase()),
            Piece::Class => match self.class {
                1 => write!(line, "IN"),
                3 => write!(line, "CH"),
                4 => write!(line, "HS"),
                254 => write!(line, "NONE"),
                255 => write!(line, "ANY"),
                class => write!(line, "CLASS{class}"),
            },
            Piece::Proto => write!(line, "{}", if self.is_udp { "udp" } else { "tcp" }),
            Piece::Size => write!(line, "{}", self.request_size),
            Piece::Remote => write!(line, "{}", super::shown(self.client)),
            Piece::Port => write!(line, "{}", self.client.port()),
            Piece::Rcode => write!(line, "{}", rcode_label(self.rcode)),
            Piece::ResponseSize => write!(line, "{}", self.response_size),
            Piece::Duration => write!(line, "{}s", self.duration.as_nanos() as f64 / 1e9),
            Piece::ResponseFlags => {
                push_flags(self.flags, line);
                Ok(())
            }
            Piece::Id => write!(line, "{}", self.id),
            // Others are not looked up.
            Piece::Opcode => write!(line, "0"),
            Piece::DnssecOk => write!(line, "{}", self.edns.is_some_and(|(_, is_set)| is_set)),
            Piece::BufferSize => {
                let announced = self.edns.map_or(SIZES.0, |(size, _)| size.max(SIZES.0));
                let size = if self.is_udp { announced } else { SIZES.1 };
                write!(line, "{size}")
            }
            Piece::Unknown => write!(line, "{EMPTY}"),
        };
    }
}

/// A type's name, or its number if it has none (RFC 3597 section 5).
pub(super) fn type_text(record_type: RecordType) -> String {
    match record_type {
        RecordType::Unknown(number) => format!("TYPE{number}"),
        record_type => record_type.to_string(),
    }
}

/// The flags that are set, with commas.
fn push_flags(flags: u16, line: &mut String) {
    let names = [
        (flag::QR, "qr"),
        (flag::AA, "aa"),
        (flag::TC, "tc"),
        (flag::RD, "rd"),
        (flag::RA, "ra"),
        (flag::AD, "ad"),
        (flag::CD, "cd"),
    ];
    let set = names.iter().filter(|(mask, _)| flags & mask != 0);
    for (index, (_, name)) in set.enumerate() {
        if index > 0 {
            line.push(',');
        }
        line.push_str(name);
    }
}
