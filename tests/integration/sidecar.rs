//! A workload with a sidecar, as `examples/sidecar` has it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use http::StatusCode;
use serde_json::{Value, json};

use crate::support::cluster::{Cluster, ControlPlane, Options};
use crate::support::http::get;
use crate::support::load::Load;
use crate::support::mode::{self, Kubernetes, Mode, NODE_IP, Node, Pod};
use crate::support::{eventually, has, output, root};

const HOST: &str = "hello.example.com";

/// The example, all ready.
async fn start() -> Option<Cluster> {
    if !has("kubectl") || !has("curl") {
        return None;
    }
    if ControlPlane::asked() == ControlPlane::Kubernetes {
        // The control plane of the tests says that it is at the node's address, where it is not.
        eprintln!("skipped: pods cannot reach the API server");
        return None;
    }
    let cluster = Options::default()
        .args(&["-f", "deploy/sidecar.yaml", "-f", "examples/sidecar"])
        .start()
        .await;
    cluster.assert_ready();
    Some(cluster)
}

/// What curl says in the application's container.
fn curl(cluster: &Cluster, pod: &str, args: &[&str]) -> String {
    let exec = [
        "exec",
        pod,
        "-c",
        "hello",
        "--",
        "curl",
        "-sS",
        "--max-time",
        "10",
    ];
    let args: Vec<&str> = exec.iter().chain(args).copied().collect();
    output(&mut cluster.kubectl(&args))
}

/// The value of the series with these labels in a sidecar's metrics; 0 if there is none.
fn metric(cluster: &Cluster, pod: &str, name: &str, labels: &[&str]) -> f64 {
    let text = curl(cluster, pod, &["http://127.0.0.1:9900/metrics"]);
    let mut lines = text.lines().filter(|line| line.starts_with(name));
    let line = lines.find(|line| labels.iter().all(|label| line.contains(label)));
    let value = line.and_then(|line| line.rsplit(' ').next()?.parse().ok());
    value.unwrap_or(0.0)
}

#[tokio::test(flavor = "multi_thread")]
async fn proxy_o8_a_native_sidecar_carries_its_pod_from_start_to_end() {
    let Some(cluster) = start().await else { return };
    let answer = get(cluster.http(), HOST, "/").await.unwrap();
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    traffic_from_the_pod(&cluster);
    jobs_end(&cluster).await;
    in_flight_requests_outlive_a_deletion(&cluster).await;
    a_rolling_restart_is_not_noticed(&cluster).await;
}

fn traffic_from_the_pod(cluster: &Cluster) {
    let pod = cluster.pods("app=hello").remove(0);
    let statuses = "sealane_requests_total";
    let outbound = ["service=\"hello\"", "code=\"2xx\""];
    let before = metric(cluster, &pod, statuses, &outbound);
    for _ in 0..4 {
        curl(cluster, &pod, &["--fail", "http://hello/"]);
    }
    assert!(metric(cluster, &pod, statuses, &outbound) >= before + 4.0);
    let inbound = ["traffic=\"inbound\"", "code=\"2xx\""];
    assert!(metric(cluster, &pod, statuses, &inbound) > 0.0);

    cluster.kubectl_output(&["create", "service", "clusterip", "nobody", "--tcp=80"]);
    let begun = Instant::now();
    let code = loop {
        let format = ["-o", "/dev/null", "-w", "%{http_code}", "http://nobody/"];
        let code = curl(cluster, &pod, &format);
        // The Service is new to the sidecar for a moment, and the name to its DNS.
        if code == "503" || begun.elapsed() > Duration::from_secs(10) {
            break code;
        }
    };
    assert_eq!(code, "503");
}

/// A pod that runs once ends when its container has, whatever its sidecar would do.
async fn jobs_end(cluster: &Cluster) {
    let deployment = cluster.get(&["deployment", "hello"]);
    let mut template = deployment["spec"]["template"].clone();
    template["metadata"] = json!({"labels": {"app": "once"}});
    template["spec"]["restartPolicy"] = "Never".into();
    let once = &mut template["spec"]["containers"][0];
    once["command"] = json!(["curl", "-sS", "--fail", "http://hello/"]);
    once["readinessProbe"] = Value::Null;
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "once", "labels": {"app": "once"}},
        "spec": template["spec"],
    });
    let file = cluster.data_dir().join("once.json");
    std::fs::write(&file, pod.to_string()).unwrap();
    cluster.kubectl_output(&["apply", "-f", file.to_str().unwrap()]);
    eventually("the pod has ended well", async || {
        let pod = cluster.get(&["pod", "once"]);
        match pod["status"]["phase"].as_str() {
            Some("Succeeded") => Ok(()),
            _ => Err(pod["status"].to_string()),
        }
    })
    .await;
}

