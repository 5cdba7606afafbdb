//! The embedded control plane: a Kubernetes API server, the controllers that a small cluster needs,
//! a node agent that runs pods as processes, and the network that joins them.
//!
//! It stands alone: it knows the Kubernetes API and nothing of the data plane.

pub mod api;
pub mod controllers;
pub mod network;
pub mod runtime;
pub mod streams;
