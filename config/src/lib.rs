//! What the data plane should do: the routing model, the snapshot that holds it, the watches
//! on the Kubernetes API that feed it and the compiler between the two.
//!
//! `proxy`, `dns` and `ingress` read a [`Snapshot`] through a [`Reader`] and know no Kubernetes
//! types; only [`watch`] and [`compile`] do.

pub mod client;
pub mod compile;
pub mod defaults;
mod history;
pub mod ingress_nginx;
pub mod model;
pub mod report;
pub mod snapshot;
pub mod sockets;
pub mod staleness;
pub mod units;
pub mod watch;

pub use history::{History, Place, Touched};
pub use snapshot::{Publisher, Reader, Snapshot};
