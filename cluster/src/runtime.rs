//! The node agent: pods as processes.

pub mod container;
pub mod images;
pub mod init;
pub mod logs;
mod mountpoint;
