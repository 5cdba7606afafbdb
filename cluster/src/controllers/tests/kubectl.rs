//! The rollout workflow of kubectl. Without kubectl the test is skipped, unless
//! `SEALANE_TEST_REQUIRE` says that nothing may be.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use super::support::Cluster;
use crate::api::credentials::Credentials;
use crate::api::{ApiOptions, ApiServer, Store, serve};

const DEPLOYMENT: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  progressDeadlineSeconds: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: c
        image: i:1
        ports: [{containerPort: 8000, name: http}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{port: 80, targetPort: http}]
"#;

/// Whether kubectl is there; panics if it must be.
fn is_available() -> bool {
    let found = std::process::Command::new("kubectl")
        .args(["version", "--client"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    let required = std::env::var("SEALANE_TEST_REQUIRE").is_ok_and(|all| all == "all");
    assert!(
        found || !required,
        "kubectl is required and not on the PATH"
    );
    found
}

struct Shell {
    kubeconfig: PathBuf,
    home: PathBuf,
}

impl Shell {
    /// Runs kubectl; gives whether it succeeded and all it printed.
    async fn run(&self, command: &str, input: &str) -> (bool, String) {
        let mut child = Command::new("kubectl")
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .args(command.split(' '))
            .env("HOME", &self.home)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input.as_bytes()).await.unwrap();
        drop(stdin);
        let output = tokio::time::timeout(Duration::from_secs(60), child.wait_with_output());
        let output = output.await.expect("kubectl ends").unwrap();
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        (output.status.success(), text)
    }

    /// Expects success and each of `parts`, separated by `|`, in what kubectl printed.
    async fn expect(&self, command: &str, parts: &str) {
        let (success, text) = self.run(command, "").await;
        assert!(success, "kubectl {command}: {text}");
        for part in parts.split('|') {
            assert!(
                text.contains(part),
                "kubectl {command}: no {part:?} in {text}"
            );
        }
    }
}

async fn listen(directory: &Path) -> (Cluster, Shell, CancellationToken) {
    let credentials = Credentials::load_or_create(directory, &[]).unwrap();
    let options = ApiOptions {
        token: Some(credentials.token().to_owned()),
        ..ApiOptions::default()
    };
    let server = ApiServer::new(Store::ephemeral(), options);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let kubeconfig = directory.join("kubeconfig");
    credentials.write_kubeconfig(&kubeconfig, &url).unwrap();
    let shutdown = CancellationToken::new();
    tokio::spawn(serve(
        listener,
        credentials.tls(),
        server.clone(),
        shutdown.clone(),
    ));
    let cluster = Cluster::over(&server, server.client()).await;
    cluster.add_agent().await;
    let shell = Shell {
        kubeconfig,
        home: directory.to_owned(),
    };
    (cluster, shell, shutdown)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cluster_c19_the_rollout_workflow_of_kubectl() {
    if !is_available() {
        eprintln!("skipped: kubectl is not on the PATH");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let (_cluster, kubectl, shutdown) = listen(directory.path()).await;
    let _guard = shutdown.drop_guard();
    let (success, text) = kubectl.run("apply -f -", DEPLOYMENT).await;
    assert!(success, "{text}");
    let rolled_out = "successfully rolled out";
    kubectl
        .expect("rollout status deployment/web", rolled_out)
        .await;
    kubectl.expect("get deployment web", "3/3").await;
    kubectl.expect("get endpoints web", ":8000").await;
    kubectl
        .expect("set image deployment/web c=i:2", "image updated")
        .await;
    kubectl
        .expect("rollout status deployment/web", rolled_out)
        .await;
    let annotate = "annotate deployment/web kubernetes.io/change-cause=second";
    kubectl.expect(annotate, "annotated").await;
    kubectl
        .expect("rollout history deployment/web", "REVISION|1 |2 ")
        .await;
    kubectl
        .expect("rollout undo deployment/web", "rolled back")
        .await;
    kubectl
        .expect("rollout status deployment/web", rolled_out)
        .await;
    kubectl
        .expect("rollout history deployment/web", "2 |3 ")
        .await;
    kubectl
        .expect("get deployment web -o jsonpath={..image}", "i:1")
        .await;

    kubectl
        .expect("set image deployment/web c=broken", "image updated")
        .await;
    let (success, text) = kubectl.run("rollout status deployment/web", "").await;
    assert!(
        !success && text.contains("exceeded its progress deadline"),
        "{text}"
    );
    kubectl.expect("get deployment web", "3/3").await;
    kubectl
        .expect("rollout undo deployment/web", "rolled back")
        .await;
    kubectl
        .expect("rollout status deployment/web", rolled_out)
        .await;

    kubectl
        .expect("rollout pause deployment/web", "paused")
        .await;
    kubectl
        .expect("scale deployment/web --replicas=5", "scaled")
        .await;
    kubectl
        .expect("rollout resume deployment/web", "resumed")
        .await;
    kubectl
        .expect("rollout restart deployment/web", "restarted")
        .await;
    kubectl
        .expect("rollout status deployment/web", rolled_out)
        .await;
    kubectl
        .expect(
            "describe deployment web",
            "5 desired|5 updated|5 available|ScalingReplicaSet|NewReplicaSetAvailable",
        )
        .await;
    let delete = "delete deployment web --cascade=foreground --wait=true";
    kubectl.expect(delete, "deleted").await;
    kubectl
        .expect("get pods,replicasets", "No resources found")
        .await;
}
