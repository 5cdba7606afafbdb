//! The thread that writes log lines.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;

use super::Entry;
use super::errors::Consolidated;
use super::format::type_text;
use crate::config::ErrorsSettings;
use crate::name::Name;

/// Lines that may wait.
const QUEUE: usize = 8192;
/// How long the thread sleeps at most.
const NAP: Duration = Duration::from_secs(3600);

/// Takes log lines. Clones lead to the same place; the default one to nowhere.
#[derive(Clone, Debug, Default)]
pub struct LogSink(Option<SyncSender<Line>>);

/// Something to log.
#[derive(Debug)]
pub(crate) enum Line {
    /// A query.
    Query(Box<Entry>),
    /// A query that failed.
    Failure(Box<Failure>),
    /// To be told when everything before it was written.
    Flush(SyncSender<()>),
}

/// A query that failed.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) settings: Arc<ErrorsSettings>,
    pub(crate) rcode: ResponseCode,
    pub(crate) name: Name,
    pub(crate) record_type: RecordType,
    pub(crate) message: String,
}

impl LogSink {
    /// Writes to standard output, as CoreDNS does.
    ///
    /// # Errors
    /// The system has no room for a thread.
    pub fn stdout() -> io::Result<Self> {
        Self::to(io::stdout())
    }

    /// Writes to `out`, on a thread that ends with the last clone.
    ///
    /// # Errors
    /// The system has no room for a thread.
    pub fn to(out: impl Write + Send + 'static) -> io::Result<Self> {
        let (sender, receiver) = sync_channel(QUEUE);
        let thread = std::thread::Builder::new().name("dns-log".to_owned());
        // A line that cannot be written is lost, and there is nowhere to say so.
        thread.spawn(move || drop(write(&receiver, io::BufWriter::new(out))))?;
        Ok(Self(Some(sender)))
    }

    /// Lines go somewhere.
    pub(crate) fn is_open(&self) -> bool {
        self.0.is_some()
    }

    /// Whether there was room for it.
    pub(crate) fn send(&self, line: Line) -> bool {
        let sender = self.0.as_ref();
        sender.is_none_or(|sender| sender.try_send(line).is_ok())
    }

    /// Waits until what was logged so far is written, for at most this long.
    pub fn flush(&self, limit: Duration) {
        let (done, written) = sync_channel(1);
        if self.is_open() && self.send(Line::Flush(done)) {
            // Late is as good as never at this point.
            let _ = written.recv_timeout(limit);
        }
    }
}

/// Writes until nobody can send any more.
fn write(lines: &Receiver<Line>, mut out: impl Write) -> io::Result<()> {
    let mut consolidated = Consolidated::default();
    loop {
        let now = Instant::now();
        let until = consolidated.next();
        let nap = until.map_or(NAP, |until| until.saturating_duration_since(now));
        match lines.recv_timeout(nap) {
            Ok(first) => {
                let more = lines.try_iter().take(QUEUE);
                for line in std::iter::once(first).chain(more) {
                    take(line, &mut consolidated, &mut out)?;
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                write_all(consolidated.due(None), &mut out)?;
                return out.flush();
            }
        }
        write_all(consolidated.due(Some(Instant::now())), &mut out)?;
        out.flush()?;
    }
}

fn take(line: Line, consolidated: &mut Consolidated, out: &mut impl Write) -> io::Result<()> {
    match line {
        Line::Query(entry) => write_all([entry.line()], out),
        Line::Failure(failure) if consolidated.take(&failure, Instant::now()) => {
            let Failure {
                rcode,
                name,
                record_type,
                message,
                ..
            } = *failure;
            let rcode = u16::from(rcode);
            let (name, record_type) = (name.to_lowercase(), type_text(record_type));
            let line = format!("[ERROR] plugin/errors: {rcode} {name} {record_type}: {message}");
            write_all([line], out)
        }
        Line::Failure(_) => Ok(()),
        Line::Flush(done) => {
            out.flush()?;
            // Whoever waited may have given up.
            let _ = done.try_send(());
            Ok(())
        }
    }
}

/// Writes lines. Nothing in them can begin another one or reach a terminal.
fn write_all(lines: impl IntoIterator<Item = String>, out: &mut impl Write) -> io::Result<()> {
    for mut line in lines {
        if line.contains(char::is_control) {
            line = line.chars().fold(String::new(), |mut safe, char| {
                match char.is_control() {
                    // Writing to a string cannot fail.
                    true => drop(write!(safe, "{}", char.escape_default())),
                    false => safe.push(char),
                }
                safe
            });
        }
        line.push('\n');
        out.write_all(line.as_bytes())?;
    }
    Ok(())
}
