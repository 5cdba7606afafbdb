//! Connections relayed as bytes: one endpoint for each, or a destination outside the cluster.

mod announce;
mod flow;
mod metrics;
mod passthrough;
mod prefixed;
mod relay;

pub use announce::Ends;
pub(crate) use flow::Flows;
pub(crate) use metrics::Metrics;
pub use passthrough::{Passthrough, reset};
pub(crate) use prefixed::Prefixed;
pub(crate) use relay::{IDLE, relay_counted};
