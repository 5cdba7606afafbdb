//! Cluster DNS: answers names of Services and pods from the snapshot and forwards the rest.
//!
//! Sockets ([`server`]), the message format ([`message`], [`answer`]), the lookup ([`lookup`],
//! pure: no sockets, no clock) and the upstream side ([`forward`], [`cache`]) are kept apart.
//! Rules: the Kubernetes DNS specification 1.1.0, with CoreDNS as the reference where that is silent.
//!
//! A received message is checked by [`message::parse`] before anything is allocated from counts or
//! lengths that it claims. Types and codes are hickory's; the codec is this crate's own, because a
//! query needs one question and one OPT record only, and an upstream's record data is passed on
//! without being understood (RFC 3597).

pub mod answer;
mod autopath;
pub mod cache;
mod chain;
pub mod config;
pub mod corefile;
pub mod forward;
mod https;
pub mod limit;
pub mod lookup;
pub mod message;
pub mod metrics;
pub mod name;
pub mod observe;
mod own_addresses;
mod plugin;
mod quic;
mod rcode;
pub mod record;
pub mod reply;
pub mod resolv_conf;
mod resolver;
pub mod server;
pub mod settings;
mod tcp;
#[cfg(test)]
mod testing;
pub mod tls;
mod udp;
mod wire;
mod zone;

pub use config::{DnsConfig, Listener};
pub use limit::{ConnectionLimits, Connections};
pub use name::Name;
pub use observe::Observe;
pub use own_addresses::own_addresses;
pub use resolv_conf::{search_from_resolv_conf, upstreams_from_resolv_conf};
pub use server::DnsServer;
pub use settings::{ApiServer, ApiServerTls, DnsSettings, PodsMode, RecursionClients};
pub use tls::TlsIdentity;
pub use udp::{Dropped, bind_udp};
