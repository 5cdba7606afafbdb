//! Copies of requests.

use std::sync::Arc;

use super::{Backend, Template};

/// Where a copy of each request is sent; what is answered is dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// The Service that gets it.
    pub backend: Backend,
    /// The target that it is sent to; `None`: that of the request as it came.
    pub target: Option<Template>,
    /// `Host` of the copy.
    pub host: Arc<str>,
    /// The request's body is copied, too.
    pub with_body: bool,
}
