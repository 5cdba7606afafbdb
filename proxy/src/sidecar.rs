//! The proxy of one pod, for one worker: connections to the pod, and connections from it.
//!
//! Both are redirected to it by the rules of [`intercept::redirect`](crate::intercept::redirect) and
//! served as the node proxy serves intercepted ones:
//!
//! - Outbound, a Service is balanced, per request where it is HTTP. Anything else goes to the address
//!   that was dialled: pods by their own address, headless Services, the world outside (S11).
//!   A connection that the pod's Service leads back to the pod is made directly and does not come in
//!   again (S22).
//! - Inbound, the pod's own port is the only endpoint: nothing is balanced and nothing is ejected.
//!   The application is dialled at the address that the client dialled, so that one that listens on
//!   the loopback address only stays as private as it is without a sidecar.
//!
//! The proxy's own listeners are no destination (I5): HTTP gets 508, anything else a reset.
//!
//! A Service without endpoints answers HTTP with 503 at once. Other connections to it are accepted,
//! then reset: refusing takes a kernel set that follows the snapshot, and with it a privilege that a
//! sidecar should not have.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use metrics::Label;
use sealane_config::Reader;
use sealane_config::model::ServiceKey;
use sealane_config::sockets::{HostSockets, tcp_listener};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::connect::Connector;
use crate::http::Engine;
use crate::intercept::redirect::is_without_family;
use crate::node::{Capture, NodeProxy};

/// Ports of protocols whose server speaks first, or that are never HTTP: waiting for the client's
/// first bytes is a waste of time there. SMTP, submission, MySQL, Galera, PostgreSQL, Redis,
/// Elasticsearch's transport, memcached.
pub const OPAQUE_PORTS: [u16; 8] = [25, 587, 3306, 4444, 5432, 6379, 9300, 11211];

/// Which way connections go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From a client here to a Service or to the outside.
    #[default]
    Outbound,
    /// To the pod itself.
    Inbound,
}

impl Direction {
    /// The labels of a Service's metrics, or of the outside's, which are empty. Those of the pod itself
    /// carry one more.
    pub(crate) fn labels(self, service: Option<&ServiceKey>) -> Vec<Label> {
        let (namespace, name) = match service {
            Some(key) => (key.namespace.to_string(), key.name.to_string()),
            None => (String::new(), String::new()),
        };
        let mut labels = vec![
            Label::new("namespace", namespace),
            Label::new("service", name),
        ];
        if self == Self::Inbound {
            labels.push(Label::new("traffic", "inbound"));
        }
        labels
    }
}

/// The pod, and where the proxy listens in it.
#[derive(Clone, Debug)]
pub struct PodOptions {
    /// The pod's namespace, for metrics.
    pub namespace: Arc<str>,
    /// The pod's addresses.
    pub addresses: Vec<IpAddr>,
    /// Where connections to the pod are redirected to.
    pub inbound_port: u16,
    /// Where connections from the pod are redirected to.
    pub outbound_port: u16,
    /// Ports of the pod, and of Services that do not say what they speak, that carry no HTTP.
    pub opaque_ports: Vec<u16>,
}

impl PodOptions {
    /// Whether an address is one of the proxy's own listeners.
    pub(crate) fn is_own_listener(&self, addr: SocketAddr) -> bool {
        let ip = addr.ip();
        let here = ip.is_loopback() || ip.is_unspecified() || self.addresses.contains(&ip);
        here && [self.inbound_port, self.outbound_port].contains(&addr.port())
    }

    /// Listeners for redirected connections, one a family: from within the pod they come to a
    /// loopback address, from outside to the device's.
    pub(crate) fn listen(&self, direction: Direction) -> io::Result<Vec<TcpListener>> {
        let (v4, v6, port) = match direction {
            Direction::Outbound => (Ipv4Addr::LOCALHOST, Ipv6Addr::LOCALHOST, self.outbound_port),
            Direction::Inbound => (
                Ipv4Addr::UNSPECIFIED,
                Ipv6Addr::UNSPECIFIED,
                self.inbound_port,
            ),
        };
        let listen = |addr| TcpListener::from_std(tcp_listener(addr)?.into());
        let mut listeners = vec![listen((v4, port).into())?];
        match listen((v6, port).into()) {
            Ok(listener) => listeners.push(listener),
            Err(error) if is_without_family(&error) => {}
            Err(error) => return Err(error),
        }
        Ok(listeners)
    }
}

