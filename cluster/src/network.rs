//! Network namespaces of the cluster and of its pods.
