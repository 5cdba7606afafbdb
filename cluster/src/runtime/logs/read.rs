//! Reads a log as `GET …/pods/NAME/log` asks.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use jiff::Timestamp;
use tokio::fs::File;
use tokio::io::{AsyncBufReadExt as _, BufReader};

use super::{LogTail, rotated};
use crate::streams::LogOptions;

/// A log as it is read: file after file, line after line.
struct Reader {
    path: PathBuf,
    options: LogOptions,
    /// Files still to be read whole, oldest first.
    files: VecDeque<PathBuf>,
    current: Option<BufReader<File>>,
    /// How often the file had been begun anew when `current` was opened.
    generation: u64,
    tail: Option<LogTail>,
    /// The last lines, while `tailLines` is being found.
    last: Option<VecDeque<Bytes>>,
    left: Option<u64>,
    line: Vec<u8>,
}

/// The log at `path` as a stream of bytes. With `follow` and a tail it goes on until the writer is
/// gone.
///
/// # Errors
/// The file cannot be opened.
pub async fn read(
    path: PathBuf,
    options: LogOptions,
    tail: Option<LogTail>,
) -> io::Result<BoxStream<'static, Bytes>> {
    let generation = tail.as_ref().map_or(0, |tail| tail.0.borrow().files);
    // Fails here, not in the middle of the answer.
    drop(File::open(&path).await?);
    let files = [rotated(&path), path.clone()].into_iter();
    let reader = Reader {
        files: files.filter(|file| file.exists()).collect(),
        current: None,
        generation,
        tail: tail.filter(|_| options.follow),
        last: options.tail_lines.map(|_| VecDeque::new()),
        left: options.limit_bytes,
        line: Vec::new(),
        path,
        options,
    };
    Ok(stream::unfold(reader, |mut reader| async move {
        let bytes = reader.next().await?;
        Some((bytes, reader))
    })
    .boxed())
}

impl Reader {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if self.left == Some(0) {
                return None;
            }
            if let Some(line) = self.read_line().await {
                match &mut self.last {
                    Some(last) => {
                        let wanted = self.options.tail_lines.unwrap_or(0);
                        last.push_back(line);
                        if last.len() as u64 > wanted {
                            last.pop_front();
                        }
                    }
                    None => return Some(self.limited(line)),
                }
                continue;
            }
            // Everything that was there is read: now the last lines are known.
            if let Some(last) = self.last.take() {
                let text: Vec<u8> = last.iter().flatten().copied().collect();
                if !text.is_empty() {
                    return Some(self.limited(text.into()));
                }
            }
            if !self.wait().await {
                return None;
            }
        }
    }

    fn limited(&mut self, line: Bytes) -> Bytes {
        let Some(left) = &mut self.left else {
            return line;
        };
        let length = usize::try_from(*left).unwrap_or(usize::MAX).min(line.len());
        *left -= length as u64;
        line.slice(..length)
    }

    /// Waits for more; `false` when there will be none.
    async fn wait(&mut self) -> bool {
        let Some(tail) = &mut self.tail else {
            return false;
        };
        let more = tail.0.changed().await.is_ok();
        let files = tail.0.borrow_and_update().files;
        if files != self.generation {
            // What is left of the old file comes first: it is still open.
            self.generation = files;
            self.files.push_back(self.path.clone());
        }
        if !more {
            // The writer is gone; one more look at what it wrote last.
            self.tail = None;
        }
        true
    }

    /// The next line that is asked for, or `None` at the end of what there is.
    async fn read_line(&mut self) -> Option<Bytes> {
        loop {
            if let Some(file) = &mut self.current {
                // An incomplete line stays in the buffer until its end is written.
                let count = file.read_until(b'\n', &mut self.line).await.unwrap_or(0);
                if self.line.ends_with(b"\n") {
                    let line = std::mem::take(&mut self.line);
                    if let Some(line) = self.wanted(&line) {
                        return Some(line);
                    }
                    continue;
                }
                if count > 0 {
                    continue;
                }
            }
            let next = self.files.pop_front();
            match next {
                Some(path) => {
                    self.line.clear();
                    self.current = File::open(path).await.ok().map(BufReader::new);
                }
                None => return None,
            }
        }
    }

    /// The line without what is ours, if it is asked for.
    fn wanted(&self, line: &[u8]) -> Option<Bytes> {
        let mut fields = line.splitn(4, |byte| *byte == b' ');
        let (time, _stream, tag, text) = (
            fields.next()?,
            fields.next()?,
            fields.next()?,
            fields.next()?,
        );
        if let Some(since) = self.options.since {
            let at: Timestamp = std::str::from_utf8(time).ok()?.parse().ok()?;
            if at < since {
                return None;
            }
        }
        let text = if tag == b"P" {
            text.strip_suffix(b"\n").unwrap_or(text)
        } else {
            text
        };
        if self.options.timestamps {
            let mut stamped = time.to_vec();
            stamped.push(b' ');
            stamped.extend_from_slice(text);
            return Some(stamped.into());
        }
        Some(Bytes::copy_from_slice(text))
    }
}
