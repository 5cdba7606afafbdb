//! The controllers against the embedded API server, with an agent that marks pods running.

mod faults;
mod garbage;
mod kubectl;
mod namespaces;
mod restarts;
mod support;
mod workloads;
