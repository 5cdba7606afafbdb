//! What the DNS server should do.

use std::net::{IpAddr, SocketAddr};

use crate::name::Name;

/// Settings of the DNS server. The defaults are kubeadm's.
#[derive(Clone, Debug)]
pub struct DnsSettings {
    /// The cluster's domain.
    pub zone: Name,
    /// TTL of answers from the cluster's state, seconds, 0 to 3600.
    pub ttl: u32,
    /// What names below `pod.ZONE` mean.
    pub pods: PodsMode,
    /// An endpoint without a host name is named after its pod instead of its address.
    pub endpoint_pod_names: bool,
    /// Endpoints are not looked at: headless Services and names of endpoints do not exist.
    pub no_endpoints: bool,
    /// The name of a Service with cluster IP but without ready endpoints does not exist.
    pub ignore_empty_service: bool,
    /// Zones in which PTR queries are answered for cluster IPs and endpoints; see
    /// [`reverse_zones`] for those of a CIDR.
    pub reverse_zones: Vec<Name>,
    /// Names in the reverse zones that are not known here are forwarded. Otherwise they do not exist.
    pub reverse_fallthrough: bool,
    /// PTR answers name only endpoints with an explicit host name, if the address has one.
    pub ptr_hostname_only: bool,
    /// Addresses at which this server is reached, for the NS records of the zone.
    pub own_addresses: Vec<IpAddr>,
    /// Resolvers for all other names, in order of preference. None: those names fail.
    pub upstreams: Vec<SocketAddr>,
    /// Whose queries are forwarded.
    pub recursion: RecursionClients,
    /// Answers like CoreDNS where that departs from an RFC: TXT at names without records
    /// and every type at `_tcp.SERVICE` and `dns.ZONE` do not exist; SOA below the apex is never
    /// NXDOMAIN; NS at the apex is case-sensitive; PTR queries are forwarded before the first sync.
    pub compat_coredns: bool,
}

/// What names below `pod.ZONE` mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum PodsMode {
    /// They do not exist.
    Disabled,
    /// `1-2-3-4.NAMESPACE.pod.ZONE` is 1.2.3.4 in every namespace that exists, whether or not there
    /// is such a pod.
    #[default]
    Insecure,
}

/// Whose queries for names outside the cluster are forwarded. Others are refused, so that the
/// server is no open resolver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum RecursionClients {
    /// Clients with loopback, link-local, private (RFC 1918, RFC 4193) and shared (RFC 6598)
    /// addresses.
    #[default]
    Private,
    /// Everybody: for clusters whose pods have public addresses.
    Everybody,
}

impl Default for DnsSettings {
    fn default() -> Self {
        let name = |text: &str| text.parse().expect("a constant that is a name");
        Self {
            zone: name("cluster.local"),
            ttl: 30,
            pods: PodsMode::default(),
            endpoint_pod_names: false,
            no_endpoints: false,
            ignore_empty_service: false,
            reverse_zones: vec![name("in-addr.arpa"), name("ip6.arpa")],
            reverse_fallthrough: true,
            ptr_hostname_only: false,
            own_addresses: Vec::new(),
            upstreams: Vec::new(),
            recursion: RecursionClients::default(),
            compat_coredns: false,
        }
    }
}

impl RecursionClients {
    /// Queries from this address may be forwarded.
    pub fn allows(self, client: IpAddr) -> bool {
        if self == Self::Everybody {
            return true;
        }
        match client.to_canonical() {
            IpAddr::V4(ip) => {
                let [first, second, ..] = ip.octets();
                let shared = first == 100 && (64..128).contains(&second);
                ip.is_loopback() || ip.is_private() || ip.is_link_local() || shared
            }
            IpAddr::V6(ip) => {
                ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local()
            }
        }
    }
}

/// The reverse zones that cover a CIDR: one, or several where the prefix does not end at an octet
/// (IPv4) or a nibble (IPv6). `10.96.0.0/12` is `96.10.in-addr.arpa` to `111.10.in-addr.arpa`.
pub fn reverse_zones(addr: IpAddr, prefix: u8) -> Vec<Name> {
    let (bits, unit, domain) = match addr {
        IpAddr::V4(ip) => (u128::from(u32::from(ip)) << 96, 8u32, "in-addr.arpa"),
        IpAddr::V6(ip) => (u128::from(ip), 4u32, "ip6.arpa"),
    };
    let width = if addr.is_ipv4() { 32 } else { 128 };
    let prefix = u32::from(prefix).min(width);
    let units = prefix.div_ceil(unit);
    let open = units * unit - prefix;
    let unit_at = |bits: u128, index: u32| (bits >> (128 - unit * (index + 1))) & ((1 << unit) - 1);
    (0..1u128 << open)
        .map(|step| {
            let mut text = String::new();
            for index in (0..units).rev() {
                let mut value = unit_at(bits, index);
                if index + 1 == units {
                    value = (value >> open << open) | step;
                }
                match unit {
                    8 => text.push_str(&format!("{value}.")),
                    _ => text.push_str(&format!("{value:x}.")),
                }
            }
            text.push_str(domain);
            text.parse().expect("short labels of digits")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dns_r6_a_cidr_becomes_its_reverse_zones() {
        let zones = |addr: &str, prefix| {
            let zones = reverse_zones(addr.parse().unwrap(), prefix);
            zones.iter().map(Name::to_string).collect::<Vec<_>>()
        };
        assert_eq!(zones("10.96.0.0", 24), ["0.96.10.in-addr.arpa."]);
        assert_eq!(zones("10.96.0.0", 16), ["96.10.in-addr.arpa."]);
        let service_cidr = zones("10.96.0.0", 12);
        assert_eq!(service_cidr.len(), 16);
        assert_eq!(service_cidr[0], "96.10.in-addr.arpa.");
        assert_eq!(service_cidr[15], "111.10.in-addr.arpa.");
        assert_eq!(zones("10.0.0.0", 0), ["in-addr.arpa."]);
        assert_eq!(
            zones("1234:abcd::", 64),
            ["0.0.0.0.0.0.0.0.d.c.b.a.4.3.2.1.ip6.arpa."]
        );
        assert_eq!(zones("1234:abcd::", 62).len(), 4);
    }

    #[test]
    fn reliability_b28_recursion_is_for_private_clients() {
        for (client, allowed) in [
            ("127.0.0.1", true),
            ("10.244.0.7", true),
            ("172.31.0.1", true),
            ("100.64.0.1", true),
            ("169.254.1.1", true),
            ("::ffff:10.0.0.1", true),
            ("fd00::1", true),
            ("fe80::1", true),
            ("8.8.8.8", false),
            ("100.128.0.1", false),
            ("2001:db8::1", false),
        ] {
            let client = client.parse().unwrap();
            assert_eq!(
                RecursionClients::Private.allows(client),
                allowed,
                "{client}"
            );
            assert!(RecursionClients::Everybody.allows(client), "{client}");
        }
    }
}
