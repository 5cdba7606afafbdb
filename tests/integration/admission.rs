//! What it costs to have Ingresses accepted, and how those that are bad are told of.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::networking::v1::Ingress;
use kube::api::PostParams;
use kube::{Api, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::support::mode::{Kubernetes, Mode};
use crate::support::{eventually, output, root};

const COUNT: usize = 1_000;

/// Every so many Ingresses have a snippet, which is refused.
const BAD: usize = 100;

/// What an API server may be slower at for a moment, on a machine that does other things as well.
const LEEWAY: Duration = Duration::from_secs(10);

fn config_map(number: usize) -> Value {
    let data = json!({"host": format!("of-{number}.test"), "path": "/", "service": "shop"});
    json!({"metadata": {"name": format!("map-{number}")}, "data": data})
}

fn ingress(number: usize) -> Value {
    let annotations = if number.is_multiple_of(BAD) {
        json!({"nginx.ingress.kubernetes.io/server-snippet": "deny all;"})
    } else {
        json!({})
    };
    let backend = json!({"service": {"name": "shop", "port": {"name": "http"}}});
    let path = json!({"path": "/", "pathType": "Prefix", "backend": backend});
    json!({
        "metadata": {"name": name(number), "annotations": annotations},
        "spec": {"ingressClassName": "sealane",
            "rules": [{"host": format!("of-{number}.test"), "http": {"paths": [path]}}]},
    })
}

/// The Service that all of them lead to, with an endpoint.
fn service() -> [Value; 2] {
    [
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "shop", "namespace": "default"},
            "spec": {"ports": [{"name": "http", "port": 80}]},
        }),
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "name": "shop-1", "namespace": "default",
                "labels": {"kubernetes.io/service-name": "shop"},
            },
            "addressType": "IPv4",
            "endpoints": [{"addresses": ["10.244.0.9"], "conditions": {"ready": true}}],
            "ports": [{"name": "http", "port": 80, "protocol": "TCP"}],
        }),
    ]
}

fn name(number: usize) -> String {
    format!("ingress-{number}")
}

/// How long it takes to create all of a kind, one after the other.
async fn created<T>(api: Api<T>, object: impl Fn(usize) -> Value) -> Duration
where
    T: Resource + Clone + std::fmt::Debug + Serialize + DeserializeOwned,
{
    let begin = Instant::now();
    for number in 0..COUNT {
        let object = serde_json::from_value(object(number)).unwrap();
        api.create(&PostParams::default(), &object).await.unwrap();
    }
    begin.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn ingress_u3_nothing_stands_between_a_deploy_and_the_api_and_bad_ones_are_told_of() {
    let Some(kubernetes) = Kubernetes::start().await else {
        return;
    };
    // Everything that there is to install.
    for mode in ["node", "dns"] {
        kubernetes.deploy(mode).await;
    }
    let account = kubernetes.deploy("gateway").await;
    let args = [
        &["gateway", "--http", "127.0.0.1:0", "--https", "127.0.0.1:0"][..],
        &[
            "--lease",
            "sealane/sealane-gateway",
            "--publish-address",
            "192.0.2.7",
        ],
    ];
    let gateway = Mode::start(None, &account, &args.concat());
    gateway.ready(None).await;
    for hook in ["validating", "mutating"] {
        let hooks = ["get", &format!("{hook}webhookconfigurations"), "-o", "name"];
        assert_eq!(output(&mut kubernetes.kubectl(&hooks)), "");
    }
    for file in std::fs::read_dir(root().join("deploy")).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        assert!(!text.contains("WebhookConfiguration"), "{text}");
    }

    kubernetes.apply(&service());
    let client = || kubernetes.plane.client();
    let maps: Api<ConfigMap> = Api::default_namespaced(client());
    let ingresses: Api<Ingress> = Api::default_namespaced(client());
    let base = created(maps, config_map).await;
    let took = created(ingresses, ingress).await;
    eprintln!("{COUNT} ConfigMaps {base:?}, {COUNT} Ingresses {took:?}");
    assert!(took < 3 * base + LEEWAY, "{took:?}, ConfigMaps {base:?}");

    let bad: BTreeSet<String> = (0..COUNT).step_by(BAD).map(name).collect();
    eventually("bad ones are told of", async || {
        let path =
            "jsonpath={range .items[?(@.type=='Warning')]}{.regarding.name} {.note}{'\\n'}{end}";
        let events = ["get", "events.events.k8s.io", "-n", "default", "-o", path];
        let events = output(&mut kubernetes.kubectl(&events));
        let about = events
            .lines()
            .filter(|line| line.contains("server-snippet"));
        let told: BTreeSet<String> = about
            .filter_map(|line| line.split(' ').next().map(str::to_owned))
            .collect();
        (told == bad).then_some(()).ok_or(events)
    })
    .await;
}
