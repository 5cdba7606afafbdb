//! Status, Events and the Lease on a real API server, under a role that allows no more than that.

#![allow(
    clippy::unwrap_used,
    reason = "a test ends at the first surprise, and the backtrace names it"
)]

use std::path::Path;
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Event as CoreEvent;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::api::networking::v1::Ingress;
use kube::api::{Api, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Client, Config};
use sealane_config::model::PublishedAddress;
use sealane_config::report::lease::LeaseOptions;
use sealane_config::report::{self, Publish, ReportOptions};
use sealane_config::snapshot;
use sealane_config::watch::{self, WatchOptions};
use sealane_test_kubernetes::{ControlPlane, Options, Unavailable};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// What has to come true comes true within this, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long a crash may leave the others without a leader.
const HAND_OVER: Duration = Duration::from_secs(15);

const LOOK: Duration = Duration::from_millis(20);

/// Everything that a gateway does at the API, by API group, resource and verbs.
const ROLE: [(&str, &str, &[&str]); 9] = [
    ("", "services", &["list", "watch"]),
    ("", "namespaces", &["list", "watch"]),
    ("", "secrets", &["list", "watch"]),
    ("discovery.k8s.io", "endpointslices", &["list", "watch"]),
    ("networking.k8s.io", "ingresses", &["get", "list", "watch"]),
    (
        "networking.k8s.io",
        "ingressclasses",
        &["get", "list", "watch"],
    ),
    ("networking.k8s.io", "ingresses/status", &["patch"]),
    (
        "coordination.k8s.io",
        "leases",
        &["get", "create", "update"],
    ),
    ("events.k8s.io", "events", &["create", "patch"]),
];

struct World {
    plane: ControlPlane,
    client: Client,
}

/// The state path and the way back of one gateway, as a user of its own.
struct Gateway {
    tasks: Vec<JoinHandle<()>>,
    shutdown: CancellationToken,
}

