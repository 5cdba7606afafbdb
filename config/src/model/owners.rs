//! Which Services have an address as an endpoint, for reverse DNS.

use std::net::IpAddr;
use std::sync::Arc;

use super::addresses::AddressLists;
use super::{ServiceEndpoint, ServiceKey};

/// Services by endpoint address, sorted by key.
pub type EndpointOwners = AddressLists<ServiceKey>;

impl EndpointOwners {
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
            self.take(ip, service);
        }
        // Nearly every address belongs to one Service, so its endpoints share one list.
        let alone: Arc<[ServiceKey]> = Arc::new([service.clone()]);
        let new = after.iter().map(ServiceEndpoint::addr);
        for ip in new.filter(|ip| !has(before, *ip)) {
            if self.get(&ip).is_none() {
                self.insert_mut(ip, Arc::clone(&alone));
            } else {
                self.add(ip, service);
            }
        }
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
