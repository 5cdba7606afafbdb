//! The state path against a real API server, and everything that can happen between the two.
//!
//! Tests that need no control plane of their own share one. What they wait for has a deadline; how
//! long it took is printed, so `cargo test -- --nocapture` is a report.

mod access;
mod clock;
mod compaction;
mod kinds;
mod objects;
mod outage;
mod plane;
mod silence;
mod world;
