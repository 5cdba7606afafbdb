//! The node agent: pods as processes.
