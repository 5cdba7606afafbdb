//! DNS from outside: `sealane dns` as a process beside a real CoreDNS on a real API server, through
//! outages, and asked by the resolvers of the C libraries.

#![allow(
    clippy::unwrap_used,
    reason = "a test ends at the first surprise, and the backtrace names it"
)]

mod allowed;
mod api;
mod client;
mod compare;
mod differential;
mod embedded;
mod moves;
mod objects;
mod outages;
mod questions;
mod resolvers;
mod servers;
mod support;
mod takeover;
mod upstream;
mod wire;
