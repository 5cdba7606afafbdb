//! Kubernetes objects to the model.
