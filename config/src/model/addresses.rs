//! What is known by address: for reverse DNS the Services that have it, and the pods.
//!
//! A persistent map with an entry an address costs more than a hundred bytes for each, which is a
//! fifth of everything at 250,000 endpoints. Addresses of a cluster are dense (a node has a /24 of
//! pods or so), so the map is of blocks of 256 neighbours, each a sorted list; a change copies one
//! block.

use std::net::IpAddr;
use std::sync::Arc;

use rpds::HashTrieMapSync;

/// Values by address; clones share structure.
#[derive(Clone, Debug)]
pub struct AddressTable<T> {
    blocks: HashTrieMapSync<Block, Arc<Vec<(u8, T)>>>,
    addresses: usize,
}

/// All of an address but its last byte, and its family.
type Block = (bool, u128);

fn place(ip: IpAddr) -> (Block, u8) {
    let bits = match ip {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    };
    ((ip.is_ipv4(), bits >> 8), bits.to_le_bytes()[0])
}

impl<T> Default for AddressTable<T> {
    fn default() -> Self {
        Self {
            blocks: HashTrieMapSync::default(),
            addresses: 0,
        }
    }
}

impl<T: Clone> AddressTable<T> {
    /// What is known of an address.
    pub fn get(&self, ip: &IpAddr) -> Option<&T> {
        let (block, last) = place(*ip);
        let entries = self.blocks.get(&block)?;
        let index = entries.binary_search_by_key(&last, |entry| entry.0).ok()?;
        entries.get(index).map(|entry| &entry.1)
    }

    /// Replaces what is known of an address.
    pub fn insert_mut(&mut self, ip: IpAddr, value: T) {
        let (block, last) = place(ip);
        let Some(entries) = self.blocks.get_mut(&block) else {
            let entries = Arc::new(vec![(last, value)]);
            self.blocks.insert_mut(block, entries);
            self.addresses += 1;
            return;
        };
        let entries = Arc::make_mut(entries);
        match entries.binary_search_by_key(&last, |entry| entry.0) {
            Ok(index) => entries[index].1 = value,
            Err(index) => {
                entries.insert(index, (last, value));
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

    /// How many addresses there are.
    pub fn size(&self) -> usize {
        self.addresses
    }

    /// Every address with what is known of it, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (IpAddr, &T)> {
        self.blocks.iter().flat_map(|(&(is_v4, high), entries)| {
            entries.iter().map(move |(last, value)| {
                let bits = high << 8 | u128::from(*last);
                let ip = match u32::try_from(bits) {
                    Ok(v4) if is_v4 => IpAddr::V4(v4.into()),
                    _ => IpAddr::V6(bits.into()),
                };
                (ip, value)
            })
        })
    }
}

/// Values by address of which each has several, sorted; an address that is listed has at least one.
pub type AddressLists<T> = AddressTable<Arc<[T]>>;

impl<T: Clone + Ord> AddressLists<T> {
    /// Adds a value to an address's list, unless it is in there.
    pub(crate) fn add(&mut self, ip: IpAddr, value: &T) {
        let mut list = self.get(&ip).map_or_else(Vec::new, |list| list.to_vec());
        if let Err(index) = list.binary_search(value) {
            list.insert(index, value.clone());
            self.insert_mut(ip, list.into());
        }
    }

    /// Takes a value out of an address's list.
    pub(crate) fn take(&mut self, ip: IpAddr, value: &T) {
        let Some(list) = self.get(&ip) else {
            return;
        };
        if let Ok(index) = list.binary_search(value) {
            let mut list = list.to_vec();
            list.remove(index);
            if list.is_empty() {
                self.remove_mut(&ip);
            } else {
                self.insert_mut(ip, list.into());
            }
        }
    }
}
