//! Connections relayed as bytes: one endpoint for each, or a destination outside the cluster.

mod flow;
mod prefixed;
mod relay;

pub(crate) use flow::Flows;
pub(crate) use prefixed::Prefixed;
pub(crate) use relay::relay;
