//! A real API server with the state of a large cluster, for what depends on it.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use kube::Client;
use sealane_test_kubernetes::{ControlPlane, NodeNamespace, Options, Size, Unavailable};
use sealane_test_kubernetes::{create, node, objects};
use serde_json::json;
use socket2::SockRef;

use crate::case::Variant;
use crate::load::block_on;
use crate::stage::{BACKENDS, ip};

/// Name of the Node that Service proxies are on.
pub(crate) const NODE: &str = "measured";

/// Where Services get their addresses.
pub(crate) const SERVICES: &str = "10.96.0.0/16";

/// The Service whose endpoint changes, and its EndpointSlice; in namespace `default`.
pub(crate) const CHANGED: &str = "changed";

/// Its address.
pub(crate) const VIP: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(10, 96, 0, 9)), 80);

/// Where its endpoints listen.
const PORT: u16 = 9003;

/// By how many per cent the API server's memory may grow until it collects its garbage (Go's `GOGC`). With
/// the default, 100, it does so in one start of four, which takes as long as all else of the start.
const COLLECT: &str = "400";

/// A client that says nothing in this time is gone.
const PATIENCE: Duration = Duration::from_secs(1);

/// The API server.
pub(crate) struct Cluster {
    plane: ControlPlane,
}

impl Cluster {
    /// Starts one with as many Services, and endpoints of each, as the variant has.
    ///
    /// # Errors
    /// It cannot be built or started, or does not take the objects.
    pub(crate) fn start(variant: &Variant) -> anyhow::Result<Self> {
        let size = Size {
            services: variant.hosts,
            endpoints_each: variant.endpoints,
        };
        eprintln!(
            "starting kube-apiserver with {} Services and {} endpoints",
            size.services,
            size.endpoints()
        );
        block_on(async {
            let options = Options {
                controllers: false,
                service_cidr: SERVICES.to_owned(),
                api_server_flags: vec!["--enable-admission-plugins=".to_owned()],
                api_server_environment: vec![("GOGC".to_owned(), COLLECT.to_owned())],
                ..Options::default()
            };
            let plane = match ControlPlane::start(options).await? {
                Ok(plane) => plane,
                Err(Unavailable(reason)) => bail!(reason),
            };
            let client = crate::load::client(plane.kubeconfig()).await?;
            node(&client, NODE).await?;
            changed(&client).await?;
            objects(&client, size).await?;
            Ok(Self { plane })
        })
    }

    /// The configuration of its clients.
    pub(crate) fn kubeconfig(&self) -> &Path {
        self.plane.kubeconfig()
    }

    /// DNS name of a Service that was made late.
    pub(crate) fn last_name(variant: &Variant) -> String {
        let (namespace, name) = Size::service_name(variant.hosts.saturating_sub(1));
        format!("{name}.{namespace}.svc.cluster.local")
    }
}

/// Creates the Service that changes.
async fn changed(client: &Client) -> anyhow::Result<()> {
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": CHANGED},
        "spec": {
            "clusterIP": VIP.ip(),
            "ports": [{"port": VIP.port(), "targetPort": PORT, "appProtocol": "kubernetes.io/tcp"}],
        },
    });
    create(client, "/api/v1/namespaces/default/services", &service).await?;
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": CHANGED, "labels": {"kubernetes.io/service-name": CHANGED}},
        "addressType": "IPv4",
        "ports": [{"port": PORT, "protocol": "TCP", "appProtocol": "kubernetes.io/tcp"}],
        "endpoints": [{"addresses": [BACKENDS[0]], "conditions": {"ready": true}}],
    });
    let path = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
    create(client, path, &slice).await
}

/// A network namespace that stands for a node of the cluster, with the endpoints of the Service that
/// changes: each says in one byte which it is, by the end of its address.
pub(crate) struct Node {
    listeners: Vec<TcpListener>,
    pub(crate) namespace: NodeNamespace,
}

impl Node {
    /// Makes one.
    ///
    /// # Errors
    /// The process may not.
    pub(crate) fn of(cluster: &Cluster) -> anyhow::Result<Self> {
        let namespace = NodeNamespace::reaching(cluster.plane.api_addr())?;
        let listeners = namespace.run(|| {
            ip(&["address", "add", "10.200.0.2/16", "dev", "lo"])?;
            // A node has a route for every address; which one does not matter to what is intercepted.
            ip(&["route", "add", "default", "dev", "lo", "src", "10.200.0.2"])?;
            let addresses = BACKENDS.iter().take(2);
            addresses.map(|address| endpoint(*address)).collect()
        })?;
        Ok(Self {
            listeners,
            namespace,
        })
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        for listener in &self.listeners {
            // Ends the thread that accepts; a socket would keep its namespace.
            let _ = SockRef::from(listener).shutdown(std::net::Shutdown::Both);
        }
    }
}

/// Starts an endpoint in the calling thread's namespace.
fn endpoint(address: Ipv4Addr) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind((address, PORT)).context("an endpoint")?;
    let accepting = listener.try_clone()?;
    std::thread::spawn(move || {
        for stream in accepting.incoming() {
            let Ok(stream) = stream else { return };
            // A client that is gone does not care.
            let _ = tell(&stream, address);
        }
    });
    Ok(listener)
}

fn tell(mut stream: &TcpStream, address: Ipv4Addr) -> std::io::Result<()> {
    use std::io::Write as _;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(&address.octets()[3..])
}

/// Which endpoint a new connection to the Service gets to, in the calling thread's namespace.
///
/// # Errors
/// None, within the time.
pub(crate) fn who(time: Duration) -> std::io::Result<u8> {
    use std::io::Read as _;
    let mut stream = TcpStream::connect_timeout(&VIP, time)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut said = [0];
    stream.read_exact(&mut said)?;
    Ok(said[0])
}
