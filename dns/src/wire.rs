//! Reading of messages: every access is checked, nothing is allocated by a claimed count.

use crate::name::{MAX_LABEL, MAX_NAME, Name};

/// The message does not hold what it claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the message is malformed")]
pub struct Malformed;

/// A position in a message.
#[derive(Clone, Debug)]
pub(crate) struct Cursor<'a> {
    message: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(message: &'a [u8], at: usize) -> Self {
        Self { message, at }
    }

    pub(crate) fn position(&self) -> usize {
        self.at
    }

    pub(crate) fn bytes(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let end = self.at.checked_add(length).ok_or(Malformed)?;
        let bytes = self.message.get(self.at..end).ok_or(Malformed)?;
        self.at = end;
        Ok(bytes)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(self.bytes(1)?[0])
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Malformed> {
        let bytes = self.bytes(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Malformed> {
        let bytes = self.bytes(4)?;
        Ok(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    /// A name without compression, as a query's question has to be: nothing stands before it that a
    /// pointer could mean.
    pub(crate) fn plain_name(&mut self) -> Result<Name, Malformed> {
        let start = self.at;
        loop {
            let length = usize::from(self.u8()?);
            if length == 0 {
                break;
            }
            if length > MAX_LABEL {
                return Err(Malformed);
            }
            self.bytes(length)?;
            if self.at - start >= MAX_NAME {
                return Err(Malformed);
            }
        }
        Ok(Name::from_checked_wire(&self.message[start..self.at]))
    }

    /// A name, pointers followed. A pointer has to lead back before the part of the name that it
    /// ends, so that following them comes to an end.
    pub(crate) fn name(&mut self) -> Result<Name, Malformed> {
        let mut wire = [0u8; MAX_NAME];
        let mut used = 0;
        let mut after = None;
        let mut part = self.clone();
        let mut lowest = part.at;
        loop {
            let length = part.u8()?;
            match length {
                0 => break,
                1..=0x3f => {
                    let label = part.bytes(usize::from(length))?;
                    let end = used + 1 + label.len();
                    // One byte stays free for the root.
                    if end >= MAX_NAME {
                        return Err(Malformed);
                    }
                    wire[used] = length;
                    wire[used + 1..end].copy_from_slice(label);
                    used = end;
                }
                0xc0.. => {
                    let target = usize::from(length & 0x3f) << 8 | usize::from(part.u8()?);
                    after.get_or_insert(part.at);
                    if target >= lowest {
                        return Err(Malformed);
                    }
                    lowest = target;
                    part.at = target;
                }
                _ => return Err(Malformed),
            }
        }
        self.at = after.unwrap_or(part.at);
        Ok(Name::from_checked_wire(&wire[..=used]))
    }

    /// Steps over a name without following pointers.
    pub(crate) fn skip_name(&mut self) -> Result<(), Malformed> {
        let start = self.at;
        loop {
            match self.u8()? {
                0 => return Ok(()),
                length @ 1..=0x3f => {
                    self.bytes(usize::from(length))?;
                    if self.at - start >= MAX_NAME {
                        return Err(Malformed);
                    }
                }
                0xc0.. => return self.u8().map(|_low| ()),
                _ => return Err(Malformed),
            }
        }
    }
}
