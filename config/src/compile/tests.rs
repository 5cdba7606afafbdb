//! Kubernetes objects in, snapshot out.

mod any_order;
mod auth;
mod backends;
mod canaries;
mod certificates;
mod client_auth;
mod errors;
mod further_names;
mod gateway_api;
mod gateway_settings;
mod header_maps;
mod hostile;
mod incremental;
mod ingresses;
mod known;
mod moves;
mod names_only;
mod passthrough;
mod paths;
mod pods;
mod policies;
mod rotation;
mod services;
mod spreading;
mod walked;
mod world;
