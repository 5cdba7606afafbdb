//! The access log: one JSON object a line for each request, written beside the data path.
//!
//! A worker fills in a [`Line`] and puts it into a bounded channel. One thread turns lines into text
//! and writes them; when it cannot keep up, because whoever reads the log does not, lines are dropped
//! and counted, and requests do not notice.
//!
//! What a client chooses (target, user agent, trace) is shortened and escaped: a line break or a
//! terminal's control sequence stays data ([`mod@format`]).

use std::cell::Cell;
use std::io::{self, Write};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, SystemTime};

use http::header::{REFERER, USER_AGENT};
use http::{HeaderMap, HeaderName, Method, Request, Response, StatusCode, Uri, Version};
use metrics::{Counter, counter, describe_counter};
use sealane_config::model::{EndpointAddr, ObjectRef, ServiceKey};
use tokio::time::Instant;

use crate::ErrorKind;
use crate::http::Body;

mod format;

pub use format::Format;
use format::shorten;

/// Lines that wait to be written.
const QUEUE: usize = 8192;

/// Lines that are written at once.
const BATCH: usize = 64 * 1024;

const DROPPED: &str = "sealane_access_log_dropped_total";
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Takes lines; clones write to the same log.
#[derive(Clone, Debug)]
pub struct AccessLog {
    lines: SyncSender<Box<Line>>,
    dropped: Counter,
}

/// What is known of a request when it comes.
#[derive(Debug)]
struct Asked {
    method: Method,
    target: Uri,
    version: Version,
    host: Option<Box<str>>,
    user_agent: Option<Box<str>>,
    referer: Option<Box<str>>,
    trace: Option<Box<str>>,
    request_id: Option<Box<str>>,
}

/// One request, from its first byte to the last of its answer.
#[derive(Debug)]
pub(crate) struct Line {
    time: SystemTime,
    client: IpAddr,
    asked: Asked,
    status: StatusCode,
    outcome: Outcome,
    route: Option<ObjectRef>,
    /// Bytes of the request's body and of the answer's.
    received: u64,
    sent: u64,
    /// Until the end of the answer.
    duration: Duration,
    /// The answer ended before its end.
    is_cut: bool,
}

/// What became of a request.
#[derive(Debug, Default)]
struct Outcome {
    served: Option<Served>,
    /// Why it was not answered by an endpoint.
    error: Option<ErrorKind>,
}

/// Who answered a request; an extension of the answer.
///
/// Put there for the access log, and for whoever keeps requests with their endpoint.
#[derive(Clone, Debug)]
pub(crate) struct Served {
    pub(crate) service: ServiceKey,
    /// The Service's port.
    pub(crate) port: u16,
    /// What the endpoint answered.
    pub(crate) status: StatusCode,
    pub(crate) endpoint: EndpointAddr,
    /// Until the head of the endpoint's answer.
    pub(crate) upstream: Duration,
}

/// A request that is being answered. Its line is written when this is dropped, with the end of the
/// answer or the client's.
#[derive(Debug)]
pub struct Pending {
    log: AccessLog,
    line: Option<Box<Line>>,
    began: Instant,
    received: Rc<Cell<u64>>,
}

/// Counts the bytes of a body.
#[derive(Debug)]
pub(crate) enum Meter {
    /// Of a request.
    Received(Rc<Cell<u64>>),
    /// Of an answer.
    Sent(Pending),
}

impl Meter {
    pub(crate) fn count(&mut self, bytes: usize) {
        let bytes = bytes as u64;
        match self {
            Self::Received(received) => received.set(received.get() + bytes),
            Self::Sent(pending) => {
                if let Some(line) = &mut pending.line {
                    line.sent += bytes;
                }
            }
        }
    }

    /// It is whole.
    pub(crate) fn end(&mut self) {
        if let Self::Sent(Pending {
            line: Some(line), ..
        }) = self
        {
            line.is_cut = false;
        }
    }
}

impl Pending {
    /// Takes over the id that the request got from us.
    pub fn identify(&mut self, headers: &HeaderMap) {
        if let Some(line) = &mut self.line {
            line.asked.request_id = text(headers, &REQUEST_ID);
        }
    }

    /// No line is written.
    pub fn forget(mut self) {
        self.line = None;
    }

    /// What is answered, and by which route.
    pub fn answer(
        mut self,
        mut response: Response<Body>,
        route: Option<&ObjectRef>,
    ) -> Response<Body> {
        if let Some(line) = &mut self.line {
            let extensions = response.extensions_mut();
            line.outcome = Outcome {
                served: extensions.remove(),
                error: extensions.remove(),
            };
            line.status = response.status();
            line.route = route.cloned();
        }
        response.map(|body| body.metered(Meter::Sent(self)))
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some(mut line) = self.line.take() {
            line.received = self.received.get();
            line.duration = self.began.elapsed();
            self.log.write(line);
        }
    }
}

impl Asked {
    fn new(request: &Request<Body>) -> Self {
        let text = |name| text(request.headers(), &name);
        Self {
            method: request.method().clone(),
            target: request.uri().clone(),
            version: request.version(),
            host: text(http::header::HOST),
            user_agent: text(USER_AGENT),
            referer: text(REFERER),
            trace: text(TRACEPARENT),
            request_id: text(REQUEST_ID),
        }
    }
}

/// A field's value.
fn text(headers: &HeaderMap, name: &HeaderName) -> Option<Box<str>> {
    let text = String::from_utf8_lossy(headers.get(name)?.as_bytes());
    Some(shorten(&text).into())
}

impl AccessLog {
    /// Starts the thread that writes to `out`.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub fn start(format: Format, out: impl Write + Send + 'static) -> io::Result<Self> {
        describe_counter!(DROPPED, "Lines of the access log that were dropped");
        let (lines, waiting) = sync_channel(QUEUE);
        let writing = thread::Builder::new().name("access-log".to_owned());
        writing.spawn(move || write_all(&waiting, format, out))?;
        Ok(Self {
            lines,
            dropped: counter!(DROPPED),
        })
    }

    /// A request came.
    pub fn begin(&self, client: IpAddr, request: Request<Body>) -> (Pending, Request<Body>) {
        let received = Rc::new(Cell::new(0));
        let line = Line {
            time: SystemTime::now(),
            client: client.to_canonical(),
            asked: Asked::new(&request),
            status: StatusCode::OK,
            outcome: Outcome::default(),
            route: None,
            received: 0,
            sent: 0,
            duration: Duration::ZERO,
            is_cut: true,
        };
        let pending = Pending {
            log: self.clone(),
            line: Some(Box::new(line)),
            began: Instant::now(),
            received: Rc::clone(&received),
        };
        (
            pending,
            request.map(|body| body.metered(Meter::Received(received))),
        )
    }

    /// Writes a line, or drops it if too many wait.
    fn write(&self, line: Box<Line>) {
        match self.lines.try_send(line) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => self.dropped.increment(1),
        }
    }
}

/// Ends with the last sender. A log that cannot be written is no reason to end: the disk may have room
/// again.
fn write_all(waiting: &Receiver<Box<Line>>, format: Format, mut out: impl Write) {
    let mut text = String::new();
    while let Ok(line) = waiting.recv() {
        format.write(&line, &mut text);
        let mut lines = 1;
        while text.len() < BATCH
            && let Ok(line) = waiting.try_recv()
        {
            format.write(&line, &mut text);
            lines += 1;
        }
        let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        if written.is_err() {
            counter!(DROPPED).increment(lines);
        }
        text.clear();
    }
}

#[cfg(test)]
mod tests;
