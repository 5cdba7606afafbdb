//! Ends and beginnings: shutdown, a second start over the same objects, an API that is down at first.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Method, Uri};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus};
use k8s_openapi::api::core::v1::{ConfigMap, Endpoints, Service, ServiceAccount};
use kube::Api;
use kube::api::ListParams;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::faults::{Fate, Faulty};
use super::support::{Cluster, eventually};
use super::workloads::{deployment, is_rolled_out, service, status};
use crate::controllers::{Options, run};

#[tokio::test]
async fn cluster_w1_a_second_start_over_finished_work_writes_nothing() {
    let cluster = Cluster::start().await;
    cluster.create::<Service>(service()).await;
    cluster.create::<Deployment>(deployment(3)).await;
    let three = |status: &DeploymentStatus| is_rolled_out(status, 3);
    eventually("rolled out", three, || status(&cluster)).await;
    let addresses = |addresses: &Vec<String>| addresses.len() == 3;
    eventually("three addresses", addresses, || {
        cluster.ready_addresses("web")
    })
    .await;
    let endpoints = |endpoints: &Option<Endpoints>| {
        let subsets = endpoints
            .iter()
            .flat_map(|all| all.subsets.iter().flatten());
        subsets
            .flat_map(|subset| subset.addresses.iter().flatten())
            .count()
            == 3
    };
    eventually("Endpoints", endpoints, || async {
        cluster.api::<Endpoints>().get_opt("web").await.unwrap()
    })
    .await;
    let everywhere: Api<ConfigMap> = Api::all(cluster.client.clone());
    eventually(
        "root certificates",
        |maps: &usize| *maps == 4,
        || async {
            everywhere
                .list(&ListParams::default())
                .await
                .unwrap()
                .items
                .len()
        },
    )
    .await;
    let accounts: Api<ServiceAccount> = Api::all(cluster.client.clone());
    eventually(
        "accounts",
        |accounts: &usize| *accounts == 4,
        || async {
            accounts
                .list(&ListParams::default())
                .await
                .unwrap()
                .items
                .len()
        },
    )
    .await;
    cluster.stop().await;

    let writes = Arc::new(Mutex::new(Vec::new()));
    let log = writes.clone();
    let decide = move |method: &Method, uri: &Uri| {
        if method != Method::GET && !uri.path().contains("marker") {
            log.lock().unwrap().push(format!("{method} {uri}"));
        }
        Fate::Pass
    };
    let client = Faulty::client(&cluster.server, Arc::new(decide));
    let shutdown = CancellationToken::new();
    let options = Options {
        root_ca_pem: "PEM".to_owned(),
    };
    let running = tokio::spawn(run(client, options, shutdown.clone()));
    // What is provided for a new namespace comes after everything that was there.
    cluster.add_namespace("marker").await;
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), "marker");
    eventually("the marker", Option::is_some, || async {
        maps.get_opt("kube-root-ca.crt").await.unwrap()
    })
    .await;
    cluster
        .patch::<Deployment>("web", json!({ "metadata": { "labels": { "l": "v" } } }))
        .await;
    let web = || async { cluster.api::<Deployment>().get("web").await.unwrap() };
    let before = web().await.metadata.resource_version;
    cluster
        .create::<Service>(json!({
            "metadata": { "name": "marker" },
            "spec": { "selector": { "app": "web" }, "ports": [{ "port": 1 }] },
        }))
        .await;
    eventually("slices again", addresses, || {
        cluster.ready_addresses("marker")
    })
    .await;
    assert_eq!(
        web().await.metadata.resource_version,
        before,
        "a label changes no status"
    );
    let writes = writes.lock().unwrap().clone();
    // The marker service itself costs a slice and an Endpoints object.
    let expected = |path: &String| {
        path.starts_with("POST /apis/discovery.k8s.io/v1/namespaces/default/endpointslices")
            || path.starts_with("POST /api/v1/namespaces/default/endpoints")
    };
    assert_eq!(
        writes.iter().filter(|path| expected(path)).count(),
        2,
        "{writes:?}"
    );
    assert_eq!(writes.len(), 2, "{writes:?}");

    shutdown.cancel();
    let ended = tokio::time::timeout(Duration::from_secs(5), running).await;
    assert!(
        ended.is_ok_and(|ended| ended.is_ok()),
        "the controllers end when they are told"
    );
}

#[tokio::test]
async fn the_controllers_wait_for_an_api_that_is_down_at_first() {
    let requests = AtomicUsize::new(0);
    let decide = move |_: &Method, _: &Uri| {
        if requests.fetch_add(1, Ordering::Relaxed) < 15 {
            Fate::Refuse(503, "ServiceUnavailable", "not yet")
        } else {
            Fate::Pass
        }
    };
    let cluster = Cluster::with(|server| Faulty::client(server, Arc::new(decide))).await;
    cluster.add_agent().await;
    cluster.create::<Deployment>(deployment(2)).await;
    let two = |status: &DeploymentStatus| is_rolled_out(status, 2);
    eventually("rolled out", two, || status(&cluster)).await;
}
