//! Ends and beginnings: shutdown, a second start over the same objects, an API that is down at first.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Method, Uri};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus};
use k8s_openapi::api::core::v1::{ConfigMap, Endpoints, Pod, Service, ServiceAccount};
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::faults::{Fate, Faulty};
use super::support::{Cluster, eventually};
use super::workloads::{deployment, is_rolled_out, service, status};
use crate::controllers::{Options, run, withdraw_endpoints};
use crate::runtime::withdraw_readiness;

#[tokio::test]
async fn a_second_start_over_finished_work_writes_nothing() {
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

/// What an earlier run of the cluster left says that its pods are ready, of which none runs any more.
#[tokio::test]
async fn after_a_restart_nothing_is_ready_until_it_runs() {
    let cluster = Cluster::start().await;
    cluster.create::<Service>(service()).await;
    cluster.create::<Deployment>(deployment(3)).await;
    eventually(
        "ready",
        |all: &Vec<String>| all.len() == 3,
        || cluster.ready_addresses("web"),
    )
    .await;
    let pods = cluster.pods().await;
    let names = |pods: &[Pod]| pods.iter().map(ResourceExt::name_any).collect::<Vec<_>>();
    let ready = async || {
        let condition = |pod: &&Pod| {
            let conditions = pod.status.as_ref()?.conditions.as_ref()?;
            let ready = conditions.iter().find(|it| it.type_ == "Ready")?;
            Some(ready.status == "True")
        };
        let pods = cluster.pods().await;
        pods.iter()
            .filter(|pod| condition(pod) == Some(true))
            .count()
    };
    cluster.stop().await;
    withdraw_readiness(&cluster.client, "another")
        .await
        .unwrap();
    withdraw_endpoints(&cluster.client, "another")
        .await
        .unwrap();
    assert_eq!(
        (ready().await, cluster.ready_addresses("web").await.len()),
        (3, 3)
    );
    withdraw_readiness(&cluster.client, "node").await.unwrap();
    withdraw_endpoints(&cluster.client, "node").await.unwrap();
    assert_eq!(
        (ready().await, cluster.ready_addresses("web").await.len()),
        (0, 0)
    );

    // One that runs again is the only one.
    let shutdown = CancellationToken::new();
    let options = Options {
        root_ca_pem: "PEM".to_owned(),
    };
    let running = tokio::spawn(run(cluster.client.clone(), options, shutdown.clone()));
    let name = &names(&pods)[1];
    let status = json!({ "status": { "conditions": [{ "type": "Ready", "status": "True" }] } });
    let (params, patch) = (PatchParams::default(), Patch::Merge(status));
    let api = cluster.api::<Pod>();
    api.patch_status(name, &params, &patch).await.unwrap();
    let addresses = eventually(
        "one is ready",
        |all: &Vec<String>| !all.is_empty(),
        || cluster.ready_addresses("web"),
    )
    .await;
    let status = pods[1].status.as_ref().unwrap();
    assert_eq!(addresses, [status.pod_ip.clone().unwrap()]);
    assert_eq!(
        names(&cluster.pods().await),
        names(&pods),
        "they are the same"
    );
    shutdown.cancel();
    running.await.unwrap();
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
