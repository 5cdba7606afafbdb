//! What is counted of every query.

use std::array;
use std::cell::{OnceCell, RefCell};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;

use super::labels::{
    NO_VIEW, RCODE_COUNT, TYPE_COUNT, class_label, rcode_index, rcode_label, type_index, type_label,
};
use super::{Counter, Family, Histogram, Metrics, names};
use crate::config::AclAction;
use crate::message::Question;

/// The plugin that a reply is put down to: the last one that it went through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Writer {
    /// None: the server itself failed or refused.
    Server,
    /// `acl`.
    Acl,
    /// `any`.
    Any,
    /// `autopath`.
    Autopath,
    /// `cache`.
    Cache,
    /// `chaos`.
    Chaos,
    /// `forward`.
    Forward,
    /// `hosts`.
    Hosts,
    /// `kubernetes`.
    Kubernetes,
    /// `loadbalance`.
    Loadbalance,
    /// `minimal`.
    Minimal,
    /// `rewrite`.
    Rewrite,
    /// `template`.
    Template,
    /// `whoami`.
    Whoami,
}

impl Writer {
    /// Names of plugins in the order of the values.
    const LABELS: [&str; 14] = [
        "",
        "acl",
        "any",
        "autopath",
        "cache",
        "chaos",
        "forward",
        "hosts",
        "kubernetes",
        "loadbalance",
        "minimal",
        "rewrite",
        "template",
        "whoami",
    ];

    /// `plugin`.
    pub fn label(self) -> &'static str {
        Self::LABELS[self as usize]
    }
}

/// A query that was answered.
#[derive(Clone, Copy, Debug)]
pub struct Observed {
    /// It came in one datagram, or over QUIC; else over a TCP connection.
    pub is_udp: bool,
    /// Who asked.
    pub client: IpAddr,
    /// Type asked for.
    pub record_type: RecordType,
    /// DO was set.
    pub dnssec_ok: bool,
    /// Code of the reply.
    pub rcode: ResponseCode,
    /// Plugin that the reply is put down to.
    pub writer: Writer,
    /// Length of the query, bytes.
    pub request_size: usize,
    /// Length of the reply, bytes.
    pub response_size: usize,
    /// Time until the reply.
    pub duration: Duration,
}

type Slots<T, const N: usize> = [OnceCell<T>; N];

/// Counts the queries of one worker for one zone of a server block.
#[derive(Debug)]
pub struct QueryMetrics {
    metrics: Metrics,
    server: String,
    zone: String,
    /// By protocol, family and type.
    requests: Box<[[Slots<Counter, TYPE_COUNT>; 2]; 2]>,
    /// By code and plugin.
    responses: Box<[Slots<Counter, { Writer::LABELS.len() }>; RCODE_COUNT]>,
    do_requests: OnceCell<Counter>,
    duration: OnceCell<Histogram>,
    /// By protocol.
    sizes: [OnceCell<(Histogram, Histogram)>; 2],
    truncated: OnceCell<Counter>,
    autopath: OnceCell<Counter>,
    acl: Slots<Counter, 4>,
    /// By the labels `class` and `type`.
    templates: RefCell<BTreeMap<(&'static str, &'static str), Counter>>,
}

fn slots<T, const N: usize>() -> Slots<T, N> {
    array::from_fn(|_| OnceCell::new())
}

impl QueryMetrics {
    /// Labels are `server`, see [`super::labels::server_label`], and the zone, with its final dot.
    pub fn new(metrics: &Metrics, server: &str, zone: &str) -> Self {
        Self {
            metrics: metrics.clone(),
            server: server.to_owned(),
            zone: zone.to_owned(),
            requests: Box::new(array::from_fn(|_| array::from_fn(|_| slots()))),
            responses: Box::new(array::from_fn(|_| slots())),
            do_requests: OnceCell::new(),
            duration: OnceCell::new(),
            sizes: slots(),
            truncated: OnceCell::new(),
            autopath: OnceCell::new(),
            acl: slots(),
            templates: RefCell::default(),
        }
    }

