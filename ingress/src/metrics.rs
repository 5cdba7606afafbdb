//! What is counted about the gateway's requests. Labels come from configuration only.

use std::rc::Rc;
use std::time::Duration;

use http::StatusCode;
use metrics::{Counter, Histogram, counter, describe_counter, describe_histogram, histogram};
use sealane_config::model::ObjectRef;
use sealane_proxy::live::{Cache, Series};

const REQUESTS: &str = "sealane_gateway_requests_total";
const SECONDS: &str = "sealane_gateway_request_seconds";

/// Connections of trusted proxies that were closed for want of a PROXY header.
pub(crate) const NO_HEADER: &str = "sealane_gateway_proxy_headers_refused_total";

/// Clients of HTTP/3 that first had to show that they get what is sent to their address, and those that
/// were not served.
pub(crate) const HTTP3_RETRIES: &str = "sealane_gateway_http3_retries_total";
pub(crate) const HTTP3_REFUSED: &str = "sealane_gateway_http3_refused_total";

/// Describes what is counted about connections of HTTP/3.
pub(crate) fn describe_http3() {
    describe_counter!(
        HTTP3_RETRIES,
        "Clients of HTTP/3 that had to prove their address"
    );
    describe_counter!(
        HTTP3_REFUSED,
        "Connections of HTTP/3 that were refused, by reason"
    );
}

/// The handles of one worker, resolved once for each object that routes come from.
pub(crate) struct Metrics {
    routes: Cache<ObjectRef, RouteMetrics>,
    /// Stands for the object of requests that no rule took.
    none: ObjectRef,
}

/// The handles of one object.
pub(crate) struct RouteMetrics {
    requests: [Counter; 5],
    seconds: Histogram,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            routes: Cache::default(),
            none: ObjectRef {
                kind: "",
                namespace: "".into(),
                name: "".into(),
            },
        }
    }
}

impl Metrics {
    /// The handles for requests of this object's rules; `None` for those that no rule took.
    pub(crate) fn route(&self, source: Option<&ObjectRef>) -> Rc<RouteMetrics> {
        let source = source.unwrap_or(&self.none);
        let new = || RouteMetrics::new(&source.namespace, &source.name);
        self.routes.get(source, new)
    }

    /// To be called every [`UPKEEP`](sealane_proxy::live::UPKEEP).
    pub(crate) fn upkeep(&self) {
        self.routes.upkeep();
    }
}

impl Series for RouteMetrics {
    fn keep(&self) {
        for counter in &self.requests {
            counter.increment(0);
        }
    }
}

impl RouteMetrics {
    fn new(namespace: &str, name: &str) -> Self {
        describe_counter!(
            REQUESTS,
            "Requests to the gateway by Ingress and class of the answer's status"
        );
        describe_histogram!(SECONDS, "Time to the head of the gateway's answer, seconds");
        let namespace = namespace.to_owned();
        let name = name.to_owned();
        let requests = ["1xx", "2xx", "3xx", "4xx", "5xx"].map(|code| {
            counter!(REQUESTS, "namespace" => namespace.clone(), "ingress" => name.clone(), "code" => code)
        });
        Self {
            requests,
            seconds: histogram!(SECONDS, "namespace" => namespace, "ingress" => name),
        }
    }

    /// A request was answered.
    pub(crate) fn answered(&self, status: StatusCode, elapsed: Duration) {
        let class = usize::from(status.as_u16() / 100).saturating_sub(1);
        if let Some(counter) = self.requests.get(class) {
            counter.increment(1);
        }
        self.seconds.record(elapsed.as_secs_f64());
    }
}
