//! What `up` and the modes for real clusters have in common: sockets that are bound before anything
//! starts, and the data plane's threads behind them.

pub(crate) mod bind;
pub(crate) mod names;
mod watchdog;
pub(crate) mod workers;
