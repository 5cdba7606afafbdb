//! Watches on the Kubernetes API.
