//! Kubernetes objects in, snapshot out.

mod certificates;
mod incremental;
mod ingresses;
mod moves;
mod paths;
mod policies;
mod services;
mod world;
