//! Lists of addresses.

use std::net::IpAddr;

use ipnet::IpNet;

/// Addresses and CIDRs, separated by commas.
pub(in crate::compile) fn networks(text: &str) -> Result<Box<[IpNet]>, String> {
    let entries = text.split(',').map(str::trim).filter(|e| !e.is_empty());
    let networks: Result<Vec<IpNet>, String> = entries.map(network).collect();
    let networks = networks?;
    if networks.is_empty() {
        return Err("the list is empty".to_owned());
    }
    Ok(networks.into())
}

fn network(entry: &str) -> Result<IpNet, String> {
    let cidr = entry.parse::<IpNet>().map(|net| net.trunc());
    cidr.or_else(|_not_a_cidr| entry.parse::<IpAddr>().map(IpNet::from))
        .map_err(|_neither| format!("`{entry}` is neither an address nor a CIDR"))
}