/// The sidecar of one worker.
pub struct SidecarProxy {
    inbound: NodeProxy,
    outbound: NodeProxy,
}

/// An engine for each direction, so that pools and metrics are apart.
#[derive(Clone)]
pub struct Engines {
    /// For requests to the pod; its options say [`Direction::Inbound`].
    pub inbound: Engine,
    /// For requests from the pod.
    pub outbound: Engine,
}

impl SidecarProxy {
    /// Binds the listeners in the calling thread's namespace, on its runtime. `sockets` makes those of
    /// the proxy's own connections, which the rules have to leave alone.
    ///
    /// # Errors
    /// The system call's error.
    pub fn bind(
        options: &PodOptions,
        reader: &Reader,
        engines: Engines,
        sockets: &HostSockets,
    ) -> io::Result<Self> {
        let bind = |direction, engine| {
            let capture = Capture::Pod(Arc::new(options.clone()), direction);
            let connector = Connector::from_sockets(sockets.clone());
            NodeProxy::bind(capture, reader.clone(), engine, connector, sockets.clone())
        };
        Ok(Self {
            inbound: bind(Direction::Inbound, engines.inbound)?,
            outbound: bind(Direction::Outbound, engines.outbound)?,
        })
    }

    /// Serves each direction until it is told to stop, as [`NodeProxy::run`] does.
    pub async fn run(self, stop_inbound: CancellationToken, stop_outbound: CancellationToken) {
        tokio::join!(
            self.inbound.run(stop_inbound),
            self.outbound.run(stop_outbound)
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> PodOptions {
        PodOptions {
            namespace: "shop".into(),
            addresses: vec!["10.9.0.1".parse().unwrap(), "fd09::1".parse().unwrap()],
            inbound_port: 15006,
            outbound_port: 15001,
            opaque_ports: OPAQUE_PORTS.to_vec(),
        }
    }

    #[test]
    fn proxy_i5_only_the_pods_own_addresses_have_the_proxys_listeners() {
        for (addr, own) in [
            ("10.9.0.1:15006", true),
            ("10.9.0.1:15001", true),
            ("127.0.0.1:15001", true),
            ("0.0.0.0:15006", true),
            ("[fd09::1]:15006", true),
            ("[::1]:15001", true),
            ("10.9.0.1:8000", false),
            ("10.9.0.2:15006", false),
            ("[fd09::2]:15001", false),
        ] {
            assert_eq!(pod().is_own_listener(addr.parse().unwrap()), own, "{addr}");
        }
    }

    #[test]
    fn proxy_i2_our_ports_are_none_that_people_skip_or_that_is_opaque() {
        // What other meshes' users leave out, by habit or by default.
        let skipped = [443, 4567, 4568, 6443, 15020, 15021, 15090];
        for port in [pod().inbound_port, pod().outbound_port] {
            assert!(
                !OPAQUE_PORTS.contains(&port) && !skipped.contains(&port),
                "{port}"
            );
        }
    }

    #[test]
    fn proxy_o4_inbound_metrics_are_told_apart_without_anything_that_a_client_chooses() {
        let key = ServiceKey {
            namespace: "shop".into(),
            name: "".into(),
        };
        for (direction, service, expected) in [
            (
                Direction::Inbound,
                Some(&key),
                "namespace=shop service= traffic=inbound",
            ),
            (Direction::Outbound, Some(&key), "namespace=shop service="),
            (Direction::Outbound, None, "namespace= service="),
        ] {
            let labels = direction.labels(service);
            let texts: Vec<String> = labels
                .iter()
                .map(|label| format!("{}={}", label.key(), label.value()))
                .collect();
            assert_eq!(texts.join(" "), expected);
        }
    }
}