async fn in_flight_requests_outlive_a_deletion(cluster: &Cluster) {
    let http = cluster.http();
    let before = cluster.pods("app=hello");
    let slow: Vec<_> = (0..8)
        .map(|_| tokio::spawn(async move { get(http, HOST, "/?delay=3s").await }))
        .collect();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let delete = ["delete", "pod", "--wait=false", &before[0]];
    cluster.kubectl_output(&delete);
    for answer in slow {
        let answer = answer.await.unwrap().unwrap();
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    }
    eventually("the pod is gone, and another there", async || {
        let now = cluster.pods("app=hello");
        let deployment = cluster.get(&["deployment", "hello"]);
        let ready = &deployment["status"]["readyReplicas"];
        if !now.contains(&before[0]) && *ready == 2 {
            Ok(())
        } else {
            Err(format!("{now:?}, {ready} ready"))
        }
    })
    .await;
}

async fn a_rolling_restart_is_not_noticed(cluster: &Cluster) {
    let before = cluster.pods("app=hello");
    let load = Load::start(cluster.http(), HOST, "/", 8);
    load.more(100).await;
    for _ in 0..2 {
        cluster.kubectl_output(&["rollout", "restart", "deployment/hello"]);
        let status = ["rollout", "status", "deployment/hello", "--timeout=60s"];
        cluster.kubectl_output(&status);
    }
    load.more(100).await;
    let tally = load.stop().await;
    assert_eq!(tally.failures(), 0, "{tally:?}");
    assert!(
        cluster
            .pods("app=hello")
            .iter()
            .all(|pod| !before.contains(pod))
    );
}

/// The user whose connections `sealane init` leaves alone.
const PROXY_USER: u32 = 65532;

/// `sealane` as a user without any privilege, or as ours.
fn sealane(user: Option<u32>, args: &[&str]) -> Command {
    let binary = env!("CARGO_BIN_EXE_sealane");
    let mut command = match user {
        None => Command::new(binary),
        Some(user) => {
            let mut command = Command::new("setpriv");
            command
                .args([&format!("--reuid={user}"), &format!("--regid={user}")])
                .args(["--clear-groups", "--inh-caps=-all", "--bounding-set=-all"])
                .args(["--no-new-privs", binary]);
            command
        }
    };
    command
        .args(args)
        .current_dir(root())
        .env_remove("RUST_LOG")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Runs a command in a pod to its end.
fn run(pod: &Pod, user: Option<u32>, args: &[&str]) -> Output {
    let mut command = sealane(user, args);
    pod.run(move || command.output().unwrap())
}

/// Its JSON, if it went well.
fn json_of(output: &Output) -> Value {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {errors}", output.status);
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn proxy_i3_init_says_what_it_did_and_fails_where_it_must() {
    let Some(node) = Node::new() else { return };
    let pod = node.pod("pod").await;
    let fails = |user, args: &[&str], code, text: &str| {
        let output = run(&pod, user, args);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {errors}");
        assert!(errors.contains(text), "{args:?}: {errors}");
    };
    fails(None, &["init", "--check"], 3, "was not redirected");
    fails(Some(1000), &["init"], 3, "NET_ADMIN");
    fails(
        None,
        &["init", "--inbound-port", "15001"],
        2,
        "two different ports",
    );
    fails(
        None,
        &["init", "--skip-inbound-ports", "90-80"],
        2,
        "a range such as",
    );
    let user = nix::unistd::geteuid().to_string();
    fails(
        None,
        &["init", "--proxy-uid", &user],
        2,
        "is the user that this runs as",
    );

    for _ in 0..2 {
        let said = json_of(&run(&pod, None, &["init", "-o", "json"]));
        assert_eq!(said["rules"], "written");
        assert_eq!(
            (&said["ipv4"], &said["ipv6"]),
            (&json!("redirected"), &json!("without a route"))
        );
        assert_eq!(said["refusesClosedPorts"], true);
    }
    assert_eq!(
        json_of(&run(&pod, None, &["init", "--check", "-o", "json"]))["rules"],
        "checked"
    );
    let taken = pod.run(|| TcpListener::bind((Ipv4Addr::LOCALHOST, 15001)).unwrap());
    fails(None, &["init", "--check"], 2, "before the sidecar");
    assert_eq!(
        json_of(&run(&pod, None, &["init", "--remove", "-o", "json"]))["rules"],
        "removed"
    );
    drop(taken);
    fails(None, &["init", "--check"], 3, "was not redirected");
}

/// Service `shop` of the real control plane, with this endpoint; returns its address.
fn shop(kubernetes: &Kubernetes, endpoint: Ipv4Addr) -> IpAddr {
    kubernetes.apply(&[
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "shop", "namespace": "default"},
            "spec": {"ports": [{"port": 80, "targetPort": 8000}]},
        }),
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "name": "shop-1", "namespace": "default",
                "labels": {"kubernetes.io/service-name": "shop"},
            },
            "addressType": "IPv4",
            "endpoints": [{"addresses": [endpoint], "conditions": {"ready": true}}],
            "ports": [{"port": 8000, "protocol": "TCP"}],
        }),
    ]);
    let args = ["get", "service", "shop", "-o", "jsonpath={.spec.clusterIP}"];
    output(&mut kubernetes.kubectl(&args)).parse().unwrap()
}

