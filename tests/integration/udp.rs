//! A UDP Service on its whole path: manifest, API, pods, kernel, proxy, and back.

use std::collections::HashSet;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::cluster::{Cluster, Options};
use crate::support::http::get;
use crate::support::{eventually, has};

/// The node port in `examples/udp`.
const NODE_PORT: u16 = 30700;

/// A datagram that takes longer is taken for lost.
const PATIENCE: Duration = Duration::from_millis(200);

fn client() -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.connect((Ipv4Addr::LOCALHOST, NODE_PORT)).unwrap();
    socket
}

/// The pod that answers.
fn ask(socket: &UdpSocket, text: &str) -> Result<String, ErrorKind> {
    socket.send(text.as_bytes()).map_err(|e| e.kind())?;
    let mut answer = [0; 2048];
    loop {
        let length = socket.recv(&mut answer).map_err(|e| e.kind())?;
        let answer: Value = serde_json::from_slice(&answer[..length]).unwrap();
        // Another one is late.
        if answer["body"] == text {
            return Ok(answer["pod"].as_str().unwrap().to_owned());
        }
    }
}

async fn answered(what: &str, socket: &UdpSocket) -> String {
    eventually(what, async || {
        ask(socket, what).map_err(|kind| kind.to_string())
    })
    .await
}

fn scale(cluster: &Cluster, replicas: u8) {
    let replicas = format!("--replicas={replicas}");
    cluster.kubectl_output(&["scale", "deployment/datagrams", &replicas]);
}

#[tokio::test(flavor = "multi_thread")]
async fn proxy_s8_s18_a_udp_service_through_scaling_and_a_rolling_restart() {
    if !has("kubectl") {
        return;
    }
    let cluster = Options::default()
        .args(&["-f", "examples/udp", "--ephemeral"])
        .start()
        .await;
    cluster.assert_ready();
    let kept = client();
    let first = answered("first", &kept).await;
    assert_eq!(ask(&kept, "again"), Ok(first), "a flow has one endpoint");
    let mut seen = HashSet::new();
    for _ in 0..40 {
        seen.insert(answered("spread", &client()).await);
    }
    assert_eq!(seen.len(), 2, "{seen:?}");

    if has("bash") {
        // By name, from another pod's own network.
        let pod = cluster.pods("app=datagrams").remove(0);
        let script = "exec 3<>/dev/udp/datagrams/7000; echo -n by-name >&3; head -n1 <&3";
        let answer =
            cluster.kubectl_output(&["exec", &pod, "--", "timeout", "5", "bash", "-c", script]);
        assert!(answer.contains("\"body\":\"by-name\""), "{answer}");
    }

    let metrics = admin(&cluster, "/metrics").await;
    for (name, least) in [
        ("sealane_udp_open_flows{", 40),
        ("sealane_udp_flows_opened_total{", 41),
        ("sealane_udp_datagrams_total{", 84),
        ("sealane_udp_bytes_total{", 84),
    ] {
        let value = value_of(&metrics, name);
        assert!(value >= Some(least), "{name} {value:?}\n{metrics}");
    }

    // One flow goes on while every pod is replaced. Only datagrams that were under way when an
    // endpoint went may be lost.
    cluster.kubectl_output(&["rollout", "restart", "deployment/datagrams"]);
    let (mut asked, mut lost) = (0, 0);
    eventually("a new pod", async || {
        asked += 1;
        let pod = ask(&kept, &format!("during {asked}"));
        lost += u32::from(pod.is_err());
        // An old one that terminates keeps its flows for as long as it serves.
        match pod {
            Ok(pod) if !seen.contains(&pod) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    eprintln!("rolling restart: {lost} of {asked} datagrams lost");
    assert!(lost <= 4, "{lost} of {asked} lost");

    scale(&cluster, 0);
    let refused = eventually("refused", async || match ask(&client(), "nobody") {
        Err(ErrorKind::ConnectionRefused) => Ok(Instant::now()),
        other => Err(format!("{other:?}")),
    })
    .await;
    assert_eq!(ask(&kept, "nobody"), Err(ErrorKind::ConnectionRefused));
    eprintln!("refused {:?} after the first refusal", refused.elapsed());
    scale(&cluster, 1);
    answered("back", &kept).await;
}

async fn admin(cluster: &Cluster, path: &str) -> String {
    let addr = cluster.summary["admin"].as_str().unwrap();
    let addr = addr.trim_start_matches("http://").parse().unwrap();
    let answer = get(addr, "localhost", path).await.unwrap();
    String::from_utf8_lossy(&answer.body).into_owned()
}

/// The sum of a metric over all workers' series of this Service.
fn value_of(metrics: &str, name: &str) -> Option<u64> {
    let of_service = |line: &&str| line.starts_with(name) && line.contains("service=\"datagrams\"");
    let lines = metrics.lines().filter(of_service);
    let values = lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
    values.reduce(|a, b| a + b).map(|sum| sum as u64)
}
