//! The Kubernetes API server: an in-process tower service, also served over TLS.

mod json;
pub mod table;
