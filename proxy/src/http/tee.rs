//! A copy of a body, taken while it is sent.

use bytes::Bytes;

/// What to do with the copy of a body that was copied whole.
type Done = Box<dyn FnOnce(Vec<u8>)>;

/// Copies a body, up to a length.
pub(super) struct Tee {
    copy: Vec<u8>,
    most: usize,
    /// `None`: it was too long, or was given away.
    done: Option<Done>,
}

impl Tee {
    pub(super) fn new(most: usize, done: impl FnOnce(Vec<u8>) + 'static) -> Self {
        Self {
            copy: Vec::new(),
            most,
            done: Some(Box::new(done)),
        }
    }

    /// A piece came.
    pub(super) fn add(&mut self, piece: &Bytes) {
        if self.copy.len() + piece.len() > self.most {
            self.done = None;
            self.copy = Vec::new();
        } else if self.done.is_some() {
            self.copy.extend_from_slice(piece);
        }
    }

    /// That was all.
    pub(super) fn end(&mut self) {
        if let Some(done) = self.done.take() {
            done(std::mem::take(&mut self.copy));
        }
    }
}
