//! Services outside of the cluster that are asked, by host name.
//!
//! Whoever may write an Ingress could have the gateway ask whatever it can reach, so that what a name
//! resolves to is looked at: public addresses are asked, and those of networks that the gateway's
//! operator names. Connections are made to the addresses that were looked at and the name is not
//! resolved again for them. The engine sends the question as to endpoints of a Service, which keeps
//! and bounds its connections; the connector refuses the gateway's own listeners (reliability B19).
//!
//! A name's addresses hold for [`FRESH`], and while the resolver fails for [`STALE`].

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use rustls::RootCertStore;
use rustls::pki_types::ServerName;
use sealane_config::model::{
    AppProtocol, Authorities, Endpoint, EndpointAddr, HttpPolicy, ObjectRef, Part, Protocol,
    ServiceKey, ServicePort, Template, TlsVersions, UpstreamTls,
};
use sealane_proxy::http::{Target, Upstream};
use sealane_proxy::{Error, ErrorKind};
use tokio::sync::{OnceCell, Semaphore};
use tokio::time::{Instant, timeout};

/// How long the addresses of a name hold, and how long they do if the resolver fails.
const FRESH: Duration = Duration::from_secs(30);
const STALE: Duration = Duration::from_secs(300);

/// How long the resolver may take, and how many names it is asked for at a time.
const RESOLVING: Duration = Duration::from_secs(5);
const LOOKUPS: usize = 16;

/// Addresses of a name that are used.
const ADDRESSES: usize = 8;

/// Names that are remembered.
const NAMES: usize = 1024;

/// Most certificates between a service's and a root.
const DEPTH: usize = 8;

const fn v4([a, b, c, d]: [u8; 4], prefix: u8) -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix))
}

const fn v6([a, b]: [u16; 2], prefix: u8) -> IpNet {
    IpNet::V6(Ipv6Net::new_assert(
        Ipv6Addr::new(a, b, 0, 0, 0, 0, 0, 0),
        prefix,
    ))
}

/// Addresses that are not public (IANA's registries of special-purpose addresses), and those in which
/// others are wrapped.
const NOT_PUBLIC: [IpNet; 17] = [
    v4([0, 0, 0, 0], 8),
    v4([10, 0, 0, 0], 8),
    v4([100, 64, 0, 0], 10),
    v4([127, 0, 0, 0], 8),
    v4([169, 254, 0, 0], 16),
    v4([172, 16, 0, 0], 12),
    v4([192, 0, 0, 0], 24),
    v4([192, 0, 2, 0], 24),
    v4([192, 88, 99, 0], 24),
    v4([192, 168, 0, 0], 16),
    v4([198, 18, 0, 0], 15),
    v4([198, 51, 100, 0], 24),
    v4([203, 0, 113, 0], 24),
    v4([224, 0, 0, 0], 3),
    v6([0x2001, 0], 23),
    v6([0x2001, 0xdb8], 32),
    v6([0x2002, 0], 16),
];

/// Where all public IPv6 addresses are.
const GLOBAL_UNICAST: IpNet = v6([0x2000, 0], 3);

/// Services outside of the cluster. Clones share what is known; one for all workers of a process.
#[derive(Clone)]
pub struct Outside(Arc<Shared>);

struct Shared {
    networks: Box<[IpNet]>,
    roots: OnceCell<Option<Arc<Authorities>>>,
    known: Mutex<HashMap<Place, Known>>,
    lookups: Semaphore,
}

/// What is asked: a name, and how.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Place {
    /// The name.
    pub(super) host: Box<str>,
    /// The port there.
    pub(super) port: u16,
    /// Over TLS.
    pub(super) tls: bool,
}

#[derive(Clone)]
struct Known {
    target: Target,
    since: Instant,
}

impl Place {
    /// A host that does not depend on the request.
    pub(super) fn of(name: &Template, host: &str, port: u16, tls: bool) -> Result<Self, Error> {
        let is_said = name.0.iter().all(|part| matches!(part, Part::Text(_)));
        if !is_said {
            let detail = "the host that is asked is not one of this gateway's";
            return Err(Error::new(ErrorKind::AuthFailed, detail));
        }
        let host = host.to_ascii_lowercase().into();
        Ok(Self { host, port, tls })
    }

    /// Its `Host`.
    pub(super) fn authority(&self) -> String {
        match (self.tls, self.port) {
            (true, 443) | (false, 80) => self.host.to_string(),
            (_, port) => format!("{}:{port}", self.host),
        }
    }
}

impl std::fmt::Debug for Outside {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Outside").field(&self.0.networks).finish()
    }
}

