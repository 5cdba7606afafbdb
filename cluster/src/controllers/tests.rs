//! The controllers against the embedded API server, with an agent that marks pods running.

mod garbage;
mod namespaces;
mod support;
mod workloads;
