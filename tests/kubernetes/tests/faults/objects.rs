//! Objects that the API server accepts and we cannot use.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sealane_config::model::ProblemKind;
use sealane_config::watch::WatchOptions;
use serde_json::{Value, json};

use crate::plane;
use crate::world::{Operator, World};

fn ingress(name: &str, host: &str, annotations: &Value, tls: &Value) -> Value {
    let backend = json!({"service": {"name": "web", "port": {"number": 80}}});
    let path = json!({"path": "/", "pathType": "Prefix", "backend": backend});
    json!({
        "metadata": {"name": name, "annotations": annotations},
        "spec": {
            "ingressClassName": "objects",
            "rules": [{"host": host, "http": {"paths": [path]}}],
            "tls": tls,
        },
    })
}

/// A Secret whose key belongs to another certificate: the API server looks at the form only.
fn mismatched() -> Value {
    let pair = || rcgen::generate_simple_self_signed(["bad.test".to_owned()]).expect("a pair");
    json!({
        "metadata": {"name": "mismatch"},
        "type": "kubernetes.io/tls",
        "data": {
            "tls.crt": STANDARD.encode(pair().cert.pem()),
            "tls.key": STANDARD.encode(pair().signing_key.serialize_pem()),
        },
    })
}

#[tokio::test]
async fn reliability_f30_valid_for_the_server_only() {
    let Some(plane) = plane::shared() else {
        return;
    };
    let operator = Operator::new(plane.admin().await, "objects").await;
    let class =
        json!({"metadata": {"name": "objects"}, "spec": {"controller": "sealane.dev/ingress"}});
    operator
        .create("networking.k8s.io/v1", "IngressClass", class)
        .await;
    let kubeconfig = plane.kubeconfig().to_owned();
    let mut world = World::synced(kubeconfig, WatchOptions::default()).await;
    operator.service("web").await;
    operator.slice("web", 8080, &["10.1.0.1"]).await;
    let sctp = json!([
        {"name": "sctp", "port": 81, "protocol": "SCTP"},
        {"name": "http", "port": 80, "targetPort": 8080},
    ]);
    let sctp = json!({"metadata": {"name": "sctp"}, "spec": {"ports": sctp}});
    operator.create("v1", "Service", sctp).await;
    operator.slice("sctp", 8080, &["10.1.0.2"]).await;
    operator.create("v1", "Secret", mismatched()).await;
    let bad = json!({"nginx.ingress.kubernetes.io/backend-protocol": "SMOKE"});
    let tls = json!([{"hosts": ["bad.test"], "secretName": "mismatch"}]);
    let objects = [
        ingress("bad", "bad.test", &bad, &tls),
        ingress("good", "good.test", &json!({}), &json!([])),
    ];
    for object in objects {
        operator
            .create("networking.k8s.io/v1", "Ingress", object)
            .await;
    }
    // The last one written: everything before it was seen.
    operator.service("last").await;
    world
        .until("all but what is bad", |s| {
            let of = |kind: ProblemKind, object: &str| {
                let is_it = |problem: &sealane_config::model::Problem| {
                    problem.kind == kind && &*problem.object.name == object
                };
                s.problems.iter().any(is_it)
            };
            operator.has(s, "last")
                && operator.targets(s, "web").len() == 1
                && operator.targets(s, "sctp").len() == 1
                && of(ProblemKind::BadAnnotation, "bad")
                && of(ProblemKind::BadCertificate, "bad")
        })
        .await;
    let snapshot = world.reader.load().clone();
    let named = |problem: &sealane_config::model::Problem| &*problem.object.name == "good";
    assert!(
        !snapshot.problems.iter().any(named),
        "{:?}",
        snapshot.problems
    );
    for host in ["good.test", "bad.test"] {
        assert!(snapshot.routes.host(host).is_some(), "{host} is served");
    }
    assert!(world.log.count(&["ERROR"]) == 0, "{}", world.log.text());
}
