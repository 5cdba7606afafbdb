//! The Kubernetes API server: an in-process tower service, also served over TLS.

pub mod defaults;
mod json;
pub mod protobuf;
mod quantity;
pub mod schema;
pub mod table;
