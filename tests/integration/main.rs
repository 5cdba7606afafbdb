//! Integration tests: the real binary, used as its users do.

#![allow(
    clippy::unwrap_used,
    reason = "a test ends at the first surprise, and the backtrace names it"
)]

mod support;

mod admission;
mod check;
mod corefile;
mod dns;
mod explain;
mod gateway;
mod healing;
mod ingress;
mod input;
mod kubectl;
mod leader;
mod lifecycle;
mod migrate;
mod modes;
mod nodes;
mod order;
mod passthrough;
mod rootless;
mod sidecar;
#[path = "../../ingress/tests/gateway/table.rs"]
mod table;
mod udp;
