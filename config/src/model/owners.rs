//! Which Services have an address as an endpoint, for reverse DNS.
//!
//! A persistent map with an entry an address costs more than a hundred bytes for each, which is a
//! fifth of everything at 250,000 endpoints. Pod addresses are dense (a node has a /24 or so), so
//! the map is of blocks of 256 neighbours, each a sorted list; a change copies one block.

use std::net::IpAddr;
use std::sync::Arc;

use rpds::HashTrieMapSync;

use super::{ServiceEndpoint, ServiceKey};

/// Services by endpoint address; clones share structure.
#[derive(Clone, Debug, Default)]
pub struct EndpointOwners {
    blocks: HashTrieMapSync<Block, Arc<Vec<Entry>>>,
    addresses: usize,
}

/// All of an address but its last byte, and its family.
type Block = (bool, u128);

/// Last byte of an address, and the Services that have it; sorted by key.
type Entry = (u8, Arc<[ServiceKey]>);

fn place(ip: IpAddr) -> (Block, u8) {
    let bits = match ip {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    };
    ((ip.is_ipv4(), bits >> 8), bits.to_le_bytes()[0])
}

impl EndpointOwners {
    /// The Services that have this address as an endpoint, sorted by key; never empty.
    pub fn get(&self, ip: &IpAddr) -> Option<&Arc<[ServiceKey]>> {
        let (block, last) = place(*ip);
        let entries = self.blocks.get(&block)?;
        let index = entries.binary_search_by_key(&last, |entry| entry.0).ok()?;
        entries.get(index).map(|entry| &entry.1)
    }

    /// Replaces the Services of an address, which are sorted by key.
    pub fn insert_mut(&mut self, ip: IpAddr, services: Arc<[ServiceKey]>) {
        let (block, last) = place(ip);
        let Some(entries) = self.blocks.get_mut(&block) else {
            let entries = Arc::new(vec![(last, services)]);
            self.blocks.insert_mut(block, entries);
            self.addresses += 1;
            return;
        };
        let entries = Arc::make_mut(entries);
        match entries.binary_search_by_key(&last, |entry| entry.0) {
            Ok(index) => entries[index].1 = services,
            Err(index) => {
                entries.insert(index, (last, services));
                self.addresses += 1;
            }
        }
    }

    /// Forgets an address.
    pub fn remove_mut(&mut self, ip: &IpAddr) {
        let (block, last) = place(*ip);
        let Some(entries) = self.blocks.get_mut(&block) else {
            return;
        };
        let Ok(index) = entries.binary_search_by_key(&last, |entry| entry.0) else {
            return;
        };
        self.addresses -= 1;
        if entries.len() == 1 {
            self.blocks.remove_mut(&block);
        } else {
            Arc::make_mut(entries).remove(index);
        }
    }

    /// Replaces the endpoints `before` of a Service by those `after`; both are sorted by address.
    pub(crate) fn exchange(
        &mut self,
        service: &ServiceKey,
        before: &[ServiceEndpoint],
        after: &[ServiceEndpoint],
    ) {
        let has = |list: &[ServiceEndpoint], ip: IpAddr| {
            let found = list.binary_search_by_key(&ip, ServiceEndpoint::addr);
            found.is_ok()
        };
        let gone = before.iter().map(ServiceEndpoint::addr);
        for ip in gone.filter(|ip| !has(after, *ip)) {
            let mut services = self.get(&ip).map_or_else(Vec::new, |s| s.to_vec());
            services.retain(|other| other != service);
            if services.is_empty() {
                self.remove_mut(&ip);
            } else {
                self.insert_mut(ip, services.into());
            }
        }
        // Nearly every address belongs to one Service, so its endpoints share one list.
        let alone: Arc<[ServiceKey]> = Arc::new([service.clone()]);
        let new = after.iter().map(ServiceEndpoint::addr);
        for ip in new.filter(|ip| !has(before, *ip)) {
            let Some(others) = self.get(&ip) else {
                self.insert_mut(ip, Arc::clone(&alone));
                continue;
            };
            if let Err(index) = others.binary_search(service) {
                let mut services = others.to_vec();
                services.insert(index, service.clone());
                self.insert_mut(ip, services.into());
            }
        }
    }

    /// How many addresses there are.
    pub fn size(&self) -> usize {
        self.addresses
    }

    /// Every address with its Services, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (IpAddr, &Arc<[ServiceKey]>)> {
        self.blocks.iter().flat_map(|(&(is_v4, high), entries)| {
            entries.iter().map(move |(last, services)| {
                let bits = high << 8 | u128::from(*last);
                let ip = match u32::try_from(bits) {
                    Ok(v4) if is_v4 => IpAddr::V4(v4.into()),
                    _ => IpAddr::V6(bits.into()),
                };
                (ip, services)
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dns_r2_addresses_of_either_family_come_and_go() {
        let ips = ["10.1.0.1", "10.1.0.255", "10.1.1.0", "::a01:1", "fd00::1"];
        let ips = ips.map(|ip| ip.parse::<IpAddr>().unwrap());
        let owner = |name: &str| -> Arc<[ServiceKey]> {
            let (namespace, name) = ("shop".into(), name.into());
            Arc::new([ServiceKey { namespace, name }])
        };
        let mut table = EndpointOwners::default();
        for ip in ips {
            table.insert_mut(ip, owner("first"));
        }
        let before = table.clone();
        table.insert_mut(ips[1], owner("second"));
        table.remove_mut(&ips[0]);
        table.remove_mut(&ips[4]);
        table.remove_mut(&"10.2.0.1".parse().unwrap());
        let names = |table: &EndpointOwners| {
            let mut all: Vec<(IpAddr, String)> = table
                .iter()
                .map(|(ip, services)| (ip, services[0].name.to_string()))
                .collect();
            assert_eq!(all.len(), table.size());
            for (ip, name) in &all {
                assert_eq!(&*table.get(ip).unwrap()[0].name, name);
            }
            all.sort();
            all
        };
        let want = |list: &[(usize, &str)]| -> Vec<(IpAddr, String)> {
            list.iter()
                .map(|(i, name)| (ips[*i], (*name).into()))
                .collect()
        };
        assert_eq!(
            names(&before),
            want(&[
                (0, "first"),
                (1, "first"),
                (2, "first"),
                (3, "first"),
                (4, "first")
            ]),
            "an older copy stays as it was"
        );
        assert_eq!(
            names(&table),
            want(&[(1, "second"), (2, "first"), (3, "first")])
        );
    }
}
