//! The whole way from the API and back to it, on the embedded API server and in paused time.

mod events;
pub(super) mod link;
mod statuses;

use std::time::Duration;

use k8s_openapi::api::events::v1::Event;
use k8s_openapi::api::networking::v1::Ingress;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use sealane_cluster::api::ApiServer;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use self::link::{Link, server};
use super::{Publish, ReportOptions, run};
use crate::model::PublishedAddress;
use crate::report::lease::LeaseOptions;
use crate::snapshot::channel;
use crate::watch::{self, WatchOptions};

const SECOND: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(20);

/// One gateway without its data plane. Reads and writes go over links of their own.
struct Gateway {
    link: Link,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
    watching: JoinHandle<()>,
}

impl Gateway {
    fn start(server: &ApiServer, name: &str, addresses: &[&str]) -> Self {
        let publish = Publish::Addresses(addresses.iter().map(|text| address(text)).collect());
        Self::publishing(server, name, publish)
    }

    fn publishing(server: &ApiServer, name: &str, publish: Publish) -> Self {
        let (link, watched) = (Link::new(server), Link::new(server));
        let shutdown = CancellationToken::new();
        let (publisher, reader) = channel();
        let options = WatchOptions::default();
        let watching = watch::run(watched.client(), publisher, options, shutdown.clone());
        let options = ReportOptions {
            lease: LeaseOptions::new("default", "gateway", name),
            publish,
        };
        let reporting = run(link.client(), reader, options, shutdown.clone());
        Self {
            link,
            shutdown,
            watching: tokio::spawn(watching),
            task: tokio::spawn(reporting),
        }
    }

    /// As by SIGKILL.
    fn kill(&self) {
        self.task.abort();
        self.watching.abort();
    }

    /// How many times a status was written.
    fn statuses(&self) -> usize {
        self.link.count(&http::Method::PATCH, "/status")
    }

    fn events(&self) -> usize {
        self.link.count(&http::Method::POST, "/events")
            + self.link.count(&http::Method::PATCH, "/events")
    }
}

fn address(text: &str) -> PublishedAddress {
    text.parse().map_or_else(
        |_| PublishedAddress::Hostname(text.into()),
        PublishedAddress::Ip,
    )
}

/// An API server with namespace `shop` and IngressClasses `ours` and `theirs`.
struct World {
    server: ApiServer,
}

impl World {
    async fn new() -> Self {
        let world = Self {
            server: server().await,
        };
        let shop = json!({"metadata": {"name": "shop"}});
        world.create("v1", "Namespace", shop).await;
        for (name, controller) in [
            ("ours", "sealane.dev/ingress"),
            ("theirs", "example.com/other"),
        ] {
            let class = json!({"metadata": {"name": name}, "spec": {"controller": controller}});
            world
                .create("networking.k8s.io/v1", "IngressClass", class)
                .await;
        }
        world
    }

    fn api(&self, version: &str, kind: &str) -> Api<DynamicObject> {
        let (group, version) = version.split_once('/').unwrap_or(("", version));
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        match kind {
            "Namespace" | "IngressClass" => Api::all_with(self.server.client(), &resource),
            _ => Api::namespaced_with(self.server.client(), "shop", &resource),
        }
    }

    async fn create(&self, version: &str, kind: &str, object: Value) {
        let object: DynamicObject = serde_json::from_value(object).unwrap();
        let api = self.api(version, kind);
        api.create(&PostParams::default(), &object).await.unwrap();
    }

    fn ingresses(&self) -> Api<Ingress> {
        Api::namespaced(self.server.client(), "shop")
    }

    /// An Ingress that routes everything to Service `web`.
    async fn ingress(&self, name: &str, class: &str) {
        let backend = json!({"service": {"name": "web", "port": {"number": 80}}});
        let object = json!({"metadata": {"name": name}, "spec": {"ingressClassName": class,
            "rules": [{"host": format!("{name}.test"), "http": {"paths": [
                {"path": "/", "pathType": "Prefix", "backend": backend}]}}]}});
        self.create("networking.k8s.io/v1", "Ingress", object).await;
    }

    /// Service `web` with one endpoint.
    async fn web(&self) {
        let service = json!({"metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}]}});
        self.create("v1", "Service", service).await;
        let slice = json!({"metadata": {"name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4", "ports": [{"port": 8080}],
            "endpoints": [{"addresses": ["10.244.0.5"], "conditions": {"ready": true}}]});
        self.create("discovery.k8s.io/v1", "EndpointSlice", slice)
            .await;
    }

    async fn delete(&self, version: &str, kind: &str, name: &str) {
        let api = self.api(version, kind);
        api.delete(name, &DeleteParams::default()).await.unwrap();
    }

    async fn patch(&self, name: &str, patch: Value) {
        let patch = Patch::Merge(patch);
        let params = PatchParams::default();
        self.ingresses().patch(name, &params, &patch).await.unwrap();
    }

    /// Writes a status as another controller.
    async fn set_status(&self, name: &str, entries: Value) {
        let patch = Patch::Merge(json!({"status": {"loadBalancer": {"ingress": entries}}}));
        let params = PatchParams::default();
        let api = self.ingresses();
        api.patch_status(name, &params, &patch).await.unwrap();
    }

    /// The addresses in an Ingress' status.
    async fn status(&self, name: &str) -> Vec<String> {
        let ingress = self.ingresses().get(name).await.unwrap();
        let balancer = ingress.status.and_then(|status| status.load_balancer);
        let entries = balancer.and_then(|balancer| balancer.ingress);
        let text = |entry: k8s_openapi::api::networking::v1::IngressLoadBalancerIngress| {
            entry.ip.or(entry.hostname).unwrap_or_default()
        };
        entries.unwrap_or_default().into_iter().map(text).collect()
    }

    async fn all_events(&self) -> Vec<Event> {
        let api: Api<Event> = Api::all(self.server.client());
        let listed = api.list(&ListParams::default()).await.unwrap();
        let of_ours =
            |event: &Event| event.reporting_controller.as_deref() == Some("sealane.dev/gateway");
        listed.items.into_iter().filter(of_ours).collect()
    }

    async fn events(&self, reason: &str) -> Vec<Event> {
        let mut events = self.all_events().await;
        events.retain(|event| event.reason.as_deref() == Some(reason));
        events
    }

    /// Waits until an Ingress has this status; returns how long that took.
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
            sleep(TICK).await;
        }
    }

    async fn until_events(&self, reason: &str, count: usize) -> Vec<Event> {
        let start = Instant::now();
        loop {
            let events = self.events(reason).await;
            if events.len() == count {
                return events;
            }
            let all = self.all_events().await;
            assert!(
                start.elapsed() < 60 * SECOND,
                "not {count} of {reason}: {all:?}"
            );
            sleep(TICK).await;
        }
    }
}
