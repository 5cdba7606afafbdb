//! A line as text: one JSON object.

use std::time::{Duration, SystemTime};

use http::Version;

use super::Line;
use crate::ErrorKind;

/// Longest value that a client chooses, bytes.
pub(super) const VALUE: usize = 1024;

/// How the fields of a line are called. What is not known of a request is left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Names of our own.
    #[default]
    Sealane,
    /// The variables of nginx, and those of ingress-nginx for the route.
    Nginx,
}

impl Format {
    /// Appends a line.
    pub(super) fn write(self, line: &Line, out: &mut String) {
        match self {
            Self::Sealane => sealane(line, out),
            Self::Nginx => nginx(line, out),
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
}

fn sealane(line: &Line, out: &mut String) {
    let mut object = Object::begin(out);
    object.text("time", &timestamp(line.time));
    object.text("client", &line.client.to_string());
    object.text("method", line.asked.method.as_str());
    object.text("target", shorten(&line.asked.target.to_string()));
    object.text("protocol", protocol(line.asked.version));
    object.optional("host", line.asked.host.as_deref());
    object.number("status", u64::from(line.status.as_u16()));
    object.text("flags", line.flags());
    object.optional("error", line.outcome.error.map(ErrorKind::label));
    object.number("received", line.received);
    object.number("sent", line.sent);
    object.seconds("seconds", Some(line.duration));
    let served = line.outcome.served.as_ref();
    object.seconds("upstream_seconds", served.map(|it| it.upstream));
    let route = line.route.as_ref().map(ToString::to_string);
    object.optional("route", route.as_deref());
    let service = served.map(|it| it.service.to_string());
    object.optional("service", service.as_deref());
    let endpoint = served.map(|it| it.endpoint.to_string());
    object.optional("endpoint", endpoint.as_deref());
    object.optional("user_agent", line.asked.user_agent.as_deref());
    object.optional("request_id", line.asked.request_id.as_deref());
    let trace = line.asked.trace.as_deref().and_then(trace_id);
    object.optional("trace_id", trace);
    object.end();
}

/// `time_iso8601`, `request_time` and `upstream_response_time` have nginx's resolution.
fn nginx(line: &Line, out: &mut String) {
    let asked = &line.asked;
    let mut object = Object::begin(out);
    object.text("time_iso8601", &time_iso8601(line.time));
    object.text("remote_addr", &line.client.to_string());
    object.text("request_method", asked.method.as_str());
    object.text("request_uri", shorten(&asked.target.to_string()));
    object.text("server_protocol", server_protocol(asked.version));
    object.optional("host", asked.host.as_deref());
    object.number("status", u64::from(line.status.as_u16()));
    object.number("body_bytes_sent", line.sent);
    object.milliseconds("request_time", Some(line.duration));
    let served = line.outcome.served.as_ref();
    let endpoint = served.map(|it| it.endpoint.to_string());
    object.optional("upstream_addr", endpoint.as_deref());
    if let Some(served) = served {
        object.number("upstream_status", u64::from(served.status.as_u16()));
    }
    object.milliseconds("upstream_response_time", served.map(|it| it.upstream));
    object.optional("http_referer", asked.referer.as_deref());
    object.optional("http_user_agent", asked.user_agent.as_deref());
    object.optional("request_id", asked.request_id.as_deref());
    if let Some(route) = &line.route {
        object.text("namespace", &route.namespace);
        object.text("ingress_name", &route.name);
    }
    if let Some(served) = served {
        let (service, port) = (&served.service, served.port);
        let upstream = format!("{}-{}-{port}", service.namespace, service.name);
        object.text("service_name", &service.name);
        object.text("service_port", &port.to_string());
        object.text("proxy_upstream_name", &upstream);
    }
    // nginx has no variables for these.
    object.text("flags", line.flags());
    object.optional("error", line.outcome.error.map(ErrorKind::label));
    object.end();
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

    fn milliseconds(&mut self, name: &str, value: Option<Duration>) {
        if let Some(value) = value {
            self.name(name);
            self.out.push_str(&format!("{:.3}", value.as_secs_f64()));
        }
    }

    fn end(self) {
        self.out.push_str("}\n");
    }
}

pub(super) fn shorten(text: &str) -> &str {
    &text[..text.floor_char_boundary(VALUE)]
}

/// HTTP/2 and 3 have a minor version in nginx.
fn server_protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_2 => "HTTP/2.0",
        Version::HTTP_3 => "HTTP/3.0",
        other => protocol(other),
    }
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_3 => "HTTP/3",
        Version::HTTP_10 => "HTTP/1.0",
        _ => "HTTP/1.1",
    }
}

/// The trace id of a `traceparent` field, if the field is valid (W3C Trace Context, 3.2).
pub(super) fn trace_id(field: &str) -> Option<&str> {
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

/// ISO 8601 as nginx writes it: UTC as an offset, to the second.
fn time_iso8601(time: SystemTime) -> String {
    match jiff::Timestamp::try_from(time) {
        Ok(time) => time.strftime("%Y-%m-%dT%H:%M:%S+00:00").to_string(),
        Err(_beyond) => String::new(),
    }
}
