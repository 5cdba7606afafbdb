//! Where queries come in, as far as it decides which server blocks count.

use std::fmt;
use std::net::IpAddr;

use super::{DnsConfig, Scheme, ServerBlock};
use crate::name::Name;

/// A listener of server blocks: all blocks with a key of this scheme and port share it. Its sockets
/// may be on other ports, where something else leads to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Listener {
    /// How queries come in.
    pub scheme: Scheme,
    /// Port of the blocks' keys.
    pub port: u16,
    /// Address of the blocks' `bind`; `None` for blocks without, which listen everywhere.
    pub addr: Option<IpAddr>,
}

impl Listener {
    /// Plain DNS on every address and port 53: that of [`DnsConfig::cluster`].
    pub const CLUSTER: Self = Self {
        scheme: Scheme::Dns,
        port: 53,
        addr: None,
    };
}

impl fmt::Display for Listener {
    /// As CoreDNS names it in metrics: `dns://:53`, `tls://10.0.0.1:853`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.scheme {
            Scheme::Dns => "dns",
            Scheme::Tls => "tls",
            Scheme::Https => "https",
            Scheme::Quic => "quic",
        };
        match self.addr {
            None => write!(f, "{scheme}://:{}", self.port),
            Some(IpAddr::V4(ip)) => write!(f, "{scheme}://{ip}:{}", self.port),
            Some(IpAddr::V6(ip)) => write!(f, "{scheme}://[{ip}]:{}", self.port),
        }
    }
}

impl ServerBlock {
    /// The block's listeners, each once.
    pub fn listeners(&self) -> Vec<Listener> {
        let addrs: Vec<Option<IpAddr>> = match self.bind.as_slice() {
            [] => vec![None],
            bind => bind.iter().copied().map(Some).collect(),
        };
        let mut listeners: Vec<Listener> = Vec::new();
        for key in &self.keys {
            listeners.extend(addrs.iter().map(|&addr| Listener {
                scheme: key.scheme,
                port: key.port,
                addr,
            }));
        }
        listeners.sort_unstable();
        listeners.dedup();
        listeners
    }

    /// The zones that the block has on a listener.
    pub fn zones_on(&self, listener: Listener) -> impl Iterator<Item = &Name> {
        let is_bound = match listener.addr {
            None => self.bind.is_empty(),
            Some(addr) => self.bind.contains(&addr),
        };
        let keys = self.keys.iter().filter(move |key| {
            is_bound && (key.scheme, key.port) == (listener.scheme, listener.port)
        });
        keys.map(|key| &key.zone)
    }
}

impl DnsConfig {
    /// The listeners of all blocks, each once.
    pub fn listeners(&self) -> Vec<Listener> {
        let mut listeners: Vec<Listener> = self
            .blocks
            .iter()
            .flat_map(|block| block.listeners())
            .collect();
        listeners.sort_unstable();
        listeners.dedup();
        listeners
    }
}
