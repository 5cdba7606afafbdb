//! What is counted about requests to Services. Labels are the Service and a class of statuses:
//! nothing that a client chooses.

use std::time::Duration;

use metrics::{
    Counter, Histogram, Label, counter, describe_counter, describe_histogram, histogram,
};
use sealane_config::model::ServiceKey;

use crate::live::Series;
use crate::sidecar::Direction;

const REQUESTS: &str = "sealane_requests_total";
const DURATION: &str = "sealane_response_seconds";
const RETRIES: &str = "sealane_retries_total";
const ERRORS: &str = "sealane_request_errors_total";

/// The handles of one Service.
pub(super) struct ServiceMetrics {
    requests: [Counter; 5],
    seconds: Histogram,
    pub(super) retries: Counter,
    key: ServiceKey,
    direction: Direction,
}

impl Series for ServiceMetrics {
    fn keep(&self) {
        for counter in self.requests.iter().chain([&self.retries]) {
            counter.increment(0);
        }
    }
}

impl ServiceMetrics {
    pub(super) fn new(key: &ServiceKey, direction: Direction) -> Self {
        describe_counter!(
            REQUESTS,
            "Requests to a Service by class of the answer's status"
        );
        describe_histogram!(DURATION, "Time to the head of a Service's answer, seconds");
        describe_counter!(RETRIES, "Requests to a Service that were sent again");
        describe_counter!(
            ERRORS,
            "Requests to a Service without a whole answer of its own, by the flag of Envoy's access log"
        );
        let labels = direction.labels(Some(key));
        let requests = ["1xx", "2xx", "3xx", "4xx", "5xx"].map(|code| {
            let mut labels = labels.clone();
            labels.push(Label::new("code", code));
            counter!(REQUESTS, labels)
        });
        Self {
            requests,
            seconds: histogram!(DURATION, labels.clone()),
            retries: counter!(RETRIES, labels),
            key: key.clone(),
            direction,
        }
    }

    /// A request was answered, by the Service or by us.
    pub(super) fn answered(&self, status: http::StatusCode, elapsed: Duration) {
        let class = usize::from(status.as_u16() / 100).saturating_sub(1);
        if let Some(counter) = self.requests.get(class) {
            counter.increment(1);
        }
        self.seconds.record(elapsed.as_secs_f64());
    }

    /// A request has no whole answer of the Service's; `flag` says why.
    pub(super) fn failed(&self, flag: &'static str) {
        let mut labels = self.direction.labels(Some(&self.key));
        labels.push(Label::new("flag", flag));
        counter!(ERRORS, labels).increment(1);
    }
}
