//! What connections are for in a pod: see [`crate::sidecar`].

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use sealane_config::model::{
    AppProtocol, Balancing, Ejection, Endpoint, HttpPolicy, Protocol, RetryOn, RetryPolicy,
    ServiceKey, ServicePort, Timeouts,
};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Worker;
use super::accept::Destination;
use super::serve::{SILENCE, read_verdict};
use crate::detect::Detected;
use crate::http::ServiceTarget;
use crate::sidecar::{Direction, PodOptions};
use crate::tcp::Prefixed;
use crate::tcp::reset;
use crate::{Error, ErrorKind};

/// Own ports that are remembered. A pod listens on a handful; where the kernel cannot tell which, a
/// client may dial all of them.
const MAX_OWN_PORTS: usize = 1024;

/// The pod's own ports as far as they were dialled, so that connections to them are pooled.
#[derive(Debug, Default)]
pub(super) struct OwnPorts(RefCell<HashMap<SocketAddr, Arc<ServicePort>>>);

impl OwnPorts {
    fn get(&self, pod: &PodOptions, addr: SocketAddr) -> Arc<ServicePort> {
        let mut known = self.0.borrow_mut();
        if let Some(port) = known.get(&addr) {
            return Arc::clone(port);
        }
        let port = Arc::new(own_port(pod, addr));
        if known.len() < MAX_OWN_PORTS {
            known.insert(addr, Arc::clone(&port));
        }
        port
    }
}

/// A Service port of no Service, with the application as its only endpoint.
fn own_port(pod: &PodOptions, addr: SocketAddr) -> ServicePort {
    ServicePort {
        service: ServiceKey {
            namespace: Arc::clone(&pod.namespace),
            name: "".into(),
        },
        name: "".into(),
        port: addr.port(),
        protocol: Protocol::Tcp,
        node_port: None,
        app_protocol: AppProtocol::Detect,
        endpoints: Arc::new([Arc::new(Endpoint::at(addr))]),
        local: None,
        everywhere: None,
        policy: Arc::default(),
        http: inbound_policy(),
    }
}

/// The caller's side decides how long to wait and what to send again; nothing is added to that here.
fn inbound_policy() -> Arc<HttpPolicy> {
    static POLICY: LazyLock<Arc<HttpPolicy>> = LazyLock::new(|| {
        Arc::new(HttpPolicy {
            timeouts: Timeouts {
                response: Duration::ZERO,
                ..Timeouts::default()
            },
            retries: RetryPolicy {
                count: 0,
                on: RetryOn::never(),
                ..RetryPolicy::default()
            },
            balancing: Balancing {
                slow_start: Duration::ZERO,
                ejection: Ejection {
                    enabled: false,
                    ..Ejection::default()
                },
                ..Balancing::default()
            },
            ..HttpPolicy::default()
        })
    });
    Arc::clone(&POLICY)
}

impl PodOptions {
    /// What is spoken on a port that says `protocol`.
    pub(super) fn spoken(&self, port: u16, protocol: AppProtocol) -> AppProtocol {
        if protocol == AppProtocol::Detect && self.opaque_ports.contains(&port) {
            AppProtocol::Tcp
        } else {
            protocol
        }
    }
}

impl Worker {
    /// What a connection of the pod is for; `None` if the snapshot has to say which Service.
    pub(super) fn pod_destination(
        &self,
        pod: &PodOptions,
        direction: Direction,
        dialled: SocketAddr,
    ) -> Option<Destination> {
        if pod.is_own_listener(dialled) {
            return Some(Destination::Loop);
        }
        match direction {
            Direction::Outbound => None,
            Direction::Inbound if pod.addresses.contains(&dialled.ip()) => {
                let port = self.own_ports.get(pod, dialled);
                let protocol = pod.spoken(dialled.port(), port.app_protocol);
                let target = ServiceTarget::fixed(self.reader.clone(), port);
                Some(Destination::Service(target, protocol))
            }
            Direction::Inbound => Some(Destination::Nowhere),
        }
    }

    /// Ends a connection that would lead to the proxy itself: HTTP is told why.
    pub(super) async fn serve_loop(&self, stream: TcpStream) {
        let mut first = Vec::new();
        let verdict = timeout(SILENCE, read_verdict(&stream, &mut first)).await;
        if !matches!(verdict, Ok(Ok(Detected::Http1 | Detected::Http2))) {
            return reset(&stream);
        }
        let error = Error::new(ErrorKind::Loop, "the destination is the proxy itself");
        let stream = Prefixed::new(first, stream);
        crate::http::refuse(stream, error, self.shutdown.clone()).await;
    }
}
