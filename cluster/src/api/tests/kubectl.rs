//! kubectl against the server. Without kubectl the tests are skipped, unless
//! `SEALANE_TEST_REQUIRE` says that nothing may be.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::streams::Listening;
use super::support::*;

const APPLICATION: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: web, namespace: shop}
data: {greeting: hello}
---
apiVersion: v1
kind: Secret
metadata: {name: web, namespace: shop}
stringData: {password: s3cret}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop, labels: {app: web}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: srv
        image: shop/web:1
        ports: [{containerPort: 8000, name: http}]
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec:
  selector: {app: web}
  ports: [{port: 80, targetPort: http}]
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web, namespace: shop}
spec:
  rules:
  - host: shop.test
    http:
      paths:
      - {path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: web, namespace: shop}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}
  maxReplicas: 4
"#;

/// Whether kubectl is there; panics if it must be.
async fn available() -> bool {
    let found = Command::new("kubectl")
        .args(["version", "--client"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .await
        .is_ok_and(|status| status.success());
    let required = std::env::var("SEALANE_TEST_REQUIRE").is_ok_and(|value| value == "all");
    assert!(
        found || !required,
        "kubectl is required and not on the PATH"
    );
    found
}

/// Runs kubectl; gives whether it succeeded and all it printed.
async fn kubectl(listening: &Listening, arguments: &[&str], input: &str) -> (bool, String) {
    let mut child = Command::new("kubectl")
        .args(arguments)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", listening.directory.path())
        .env("KUBECONFIG", listening.kubeconfig())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("kubectl starts");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(input.as_bytes()).await.expect("written");
    drop(stdin);
    let output = tokio::time::timeout(Duration::from_secs(60), child.wait_with_output());
    let output = output.await.expect("in time").expect("it ran");
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

/// Runs kubectl, expects success and each of `parts` in what it printed.
async fn expect(listening: &Listening, command: &str, input: &str, parts: &[&str]) -> String {
    let arguments: Vec<&str> = command.split(' ').collect();
    let (success, text) = kubectl(listening, &arguments, input).await;
    assert!(success, "kubectl {command}: {text}");
    for part in parts {
        assert!(
            text.contains(part),
            "kubectl {command} lacks {part:?}: {text}"
        );
    }
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cluster_c2_c3_kubectl_applies_an_application() {
    if !available().await {
        eprintln!("skipped: kubectl is not on the PATH");
        return;
    }
    let listening = Listening::start().await;
    expect(
        &listening,
        "apply -f -",
        APPLICATION,
        &[
            "namespace/shop created",
            "configmap/web created",
            "secret/web created",
            "deployment.apps/web created",
            "service/web created",
            "ingress.networking.k8s.io/web created",
            "horizontalpodautoscaler.autoscaling/web created",
        ],
    )
    .await;
    expect(
        &listening,
        "apply -f -",
        APPLICATION,
        &[
            "namespace/shop unchanged",
            "configmap/web unchanged",
            "deployment.apps/web unchanged",
            "service/web unchanged",
            "ingress.networking.k8s.io/web unchanged",
            "horizontalpodautoscaler.autoscaling/web unchanged",
        ],
    )
    .await;
    let changed = APPLICATION.replace("shop/web:1", "shop/web:2");
    expect(
        &listening,
        "apply -f -",
        &changed,
        &["deployment.apps/web configured"],
    )
    .await;
    expect(
        &listening,
        "apply --server-side --force-conflicts -f -",
        APPLICATION,
        &["deployment.apps/web serverside-applied"],
    )
    .await;
    expect(&listening, "diff -f -", APPLICATION, &[]).await;
    let unknown = APPLICATION.replace("replicas: 2", "replicsa: 2");
    let (success, text) = kubectl(&listening, &["apply", "-f", "-"], &unknown).await;
    assert!(
        !success && text.contains("unknown field \"spec.replicsa\""),
        "{text}"
    );
    listening.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cluster_c8_to_c19_kubectl_shows_and_changes() {
    if !available().await {
        eprintln!("skipped: kubectl is not on the PATH");
        return;
    }
    let listening = Listening::start().await;
    let run = async |command: &str, parts: &[&str]| expect(&listening, command, "", parts).await;
    expect(&listening, "apply -f -", APPLICATION, &[]).await;
    run(
        "get deploy,svc,ing,hpa,cm -n shop",
        &[
            "NAME",
            "deployment.apps/web",
            "0/2",
            "service/web",
            "ClusterIP",
            "shop.test",
            "configmap/web",
        ],
    )
    .await;
    run(
        "get all -n shop -o wide",
        &["deployment.apps/web", "shop/web:1", "app=web"],
    )
    .await;
    run(
        "get svc web -n shop -o jsonpath={.spec.ports[0].targetPort}",
        &["http"],
    )
    .await;
    run(
        "get deploy web -n shop -o yaml",
        &[
            "imagePullPolicy: IfNotPresent",
            "progressDeadlineSeconds: 600",
        ],
    )
    .await;
    run(
        "get horizontalpodautoscalers.v1.autoscaling web -n shop -o yaml",
        &[
            "apiVersion: autoscaling/v1",
            "targetCPUUtilizationPercentage: 80",
        ],
    )
    .await;
    run(
        "create configmap made --from-literal=a=b",
        &["configmap/made created"],
    )
    .await;
    run(
        "create deployment made --image=x:1 --replicas=3",
        &["deployment.apps/made created"],
    )
    .await;
    run(
        "create secret generic made --from-literal=a=b",
        &["secret/made created"],
    )
    .await;
    run(
        "create ingress made --rule=h/*=web:80",
        &["ingress.networking.k8s.io/made created"],
    )
    .await;
    run("run made --image=x:1", &["pod/made created"]).await;
    run(
        "expose deployment made --port=80",
        &["service/made exposed"],
    )
    .await;
    run(
        "scale deployment made --replicas=5",
        &["deployment.apps/made scaled"],
    )
    .await;
    run(
        "autoscale deployment made --max=3",
        &["horizontalpodautoscaler.autoscaling/made autoscaled"],
    )
    .await;
    run(
        "set image deployment/made x=x:2",
        &["deployment.apps/made image updated"],
    )
    .await;
    run("label configmap made l=1", &["configmap/made labeled"]).await;
    run("annotate configmap made n=1", &["configmap/made annotated"]).await;
    run(
        "patch configmap made -p {\"data\":{\"c\":\"d\"}}",
        &["configmap/made patched"],
    )
    .await;
    run(
        "get configmap made -o jsonpath={.data}",
        &["{\"a\":\"b\",\"c\":\"d\"}"],
    )
    .await;
    run(
        "rollout restart deployment made",
        &["deployment.apps/made restarted"],
    )
    .await;
    run(
        "rollout pause deployment made",
        &["deployment.apps/made paused"],
    )
    .await;
    run("describe deployment made", &["Replicas:", "5 desired"]).await;
    run("describe svc web -n shop", &["Endpoints:", "TargetPort:"]).await;
    run("describe ingress web -n shop", &["shop.test"]).await;
    run("describe pod made", &["Status:", "Pending"]).await;
    run("describe ns shop", &["Active"]).await;
    run("events -n shop", &["No events"]).await;
    run("logs made", &["made None", "second"]).await;
    run("auth can-i create pods", &["yes"]).await;
    run(
        "api-resources",
        &["deployments", "po ", "horizontalpodautoscalers"],
    )
    .await;
    run("version", &["Server Version: v1.34"]).await;
    run("cluster-info", &["running at"]).await;
    run("get --raw /readyz", &["ok"]).await;
    run(
        "wait --for=jsonpath={.status.phase}=Pending pod/made --timeout=10s",
        &["condition met"],
    )
    .await;
    run("delete pod made", &["pod \"made\" deleted"]).await;
    run(
        "delete deploy,svc,cm,secret,ing,hpa made",
        &["deployment.apps \"made\" deleted"],
    )
    .await;
    run("delete cm --all -n shop", &["configmap \"web\" deleted"]).await;
    listening.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cluster_c13_kubectl_execs_over_websocket() {
    if !available().await {
        eprintln!("skipped: kubectl is not on the PATH");
        return;
    }
    let listening = Listening::start().await;
    let mut object = pod("p");
    object["spec"]["nodeName"] = "n".into();
    post(&listening.server, PODS, object).await;
    let status = serde_json::json!({"status": {"phase": "Running"}});
    merge(&listening.server, &format!("{PODS}/p/status"), status).await;
    expect(&listening, "exec -i p -- cat", "input\n", &["input"]).await;
    let (success, text) = kubectl(&listening, &["exec", "p", "--", "fail"], "").await;
    assert!(!success);
    for part in ["out\n", "err\n", "command terminated with exit code 7"] {
        assert!(text.contains(part), "{text}");
    }
    listening.stop().await;
}
