//! The node agent: pods as processes.

pub mod images;
