//! Connections relayed as bytes: one endpoint for each, or a destination outside the cluster.

mod flow;
mod metrics;
mod prefixed;
mod relay;

pub(crate) use flow::Flows;
pub(crate) use metrics::{FlowMetrics, Metrics};
pub(crate) use prefixed::Prefixed;
pub(crate) use relay::{RelayOptions, relay};
