//! Names and addresses.

use std::collections::HashMap;
use std::net::IpAddr;

use crate::config::HostsSettings;
use crate::name::Name;

/// Names and addresses, in both directions. Names are in lower case.
#[derive(Debug, Default)]
pub(super) struct Table {
    addresses: HashMap<Name, Vec<IpAddr>>,
    /// Names below these have the addresses of the wildcard.
    wildcards: HashMap<Name, Vec<IpAddr>>,
    names: HashMap<IpAddr, Vec<Name>>,
    /// Pairs of a name and an address.
    pub(super) entries: usize,
}

impl Table {
    /// The entries of the Corefile and of the file's text.
    pub(super) fn new(settings: &HostsSettings, text: &str) -> Self {
        let mut table = Self::default();
        for (addr, names) in &settings.inline {
            for name in names {
                table.insert(settings, *addr, name);
            }
        }
        for line in text.lines() {
            let line = line.split('#').next().unwrap_or_default();
            let mut words = line.split_whitespace();
            let addr = words.next().unwrap_or_default();
            // The zone of a link-local address says nothing to others.
            let addr = addr.split('%').next().unwrap_or_default();
            let Ok(addr) = addr.parse::<IpAddr>() else {
                continue;
            };
            for name in words.filter_map(|word| word.parse::<Name>().ok()) {
                table.insert(settings, addr.to_canonical(), &name);
            }
        }
        table
    }

    fn insert(&mut self, settings: &HostsSettings, addr: IpAddr, name: &Name) {
        if !settings.zones.iter().any(|zone| name.is_within(zone)) {
            return;
        }
        let name = name.to_lowercase();
        let addresses = match wildcard_parent(&name) {
            Some(parent) => self.wildcards.entry(parent).or_default(),
            None => {
                if !settings.no_reverse {
                    let names = self.names.entry(addr).or_default();
                    if !names.contains(&name) {
                        names.push(name.clone());
                    }
                }
                self.addresses.entry(name).or_default()
            }
        };
        if !addresses.contains(&addr) {
            addresses.push(addr);
            self.entries += 1;
        }
    }

    /// The addresses of a name. None if there is no such name.
    pub(super) fn addresses(&self, name: &Name) -> Option<&[IpAddr]> {
        let name = name.to_lowercase();
        if let Some(addresses) = self.addresses.get(&name) {
            return Some(addresses);
        }
        if self.wildcards.is_empty() {
            return None;
        }
        let mut parents = std::iter::successors(name.parent(), Name::parent);
        parents.find_map(|parent| self.wildcards.get(&parent).map(Vec::as_slice))
    }

    /// The names of an address.
    pub(super) fn names(&self, addr: IpAddr) -> &[Name] {
        self.names.get(&addr).map_or(&[], Vec::as_slice)
    }
}

/// What is right of the star.
fn wildcard_parent(name: &Name) -> Option<Name> {
    name.labels().next().filter(|&label| label == b"*")?;
    name.parent()
}
