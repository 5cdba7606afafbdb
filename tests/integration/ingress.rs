//! The table of hosts and paths, from kubectl to the pod that answers, in both modes and under both
//! control planes.

use http::StatusCode;
use serde_json::json;

use crate::support::cluster::Options;
use crate::support::http::{Answer, get};
use crate::support::{eventually, has};
use crate::table::{self, End, SERVICES};

/// A Deployment and its Service.
fn backend(name: &str) -> [serde_json::Value; 2] {
    let labels = json!({"app": name});
    let probe = json!({"httpGet": {"path": "/readyz", "port": 8000}, "periodSeconds": 1});
    let container = json!({"name": "echo", "image": "sealane/echo:v1", "readinessProbe": probe,
        "ports": [{"containerPort": 8000}]});
    [
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
            "spec": {
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
            },
        }),
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
            "spec": {"selector": labels, "ports": [{"port": 80, "targetPort": 8000}]},
        }),
    ]
}

/// Both classes, in manifests of one document each.
fn classes() -> [serde_json::Value; 2] {
    let class = |name: &str, controller: &str| {
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "IngressClass",
            "metadata": {"name": name}, "spec": {"controller": controller},
        })
    };
    [
        class("strict", "sealane.dev/ingress"),
        class("compat", "k8s.io/ingress-nginx"),
    ]
}

/// Which backend answered, or what else.
fn end(answer: &Answer) -> (u16, String, String) {
    let location = answer.headers.get("location");
    let location = location.and_then(|value| value.to_str().ok());
    let pod = match answer.status {
        StatusCode::OK => answer.pod(),
        _ => String::new(),
    };
    let name = pod.split('-').next().unwrap_or_default().to_owned();
    let location = location.unwrap_or_default().to_owned();
    (answer.status.as_u16(), location, name)
}

#[tokio::test(flavor = "multi_thread")]
async fn ingress_i4_kubectl_and_the_table_of_hosts_and_paths() {
    if !has("kubectl") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("objects.json");
    let write = |items: Vec<serde_json::Value>| {
        let documents: Vec<String> = items.iter().map(ToString::to_string).collect();
        std::fs::write(&file, documents.join("\n")).unwrap();
    };
    let cluster = Options::default()
        .args(&["--ingress-class-controller", "sealane.dev/ingress"])
        .args(&["--ingress-class-controller", "k8s.io/ingress-nginx"])
        .start()
        .await;
    let path = file.to_str().unwrap();
    write(
        SERVICES
            .iter()
            .flat_map(|name| backend(name))
            .chain(classes())
            .collect(),
    );
    cluster.kubectl_output(&["apply", "-f", path]);
    let (written, cases) = table::read();
    for class in ["strict", "compat"] {
        write(
            written
                .iter()
                .map(|ingress| ingress.object(class))
                .collect(),
        );
        cluster.kubectl_output(&["apply", "-f", path]);
        for case in &cases {
            let wanted = match class {
                "strict" => case.strict,
                _ => case.compat,
            };
            eventually(&format!("{class}: {case}"), async || {
                let answer = get(cluster.http(), case.host, case.path).await?;
                let (status, location, backend) = end(&answer);
                // Pods may not be ready yet.
                let found = End::of(status, &location, &backend);
                let shown = format!("{found:?} is not {wanted:?}: {answer:?}");
                (found == Some(wanted)).then_some(()).ok_or(shown)
            })
            .await;
        }
    }
}
