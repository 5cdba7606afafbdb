//! The gateway on real sockets.
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot set itself up has failed"
)]

mod annotations;
mod answers;
mod browser;
mod canary;
mod endpoints;
mod limits;
mod manifests;
mod mirror;
mod nginx;
mod proxies;
mod proxy_protocol;
mod rotation;
mod routing;
mod slow;
mod support;
mod tls;
mod vectors;