/// The credentials of a pod's account, where the sidecar's user can read them.
async fn credentials(kubernetes: &Kubernetes, node: &Node, directory: &Path) -> PathBuf {
    let files = ["-f", "deploy/namespace.yaml", "-f", "deploy/sidecar.yaml"];
    output(kubernetes.kubectl(&["apply"]).args(files));
    output(&mut kubernetes.kubectl(&["create", "serviceaccount", "app", "-n", "sealane"]));
    let account = kubernetes.plane.account_kubeconfig("sealane", "app").await;
    // Not in the pod, where its socket would be taken for the application's.
    let listener = node.run(|| TcpListener::bind((NODE_IP, 0)).unwrap());
    let within = kubernetes.kubeconfig_through(listener, &account.unwrap());
    let file = directory.join("kubeconfig");
    std::fs::copy(within, &file).unwrap();
    for (path, mode) in [(directory, 0o755), (&*file, 0o644)] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    file
}

#[tokio::test(flavor = "multi_thread")]
async fn proxy_i5_o6_o9_a_sidecar_without_privileges_on_a_real_api_server() {
    let Some(node) = Node::new() else { return };
    let Some(mut kubernetes) = Kubernetes::start().await else {
        return;
    };
    let (pod, other) = (node.pod("pod").await, node.pod("other").await);
    let (app, _echo) = (pod.echo(), other.echo());
    let service = shop(&kubernetes, other.ip);
    let directory = tempfile::tempdir().unwrap();
    let kubeconfig = credentials(&kubernetes, &node, directory.path()).await;
    json_of(&run(&pod, None, &["init", "-o", "json"]));
    let file = kubeconfig.to_str().unwrap();
    let args = [
        "sidecar",
        "--kubeconfig",
        file,
        "--admin",
        "127.0.0.1:0",
        "--output",
        "json",
        "--drain-delay",
        "1",
        "--workers",
        "1",
    ];

    let refused = run(&pod, Some(1000), &args);
    let errors = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(3), "{errors}");
    assert!(errors.contains("come back to this process"), "{errors}");

    let mut command = sealane(Some(PROXY_USER), &args);
    let mut sidecar = Mode::of(pod.run(move || command.spawn().unwrap()));
    let admin = sidecar.address("admin");
    let ask = |from: &Pod, ip: IpAddr, port: u16| {
        from.run(move || mode::get(SocketAddr::new(ip, port), "shop", "/"))
    };
    let readyz = || pod.run(move || mode::get(admin, "localhost", "/readyz"));
    eventually("ready", async || match readyz() {
        Ok((200, _)) => Ok(()),
        other => Err(format!("{other:?}\n{}", sidecar.process.log())),
    })
    .await;
    assert_eq!(ask(&pod, service, 80).unwrap().0, 200, "a Service");
    assert_eq!(ask(&pod, other.ip.into(), 8000).unwrap().0, 200, "a pod");
    assert_eq!(
        ask(&other, pod.ip.into(), 8000).unwrap().0,
        200,
        "from outside"
    );
    assert_eq!(ask(&other, pod.ip.into(), 15006).unwrap().0, 508, "a loop");

    kubernetes.plane.kill_api_server();
    sidecar.says("watch interrupted").await;
    assert_eq!(
        ask(&pod, service, 80).unwrap().0,
        200,
        "from the last state"
    );
    assert_eq!(readyz().unwrap().0, 200);

    sidecar.process.signal("TERM");
    eventually("inbound has stopped", async || {
        match ask(&other, pod.ip.into(), 8000) {
            Err(error) if error.contains("refused") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    assert_eq!(readyz().unwrap().0, 503);
    // The application is still there, and may use the network.
    assert_eq!(ask(&pod, service, 80).unwrap().0, 200, "the last words");
    drop(app);
    let status = sidecar.process.wait(Duration::from_secs(10));
    assert!(status.success(), "{status}\n{}", sidecar.process.log());
}