impl World {
    /// `None` where there can be no control plane.
    async fn start() -> Option<Self> {
        let options = Options {
            controllers: false,
            ..Options::default()
        };
        let plane = match ControlPlane::start(options).await.unwrap() {
            Ok(plane) => plane,
            Err(Unavailable(reason)) => {
                let required = std::env::var("SEALANE_TEST_REQUIRE");
                assert_ne!(required.as_deref(), Ok("all"), "{reason}");
                eprintln!("skipped: {reason}");
                return None;
            }
        };
        let world = Self {
            client: plane.client(),
            plane,
        };
        let class = |name: &str, controller: &str| json!({"metadata": {"name": name}, "spec": {"controller": controller}});
        for (name, controller) in [
            ("ours", "sealane.dev/ingress"),
            ("theirs", "example.com/other"),
        ] {
            world
                .create(
                    "networking.k8s.io/v1",
                    "IngressClass",
                    class(name, controller),
                )
                .await;
        }
        let rules: Vec<Value> = ROLE
            .iter()
            .map(|(group, resource, verbs)| {
                json!({"apiGroups": [group], "resources": [resource], "verbs": verbs})
            })
            .collect();
        let rbac = "rbac.authorization.k8s.io/v1";
        let role = json!({"metadata": {"name": "gateway"}, "rules": rules});
        world.create(rbac, "ClusterRole", role).await;
        let binding = json!({"metadata": {"name": "gateway"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "gateway"},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "gateways"}]});
        world.create(rbac, "ClusterRoleBinding", binding).await;
        Some(world)
    }

    fn api(&self, version: &str, kind: &str) -> Api<DynamicObject> {
        let (group, version) = version.split_once('/').unwrap_or(("", version));
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        match kind {
            "IngressClass" | "ClusterRole" | "ClusterRoleBinding" => {
                Api::all_with(self.client.clone(), &resource)
            }
            _ => Api::default_namespaced_with(self.client.clone(), &resource),
        }
    }

    async fn create(&self, version: &str, kind: &str, object: Value) {
        let object: DynamicObject = serde_json::from_value(object).unwrap();
        let api = self.api(version, kind);
        api.create(&PostParams::default(), &object).await.unwrap();
    }

    fn ingresses(&self) -> Api<Ingress> {
        Api::default_namespaced(self.client.clone())
    }

    async fn ingress(&self, name: &str, class: &str) {
        let backend = json!({"service": {"name": "web", "port": {"number": 80}}});
        let object = json!({"metadata": {"name": name}, "spec": {"ingressClassName": class,
            "rules": [{"host": format!("{name}.test"), "http": {"paths": [
                {"path": "/", "pathType": "Prefix", "backend": backend}]}}]}});
        self.create("networking.k8s.io/v1", "Ingress", object).await;
    }

    async fn set_class(&self, name: &str, class: &str) {
        let patch = Patch::Merge(json!({"spec": {"ingressClassName": class}}));
        let params = PatchParams::default();
        self.ingresses().patch(name, &params, &patch).await.unwrap();
    }

    /// Writes a status as another controller.
    async fn set_status(&self, name: &str, ip: &str) {
        let patch = Patch::Merge(json!({"status": {"loadBalancer": {"ingress": [{"ip": ip}]}}}));
        let params = PatchParams {
            field_manager: Some("other".into()),
            ..PatchParams::default()
        };
        let api = self.ingresses();
        api.patch_status(name, &params, &patch).await.unwrap();
    }

    async fn status(&self, name: &str) -> Vec<String> {
        let ingress = self.ingresses().get(name).await.unwrap();
        let balancer = ingress.status.and_then(|status| status.load_balancer);
        let entries = balancer.and_then(|balancer| balancer.ingress);
        let ips = entries.unwrap_or_default().into_iter();
        ips.map(|entry| entry.ip.unwrap_or_default()).collect()
    }

    async fn until_status(&self, name: &str, expected: &[&str], limit: Duration) -> Duration {
        let start = Instant::now();
        loop {
            let status = self.status(name).await;
            if status == expected {
                return start.elapsed();
            }
            assert!(
                start.elapsed() < limit,
                "{name}: {status:?}, not {expected:?}"
            );
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn gateway(&self, name: &str, address: &str) -> Gateway {
        let kubeconfig = self.plane.user_kubeconfig(name, Some("gateways")).unwrap();
        let (publisher, reader) = snapshot::channel();
        let shutdown = CancellationToken::new();
        let watching = watch::run(
            client(&kubeconfig).await,
            publisher,
            WatchOptions::default(),
            shutdown.clone(),
        );
        let options = ReportOptions {
            lease: LeaseOptions::new("default", "gateway", name),
            publish: Publish::Addresses(vec![PublishedAddress::Ip(address.parse().unwrap())]),
        };
        let client = client(&kubeconfig).await;
        let reporting = report::run(client, reader, options, shutdown.clone());
        Gateway {
            tasks: vec![tokio::spawn(watching), tokio::spawn(reporting)],
            shutdown,
        }
    }

    async fn events(&self, reason: &str) -> Vec<Event> {
        let api: Api<Event> = Api::default_namespaced(self.client.clone());
        let mut events = api.list(&ListParams::default()).await.unwrap().items;
        events.retain(|event| event.reason.as_deref() == Some(reason));
        events
    }

    async fn until_events(&self, reason: &str, wanted: impl Fn(&[Event]) -> bool) -> Vec<Event> {
        let start = Instant::now();
        loop {
            let events = self.events(reason).await;
            if wanted(&events) {
                return events;
            }
            assert!(start.elapsed() < PATIENCE, "{reason}: {events:?}");
            tokio::time::sleep(LOOK).await;
        }
    }
}

impl Gateway {
    /// Ends without a word, as by SIGKILL.
    fn kill(self) {
        for task in &self.tasks {
            task.abort();
        }
    }

    async fn stop(self) {
        self.shutdown.cancel();
        for task in self.tasks {
            task.await.unwrap();
        }
    }
}

async fn client(kubeconfig: &Path) -> Client {
    let kubeconfig = Kubeconfig::read_from(kubeconfig).unwrap();
    let options = KubeConfigOptions::default();
    let config = Config::from_custom_kubeconfig(kubeconfig, &options).await;
    Client::try_from(config.unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn ingress_i21_one_of_two_gateways_writes_status_and_the_other_takes_over() {
    let Some(world) = World::start().await else {
        return;
    };
    world.ingress("first", "ours").await;
    world.ingress("foreign", "theirs").await;
    // Each publishes an address of its own, which shows who wrote.
    let a = Box::pin(world.gateway("gateway-a", "203.0.113.1")).await;
    world
        .until_status("first", &["203.0.113.1"], PATIENCE)
        .await;
    let b = Box::pin(world.gateway("gateway-b", "203.0.113.2")).await;
    let version = world
        .ingresses()
        .get("first")
        .await
        .unwrap()
        .metadata
        .resource_version;
    let until = Instant::now() + Duration::from_secs(12);
    while Instant::now() < until {
        assert_eq!(world.status("first").await, ["203.0.113.1"]);
        tokio::time::sleep(LOOK).await;
    }
    let still = world
        .ingresses()
        .get("first")
        .await
        .unwrap()
        .metadata
        .resource_version;
    assert_eq!(still, version, "nobody wrote what is right");
    a.kill();
    world.ingress("second", "ours").await;
    let took = world
        .until_status("second", &["203.0.113.2"], HAND_OVER)
        .await;
    eprintln!("after a crash the other writes within {took:?}");
    let c = Box::pin(world.gateway("gateway-c", "203.0.113.3")).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    b.stop().await;
    world.ingress("third", "ours").await;
    let took = world
        .until_status("third", &["203.0.113.3"], HAND_OVER)
        .await;
    eprintln!("after an orderly end the other writes within {took:?}");
    assert!(took < Duration::from_secs(5), "{took:?}");
    c.stop().await;
    let leases: Api<Lease> = Api::default_namespaced(world.client.clone());
    let spec = leases.get("gateway").await.unwrap().spec.unwrap();
    assert_eq!(spec.holder_identity, None, "given up");
    assert_eq!(spec.lease_transitions, Some(2));
    assert_eq!(world.status("foreign").await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn ingress_i21_the_book_of_field_owners_says_what_is_ours_to_clear() {
    let Some(world) = World::start().await else {
        return;
    };
    for name in ["left", "taken"] {
        world.ingress(name, "ours").await;
    }
    let gateway = Box::pin(world.gateway("gateway-a", "203.0.113.1")).await;
    for name in ["left", "taken"] {
        world.until_status(name, &["203.0.113.1"], PATIENCE).await;
    }
    gateway.kill();
    // While nobody is there, both leave our class, and another controller takes one of them over
    // and happens to write what we would.
    world.set_status("taken", "198.51.100.7").await;
    world.set_status("taken", "203.0.113.1").await;
    for name in ["left", "taken"] {
        world.set_class(name, "theirs").await;
    }
    // Published under another address, so that only the book tells whose it is.
    let gateway = Box::pin(world.gateway("gateway-b", "203.0.113.2")).await;
    world.until_status("left", &[], PATIENCE).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(world.status("taken").await, ["203.0.113.1"]);

    world.ingress("kept", "ours").await;
    let told = world
        .until_events("MissingService", |events| !events.is_empty())
        .await;
    let event = &told[0];
    let regarding = event.regarding.as_ref().unwrap();
    assert_eq!(
        regarding.api_version.as_deref(),
        Some("networking.k8s.io/v1")
    );
    assert!(regarding.uid.is_some());
    assert_eq!(
        event.reporting_controller.as_deref(),
        Some("sealane.dev/gateway")
    );
    // What `kubectl describe` reads.
    let core: Api<CoreEvent> = Api::default_namespaced(world.client.clone());
    let name = event.metadata.name.as_deref().unwrap();
    let seen = core.get(name).await.unwrap();
    assert_eq!(seen.involved_object.uid, regarding.uid);
    assert!(
        seen.message
            .unwrap()
            .contains("Service default/web does not exist")
    );
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ingress_i13_what_happens_again_is_counted_in_one_event() {
    let Some(world) = World::start().await else {
        return;
    };
    world.ingress("it", "ours").await;
    let special = json!({"metadata": {"name": "special"}, "spec": {"controller": "sealane.dev/ingress",
        "parameters": {"apiGroup": "example.com", "kind": "Parameters", "name": "p"}}});
    world
        .create("networking.k8s.io/v1", "IngressClass", special)
        .await;
    let gateway = Box::pin(world.gateway("gateway-a", "203.0.113.1")).await;
    world
        .until_events("MissingService", |events| events.len() == 1)
        .await;
    let class = world
        .until_events("BadField", |events| events.len() == 1)
        .await;
    let regarding = class[0].regarding.as_ref().unwrap();
    assert_eq!(regarding.kind.as_deref(), Some("IngressClass"));
    assert!(regarding.uid.is_some());
    let service = json!({"metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}]}});
    world.create("v1", "Service", service).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let services = world.api("v1", "Service");
    services.delete("web", &Default::default()).await.unwrap();
    let counted = |events: &[Event]| {
        events.len() == 1
            && events[0]
                .series
                .as_ref()
                .is_some_and(|series| series.count == 2)
    };
    world.until_events("MissingService", counted).await;
    // The next leader finds what was told.
    gateway.stop().await;
    let next = Box::pin(world.gateway("gateway-b", "203.0.113.1")).await;
    world.until_status("it", &["203.0.113.1"], PATIENCE).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(counted(&world.events("MissingService").await));
    next.stop().await;
}
