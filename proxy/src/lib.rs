//! The data plane's engine: getting connections, choosing endpoints, connecting to them, pooling
//! connections and speaking HTTP on both sides.
//!
//! Everything here runs on a worker: one thread, one current-thread runtime, tasks spawned with
//! [`tokio::task::spawn_local`]. Workers share nothing but the snapshot and the endpoints' counters.

pub mod accept;
pub mod access;
pub mod admission;
pub mod balance;
mod clock;
pub mod connect;
mod detect;
mod error;
pub mod http;
pub mod intercept;
pub mod live;
mod low_water;
pub mod node;
mod pool;
mod scratch;
pub mod sidecar;
mod splice;
pub mod tcp;
#[cfg(any(test, feature = "test-util"))]
pub mod testing;
mod udp;

pub use error::{Error, ErrorKind};
pub use udp::FlowBudget;
