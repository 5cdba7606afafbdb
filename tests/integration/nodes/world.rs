//! Two nodes with their proxies, an API server, and servers in every pod.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::api::Api;
use super::net::{NODE_A, NODE_B, Net, POD_CIDRS, SERVICE_CIDRS};
use super::objects::{Service, ready};
use super::probe::{Outcome, Protocol, ask};
use super::relay::Relay;
use super::serve::serve;
use crate::support::DEADLINE;
use crate::support::cluster::place;
use crate::support::mode::{Mode, get};

/// How long a look at a Service that may not be there yet lasts.
const LOOK: Duration = Duration::from_millis(50);

/// All of it. Dropping it ends everything.
pub(super) struct World {
    /// The proxies of the nodes.
    proxies: Mutex<BTreeMap<&'static str, Mode>>,
    /// The nodes' ways to the API server.
    pub(super) relays: BTreeMap<&'static str, Relay>,
    api: Arc<Api>,
    pub(super) net: Net,
    numbers: AtomicU8,
    runtime: Runtime,
    _place: tokio::sync::OwnedSemaphorePermit,
}

impl World {
    /// Makes it, if this machine can have one.
    pub(super) fn new() -> Option<Self> {
        let begun = Instant::now();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let place = runtime.block_on(place());
        let api = runtime.spawn(Api::start());
        let net = Net::new()?;
        let api = runtime.block_on(api).unwrap()?;
        let relays = [NODE_A, NODE_B].map(|node| {
            let namespace = Arc::clone(&net.place(node).namespace);
            let relay = runtime.block_on(Relay::start(namespace, api.addr()));
            (node, relay)
        });
        let within = runtime.enter();
        for (pod, place) in net.pods() {
            serve(pod, place);
        }
        drop(within);
        let world = Self {
            proxies: Mutex::default(),
            relays: BTreeMap::from(relays),
            api: Arc::new(api),
            net,
            numbers: AtomicU8::new(0),
            runtime,
            _place: place,
        };
        for (node, zone) in [(NODE_A, "z1"), (NODE_B, "z2")] {
            let labels = json!({"topology.kubernetes.io/zone": zone});
            world.create(json!({
                "apiVersion": "v1", "kind": "Node",
                "metadata": {"name": node, "labels": labels},
            }));
        }
        for node in [NODE_A, NODE_B] {
            world.start_proxy(node);
        }
        for node in [NODE_A, NODE_B] {
            world.until_ready(node);
        }
        eprintln!("two nodes and an API server after {:?}", begun.elapsed());
        Some(world)
    }

    /// Runs a future on the world's runtime.
    pub(super) fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// Whether Services can have IPv6 addresses.
    pub(super) fn has_ipv6(&self) -> bool {
        self.api.has_ipv6()
    }

    /// Creates an object.
    pub(super) fn create(&self, object: Value) -> Value {
        self.call(move |api| async move { api.create(&object).await })
    }

    /// Changes an object by a merge patch.
    pub(super) fn patch(&self, kind: &'static str, name: &str, patch: Value) -> Value {
        let name = name.to_owned();
        self.call(move |api| async move { api.patch(kind, &name, &patch).await })
    }

    /// Deletes an object.
    pub(super) fn delete(&self, kind: &'static str, name: &str) {
        let name = name.to_owned();
        self.call(move |api| async move { api.delete(kind, &name).await });
    }

    /// Writes the addresses that a cloud's load balancer would have.
    pub(super) fn balance(&self, service: &str, ips: Vec<String>, mode: &'static str) {
        let service = service.to_owned();
        self.call(move |api| async move { api.balance(&service, &ips, mode).await });
    }

    /// Asks the API on a thread of the runtime: the calling one may be in another namespace.
    fn call<T: Send + 'static, F>(&self, ask: impl FnOnce(Arc<Api>) -> F) -> T
    where
        F: Future<Output = T> + Send + 'static,
    {
        let asked = self.runtime.spawn(ask(Arc::clone(&self.api)));
        self.runtime.block_on(asked).unwrap()
    }

    /// A number that nobody else in this world has.
    pub(super) fn number(&self) -> u8 {
        self.numbers.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Starts the proxy of a node.
    pub(super) fn start_proxy(&self, node: &'static str) {
        let place = self.net.place(node);
        let mut args = vec!["node", "--node-name", node];
        let ips = [place.v4.to_string(), place.v6.to_string()];
        for ip in &ips {
            args.extend(["--node-ip", ip]);
        }
        for cidr in SERVICE_CIDRS {
            args.extend(["--service-cidr", cidr]);
        }
        for cidr in POD_CIDRS {
            args.extend(["--pod-cidr", cidr]);
        }
        args.extend(["--drain-delay", "0", "--grace", "1", "--workers", "2"]);
        let kubeconfig: &Path = &self.api.kubeconfig;
        let mut command = Mode::command(kubeconfig, &args);
        let spawn = move || command.spawn().expect("sealane starts");
        let proxy = Mode::of(place.namespace.run(spawn));
        self.proxies.lock().unwrap().insert(node, proxy);
    }

    /// Waits until the proxy of a node is ready.
    pub(super) fn until_ready(&self, node: &'static str) {
        let admin = self.with_proxy(node, |proxy| proxy.address("admin"));
        let namespace = &self.net.place(node).namespace;
        until(&format!("{node} is ready"), || {
            match namespace.run(move || get(admin, "localhost", "/readyz")) {
                Ok((200, _)) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
    }

    /// Does something with the proxy of a node.
    pub(super) fn with_proxy<T>(&self, node: &'static str, work: impl FnOnce(&mut Mode) -> T) -> T {
        let mut proxies = self.proxies.lock().unwrap();
        work(proxies.get_mut(node).expect("it was started"))
    }

    /// Waits until both nodes follow everything that was written before: both have seen a Service and
    /// an EndpointSlice that are younger.
    pub(super) fn settle(&self) {
        let service = Service::new(&format!("settled-{}", self.number())).endpoints([ready("a3")]);
        let made = service.create(self);
        let addr = made.cluster(Protocol::Opaque);
        for pod in ["a2", "b2"] {
            let namespace = &self.net.place(pod).namespace;
            until("both nodes are up to date", || {
                match namespace.run(move || ask(Protocol::Opaque, addr, LOOK)) {
                    Outcome::Answered(_) => Ok(()),
                    other => Err(format!("{pod}: {other:?}")),
                }
            });
        }
    }
}

/// Asks until the answer is `Ok`, and fails with the last `Err` at the deadline.
pub(super) fn until<T>(what: &str, mut ask: impl FnMut() -> Result<T, String>) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        match ask() {
            Ok(answer) => return answer,
            Err(last) if Instant::now() >= end => panic!("{what}: {last}"),
            Err(_) => std::thread::park_timeout(Duration::from_millis(5)),
        }
    }
}
