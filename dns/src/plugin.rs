//! Plugins that answer or change queries by themselves, a file each. They know neither sockets nor
//! each other; [`chain`](crate::chain) asks them in order.

pub(crate) mod acl;
pub(crate) mod any;
pub(crate) mod chaos;
pub(crate) mod hosts;
pub(crate) mod minimal;
pub(crate) mod rewrite;
pub(crate) mod template;
pub(crate) mod whoami;
