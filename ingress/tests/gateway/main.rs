//! The gateway on real sockets.
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot set itself up has failed"
)]

mod affinity;
mod annotations;
mod answers;
mod auth;
mod auth_outside;
mod auth_url;
mod browser;
mod canary;
mod certificates;
mod client_auth;
mod drain;
mod edits;
mod endpoints;
mod errors;
mod further_names;
mod handshakes;
mod headers;
mod hello;
mod hostile;
mod http3;
mod limits;
mod manifests;
mod mirror;
mod modes;
mod neighbours;
mod next_upstream;
mod nginx;
mod passthrough;
mod proxies;
mod proxy_protocol;
mod rotation;
mod routing;
mod slow;
mod support;
mod table;
mod tls;
mod trouble;
mod upstream_tls;
mod vectors;
