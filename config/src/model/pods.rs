//! Pods, as far as their addresses say whose they are.

use std::sync::Arc;

use super::addresses::AddressLists;

/// A pod that has an address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pod {
    /// Namespace.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
    /// It has the addresses of its node, as others may.
    pub host_network: bool,
}

/// Pods by address, sorted; pods that share an address are all in its list.
pub type Pods = AddressLists<Pod>;
