//! What is counted about requests to Services. Labels are the Service and a class of statuses:
//! nothing that a client chooses.

use std::time::Duration;

use metrics::{Counter, Histogram, counter, describe_counter, describe_histogram, histogram};
use sealane_config::model::ServiceKey;

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
}

impl ServiceMetrics {
    pub(super) fn new(key: &ServiceKey) -> Self {
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
        let namespace = key.namespace.to_string();
        let service = key.name.to_string();
        let requests = ["1xx", "2xx", "3xx", "4xx", "5xx"].map(|code| {
            counter!(REQUESTS, "namespace" => namespace.clone(), "service" => service.clone(), "code" => code)
        });
        Self {
            requests,
            seconds: histogram!(DURATION, "namespace" => namespace.clone(), "service" => service.clone()),
            retries: counter!(RETRIES, "namespace" => namespace, "service" => service),
            key: key.clone(),
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
        let namespace = self.key.namespace.to_string();
        let service = self.key.name.to_string();
        counter!(ERRORS, "namespace" => namespace, "service" => service, "flag" => flag)
            .increment(1);
    }
}
