//! Where an answer's body ends (RFC 9112, 6.3 and 7.1).
//!
//! Bodies are framed anew: chunks keep their data and lose extensions and trailers, and a body that
//! ends with its connection becomes a chunked one. Only what is exactly a chunk is taken for one.

use std::io::Write as _;

use super::response::Malformed;

/// Bytes of chunk extensions and trailers that are read, of one body.
const EXTRA: u32 = 16 * 1024;

/// The end of a chunked body that has no trailers.
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// How much of a body is still to come.
#[derive(Debug)]
pub(in super::super) enum Framing {
    /// Nothing.
    Nothing,
    /// So many bytes.
    Length(u64),
    /// Chunks.
    Chunked(Chunks),
    /// Everything until the end of the connection.
    End,
}

/// How far a chunked body has been read.
#[derive(Debug)]
pub(in super::super) struct Chunks {
    at: At,
    extra: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// In a size, so far this, with so many digits.
    Size(u64, u8),
    /// Behind a size.
    Extension(u64),
    /// Before the line feed that ends a size.
    SizeEnd(u64),
    /// In data, of which so much is to come.
    Data(u64),
    DataCr,
    DataLf,
    /// At the beginning of a line of the trailers.
    Line,
    /// In a trailer.
    Trailer,
    TrailerLf,
    LastLf,
    Done,
}

impl Framing {
    pub(super) fn chunked() -> Self {
        Self::Chunked(Chunks {
            at: At::Size(0, 0),
            extra: EXTRA,
        })
    }

    /// Nothing more is to come.
    pub(in super::super) fn is_done(&self) -> bool {
        match self {
            Self::Nothing => true,
            Self::Length(left) => *left == 0,
            Self::Chunked(chunks) => chunks.at == At::Done,
            Self::End => false,
        }
    }

    /// Takes what belongs to the body from `bytes`, writes it for the client, and returns how many
    /// bytes that were.
    pub(super) fn take(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<usize, Malformed> {
        match self {
            Self::Nothing | Self::Length(_) => {
                self.take_data(bytes, |data| out.extend_from_slice(data))
            }
            Self::Chunked(_) => {
                let taken = self.take_data(bytes, |data| write_chunk(data, out))?;
                if self.is_done() {
                    out.extend_from_slice(LAST_CHUNK);
                }
                Ok(taken)
            }
            Self::End => self.take_data(bytes, |data| write_chunk(data, out)),
        }
    }

    /// Takes what belongs to the body from `bytes`, shows `data` what is content of that, and returns
    /// how many bytes were taken.
    pub(in super::super) fn take_data(
        &mut self,
        bytes: &[u8],
        mut data: impl FnMut(&[u8]),
    ) -> Result<usize, Malformed> {
        match self {
            Self::Nothing => Ok(0),
            Self::Length(left) => {
                let taken =
                    usize::try_from(*left).map_or(bytes.len(), |left| left.min(bytes.len()));
                data(&bytes[..taken]);
                *left -= taken as u64;
                Ok(taken)
            }
            Self::Chunked(chunks) => chunks.take(bytes, data),
            Self::End => {
                data(bytes);
                Ok(bytes.len())
            }
        }
    }

    /// Takes what was read of a message's body, nothing at the end of the stream, and writes it to
    /// `out`. Says whether something came behind the body's end.
    pub(super) fn more(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<bool, Malformed> {
        if bytes.is_empty() {
            self.end(out)?;
            return Ok(false);
        }
        let taken = self.take(bytes, out)?;
        Ok(taken < bytes.len())
    }

    /// The endpoint's connection ended; that is an end for this kind of body only.
    fn end(&mut self, out: &mut Vec<u8>) -> Result<(), Malformed> {
        if !matches!(self, Self::End) {
            return Err(Malformed);
        }
        out.extend_from_slice(LAST_CHUNK);
        *self = Self::Nothing;
        Ok(())
    }
}

fn write_chunk(data: &[u8], out: &mut Vec<u8>) {
    if !data.is_empty() {
        // Writing to a vector does not fail.
        let _ = write!(out, "{:x}\r\n", data.len());
        out.extend_from_slice(data);
        out.extend_from_slice(b"\r\n");
    }
}

impl Chunks {
    fn take(&mut self, bytes: &[u8], mut show: impl FnMut(&[u8])) -> Result<usize, Malformed> {
        let mut at = 0;
        while self.at != At::Done {
            if let At::Data(left) = self.at {
                let rest = &bytes[at..];
                let data = usize::try_from(left).map_or(rest.len(), |left| left.min(rest.len()));
                show(&rest[..data]);
                at += data;
                let left = left - data as u64;
                self.at = if left == 0 {
                    At::DataCr
                } else {
                    At::Data(left)
                };
            }
            let Some(byte) = bytes.get(at) else { break };
            at += 1;
            self.at = self.step(*byte)?;
        }
        Ok(at)
    }

    fn step(&mut self, byte: u8) -> Result<At, Malformed> {
        Ok(match (self.at, byte) {
            (At::Size(size, digits), b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') if digits < 15 => {
                let digit = char::from(byte).to_digit(16).unwrap_or(0);
                At::Size(size << 4 | u64::from(digit), digits + 1)
            }
            (At::Size(size, 1..), b'\r') => At::SizeEnd(size),
            (At::Size(size, 1..), b';' | b' ' | b'\t') => At::Extension(size),
            (At::Extension(size), b'\r') => At::SizeEnd(size),
            (At::Extension(size), byte) if byte != b'\n' => {
                self.extra()?;
                At::Extension(size)
            }
            (At::SizeEnd(0), b'\n') => At::Line,
            (At::SizeEnd(size), b'\n') => At::Data(size),
            (At::DataCr, b'\r') => At::DataLf,
            (At::DataLf, b'\n') => At::Size(0, 0),
            (At::Line, b'\r') => At::LastLf,
            (At::Line | At::Trailer, byte) if byte != b'\n' && byte != b'\r' => {
                self.extra()?;
                At::Trailer
            }
            (At::Trailer, b'\r') => At::TrailerLf,
            (At::TrailerLf, b'\n') => At::Line,
            (At::LastLf, b'\n') => At::Done,
            _ => return Err(Malformed),
        })
    }

    fn extra(&mut self) -> Result<(), Malformed> {
        self.extra = self.extra.checked_sub(1).ok_or(Malformed)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
