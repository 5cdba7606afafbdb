//! Answers of a Service in place of errors.

use http::StatusCode;

use crate::model::Backend;

/// Which errors a Service answers in place of whoever made them (ingress-nginx `custom-http-errors`
/// and `default-backend`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorPages {
    /// The Service that is asked for them. What it answers goes out as it is, its status too.
    pub backend: Backend,
    /// Answers with these statuses, and which of them.
    pub on: ErrorStatuses,
    /// Requests that no endpoint can take, because there is none, or not even a Service.
    pub without_endpoints: bool,
}

/// The statuses of answers that are replaced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ErrorStatuses {
    /// From 400 to 599.
    pub statuses: Box<[StatusCode]>,
    /// Only the gateway's own, not those of backends.
    pub own_only: bool,
}

impl ErrorPages {
    /// Whether an answer with this status, made by the gateway or by a backend, is replaced.
    pub fn replace(&self, status: StatusCode, is_own: bool) -> bool {
        (is_own || !self.on.own_only) && self.on.statuses.contains(&status)
    }
}
