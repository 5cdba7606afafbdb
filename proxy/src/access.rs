//! The access log: one JSON object a line for each request, written beside the data path.
//!
//! A worker fills in a [`Line`] and puts it into a bounded channel. One thread turns lines into text
//! and writes them; when it cannot keep up, because whoever reads the log does not, lines are dropped
//! and counted, and requests do not notice.
//!
//! What a client chooses (target, user agent, trace) is shortened and escaped: a line break or a
//! terminal's control sequence stays data.

use std::cell::Cell;
use std::io::{self, Write};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, SystemTime};

use http::header::USER_AGENT;
use http::{HeaderName, Method, Request, Response, StatusCode, Uri, Version};
use metrics::{Counter, counter, describe_counter};
use sealane_config::model::{EndpointAddr, ObjectRef, ServiceKey};
use tokio::time::Instant;

use crate::ErrorKind;
use crate::http::Body;

/// Lines that wait to be written.
const QUEUE: usize = 8192;

/// Lines that are written at once.
const BATCH: usize = 64 * 1024;

/// Longest value that a client chooses, bytes.
const VALUE: usize = 1024;

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
#[derive(Clone, Debug)]
pub(crate) struct Served {
    pub(crate) service: ServiceKey,
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
        let text = |name: HeaderName| {
            let value = request.headers().get(name)?;
            let text = String::from_utf8_lossy(value.as_bytes());
            Some(shorten(&text).into())
        };
        Self {
            method: request.method().clone(),
            target: request.uri().clone(),
            version: request.version(),
            host: text(http::header::HOST),
            user_agent: text(USER_AGENT),
            trace: text(TRACEPARENT),
            request_id: text(REQUEST_ID),
        }
    }
}

impl Line {
    /// Why the request was not served, in one of Envoy's flags; `-` if it was.
    fn flags(&self) -> &'static str {
        match self.outcome.error {
            Some(error) => error.flag(),
            None if self.is_cut => "DC",
            None => "-",
        }
    }

    fn write(&self, out: &mut String) {
        let mut object = Object::begin(out);
        object.text("time", &timestamp(self.time));
        object.text("client", &self.client.to_string());
        object.text("method", self.asked.method.as_str());
        object.text("target", shorten(&self.asked.target.to_string()));
        object.text("protocol", protocol(self.asked.version));
        object.optional("host", self.asked.host.as_deref());
        object.number("status", u64::from(self.status.as_u16()));
        object.text("flags", self.flags());
        object.optional("error", self.outcome.error.map(ErrorKind::label));
        object.number("received", self.received);
        object.number("sent", self.sent);
        object.seconds("seconds", Some(self.duration));
        let served = self.outcome.served.as_ref();
        object.seconds("upstream_seconds", served.map(|it| it.upstream));
        let route = self.route.as_ref().map(ToString::to_string);
        object.optional("route", route.as_deref());
        let service = served.map(|it| it.service.to_string());
        object.optional("service", service.as_deref());
        let endpoint = served.map(|it| it.endpoint.to_string());
        object.optional("endpoint", endpoint.as_deref());
        object.optional("user_agent", self.asked.user_agent.as_deref());
        object.optional("request_id", self.asked.request_id.as_deref());
        let trace = self.asked.trace.as_deref().and_then(trace_id);
        object.optional("trace_id", trace);
        object.end();
    }
}

impl AccessLog {
    /// Starts the thread that writes to `out`.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub fn start(out: impl Write + Send + 'static) -> io::Result<Self> {
        describe_counter!(DROPPED, "Lines of the access log that were dropped");
        let (lines, waiting) = sync_channel(QUEUE);
        let writing = thread::Builder::new().name("access-log".to_owned());
        writing.spawn(move || write_all(&waiting, out))?;
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
fn write_all(waiting: &Receiver<Box<Line>>, mut out: impl Write) {
    let mut text = String::new();
    while let Ok(line) = waiting.recv() {
        line.write(&mut text);
        let mut lines = 1;
        while text.len() < BATCH
            && let Ok(line) = waiting.try_recv()
        {
            line.write(&mut text);
            lines += 1;
        }
        let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        if written.is_err() {
            counter!(DROPPED).increment(lines);
        }
        text.clear();
    }
}

/// Writes one object, and a line break.
struct Object<'a> {
    out: &'a mut String,
    is_empty: bool,
}

impl<'a> Object<'a> {
    fn begin(out: &'a mut String) -> Self {
        out.push('{');
        Self {
            out,
            is_empty: true,
        }
    }

    /// `name` needs no escapes.
    fn name(&mut self, name: &str) {
        if !std::mem::replace(&mut self.is_empty, false) {
            self.out.push(',');
        }
        self.out.extend(["\"", name, "\":"]);
    }

    fn text(&mut self, name: &str, value: &str) {
        self.name(name);
        self.out.push('"');
        for c in value.chars() {
            match c {
                '"' | '\\' => self.out.extend(['\\', c]),
                // Terminals and log viewers act on these, among them C1 controls and line separators.
                c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') => {
                    self.out.push_str(&format!("\\u{:04x}", u32::from(c)));
                }
                c => self.out.push(c),
            }
        }
        self.out.push('"');
    }

    fn optional(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.text(name, value);
        }
    }

    fn number(&mut self, name: &str, value: u64) {
        self.name(name);
        self.out.push_str(&value.to_string());
    }

    /// To the microsecond.
    fn seconds(&mut self, name: &str, value: Option<Duration>) {
        if let Some(value) = value {
            self.name(name);
            self.out.push_str(&format!("{:.6}", value.as_secs_f64()));
        }
    }

    fn end(self) {
        self.out.push_str("}\n");
    }
}

fn shorten(text: &str) -> &str {
    &text[..text.floor_char_boundary(VALUE)]
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_10 => "HTTP/1.0",
        _ => "HTTP/1.1",
    }
}

/// The trace id of a `traceparent` field, if the field is valid (W3C Trace Context, 3.2).
fn trace_id(field: &str) -> Option<&str> {
    let is_hex = |text: &str| {
        let mut bytes = text.bytes();
        bytes.all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    let mut parts = field.split('-');
    let [version, trace, parent, flags] = [(); 4].map(|()| parts.next().unwrap_or_default());
    let lengths = [version.len(), trace.len(), parent.len(), flags.len()];
    let is_valid = lengths == [2, 32, 16, 2]
        && [version, trace, parent, flags].into_iter().all(is_hex)
        && version != "ff"
        && (version != "00" || parts.next().is_none())
        && trace.bytes().any(|b| b != b'0')
        && parent.bytes().any(|b| b != b'0');
    is_valid.then_some(trace)
}

/// RFC 3339, UTC, to the microsecond.
fn timestamp(time: SystemTime) -> String {
    match jiff::Timestamp::try_from(time) {
        Ok(time) => format!("{time:.6}"),
        Err(_beyond) => String::new(),
    }
}

#[cfg(test)]
mod tests;
