//! The Kubernetes API server: an in-process tower service, also served over TLS.
//!
//! The truth is `serde_json::Value` objects in a [`Store`]; typed structs would drop fields that
//! they don't know. A request goes path → form of the answer → body → admission, defaults and
//! validation → store → rendering.

mod admission;
mod body;
mod bootstrap;
pub mod credentials;
mod decode;
pub mod defaults;
mod delete;
mod discovery;
mod exec;
mod json;
pub mod kinds;
pub mod kubelet;
mod list;
mod log;
mod metadata;
mod negotiate;
mod openapi;
pub mod patch;
mod path;
pub mod protobuf;
pub(crate) mod quantity;
mod query;
mod render;
mod review;
mod rules;
pub mod schema;
mod selector;
mod serve;
mod server;
pub mod status;
pub mod store;
mod subresource;
pub mod table;
#[cfg(test)]
mod tests;
pub mod validate;
mod views;
mod watch;
mod write;

pub use admission::ServiceCidr;
pub use body::ApiBody;
pub use serve::serve;
pub use server::{ApiOptions, ApiServer, VersionInfo};
pub use status::ApiError;
pub use store::{Store, StoreError};
