//! The node proxy in real network namespaces: pods, interception, and what a client sees. Each test
//! makes its own cluster. Without the capabilities for that, tests are skipped, which is a failure
//! if `SEALANE_TEST_REQUIRE` is `all`.

#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod datagrams;
mod intercept;
mod loopback;
mod node;
mod nodes;
mod pod;
mod ports;
mod redirect;
mod sidecar;
mod udp;
mod udp_loopback;
mod world;
