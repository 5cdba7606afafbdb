//! Unmodified kubectl, and the output that people know.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use crate::support::cluster::{Cluster, Options};
use crate::support::{eventually, has};

#[tokio::test(flavor = "multi_thread")]
async fn cluster_c16_the_everyday_commands_work_with_their_usual_output() {
    if !has("kubectl") {
        return;
    }
    let cluster = Options::default().start().await;
    let applied = cluster.kubectl_output(&["apply", "-f", "examples/shop"]);
    for line in [
        "deployment.apps/api created",
        "service/api created",
        "service/api-nodeport created",
        "horizontalpodautoscaler.autoscaling/api created",
        "configmap/api-config created",
        "secret/api-secret created",
        "ingress.networking.k8s.io/shop created",
    ] {
        assert!(applied.contains(line), "{applied}");
    }
    let rolled_out =
        cluster.kubectl_output(&["rollout", "status", "deployment/api", "--timeout=60s"]);
    assert!(
        rolled_out.contains("deployment \"api\" successfully rolled out"),
        "{rolled_out}"
    );
    cluster.kubectl_output(&["rollout", "status", "deployment/docs", "--timeout=60s"]);

    let again = cluster.kubectl_output(&["apply", "-f", "examples/shop"]);
    assert!(again.contains("deployment.apps/api unchanged"), "{again}");
    assert!(!again.contains("created"), "{again}");

    let wide = cluster.kubectl_output(&["get", "pods,deployments,services,ingress", "-o", "wide"]);
    for word in [
        "NOMINATED NODE",
        "READINESS GATES",
        "1/1     Running",
        "pod/api-",
        "deployment.apps/api",
        "3/3",
        "sealane/echo:1.0",
        "service/api-nodeport",
        "80:30080/TCP",
        "ExternalName",
        "payments.example.com",
        "ingress.networking.k8s.io/shop",
        "api.mycompany.com",
        "80, 443",
    ] {
        assert!(wide.contains(word), "{word:?} is missing:\n{wide}");
    }
    let all = cluster.kubectl_output(&["get", "all", "-l", "app=api"]);
    for word in [
        "pod/api-",
        "service/api",
        "deployment.apps/api",
        "replicaset.apps/api-",
        "horizontalpodautoscaler.autoscaling/api",
    ] {
        assert!(all.contains(word), "{word:?} is missing:\n{all}");
    }
    let pod = cluster.pods("app=api").remove(0);
    let described = cluster.kubectl_output(&["describe", "pod", &pod]);
    for word in [
        "Status:           Running",
        "Image:          sealane/echo:1.0",
        "Readiness:  http-get",
        "api-config  ConfigMap",
        "api-secret  Secret",
        "Scheduled",
        "Started",
    ] {
        assert!(
            described.contains(word),
            "{word:?} is missing:\n{described}"
        );
    }
    let ready = described
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    assert!(
        ready.into_iter().any(|words| words == ["Ready", "True"]),
        "{described}"
    );
    let logs = cluster.kubectl_output(&["logs", "-l", "app=api", "--tail", "5"]);
    assert!(logs.contains("listening"), "{logs}");

    let scaled = cluster.kubectl_output(&["scale", "deployment/api", "--replicas=4"]);
    assert_eq!(scaled.trim(), "deployment.apps/api scaled");
    let image = cluster.kubectl_output(&["set", "image", "deployment/api", "api=sealane/echo:2.0"]);
    assert_eq!(image.trim(), "deployment.apps/api image updated");
    cluster.kubectl_output(&["rollout", "status", "deployment/api", "--timeout=60s"]);
    let history = cluster.kubectl_output(&["rollout", "history", "deployment/api"]);
    assert!(
        history.contains("REVISION") && history.contains('2'),
        "{history}"
    );
    let undone = cluster.kubectl_output(&["rollout", "undo", "deployment/api"]);
    assert_eq!(undone.trim(), "deployment.apps/api rolled back");
    cluster.kubectl_output(&["rollout", "status", "deployment/api", "--timeout=60s"]);
    let deployment = cluster.get(&["deployment", "api"]);
    let image = &deployment["spec"]["template"]["spec"]["containers"][0]["image"];
    assert_eq!(image, "sealane/echo:1.0");

    let deleted = cluster.kubectl_output(&["delete", "deployment/docs", "service/docs"]);
    assert!(
        deleted.contains("deployment.apps \"docs\" deleted"),
        "{deleted}"
    );
    eventually("its pods go", async || {
        let left = cluster.pods("app=docs");
        if left.is_empty() {
            Ok(())
        } else {
            Err(format!("{left:?}"))
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cluster_c15_a_namespace_of_its_own_comes_and_goes() {
    if !has("kubectl") {
        return;
    }
    let cluster = Options::default().start().await;
    let created = cluster.kubectl_output(&["create", "namespace", "team"]);
    assert_eq!(created.trim(), "namespace/team created");
    cluster.kubectl_output(&["apply", "-n", "team", "-f", "examples/shop/docs.yaml"]);
    cluster.kubectl_output(&[
        "-n",
        "team",
        "rollout",
        "status",
        "deployment/docs",
        "--timeout=60s",
    ]);
    let pods = cluster.kubectl_output(&["get", "pods", "-n", "team", "--no-headers"]);
    assert_eq!(pods.lines().count(), 1, "{pods}");
    let deleted = cluster.kubectl_output(&["delete", "namespace", "team", "--timeout=60s"]);
    assert!(deleted.contains("namespace \"team\" deleted"), "{deleted}");
    let gone = cluster
        .kubectl(&["get", "namespace", "team"])
        .output()
        .unwrap();
    let message = String::from_utf8_lossy(&gone.stderr).into_owned();
    assert!(
        message.contains("namespaces \"team\" not found"),
        "{message}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn cluster_c1_objects_are_created_from_the_command_line() {
    if !has("kubectl") {
        return;
    }
    let cluster = Options::default().start().await;
    for (args, answer) in [
        (
            &["configmap", "extra", "--from-literal=a=1"][..],
            "configmap/extra created",
        ),
        (
            &["secret", "generic", "token", "--from-literal=t=x"],
            "secret/token created",
        ),
        (
            &["deployment", "web", "--image=sealane/echo:1"],
            "deployment.apps/web created",
        ),
        (
            &["service", "clusterip", "web", "--tcp=80:8000"],
            "service/web created",
        ),
        (
            &["ingress", "web", "--rule=web.example/*=web:80"],
            "ingress.networking.k8s.io/web created",
        ),
        (&["serviceaccount", "robot"], "serviceaccount/robot created"),
    ] {
        let args = [&["create"], args].concat();
        assert_eq!(cluster.kubectl_output(&args).trim(), answer);
    }
    assert_eq!(cluster.get(&["secret", "token"])["data"]["t"], "eA==");
    let again = cluster
        .kubectl(&["create", "configmap", "extra"])
        .output()
        .unwrap();
    let message = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(
        message.contains("configmaps \"extra\" already exists"),
        "{message}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn cluster_c9_get_with_watch_prints_changes_as_they_come() {
    if !has("kubectl") {
        return;
    }
    let cluster = Cluster::shop().await;
    let mut watching = cluster
        .kubectl(&["get", "deployment", "docs", "--watch"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watching.stdout.take().unwrap()).lines();
    let mut next = || lines.next().unwrap().unwrap();
    assert!(next().starts_with("NAME "), "the header comes once");
    assert!(next().contains("1/1"));
    cluster.kubectl_output(&["scale", "deployment/docs", "--replicas=2"]);
    let ready = std::iter::from_fn(|| Some(next()))
        .take(10)
        .find(|line| line.contains("2/2"));
    let _ = watching.kill();
    let _ = watching.wait();
    assert!(ready.is_some_and(|line| line.starts_with("docs ")));
}

#[tokio::test(flavor = "multi_thread")]
async fn cluster_c10_c11_get_all_and_describe_what_the_shop_has() {
    if !has("kubectl") {
        return;
    }
    let cluster = Cluster::shop().await;
    let described = cluster.kubectl_output(&["describe", "deployment", "api"]);
    for word in [
        "RollingUpdateStrategy:  0 max unavailable, 1 max surge",
        "3 desired | 3 updated | 3 total | 3 available | 0 unavailable",
        "NewReplicaSet:   api-",
        "ScalingReplicaSet",
    ] {
        assert!(
            described.contains(word),
            "{word:?} is missing:\n{described}"
        );
    }
    let described = cluster.kubectl_output(&["describe", "service", "api"]);
    for word in [
        "Selector:",
        "app=api",
        "TargetPort:",
        "8000/TCP",
        "Endpoints:",
    ] {
        assert!(
            described.contains(word),
            "{word:?} is missing:\n{described}"
        );
    }
    let described = cluster.kubectl_output(&["describe", "ingress", "shop"]);
    for word in [
        "api-tls terminates api.mycompany.com",
        "/api",
        "api:80 (10.244.",
        "/docs",
    ] {
        assert!(
            described.contains(word),
            "{word:?} is missing:\n{described}"
        );
    }
    let described = cluster.kubectl_output(&["describe", "node"]);
    for word in [
        "Ready",
        "InternalIP:  10.244.0.1",
        "Non-terminated Pods:",
        "api-",
    ] {
        assert!(
            described.contains(word),
            "{word:?} is missing:\n{described}"
        );
    }
    let all = cluster.kubectl_output(&["get", "all"]);
    for word in [
        "pod/docs-",
        "service/kubernetes",
        "deployment.apps/api",
        "replicaset.apps/api-",
    ] {
        assert!(all.contains(word), "{word:?} is missing:\n{all}");
    }
    let events = cluster.kubectl_output(&["get", "events"]);
    assert!(
        events.contains("Scheduled") && events.contains("Started"),
        "{events}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn cluster_c18_wait_ends_when_the_condition_holds() {
    if !has("kubectl") {
        return;
    }
    let cluster = Cluster::shop().await;
    let waited = cluster.kubectl_output(&[
        "wait",
        "--for=condition=Available",
        "deployment/api",
        "--timeout=20s",
    ]);
    assert_eq!(waited.trim(), "deployment.apps/api condition met");
    let deletion = cluster
        .kubectl(&["wait", "--for=delete", "deployment/docs", "--timeout=30s"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    cluster.kubectl_output(&["delete", "deployment", "docs"]);
    assert!(deletion.wait_with_output().unwrap().status.success());
    let late = cluster.kubectl(&[
        "wait",
        "--for=condition=Nothing",
        "deployment/api",
        "--timeout=1s",
    ]);
    let late = { late }.output().unwrap();
    assert!(String::from_utf8_lossy(&late.stderr).contains("timed out waiting for the condition"));
}
