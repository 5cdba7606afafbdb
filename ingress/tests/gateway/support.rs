//! A gateway and the world that it reads.

use std::cmp::Reverse;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::Arc;

use rustls::sign::CertifiedKey;
use sealane_config::model::{
    AppProtocol, Filters, HostMatch, HostRoutes, HostTls, ObjectRef, PathMatch, RouteRule,
    WeightedBackend,
};
use sealane_ingress::http3::Limits;
use sealane_ingress::{Answers, Gateway, GatewayOptions, Limiter, Outside, Passwords, tls};
use sealane_proxy::connect::Connector;
use sealane_proxy::http::{Engine, EngineOptions, ServerOptions};
use sealane_proxy::testing::{RawClient, World, backend};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, LocalSet};
use tokio_util::sync::CancellationToken;

/// Runs a test where a worker runs its connections. Boxed, because tests are large futures.
pub(crate) fn on_worker<'a>(
    test: impl Future<Output = ()> + 'a,
) -> Pin<Box<dyn Future<Output = ()> + 'a>> {
    Box::pin(async { LocalSet::new().run_until(test).await })
}

/// A running gateway.
pub(crate) struct Edge {
    pub(crate) world: World,
    pub(crate) http: SocketAddr,
    pub(crate) https: SocketAddr,
    pub(crate) shutdown: CancellationToken,
    pub(crate) fallback: Arc<CertifiedKey>,
    pub(crate) listeners: Vec<JoinHandle<()>>,
}

/// What a gateway is started with.
pub(crate) struct Options {
    pub(crate) https_port: u16,
    pub(crate) server: ServerOptions,
    pub(crate) engine: EngineOptions,
    pub(crate) outside: Outside,
    /// Served on the HTTPS listener's port.
    pub(crate) http3: Option<Limits>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            https_port: 8443,
            server: ServerOptions::default(),
            engine: EngineOptions::default(),
            outside: Outside::new(&[], None),
            http3: None,
        }
    }
}

impl Edge {
    pub(crate) async fn new() -> Self {
        Box::pin(Self::with_https_port(8443)).await
    }

    /// One whose redirects to HTTPS lead to this port.
    pub(crate) async fn with_https_port(https_port: u16) -> Self {
        let options = Options {
            https_port,
            ..Options::default()
        };
        Self::start(options).await
    }

    /// One with these options.
    pub(crate) async fn with(server: ServerOptions, engine: EngineOptions) -> Self {
        let options = Options {
            server,
            engine,
            ..Options::default()
        };
        Box::pin(Self::start(options)).await
    }

    /// One that may ask these services outside of the cluster.
    pub(crate) async fn asking(outside: Outside) -> Self {
        let options = Options {
            outside,
            ..Options::default()
        };
        Box::pin(Self::start(options)).await
    }

    /// One with these options.
    pub(crate) async fn start(options: Options) -> Self {
        let Options {
            https_port,
            server,
            engine,
            outside,
            http3,
        } = options;
        let world = World::new();
        let fallback = tls::self_signed().unwrap();
        let http = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let https = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let options = GatewayOptions {
            tls: tls::server_config(world.reader.clone(), Arc::clone(&fallback)).unwrap(),
            https_port,
            server,
            http3: http3.is_some(),
            limiter: Limiter::default(),
            passwords: Passwords::default(),
            answers: Answers::default(),
            outside,
        };
        let shutdown = CancellationToken::new();
        let new = || {
            let engine = Engine::new(Connector::Direct, engine.clone());
            Gateway::new(world.reader.clone(), engine, options.clone())
        };
        let gateway = new();
        let mut listeners = Vec::new();
        if let Some(limits) = http3 {
            let socket = UdpSocket::bind(https.local_addr().unwrap()).unwrap();
            // As two workers.
            for share in sealane_ingress::http3::distribute(socket, 2, limits).unwrap() {
                let (worker, token) = (new(), shutdown.clone());
                listeners.push(tokio::task::spawn_local(async move {
                    worker.serve_http3(share, token).await.unwrap();
                }));
            }
        }
        let mut edge = Self {
            world,
            http: http.local_addr().unwrap(),
            https: https.local_addr().unwrap(),
            shutdown: shutdown.clone(),
            fallback,
            listeners,
        };
        let (plain, token) = (gateway.clone(), shutdown.clone());
        edge.listeners.push(tokio::task::spawn_local(async move {
            plain.serve_http(http, token).await.unwrap();
        }));
        edge.listeners.push(tokio::task::spawn_local(async move {
            gateway.serve_https(https, shutdown).await.unwrap();
        }));
        edge
    }

    /// Publishes Service `name` with these endpoints.
    pub(crate) fn service(&mut self, name: &str, addrs: &[SocketAddr]) {
        self.world.service(name, AppProtocol::Detect, addrs);
    }

    /// Publishes the rules of a host; an empty host stands for any.
    pub(crate) fn host(&mut self, host: &str, certificate: bool, mut rules: Vec<RouteRule>) {
        rules.sort_by_key(|rule| match &rule.path {
            PathMatch::Exact(path) => (Reverse(path.len()), false),
            PathMatch::Prefix(path) | PathMatch::Start(path) => (Reverse(path.len()), true),
            PathMatch::Regex(regex) => (Reverse(regex.as_str().len()), true),
        });
        let routes = |host| {
            Arc::new(HostRoutes {
                host,
                rules: rules.iter().cloned().map(Arc::new).collect(),
                fallback: None,
                has_certificate: certificate,
                tls: HostTls::default(),
            })
        };
        let table = &mut self.world.snapshot.routes;
        if host.is_empty() {
            table.any = Some(routes(HostMatch::Any));
        } else {
            let name: Arc<str> = Arc::from(host);
            let routes = routes(HostMatch::Exact(Arc::clone(&name)));
            table.exact.insert_mut(name, routes);
        }
        self.world.publish();
    }

    /// A client of the HTTP listener.
    pub(crate) async fn client(&self) -> RawClient {
        RawClient::connect(self.http).await
    }
}

/// A rule for a prefix whose requests go to one Service.
pub(crate) fn prefix(path: &str, service: &str) -> RouteRule {
    RouteRule {
        source: ObjectRef {
            kind: "Ingress",
            namespace: Arc::from("default"),
            name: Arc::from("test"),
        },
        field: Arc::from("spec.rules[0].http.paths[0]"),
        path: PathMatch::Prefix(Arc::from(path.trim_end_matches('/'))),
        filters: Filters::default(),
        backends: vec![WeightedBackend {
            weight: 1,
            backend: backend(service),
        }],
        invalid: None,
        canary: None,
    }
}
