//! What the DNS server should do.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use crate::config::Fallthrough;
use crate::name::Name;

/// How long the port stays closed at most at start, as with CoreDNS.
pub const STARTUP_TIMEOUT: Duration = Duration::from_secs(5);

/// Settings of the `kubernetes` plugin. The defaults are those of kubeadm's Corefile.
#[derive(Clone, Debug)]
pub struct DnsSettings {
    /// The cluster's domains. Answers are the same in each; PTR records name the first, the primary
    /// one.
    pub zones: Vec<Name>,
    /// Zones in which PTR queries are answered for cluster IPs and endpoints; see
    /// [`reverse_zones`] for those of a CIDR.
    pub reverse_zones: Vec<Name>,
    /// The only namespaces that exist here; none: all.
    pub namespaces: Vec<String>,
    /// Only namespaces that this label selector matches exist.
    pub namespace_labels: Option<String>,
    /// Only Services, EndpointSlices and pods that this label selector matches exist.
    pub labels: Option<String>,
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
    /// Where names that are not known here go. Otherwise they do not exist.
    pub fallthrough: Fallthrough,
    /// PTR answers name only endpoints with an explicit host name, if the address has one.
    pub ptr_hostname_only: bool,
    /// Addresses at which this server is reached, for the NS records of the zone.
    pub own_addresses: Vec<IpAddr>,
    /// How long the port stays closed at most while the cluster's state is read; zero: it is open
    /// at once, and names of ours are SERVFAIL until then.
    pub startup_timeout: Duration,
    /// Where the cluster's state comes from.
    pub api: ApiServer,
    /// Answers like CoreDNS where that departs from an RFC: TXT at names without records
    /// and every type at `_tcp.SERVICE` and `dns.ZONE` do not exist; SOA below the apex is never
    /// NXDOMAIN; NS at the apex is case-sensitive; PTR queries are forwarded before the first sync;
    /// aliases to names of the cluster that are missing or loop have no records, and those to names
    /// elsewhere are NOERROR whatever becomes of them; pods have SRV records. Weights of SRV records
    /// are shares of the distinct targets even so: CoreDNS's depend on how an address is listed.
    pub compat_coredns: bool,
}

/// Which API server is asked, and as whom (`endpoint`, `tls`, `kubeconfig`). By default the one of
/// the pod's ServiceAccount, or of the user's kubeconfig.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApiServer {
    /// URL.
    pub endpoint: Option<String>,
    /// Files of the client's certificate and key, and of the server's authority, PEM.
    pub tls: Option<ApiServerTls>,
    /// Kubeconfig file, and the context in it if not the current one.
    pub kubeconfig: Option<(PathBuf, Option<String>)>,
}

/// Files for the connection to the API server, PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiServerTls {
    /// The client's certificate chain.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Authority of the server's certificate.
    pub ca: PathBuf,
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
    /// The same, but only if a pod of the namespace has the address.
    Verified,
}

/// Whose queries are forwarded. Others are refused, so that the server is no open resolver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum RecursionClients {
    /// Clients with loopback, link-local, private (RFC 1918, RFC 4193) and shared (RFC 6598)
    /// addresses.
    Private,
    /// Everybody, as CoreDNS does: its Corefiles know `acl` for less.
    #[default]
    Everybody,
}

impl Default for DnsSettings {
    fn default() -> Self {
        let name = |text: &str| text.parse().expect("a constant that is a name");
        let reverse_zones = vec![name("in-addr.arpa"), name("ip6.arpa")];
        Self {
            zones: vec![name("cluster.local")],
            fallthrough: Fallthrough::Zones(reverse_zones.clone()),
            reverse_zones,
            namespaces: Vec::new(),
            namespace_labels: None,
            labels: None,
            ttl: 30,
            pods: PodsMode::default(),
            endpoint_pod_names: false,
            no_endpoints: false,
            ignore_empty_service: false,
            ptr_hostname_only: false,
            own_addresses: Vec::new(),
            startup_timeout: STARTUP_TIMEOUT,
            api: ApiServer::default(),
            compat_coredns: false,
        }
    }
}

impl DnsSettings {
    /// The domain that PTR records name.
    pub fn primary_zone(&self) -> &Name {
        static ROOT: LazyLock<Name> = LazyLock::new(Name::root);
        self.zones.first().unwrap_or(&ROOT)
    }

    /// The namespace is one of [`Self::namespaces`].
    pub(crate) fn exposes(&self, namespace: &str) -> bool {
        self.namespaces.is_empty() || self.namespaces.iter().any(|exposed| exposed == namespace)
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
