//! Kinds that the API server begins and ceases to serve.

use std::time::Duration;

use sealane_config::watch::WatchOptions;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::plane;
use crate::world::{Operator, World};

/// The Gateway API's definition of HTTPRoute, as far as the API server needs it.
fn definition() -> Value {
    let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    json!({
        "metadata": {
            "name": "httproutes.gateway.networking.k8s.io",
            "annotations": {"api-approved.kubernetes.io": "https://github.com/kubernetes-sigs/gateway-api/pull/2997"},
        },
        "spec": {
            "group": "gateway.networking.k8s.io",
            "scope": "Namespaced",
            "names": {"kind": "HTTPRoute", "plural": "httproutes", "singular": "httproute"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}],
        },
    })
}

#[tokio::test]
async fn reliability_f30_a_kind_comes_and_goes() {
    let Some(plane) = plane::shared() else {
        return;
    };
    let operator = Operator::new(plane.admin().await, "kinds").await;
    let kubeconfig = plane.kubeconfig().to_owned();
    let mut world = World::synced(kubeconfig, WatchOptions::default()).await;
    for turn in 0..2 {
        let version = "apiextensions.k8s.io/v1";
        let kind = "CustomResourceDefinition";
        operator.create(version, kind, definition()).await;
        let name = format!("with-{turn}");
        operator.service(&name).await;
        world.until(&name, |s| operator.has(s, &name)).await;
        sleep(Duration::from_secs(3)).await;
        let crd = "httproutes.gateway.networking.k8s.io";
        operator.delete(version, kind, crd).await;
        let name = format!("without-{turn}");
        operator.service(&name).await;
        world.until(&name, |s| operator.has(s, &name)).await;
        sleep(Duration::from_secs(3)).await;
    }
    let loud = world.log.count(&["watch interrupted"]) + world.log.count(&["ERROR"]);
    assert_eq!(loud, 0, "{}", world.log.text());
    let relists = world.metric("sealane_config_relists_total{kind=\"Service\"}");
    assert_eq!(relists, Some(1.0), "others are not disturbed");
}
