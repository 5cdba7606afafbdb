//! The gateway and the node proxy of one worker on loopback addresses ([`Front`]), to be tried by
//! peers that others have written ([`h2spec`], those that [`go`] builds, and a gRPC stack in the tests).
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot set itself up has failed"
)]

mod front;
pub mod go;
pub mod h2spec;

pub use front::{Front, HOST};
