//! Pod addresses without namespaces: one address of 127.244.0.0/16 a pod.
//!
//! The whole of 127.0.0.0/8 is local on Linux, so an address needs no set-up. Pods share ports and
//! each other's processes; a program has to listen on `POD_IP` instead of on every address if
//! several pods use the same port.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ipnet::Ipv4Net;

use super::allocate::Allocator;
use super::{NetworkError, PodAttachment};

const POD_CIDR: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(127, 244, 0, 0), 16);

/// Hands out loopback addresses. Clones share the addresses.
#[derive(Clone, Debug)]
pub struct LoopbackNetwork {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    addresses: Allocator,
    pods: HashMap<String, Ipv4Addr>,
}

impl Default for LoopbackNetwork {
    fn default() -> Self {
        Self::new()
    }
}

impl LoopbackNetwork {
    /// A network without pods.
    pub fn new() -> Self {
        Self {
            state: Arc::new(Mutex::new(State {
                addresses: Allocator::new(POD_CIDR, Vec::new()),
                pods: HashMap::new(),
            })),
        }
    }

    pub(super) fn attach(
        &self,
        pod_uid: &str,
        ip: Option<IpAddr>,
    ) -> Result<PodAttachment, NetworkError> {
        let mut state = self.lock();
        let ip = match state.pods.get(pod_uid) {
            Some(ip) => *ip,
            None => {
                let ip = state.addresses.take(ip)?;
                state.pods.insert(pod_uid.to_owned(), ip);
                ip
            }
        };
        Ok(PodAttachment {
            ip: ip.into(),
            netns: None,
        })
    }

    pub(super) fn detach(&self, pod_uid: &str) {
        let mut state = self.lock();
        if let Some(ip) = state.pods.remove(pod_uid) {
            state.addresses.free(ip);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds the lock, and the maps are consistent between calls.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_get_addresses_of_their_own_and_keep_them() {
        let network = LoopbackNetwork::new();
        let ip = |uid| network.attach(uid, None).unwrap().ip;
        let (a, b) = (ip("a"), ip("b"));
        assert_ne!(a, b);
        assert_eq!(a, ip("a"));
        std::net::TcpListener::bind((a, 0)).unwrap();
        network.detach("a");
        assert_eq!(network.attach("c", Some(a)).unwrap().ip, a);
    }
}
