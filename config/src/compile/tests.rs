//! Kubernetes objects in, snapshot out.

mod any_order;
mod backends;
mod canaries;
mod certificates;
mod gateway_api;
mod gateway_settings;
mod incremental;
mod ingresses;
mod moves;
mod names_only;
mod paths;
mod pods;
mod policies;
mod rotation;
mod services;
mod world;
