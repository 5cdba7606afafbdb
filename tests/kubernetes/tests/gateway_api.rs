//! Gateway API on a real API server: CRDs are installed and removed while we run.

#![allow(
    clippy::unwrap_used,
    reason = "a test ends at the first surprise, and the backtrace names it"
)]

use std::time::{Duration, Instant};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Client;
use kube::api::{Api, DeleteParams, DynamicObject, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use sealane_config::model::PublishedAddress;
use sealane_config::report::lease::LeaseOptions;
use sealane_config::report::{self, Publish, ReportOptions};
use sealane_config::snapshot;
use sealane_config::watch::{self, WatchOptions};
use sealane_config::{Reader, Snapshot};
use sealane_test_kubernetes::{ControlPlane, Options, Unavailable};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

const GROUP: &str = "gateway.networking.k8s.io";

/// What has to come true comes true within this, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(30);

/// Kind, resource name, version, and whether it lives in namespaces.
const KINDS: [(&str, &str, &str, bool); 5] = [
    ("GatewayClass", "gatewayclasses", "v1", false),
    ("Gateway", "gateways", "v1", true),
    ("HTTPRoute", "httproutes", "v1", true),
    ("GRPCRoute", "grpcroutes", "v1", true),
    ("ReferenceGrant", "referencegrants", "v1beta1", true),
];

fn definition((kind, plural, version, namespaced): (&str, &str, &str, bool)) -> Value {
    let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    json!({
        "metadata": {
            "name": format!("{plural}.{GROUP}"),
            // Without this the API server takes no definition in a group of Kubernetes' own.
            "annotations": {"api-approved.kubernetes.io": "unapproved, for a test"},
        },
        "spec": {
            "group": GROUP,
            "names": {"kind": kind, "plural": plural, "singular": kind.to_lowercase()},
            "scope": if namespaced { "Namespaced" } else { "Cluster" },
            "versions": [{"name": version, "served": true, "storage": true,
                "subresources": {"status": {}}, "schema": {"openAPIV3Schema": schema}}],
        },
    })
}

async fn install(client: &Client) {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for kind in KINDS {
        let definition = serde_json::from_value(definition(kind)).unwrap();
        api.create(&PostParams::default(), &definition)
            .await
            .unwrap();
    }
}

async fn remove(client: &Client) {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for (_, plural, ..) in KINDS {
        let name = format!("{plural}.{GROUP}");
        api.delete(&name, &DeleteParams::default()).await.unwrap();
    }
    for (_, plural, ..) in KINDS {
        let name = format!("{plural}.{GROUP}");
        let start = Instant::now();
        while api.get_opt(&name).await.unwrap().is_some() {
            assert!(start.elapsed() < PATIENCE, "{name} does not go");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Creates an object as soon as its kind is served.
async fn create(client: &Client, version: &str, kind: &str, mut object: Value) {
    object["apiVersion"] = json!(version);
    object["kind"] = json!(kind);
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    let api: Api<DynamicObject> = match kind {
        "GatewayClass" => Api::all_with(client.clone(), &resource),
        _ => Api::default_namespaced_with(client.clone(), &resource),
    };
    let object: DynamicObject = serde_json::from_value(object).unwrap();
    let start = Instant::now();
    while let Err(error) = api.create(&PostParams::default(), &object).await {
        assert!(start.elapsed() < PATIENCE, "{kind}: {error}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn create_route(client: &Client) {
    let v1 = format!("{GROUP}/v1");
    let class =
        json!({"metadata": {"name": "ours"}, "spec": {"controllerName": "sealane.dev/gateway"}});
    create(client, &v1, "GatewayClass", class).await;
    let gateway = json!({"metadata": {"name": "edge"}, "spec": {"gatewayClassName": "ours",
        "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}]}});
    create(client, &v1, "Gateway", gateway).await;
    let route = json!({"metadata": {"name": "it"}, "spec": {
        "parentRefs": [{"name": "edge"}], "hostnames": ["shop.test"],
        "rules": [{"backendRefs": [{"name": "web", "port": 80}]}]}});
    create(client, &v1, "HTTPRoute", route).await;
    let bad = json!({"metadata": {"name": "bad"}, "spec": {
        "parentRefs": [{"name": "edge"}, {"name": "edge", "sectionName": "none"}],
        "hostnames": ["bad.test"],
        "rules": [{"backendRefs": [{"name": "missing", "port": 80}]}]}});
    create(client, &v1, "HTTPRoute", bad).await;
}

/// Waits until objects say what became of them.
async fn until_conditions(client: &Client) {
    let accepted = "/status/conditions/0";
    let route = "/status/parents/0/conditions";
    let cases = [
        (
            "GatewayClass",
            "ours",
            format!("{accepted}/type"),
            "Accepted",
        ),
        ("GatewayClass", "ours", format!("{accepted}/status"), "True"),
        (
            "Gateway",
            "edge",
            "/status/conditions/1/type".to_owned(),
            "Programmed",
        ),
        (
            "Gateway",
            "edge",
            "/status/addresses/0/value".to_owned(),
            "203.0.113.1",
        ),
        (
            "HTTPRoute",
            "it",
            "/status/parents/0/parentRef/name".to_owned(),
            "edge",
        ),
        ("HTTPRoute", "bad", format!("{route}/0/status"), "True"),
        ("HTTPRoute", "bad", format!("{route}/1/status"), "False"),
        (
            "HTTPRoute",
            "bad",
            format!("{route}/1/reason"),
            "BackendNotFound",
        ),
        (
            "HTTPRoute",
            "bad",
            "/status/parents/1/conditions/0/reason".to_owned(),
            "NoMatchingParent",
        ),
        ("HTTPRoute", "it", format!("{route}/0/status"), "True"),
        (
            "HTTPRoute",
            "it",
            format!("{route}/1/reason"),
            "ResolvedRefs",
        ),
    ];
    for (kind, name, pointer, expected) in cases {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(GROUP, "v1", kind));
        let api: Api<DynamicObject> = match kind {
            "GatewayClass" => Api::all_with(client.clone(), &resource),
            _ => Api::default_namespaced_with(client.clone(), &resource),
        };
        let start = Instant::now();
        loop {
            let object = api.get(name).await.unwrap();
            if object.data.pointer(&pointer).and_then(Value::as_str) == Some(expected) {
                break;
            }
            assert!(start.elapsed() < PATIENCE, "{kind} {pointer}: {object:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

async fn until(what: &str, reader: &mut Reader, wanted: impl Fn(&Snapshot) -> bool) -> Duration {
    let start = Instant::now();
    while !wanted(&reader.load()) {
        let left = PATIENCE.saturating_sub(start.elapsed());
        let changed = tokio::time::timeout(left, reader.changed()).await;
        assert!(changed.is_ok(), "{what}");
    }
    start.elapsed()
}

fn is_routed(snapshot: &Snapshot) -> bool {
    let host = snapshot.routes.host("shop.test");
    host.is_some_and(|host| host.rules.iter().all(|rule| rule.invalid.is_none()))
}

#[tokio::test(flavor = "multi_thread")]
async fn gateway_api_comes_and_goes_with_its_definitions() {
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
            return;
        }
    };
    let client = plane.client();
    let (publisher, mut reader) = snapshot::channel();
    let shutdown = CancellationToken::new();
    let watching = watch::run(
        client.clone(),
        publisher,
        WatchOptions::default(),
        shutdown.clone(),
    );
    let watching = tokio::spawn(watching);
    let options = ReportOptions {
        lease: LeaseOptions::new("default", "gateway", "a"),
        publish: Publish::Addresses(vec![PublishedAddress::Ip([203, 0, 113, 1].into())]),
    };
    let reporting = report::run(client.clone(), reader.clone(), options, shutdown.clone());
    let reporting = tokio::spawn(reporting);
    until("synced without the kinds", &mut reader, |snapshot| {
        snapshot.synced
    })
    .await;
    let service = json!({"metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}]}});
    create(&client, "v1", "Service", service).await;

    for round in ["first", "second"] {
        install(&client).await;
        create_route(&client).await;
        let took = until(round, &mut reader, is_routed).await;
        eprintln!("{round}: served {took:?} after it was written");
        until_conditions(&client).await;
        remove(&client).await;
        let took = until(round, &mut reader, |s| s.routes.host("shop.test").is_none()).await;
        eprintln!("{round}: gone {took:?} after its definition");
        // Everything else goes on.
        let name = format!("{round}-web");
        let service = json!({"metadata": {"name": name}, "spec": {"ports": [{"port": 80}]}});
        create(&client, "v1", "Service", service).await;
        let is_there = |snapshot: &Snapshot| {
            let mut names = snapshot.services.keys().map(|key| &*key.name);
            names.any(|found| found == name)
        };
        until("another Service", &mut reader, is_there).await;
    }
    let start = Instant::now();
    let is_watched = |reader: &Reader| {
        reader
            .staleness()
            .ages()
            .iter()
            .any(|(kind, _)| *kind == "HTTPRoute")
    };
    while is_watched(&reader) {
        assert!(start.elapsed() < PATIENCE, "still watched");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    shutdown.cancel();
    watching.await.unwrap();
    reporting.await.unwrap();
}
