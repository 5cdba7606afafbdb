//! The ingress gateway: listeners, TLS, hosts and paths, filters. What happens to a request behind
//! them is the engine's business ([`sealane_proxy::http`]).
//!
//! A request's way: accept ([`listen`]), TLS by SNI ([`tls`]), the engine's message gate, canonical
//! path, host and path rules ([`matching`]), filters ([`filters`]), canary ([`canary`]), backend
//! ([`decide`]), limits and access ([`guards`]), engine.

mod aside;
pub mod canary;
mod client_auth;
mod cookies;
pub mod decide;
mod filters;
mod gateway;
mod guards;
mod handle;
pub mod http3;
mod listen;
pub mod matching;
mod metrics;
mod passthrough;
mod plain;
pub mod proxy_protocol;
pub mod tls;

pub use filters::forwarded::Peer;
pub use gateway::{Gateway, GatewayOptions};
pub use guards::basic::Passwords;
pub use guards::external::answers::Answers;
pub use guards::external::outside::Outside;
pub use guards::limits::Limiter;
