//! A gateway and the world that it reads.

use std::cmp::Reverse;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;

use rustls::sign::CertifiedKey;
use sealane_config::model::{
    AppProtocol, Filters, HostMatch, HostRoutes, HostTls, ObjectRef, PathMatch, RouteRule,
    WeightedBackend,
};
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

impl Edge {
    pub(crate) async fn new() -> Self {
        Box::pin(Self::with_https_port(8443)).await
    }

    /// One whose redirects to HTTPS lead to this port.
    pub(crate) async fn with_https_port(https_port: u16) -> Self {
        let engine = EngineOptions::default();
        let outside = Outside::new(&[], None);
        Self::start(https_port, ServerOptions::default(), engine, outside).await
    }

    /// One with these options.
    pub(crate) async fn with(server: ServerOptions, engine: EngineOptions) -> Self {
        let outside = Outside::new(&[], None);
        Box::pin(Self::start(8443, server, engine, outside)).await
    }

    /// One that may ask these services outside of the cluster.
    pub(crate) async fn asking(outside: Outside) -> Self {
        let (server, engine) = (ServerOptions::default(), EngineOptions::default());
        Box::pin(Self::start(8443, server, engine, outside)).await
    }

    async fn start(
        https_port: u16,
        server: ServerOptions,
        engine: EngineOptions,
        outside: Outside,
    ) -> Self {
        let world = World::new();
        let fallback = tls::self_signed().unwrap();
        let http = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let https = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let options = GatewayOptions {
            tls: tls::server_config(world.reader.clone(), Arc::clone(&fallback)).unwrap(),
            https_port,
            server,
            limiter: Limiter::default(),
            passwords: Passwords::default(),
            answers: Answers::default(),
            outside,
        };
        let engine = Engine::new(Connector::Direct, engine);
        let gateway = Gateway::new(world.reader.clone(), engine, options);
        let shutdown = CancellationToken::new();
        let mut edge = Self {
            world,
            http: http.local_addr().unwrap(),
            https: https.local_addr().unwrap(),
            shutdown: shutdown.clone(),
            fallback,
            listeners: Vec::new(),
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
