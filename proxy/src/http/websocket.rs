//! The end of a WebSocket that we bring about: between two frames, and said with a Close frame, so
//! that its client knows to come back (RFC 6455, 5.5.1 and 7.4.1; ingress T17).

use std::cell::Cell;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{
    AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf, copy_bidirectional_with_sizes, sink,
};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// A Close frame with the code 1001, going away: from a server, and from a client. A mask is to keep
/// a payload that others choose from being taken for HTTP; this one is always the same.
const CLOSE: &[u8] = &[0x88, 2, 0x03, 0xe9];
const CLOSE_MASKED: &[u8] = &[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe9];

/// How long both sides have to finish their frames, and to answer the Close.
const FAREWELL: Duration = Duration::from_secs(1);

/// Copies both ways until both are done, or until `farewell` and what it takes then.
pub(super) async fn copy<C, E>(
    client: C,
    endpoint: E,
    buffer: usize,
    farewell: &CancellationToken,
) -> io::Result<()>
where
    C: AsyncRead + AsyncWrite + Unpin,
    E: AsyncRead + AsyncWrite + Unpin,
{
    let (to_client, to_endpoint) = (Direction::default(), Direction::default());
    let mut client = Watched::new(client, &to_client);
    let mut endpoint = Watched::new(endpoint, &to_endpoint);
    {
        let copying = copy_bidirectional_with_sizes(&mut client, &mut endpoint, buffer, buffer);
        let mut copying = pin!(copying);
        tokio::select! {
            ended = copying.as_mut() => return ended.map(drop),
            () = farewell.cancelled() => {}
        }
        to_client.ends.set(true);
        if !to_client.is_between() {
            // Ends with an error behind the frame.
            let _ = timeout(FAREWELL, copying).await;
        }
    }
    let ending = async {
        tokio::join!(
            end(client.stream, to_client.is_between().then_some(CLOSE)),
            end(
                endpoint.stream,
                to_endpoint.is_between().then_some(CLOSE_MASKED)
            ),
        )
    };
    // One who does not answer is cut off.
    let _ = timeout(FAREWELL, ending).await;
    Ok(())
}

/// Says the last, and listens until the other side has ended: closing before that would reset the
/// connection, and with it what was said.
async fn end(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    last: Option<&[u8]>,
) -> io::Result<()> {
    if let Some(last) = last {
        stream.write_all(last).await?;
    }
    stream.shutdown().await?;
    tokio::io::copy(&mut stream, &mut sink()).await?;
    Ok(())
}

/// One direction of a WebSocket.
#[derive(Debug, Default)]
struct Direction {
    frames: Cell<Frames>,
    /// Nothing goes this way any more but the rest of a frame.
    ends: Cell<bool>,
}

impl Direction {
    fn is_between(&self) -> bool {
        self.frames.get().is_between()
    }
}

/// A stream whose written frames are followed.
struct Watched<'a, T> {
    stream: T,
    written: &'a Direction,
}

impl<'a, T> Watched<'a, T> {
    fn new(stream: T, written: &'a Direction) -> Self {
        Self { stream, written }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Watched<'_, T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Watched<'_, T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut frames = self.written.frames.get();
        if self.written.ends.get() {
            if frames.is_between() {
                return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
            }
            let mut rest = frames;
            let count = rest.pass_one(buf);
            buf = &buf[..count];
        }
        let count = ready!(Pin::new(&mut self.stream).poll_write(cx, buf))?;
        frames.pass(&buf[..count]);
        self.written.frames.set(frames);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Where a stream of frames is.
#[derive(Clone, Copy, Debug, Default)]
struct Frames {
    /// What there is of a frame's head: two bytes, up to eight of length, four of a mask.
    head: [u8; 14],
    read: usize,
    /// Bytes of payload to come.
    left: u64,
}

impl Frames {
    /// The last frame is complete.
    fn is_between(&self) -> bool {
        self.read == 0 && self.left == 0
    }

    fn pass(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let count = self.pass_one(bytes);
            bytes = &bytes[count..];
        }
    }

    /// Passes no more than the rest of a frame; returns how much that was.
    fn pass_one(&mut self, bytes: &[u8]) -> usize {
        let mut passed = 0;
        while self.left == 0
            && let Some(byte) = bytes.get(passed)
        {
            passed += 1;
            self.head[self.read] = *byte;
            self.read += 1;
            if let Some(payload) = self.payload() {
                (self.read, self.left) = (0, payload);
                if payload == 0 {
                    return passed;
                }
            }
        }
        let rest = (bytes.len() - passed) as u64;
        let payload = rest.min(self.left);
        self.left -= payload;
        passed + payload as usize
    }

    /// The length of the payload, once the head is complete (RFC 6455, 5.2).
    fn payload(&self) -> Option<u64> {
        let [_, second, rest @ ..] = self.head.get(..self.read)? else {
            return None;
        };
        let mask = if second & 0x80 == 0 { 0 } else { 4 };
        let extended = match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        if rest.len() < extended + mask {
            return None;
        }
        let (length, _mask) = rest.split_at(extended);
        Some(match length {
            [] => u64::from(second & 0x7f),
            bytes => bytes
                .iter()
                .fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ingress_t17_frames_are_followed_however_they_come() {
        let mut stream = Vec::new();
        let mut ends = Vec::new();
        for length in [0_u16, 1, 125, 126, 127, 300, 65_535] {
            for mask in [0, 0x80] {
                stream.push(0x82);
                match u8::try_from(length) {
                    Ok(short @ 0..126) => stream.push(mask | short),
                    _ => {
                        stream.push(mask | 126);
                        stream.extend(length.to_be_bytes());
                    }
                }
                stream.extend([7; 4].iter().filter(|_| mask != 0));
                stream.extend(vec![0x88; length.into()]);
                ends.push(stream.len());
            }
        }
        stream.extend([0x82, 127]);
        stream.extend(70_000_u64.to_be_bytes());
        stream.extend(vec![1; 70_000]);
        ends.push(stream.len());
        for piece in [1, 2, 3, 7, 1000, stream.len()] {
            let mut frames = Frames::default();
            let mut at = 0;
            for bytes in stream.chunks(piece) {
                frames.pass(bytes);
                at += bytes.len();
                assert_eq!(frames.is_between(), ends.contains(&at), "{at} by {piece}");
            }
        }
        let mut frames = Frames::default();
        let (mut at, mut seen) = (0, Vec::new());
        while at < stream.len() {
            at += frames.pass_one(&stream[at..]);
            seen.push(at);
        }
        assert_eq!(seen, ends);
    }
}
