//! Container logs: a file for each run, written with time stamps, read as `kubectl logs` asks.
//!
//! A line of the file is `TIME STREAM TAG TEXT`, the form of the container runtime interface: the tag
//! is `F` for a full line and `P` for a part of one that was too long or not ended. A file is bounded;
//! when it is full it is kept as `.1` and a new one begun.

mod read;
#[cfg(test)]
mod tests;

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::sync::watch;

pub use self::read::read;

/// Largest log file, bytes. With the one before it, twice this is kept of each run.
const MAX_FILE: u64 = 10 << 20;

/// Longest piece of a line that is written at once.
const MAX_LINE: usize = 16 << 10;

/// Directory of all logs of a container.
pub fn directory(
    data_dir: &Path,
    namespace: &str,
    pod: &str,
    uid: &str,
    container: &str,
) -> PathBuf {
    data_dir
        .join("pods")
        .join(format!("{namespace}_{pod}_{uid}"))
        .join(container)
}

/// File of one run of a container, counted from 0.
pub fn file(directory: &Path, run: u32) -> PathBuf {
    directory.join(format!("{run}.log"))
}

/// The file before the current one of the same run.
fn rotated(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    name.into()
}

/// How much was written: a number that grows with every line, and how often the file was begun anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Written {
    lines: u64,
    files: u64,
}

/// Tells readers that there is more. Once the writer is gone, there is no more.
#[derive(Clone, Debug)]
pub struct LogTail(watch::Receiver<Written>);

/// Writes one run's log.
#[derive(Debug)]
pub struct LogWriter {
    path: PathBuf,
    file: File,
    size: u64,
    written: Written,
    tail: watch::Sender<Written>,
}

impl LogWriter {
    /// Begins a log.
    ///
    /// # Errors
    /// The file or its directory cannot be made.
    pub fn create(path: &Path) -> io::Result<Self> {
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory)?;
        }
        let file = open(path)?;
        let (tail, _) = watch::channel(Written::default());
        Ok(Self {
            path: path.to_owned(),
            file,
            size: 0,
            written: Written::default(),
            tail,
        })
    }

    /// The end of this log.
    pub fn tail(&self) -> LogTail {
        LogTail(self.tail.subscribe())
    }

    /// Writes what a program says until it has closed both streams.
    pub fn pump(
        self,
        stdout: Option<impl AsyncRead + Unpin + 'static + Send>,
        stderr: Option<impl AsyncRead + Unpin + 'static + Send>,
    ) {
        let writer = Arc::new(Mutex::new(self));
        if let Some(stdout) = stdout {
            tokio::spawn(copy(stdout, "stdout", Arc::clone(&writer)));
        }
        if let Some(stderr) = stderr {
            tokio::spawn(copy(stderr, "stderr", writer));
        }
    }

    fn line(&mut self, stream: &str, tag: char, text: &[u8]) -> io::Result<()> {
        if self.size >= MAX_FILE {
            std::fs::rename(&self.path, rotated(&self.path))?;
            self.file = open(&self.path)?;
            self.size = 0;
            self.written.files += 1;
        }
        let now = jiff::Timestamp::now();
        let mut line = format!("{now:.9} {stream} {tag} ").into_bytes();
        line.extend_from_slice(text);
        line.push(b'\n');
        self.file.write_all(&line)?;
        self.size += line.len() as u64;
        self.written.lines += 1;
        self.tail.send_replace(self.written);
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
}

/// Splits a stream into lines. What cannot be written (a full disk) is dropped: the program must not
/// stop for its log.
async fn copy(mut from: impl AsyncRead + Unpin, stream: &str, to: Arc<Mutex<LogWriter>>) {
    let mut pending: Vec<u8> = Vec::new();
    let mut buffer = vec![0; MAX_LINE];
    let mut failed = false;
    loop {
        let count = match from.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(count) => count,
        };
        pending.extend_from_slice(&buffer[..count]);
        let mut rest = pending.as_slice();
        while let Some((tag, line, after)) = next_line(rest) {
            write(&to, stream, tag, line, &mut failed);
            rest = after;
        }
        pending = rest.to_vec();
    }
    if !pending.is_empty() {
        write(&to, stream, 'F', &pending, &mut failed);
    }
}

/// A line, or a part of one that is too long to wait for its end.
fn next_line(bytes: &[u8]) -> Option<(char, &[u8], &[u8])> {
    match bytes.iter().position(|byte| *byte == b'\n') {
        Some(end) if end <= MAX_LINE => Some(('F', &bytes[..end], &bytes[end + 1..])),
        _ if bytes.len() >= MAX_LINE => {
            let (part, rest) = bytes.split_at(MAX_LINE);
            Some(('P', part, rest))
        }
        _ => None,
    }
}

fn write(to: &Mutex<LogWriter>, stream: &str, tag: char, line: &[u8], failed: &mut bool) {
    let Ok(mut writer) = to.lock() else { return };
    if let Err(error) = writer.line(stream, tag, line)
        && !std::mem::replace(failed, true)
    {
        tracing::warn!(%error, path = %writer.path.display(), "cannot write a container's log");
    }
}