    /// Counts a query and its reply.
    pub fn record(&self, observed: &Observed) {
        let protocol = usize::from(!observed.is_udp);
        let proto = ["udp", "tcp"][protocol];
        // A client that reaches an IPv6 socket by IPv4 is an IPv4 client.
        let family = usize::from(observed.client.to_canonical().is_ipv6());
        let by_type = &self.requests[protocol][family][type_index(observed.record_type)];
        let count = by_type.get_or_init(|| {
            let family = ["1", "2"][family];
            let record_type = type_label(observed.record_type);
            self.counter(&names::REQUESTS, &[proto, family, record_type])
        });
        count.increment();
        let by_rcode = &self.responses[rcode_index(observed.rcode)];
        let count = by_rcode[observed.writer as usize].get_or_init(|| {
            let labels = [rcode_label(observed.rcode), observed.writer.label()];
            self.counter(&names::RESPONSES, &labels)
        });
        count.increment();
        if observed.dnssec_ok {
            let count = self
                .do_requests
                .get_or_init(|| self.counter(&names::DO_REQUESTS, &[]));
            count.increment();
        }
        let duration = self
            .duration
            .get_or_init(|| self.histogram(&names::REQUEST_DURATION, &[]));
        duration.observe_time(observed.duration);
        let (request, response) = self.sizes[protocol].get_or_init(|| {
            let request = self.histogram(&names::REQUEST_SIZE, &[proto]);
            (request, self.histogram(&names::RESPONSE_SIZE, &[proto]))
        });
        request.observe(observed.request_size as u64);
        response.observe(observed.response_size as u64);
    }

    /// Counts a reply that was too long for TCP.
    pub(crate) fn truncated_over_tcp(&self) {
        let count = self
            .truncated
            .get_or_init(|| self.counter(&names::TCP_TRUNCATED, &[]));
        count.increment();
    }

    /// Counts a query that was answered by following the search path.
    pub(crate) fn autopath(&self) {
        let new = || {
            self.metrics
                .counter(&names::AUTOPATH_SUCCESS, &[&self.server])
        };
        self.autopath.get_or_init(new).increment();
    }

    /// Counts what `acl` did with a query.
    pub(crate) fn acl(&self, action: AclAction) {
        let (family, slot) = match action {
            AclAction::Allow => (&names::ACL_ALLOWED, 0),
            AclAction::Block => (&names::ACL_BLOCKED, 1),
            AclAction::Filter => (&names::ACL_FILTERED, 2),
            AclAction::Drop => (&names::ACL_DROPPED, 3),
        };
        let count = self.acl[slot].get_or_init(|| match action {
            AclAction::Allow => self.metrics.counter(family, &[&self.server, NO_VIEW]),
            _ => self.counter(family, &[]),
        });
        count.increment();
    }

    /// Counts a query that a template matched.
    pub(crate) fn template(&self, question: &Question) {
        let labels = (
            class_label(question.class),
            type_label(question.record_type),
        );
        let mut counts = self.templates.borrow_mut();
        let count = counts
            .entry(labels)
            .or_insert_with(|| self.counter(&names::TEMPLATE_MATCHES, &[labels.0, labels.1]));
        count.increment();
    }

    fn labels<'a>(&'a self, more: &[&'a str]) -> Vec<&'a str> {
        let block = [self.server.as_str(), self.zone.as_str(), NO_VIEW];
        [&block, more].concat()
    }

    fn counter(&self, family: &'static Family, more: &[&str]) -> Counter {
        self.metrics.counter(family, &self.labels(more))
    }

    fn histogram(&self, family: &'static Family, more: &[&str]) -> Histogram {
        self.metrics.histogram(family, &self.labels(more))
    }
}

/// Counts ends of requests by a status, for one listener of a worker.
#[derive(Debug)]
pub(crate) struct StatusMetrics {
    metrics: Metrics,
    server: String,
    counts: RefCell<BTreeMap<(&'static str, u16), Counter>>,
}

impl StatusMetrics {
    /// The label is `server`, see [`super::labels::server_label`].
    pub(crate) fn new(metrics: &Metrics, server: String) -> Self {
        Self {
            metrics: metrics.clone(),
            server,
            counts: RefCell::default(),
        }
    }

    /// Counts one; a family has the statuses that we give.
    pub(crate) fn count(&self, family: &'static Family, status: u16) {
        let mut counts = self.counts.borrow_mut();
        let count = counts.entry((family.name, status)).or_insert_with(|| {
            let labels = [&*self.server, &*status.to_string()];
            self.metrics.counter(family, &labels)
        });
        count.increment();
    }
}
