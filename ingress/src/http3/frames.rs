//! The frames of a stream (RFC 9114, 7), looked at before the HTTP/3 library sees them.
//!
//! The library keeps each frame but DATA until all of it is there, however long it says it is; takes an
//! empty DATA frame for the end of the body; and takes a stream that ends within a frame for one that
//! ended well. So here frames have a limit, a stream has to end between two of them, and what means
//! nothing (empty DATA, frames of unknown types) is left out.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};

/// Types of frames, and of the stream that has frames besides requests.
const DATA: u64 = 0x00;
const CONTROL_STREAM: u64 = 0x00;
/// SETTINGS, GOAWAY and the like have a few bytes.
const MAX_CONTROL: u64 = 16 * 1024;
/// Types that have a meaning, or are forbidden: the library has to see them.
const MEANT: std::ops::RangeInclusive<u64> = 0x00..=0x0d;

/// What is wrong with a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    /// A frame is longer than may be.
    #[error("a frame is too long")]
    TooLong,
    /// It ended within a frame.
    #[error("the stream ended within a frame")]
    Incomplete,
}

/// Takes the bytes of a stream, gives those of the frames that mean something.
#[derive(Debug)]
pub(super) struct Frames {
    state: State,
    /// The bytes of a number, or of a frame's head, of which not all are there.
    begun: BytesMut,
    /// The longest frame but DATA, bytes.
    longest: u64,
    ready: VecDeque<Bytes>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The type of a unidirectional stream comes next.
    StreamType,
    /// A frame's type and length come next.
    Head,
    /// So much of a frame is to come, to be passed on or not.
    Payload { left: u64, passes: bool },
    /// A stream that is not of frames.
    Opaque,
}

impl Frames {
    /// Of a request.
    pub(super) fn of_request(longest: u64) -> Self {
        Self::new(State::Head, longest)
    }

    /// Of a stream that is for one direction only.
    pub(super) fn of_unidirectional() -> Self {
        Self::new(State::StreamType, MAX_CONTROL)
    }

    fn new(state: State, longest: u64) -> Self {
        Self {
            state,
            begun: BytesMut::new(),
            longest,
            ready: VecDeque::new(),
        }
    }

    /// What is ready to be passed on.
    pub(super) fn next(&mut self) -> Option<Bytes> {
        self.ready.pop_front()
    }

    /// The stream has ended.
    ///
    /// # Errors
    /// [`Fault::Incomplete`].
    pub(super) fn end(&self) -> Result<(), Fault> {
        match self.state {
            State::StreamType | State::Opaque => Ok(()),
            State::Head if self.begun.is_empty() => Ok(()),
            State::Head | State::Payload { .. } => Err(Fault::Incomplete),
        }
    }

    /// These bytes came.
    ///
    /// # Errors
    /// [`Fault::TooLong`].
    pub(super) fn came(&mut self, mut bytes: Bytes) -> Result<(), Fault> {
        while !bytes.is_empty() {
            match self.state {
                State::Opaque => self.ready.push_back(std::mem::take(&mut bytes)),
                State::StreamType => {
                    if let Some([kind, _]) = self.numbers(&mut bytes, 1) {
                        self.pass_begun();
                        self.state = match kind {
                            CONTROL_STREAM => State::Head,
                            _ => State::Opaque,
                        };
                    }
                }
                State::Head => {
                    if let Some([kind, length]) = self.numbers(&mut bytes, 2) {
                        self.begin(kind, length)?;
                    }
                }
                State::Payload { left, passes } => {
                    let here = usize::try_from(left).map_or(bytes.len(), |n| n.min(bytes.len()));
                    let piece = bytes.split_to(here);
                    if passes {
                        self.ready.push_back(piece);
                    }
                    self.go_on(left - here as u64, passes);
                }
            }
        }
        Ok(())
    }

    fn begin(&mut self, kind: u64, length: u64) -> Result<(), Fault> {
        if kind != DATA && length > self.longest {
            return Err(Fault::TooLong);
        }
        let passes = MEANT.contains(&kind) && !(kind == DATA && length == 0);
        if passes {
            self.pass_begun();
        } else {
            self.begun.clear();
        }
        self.go_on(length, passes);
        Ok(())
    }

    fn go_on(&mut self, left: u64, passes: bool) {
        self.state = match left {
            0 => State::Head,
            left => State::Payload { left, passes },
        };
    }

    fn pass_begun(&mut self) {
        self.ready.push_back(self.begun.split().freeze());
    }

    /// The first `count` numbers (RFC 9000, 16), once all of their bytes are there.
    fn numbers(&mut self, bytes: &mut Bytes, count: usize) -> Option<[u64; 2]> {
        loop {
            let mut all = &*self.begun;
            let mut numbers = [0; 2];
            let read = numbers.iter_mut().take(count).all(|number| {
                let value = read_number(&mut all);
                *number = value.unwrap_or_default();
                value.is_some()
            });
            if read {
                return Some(numbers);
            }
            if bytes.is_empty() {
                return None;
            }
            self.begun.extend_from_slice(&bytes.split_to(1));
        }
    }
}

fn read_number(bytes: &mut &[u8]) -> Option<u64> {
    let length = 1_usize << (bytes.first()? >> 6);
    if bytes.len() < length {
        return None;
    }
    let number = bytes.get_uint(length);
    Some(number & (u64::MAX >> (66 - 8 * length)))
}

#[cfg(test)]
mod tests;
