//! What a client's HTTP/2 frames are good for.
//!
//! h2 stops floods of resets, of CONTINUATION, of empty DATA and of compressed headers. It answers, or
//! ignores, any number of SETTINGS, PING, WINDOW_UPDATE, PRIORITY and unknown frames, each of which
//! costs the client nine bytes and us a look. So frames that bring no request forward are counted
//! here, and a connection that has nothing else to say is ended.
//!
//! A good client sends such frames too: it acknowledges what it has read, and measures with PING. It
//! may send more of them the more it says and the more is said to it.

use std::time::Duration;

use tokio::time::Instant;

/// Frames of no use in one window that need no excuse.
const FREE: u64 = 10_000;

/// How long a window is.
const WINDOW: Duration = Duration::from_secs(10);

/// Excused for each frame with a request or a part of one: an acknowledgement for connection and
/// stream, a PING, a priority.
const PER_USEFUL: u64 = 4;

/// Bytes sent to the client that excuse a frame: the shortest stretch that clients acknowledge.
const BYTES_PER_FRAME: u64 = 1024;

/// A frame's head (RFC 9113, 4.1).
const HEAD: usize = 9;

/// Types of frames (RFC 9113, 6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;

/// The client's preface, which precedes its frames.
const PREFACE: usize = 24;

/// Counts the frames of one connection.
#[derive(Debug)]
pub(super) struct Frames {
    head: [u8; HEAD],
    /// Bytes of the head that are there.
    filled: usize,
    /// Bytes until the next head.
    skip: usize,
    window: Window,
}

#[derive(Debug)]
struct Window {
    began: Instant,
    useless: u64,
    useful: u64,
    written: u64,
}

impl Window {
    fn new() -> Self {
        Self {
            began: Instant::now(),
            useless: 0,
            useful: 0,
            written: 0,
        }
    }

    fn is_spent(&self) -> bool {
        let excused = self.useful * PER_USEFUL + self.written / BYTES_PER_FRAME;
        self.useless > FREE + excused
    }
}

/// The client sends nothing but frames of no use.
#[derive(Debug, thiserror::Error)]
#[error("too many HTTP/2 frames that bring no request forward")]
pub(super) struct Flood;

impl Frames {
    /// Of a connection whose preface is yet to be read.
    pub(super) fn new() -> Self {
        Self {
            head: [0; HEAD],
            filled: 0,
            skip: PREFACE,
            window: Window::new(),
        }
    }

    /// These bytes came from the client.
    ///
    /// # Errors
    /// It is a flood.
    pub(super) fn read(&mut self, mut bytes: &[u8]) -> Result<(), Flood> {
        while !bytes.is_empty() {
            if self.skip > 0 {
                let skipped = self.skip.min(bytes.len());
                self.skip -= skipped;
                bytes = &bytes[skipped..];
                continue;
            }
            let taken = (HEAD - self.filled).min(bytes.len());
            let (head, rest) = bytes.split_at(taken);
            self.head[self.filled..self.filled + taken].copy_from_slice(head);
            self.filled += taken;
            bytes = rest;
            if self.filled == HEAD {
                self.filled = 0;
                self.frame()?;
            }
        }
        Ok(())
    }

    /// So many bytes went to the client.
    pub(super) fn wrote(&mut self, bytes: usize) {
        self.window.written += bytes as u64;
    }

    fn frame(&mut self) -> Result<(), Flood> {
        let [a, b, c, kind, ..] = self.head;
        self.skip = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        if kind == HEADERS || (kind == DATA && self.skip > 0) {
            self.window.useful += 1;
            return Ok(());
        }
        self.window.useless += 1;
        if !self.window.is_spent() {
            return Ok(());
        }
        if self.window.began.elapsed() < WINDOW {
            return Err(Flood);
        }
        // Looking at the clock only here makes a window longer for those who send little.
        self.window = Window::new();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
