//! Kubernetes objects in, snapshot out.

mod certificates;
mod gateway_api;
mod incremental;
mod ingresses;
mod moves;
mod paths;
mod services;
mod world;