impl Outside {
    /// Services at public addresses and in these networks. `roots` vouch for those that speak TLS;
    /// `None`: those of the platform.
    pub fn new(networks: &[IpNet], roots: Option<Arc<Authorities>>) -> Self {
        Self(Arc::new(Shared {
            networks: networks.into(),
            roots: OnceCell::new_with(roots.map(Some)),
            known: Mutex::default(),
            lookups: Semaphore::new(LOOKUPS),
        }))
    }

    /// Where a question goes.
    ///
    /// # Errors
    /// The name has no address that may be asked.
    pub(super) async fn target(&self, place: &Place) -> Result<Target, Error> {
        if let Some(target) = self.known(place, FRESH) {
            return Ok(target);
        }
        let _permit = self.0.lookups.acquire().await.map_err(|_closed| gone())?;
        // Who waited may have been waiting for the same name.
        if let Some(target) = self.known(place, FRESH) {
            return Ok(target);
        }
        let lookup = tokio::net::lookup_host((&*place.host, place.port));
        let found: Vec<SocketAddr> = match timeout(RESOLVING, lookup).await {
            Ok(Ok(found)) => found.collect(),
            Ok(Err(_)) | Err(_) => return self.known(place, STALE).ok_or_else(gone),
        };
        let mut addrs: Vec<SocketAddr> = found.into_iter().filter(|a| self.may(a.ip())).collect();
        addrs.sort();
        addrs.dedup();
        addrs.truncate(ADDRESSES);
        if addrs.is_empty() {
            self.forget(place);
            let detail = "the host that is asked has no address that may be asked";
            return Err(Error::new(ErrorKind::AuthFailed, detail));
        }
        let tls = match place.tls {
            true => Some(self.tls(place).await?),
            false => None,
        };
        self.learn(place, &addrs, tls)
    }

