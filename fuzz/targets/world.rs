//! A server over a small cluster, with every plugin that answers from memory.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::FutureExt as _;
use sealane_config::model::{
    AppProtocol, EndpointInfo, Protocol, Service, ServiceEndpoint, ServiceKey, ServiceKind,
    ServicePort,
};
use sealane_config::sockets::HostSockets;
use sealane_config::{Publisher, Snapshot, snapshot};
use sealane_dns::answer::encode::Transport;
use sealane_dns::corefile::{self, Loader, Options};
use sealane_dns::{DnsServer, Listener};
use tokio::runtime::Runtime;

const COREFILE: &str = include_str!("Corefile");

pub(crate) struct World {
    runtime: Runtime,
    server: DnsServer,
    _publisher: Publisher,
}

impl World {
    pub(crate) fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let (mut publisher, reader) = snapshot::channel();
        publisher.publish(cluster());
        let corefile = corefile::parse(COREFILE, "Corefile", &Nothing, Options::default())
            .expect("a Corefile that can be served");
        let guard = runtime.enter();
        let server = DnsServer::new(reader, HostSockets::here(), &corefile.config);
        drop(guard);
        Self {
            runtime,
            server,
            _publisher: publisher,
        }
    }

    /// The reply, which never has to wait for anybody.
    pub(crate) fn ask(&self, message: &[u8], transport: Transport) -> Option<Vec<u8>> {
        let _guard = self.runtime.enter();
        let client = SocketAddr::from(([10, 244, 0, 1], 40_000));
        let reply = self
            .server
            .answer(Listener::CLUSTER, message, client, transport);
        reply.now_or_never().expect("no plugin asks others")
    }
}

fn cluster() -> Snapshot {
    let mut snapshot = Snapshot {
        synced: true,
        changed_at: 1_700_000_000,
        ..Snapshot::default()
    };
    snapshot.namespaces.insert_mut("ns".into(), ());
    let endpoints = (1..=200).map(|n| EndpointInfo {
        hostname: (n % 2 == 0).then(|| Box::new(format!("host-{n}").into())),
        ..EndpointInfo::at(match n % 3 {
            0 => IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, n]),
            _ => IpAddr::from([10, 244, (n >> 8) as u8, n as u8]),
        })
    });
    let ready = endpoints.map(|info| ServiceEndpoint {
        info: Arc::new(info),
        ready: true,
        ports: vec![("http".into(), Protocol::Tcp, 8080)].into(),
    });
    let ready: Vec<_> = ready.collect();
    let external = |target: &str| ServiceKind::ExternalName(target.into());
    let ips = [
        IpAddr::from([10, 96, 0, 1]),
        IpAddr::from([0xfd96, 0, 0, 0, 0, 0, 0, 1]),
    ];
    for (name, kind, ips, endpoints) in [
        ("web", ServiceKind::ClusterIp, &ips[..], &ready[..3]),
        ("set", ServiceKind::Headless, &[][..], &ready[..]),
        ("out", external("a.example"), &[][..], &[][..]),
        ("in", external("web.ns.svc.cluster.local"), &[][..], &[][..]),
        (
            "loop",
            external("loop.ns.svc.cluster.local"),
            &[][..],
            &[][..],
        ),
    ] {
        let key = ServiceKey {
            namespace: "ns".into(),
            name: name.into(),
        };
        for ip in ips {
            snapshot.cluster_ips.insert_mut(*ip, key.clone());
        }
        for endpoint in endpoints {
            snapshot
                .endpoint_ips
                .insert_mut(endpoint.addr(), [key.clone()].into());
        }
        let port = ServicePort {
            service: key.clone(),
            name: "http".into(),
            port: 80,
            protocol: Protocol::Tcp,
            node_port: None,
            app_protocol: AppProtocol::Detect,
            endpoints: Arc::new([]),
            local: None,
            everywhere: None,
            policy: Arc::default(),
            http: Arc::default(),
        };
        let service = Service {
            key: key.clone(),
            kind,
            cluster_ips: ips.to_vec(),
            load_balancer_ips: Vec::new(),
            external_ips: Vec::new(),
            policy: Arc::default(),
            ports: vec![Arc::new(port)],
            listed_ports: vec![("http".into(), Protocol::Tcp, 80)].into(),
            endpoints: endpoints.into(),
        };
        snapshot.services.insert_mut(key, Arc::new(service));
    }
    snapshot
}

/// The Corefile refers to nothing.
struct Nothing;

impl Loader for Nothing {
    fn read(&self, _path: &Path) -> io::Result<String> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn glob(&self, _pattern: &Path) -> io::Result<Vec<PathBuf>> {
        Ok(Vec::new())
    }

    fn env(&self, _name: &str) -> Option<String> {
        None
    }

    fn interface(&self, _name: &str) -> Option<Vec<IpAddr>> {
        None
    }

    fn addresses(&self) -> Vec<IpAddr> {
        vec![IpAddr::from([10, 0, 0, 1])]
    }

    fn host_name(&self) -> String {
        "host".to_owned()
    }
}
