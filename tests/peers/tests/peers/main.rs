//! Real peers and real faults against the gateway and the node proxy.

#![allow(
    clippy::unwrap_used,
    reason = "a test ends at the first surprise, and the backtrace names it"
)]

mod blackbox;
mod faults;
mod grpc;
mod h2spec;
