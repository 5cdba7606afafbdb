//! One worker with everything that takes connections.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread::JoinHandle;

use sealane_config::Reader;
use sealane_config::model::{
    AppProtocol, Filters, HostMatch, HostRoutes, HostTls, HttpPolicy, ObjectRef, PathMatch,
    Protocol, RouteRule, WeightedBackend,
};
use sealane_config::sockets::HostSockets;
use sealane_ingress::{Answers, Gateway, GatewayOptions, Limiter, Outside, Passwords, tls};
use sealane_proxy::connect::Connector;
use sealane_proxy::http::{Engine, EngineOptions, ServerOptions};
use sealane_proxy::node::{Capture, NodeProxy};
use sealane_proxy::testing::{World, backend};
use tokio::net::TcpListener;
use tokio::task::LocalSet;
use tokio_util::sync::CancellationToken;

/// The host whose requests the gateway sends to the Service.
pub const HOST: &str = "api.test";

/// A worker in a thread of its own: a gateway and a node proxy in front of Service `default/api`.
pub struct Front {
    world: World,
    /// The gateway, plain.
    pub http: SocketAddr,
    /// The gateway, TLS.
    pub https: SocketAddr,
    /// The Service's cluster IP, which the node proxy serves.
    pub vip: SocketAddr,
    shutdown: CancellationToken,
    worker: Option<JoinHandle<()>>,
}

impl Front {
    /// Starts it without endpoints.
    pub fn start() -> Self {
        Self::with(EngineOptions::default())
    }

    /// The same with other timeouts.
    pub fn with(engine: EngineOptions) -> Self {
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let (http, https) = (listener(loopback), listener(loopback));
        let vip = free_address();
        let world = World::new();
        let shutdown = CancellationToken::new();
        let mut front = Self {
            http: http.local_addr().unwrap(),
            https: https.local_addr().unwrap(),
            vip,
            shutdown: shutdown.clone(),
            worker: None,
            world,
        };
        let reader = front.world.reader.clone();
        front.worker = Some(std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            let work = work(reader, engine, [http, https], shutdown);
            LocalSet::new().block_on(&runtime.unwrap(), work);
        }));
        front
    }

    /// Sets how the Service is treated from the next [`Self::service`] on.
    pub fn set_policy(&mut self, policy: HttpPolicy) {
        self.world.http = Arc::new(policy);
    }

    /// Sets the Service's endpoints and what it is said to speak.
    pub fn service(&mut self, protocol: AppProtocol, endpoints: &[SocketAddr]) {
        let port = self.world.service("api", protocol, endpoints);
        let vip = (self.vip.ip(), Protocol::Tcp, self.vip.port());
        self.world.snapshot.vips.insert_mut(vip, port);
        let host: Arc<str> = Arc::from(HOST);
        let routes = HostRoutes {
            host: HostMatch::Exact(Arc::clone(&host)),
            rules: [Arc::new(everything())].into_iter().collect(),
            fallback: None,
            has_certificate: false,
            tls: HostTls::default(),
        };
        let any = HostRoutes {
            host: HostMatch::Any,
            ..routes.clone()
        };
        let table = &mut self.world.snapshot.routes;
        table.exact.insert_mut(host, Arc::new(routes));
        table.any = Some(Arc::new(any));
        self.world.publish();
    }
}

impl Drop for Front {
    /// Cuts off what is in flight.
    fn drop(&mut self) {
        self.shutdown.cancel();
        if let Some(worker) = self.worker.take() {
            let ended = worker.join();
            assert!(
                ended.is_ok() || std::thread::panicking(),
                "the worker panicked"
            );
        }
    }
}

async fn work(
    reader: Reader,
    options: EngineOptions,
    listeners: [StdListener; 2],
    shutdown: CancellationToken,
) {
    let engine = Engine::new(Connector::Direct, options);
    let gateway = GatewayOptions {
        tls: tls::server_config(reader.clone(), tls::self_signed().unwrap()).unwrap(),
        https_port: 443,
        server: ServerOptions::default(),
        http3: false,
        limiter: Limiter::default(),
        passwords: Passwords::default(),
        answers: Answers::default(),
        outside: Outside::new(&[], None),
    };
    let gateway = Gateway::new(reader.clone(), engine.clone(), gateway);
    let [http, https] = listeners.map(|listener| TcpListener::from_std(listener).unwrap());
    let node = NodeProxy::bind(
        Capture::Listeners,
        reader.clone(),
        engine.clone(),
        Connector::Direct,
        HostSockets::here(),
    );
    let open = CancellationToken::new();
    tokio::select! {
        ended = gateway.serve_http(http, open.clone()) => ended.unwrap(),
        ended = gateway.serve_https(https, open.clone()) => ended.unwrap(),
        () = node.unwrap().run(open.clone()) => {}
        () = engine.maintain(reader, open.clone()) => {}
        () = shutdown.cancelled() => {}
    }
}

fn listener(ip: IpAddr) -> StdListener {
    let listener = StdListener::bind((ip, 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    listener
}

/// A loopback address of this front's own, so that listeners that share their ports are not mistaken
/// for each other's, with a port that is free.
fn free_address() -> SocketAddr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [high, low] = (std::process::id() as u16).to_be_bytes();
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let ip = Ipv4Addr::new(127, 96 | (number & 31), high, low);
    let addr = listener(ip.into()).local_addr();
    addr.unwrap()
}

/// The rule that sends every path to the Service.
fn everything() -> RouteRule {
    RouteRule {
        source: ObjectRef {
            kind: "Ingress",
            namespace: Arc::from("default"),
            name: Arc::from("api"),
        },
        field: Arc::from("spec.rules[0].http.paths[0]"),
        path: PathMatch::Prefix(Arc::from("")),
        filters: Filters::default(),
        backends: vec![WeightedBackend {
            weight: 1,
            backend: backend("api"),
        }],
        invalid: None,
        canary: None,
    }
}