    fn may(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        is_public(ip) || self.0.networks.iter().any(|net| net.contains(&ip))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Place, Known>> {
        let known = self.0.known.lock();
        known.unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self, place: &Place, age: Duration) -> Option<Target> {
        let known = self.lock();
        let known = known.get(place)?;
        (known.since.elapsed() < age).then(|| known.target.clone())
    }

    /// Takes in what a name resolved to. Addresses that stay keep their connections.
    fn learn(
        &self,
        place: &Place,
        addrs: &[SocketAddr],
        tls: Option<Arc<UpstreamTls>>,
    ) -> Result<Target, Error> {
        let mut known = self.lock();
        if known.len() >= NAMES && !known.contains_key(place) {
            known.retain(|_, known| known.since.elapsed() < STALE);
            if known.len() >= NAMES {
                return Err(gone());
            }
        }
        let before = known.get(place).map(|known| &known.target);
        let old: &[Arc<Endpoint>] = before.map_or(&[], |target| &target.port.endpoints);
        let endpoint = |addr: &SocketAddr| {
            let same = old.iter().find(|it| it.addr == EndpointAddr::from(*addr));
            same.map_or_else(|| Arc::new(Endpoint::at(*addr)), Arc::clone)
        };
        let endpoints: Arc<[Arc<Endpoint>]> = addrs.iter().map(endpoint).collect();
        for gone in old.iter().filter(|it| !addrs.contains(&it.addr.socket())) {
            gone.stats.removed.store(true, Relaxed);
        }
        // A connection is kept by its policy, too.
        let tls = before.and_then(|target| target.tls.clone()).or(tls);
        let port = Arc::new(ServicePort {
            service: ServiceKey {
                namespace: "".into(),
                name: Arc::from(&*place.host),
            },
            name: "".into(),
            port: place.port,
            protocol: Protocol::Tcp,
            node_port: None,
            app_protocol: AppProtocol::Http,
            endpoints,
            local: None,
            everywhere: None,
            policy: Arc::default(),
            http: HttpPolicy::shared(),
        });
        let upstream = match place.tls {
            true => Upstream::Http1Tls,
            false => Upstream::Http1,
        };
        let target = Target {
            tls,
            ..Target::new(port, upstream)
        };
        let entry = Known {
            target: target.clone(),
            since: Instant::now(),
        };
        known.insert(place.clone(), entry);
        Ok(target)
    }

    fn forget(&self, place: &Place) {
        if let Some(known) = self.lock().remove(place) {
            for endpoint in known.target.port.endpoints.iter() {
                endpoint.stats.removed.store(true, Relaxed);
            }
        }
    }

    /// The certificate has to be for the name, and one of the roots has to vouch for it.
    async fn tls(&self, place: &Place) -> Result<Arc<UpstreamTls>, Error> {
        let roots = self.0.roots.get_or_init(|| async {
            let loaded = tokio::task::spawn_blocking(platform_roots).await;
            loaded.ok().flatten()
        });
        let unverified = || {
            let detail = "the host that is asked cannot be verified";
            Error::new(ErrorKind::AuthFailed, detail)
        };
        let roots = roots.await.clone().ok_or_else(unverified)?;
        let name = ServerName::try_from(String::from(&*place.host));
        Ok(Arc::new(UpstreamTls {
            certificate: None,
            authorities: Some(roots),
            depth: DEPTH,
            name: name.map_err(|_invalid| unverified())?,
            sends_name: true,
            versions: TlsVersions::All,
        }))
    }
}

fn is_public(ip: IpAddr) -> bool {
    let is_unicast = match ip {
        IpAddr::V4(_) => true,
        IpAddr::V6(_) => GLOBAL_UNICAST.contains(&ip),
    };
    is_unicast && !NOT_PUBLIC.iter().any(|net| net.contains(&ip))
}

/// The roots that the platform trusts. A few of them are commonly too old to be understood.
fn platform_roots() -> Option<Arc<Authorities>> {
    let mut certificates = rustls_native_certs::load_native_certs().certs;
    certificates.retain(|root| RootCertStore::empty().add(root.clone()).is_ok());
    let source = ObjectRef {
        kind: "",
        namespace: "".into(),
        name: "roots of the platform".into(),
    };
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let roots = Authorities::new(source, &certificates, &[], &provider);
    roots
        .inspect_err(|why| tracing::warn!("no roots for auth-url outside of the cluster: {why}"))
        .ok()
        .map(Arc::new)
}

fn gone() -> Error {
    let detail = "the host that is asked cannot be resolved";
    Error::new(ErrorKind::AuthFailed, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reliability_b19_public_addresses_and_named_networks_are_asked_and_no_others() {
        let outside = Outside::new(&["10.7.0.0/16".parse().unwrap()], None);
        for (addr, may) in [
            ("1.1.1.1", true),
            ("172.32.0.1", true),
            ("2606:4700::1111", true),
            ("10.7.1.2", true),
            ("::ffff:10.7.1.2", true),
            ("10.8.0.1", false),
            ("127.0.0.1", false),
            ("::ffff:127.0.0.1", false),
            ("0.0.0.0", false),
            ("169.254.169.254", false),
            ("::ffff:169.254.169.254", false),
            ("172.16.0.1", false),
            ("192.168.1.1", false),
            ("100.100.100.200", false),
            ("198.18.0.1", false),
            ("224.0.0.1", false),
            ("255.255.255.255", false),
            ("::", false),
            ("::1", false),
            ("fe80::1", false),
            ("fd00:ec2::254", false),
            ("ff02::1", false),
            // Others in them.
            ("64:ff9b::a9fe:a9fe", false),
            ("2002:7f00:1::", false),
            ("2001::1", false),
            ("::7f00:1", false),
        ] {
            assert_eq!(outside.may(addr.parse().unwrap()), may, "{addr}");
        }
    }

    #[tokio::test]
    async fn reliability_b19_names_are_judged_by_what_they_resolve_to() {
        let place = |host: &str| Place {
            host: host.into(),
            port: 80,
            tls: false,
        };
        // Both are what the resolver makes of numbers, without asking anybody.
        let outside = Outside::new(&[], None);
        for host in ["127.1", "0x7f.1", "2852039166", "localhost"] {
            let refused = outside.target(&place(host)).await;
            assert_eq!(refused.unwrap_err().kind(), ErrorKind::AuthFailed, "{host}");
        }
        let allowing = Outside::new(&["127.0.0.0/8".parse().unwrap()], None);
        let target = allowing.target(&place("127.1")).await.unwrap();
        let found = target.endpoints()[0].addr.socket();
        assert_eq!(found, "127.0.0.1:80".parse().unwrap());
        let again = allowing.target(&place("127.1")).await.unwrap();
        assert!(Arc::ptr_eq(&again.port, &target.port), "it is remembered");
    }

    #[test]
    fn ingress_a8_addresses_that_stay_keep_their_connections() {
        let outside = Outside::new(&[], None);
        let place = Place {
            host: "auth.test".into(),
            port: 443,
            tls: false,
        };
        let addrs = ["192.0.2.1:443", "192.0.2.2:443", "192.0.2.3:443"].map(|a| a.parse().unwrap());
        let first = outside.learn(&place, &addrs[..2], None).unwrap();
        let second = outside.learn(&place, &addrs[1..], None).unwrap();
        let [old, new] = [&first, &second].map(|target| target.endpoints());
        assert!(Arc::ptr_eq(&old[1], &new[0]));
        let removed = [&old[0], &old[1], &new[1]].map(|it| it.stats.removed.load(Relaxed));
        assert_eq!(removed, [true, false, false]);
    }
}
