//! Real namespaces: each test makes its own cluster, on threads of its own. Without the capabilities
//! for that (see `tests/rootless.rs` for an ordinary user's way) they are skipped, which is a
//! failure if `SEALANE_TEST_REQUIRE` is `all`.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};

use super::*;

const TIMEOUT: Duration = Duration::from_secs(5);

fn network() -> Option<PodNetwork> {
    if let Err(error) = userns::prove_capabilities() {
        let required = std::env::var("SEALANE_TEST_REQUIRE").is_ok_and(|what| what == "all");
        assert!(!required, "{error:?}");
        eprintln!("skipped: {error}");
        return None;
    }
    Some(PodNetwork::Namespaces(
        ClusterNetwork::create(ClusterNetworkOptions {
            pod_cidr: "10.244.0.0/16".parse().unwrap(),
            service_cidr: "10.96.0.0/16".parse().unwrap(),
            node_ip: Ipv4Addr::new(10, 244, 0, 1),
            local_addresses: vec!["10.96.0.10".parse().unwrap()],
        })
        .unwrap(),
    ))
}

/// Runs `work` on a thread in the pod's namespace.
fn in_pod<T: Send + 'static>(pod: &PodAttachment, work: impl FnOnce() -> T + Send + 'static) -> T {
    let netns = pod.netns.as_ref().unwrap().try_clone().unwrap();
    std::thread::spawn(move || {
        setns(&netns, CloneFlags::CLONE_NEWNET).unwrap();
        work()
    })
    .join()
    .unwrap()
}

fn in_cluster<T: Send + 'static>(
    network: &PodNetwork,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    let PodNetwork::Namespaces(network) = network.clone() else {
        unreachable!("the tests make namespaces")
    };
    std::thread::spawn(move || {
        network.enter().unwrap();
        work()
    })
    .join()
    .unwrap()
}

/// Accepts one connection, checks who calls, and answers.
fn answer_once(listener: TcpListener, expected_client: IpAddr) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let (mut stream, client) = listener.accept().unwrap();
        assert_eq!(client.ip(), expected_client);
        stream.write_all(b"hello").unwrap();
    })
}

fn fetch(addr: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&addr, TIMEOUT)?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

fn listen(ip: IpAddr, port: u16) -> TcpListener {
    TcpListener::bind((ip, port)).unwrap()
}

#[tokio::test]
async fn cluster_network_pods_reach_each_other_on_the_same_port() {
    let Some(network) = network() else { return };
    let a = network.attach("a", None).await.unwrap();
    let b = network.attach("b", None).await.unwrap();
    assert_ne!(a.ip, b.ip);
    let everywhere: IpAddr = Ipv4Addr::UNSPECIFIED.into();
    let on_a = in_pod(&a, move || listen(everywhere, 80));
    let on_b = in_pod(&b, move || listen(everywhere, 80));

    let server = answer_once(on_b, a.ip);
    let b_ip = b.ip;
    let text = in_pod(&a, move || fetch((b_ip, 80).into()));
    assert_eq!(text.unwrap(), "hello");
    server.join().unwrap();

    let server = answer_once(on_a, a.ip);
    let a_ip = a.ip;
    let text = in_pod(&a, move || fetch((a_ip, 80).into()));
    assert_eq!(text.unwrap(), "hello", "a pod reaches itself");
    server.join().unwrap();
}

#[tokio::test]
async fn cluster_network_pods_and_the_node_reach_each_other() {
    let Some(network) = network() else { return };
    let node_ip = network.node_ip();
    let pod = network.attach("pod", None).await.unwrap();
    let (pod_ip, dns) = (pod.ip, "10.96.0.10".parse::<IpAddr>().unwrap());

    for (name, local) in [("node address", node_ip), ("service-local address", dns)] {
        let listener = in_cluster(&network, move || listen(local, 53));
        let server = answer_once(listener, pod_ip);
        let text = in_pod(&pod, move || fetch((local, 53).into()));
        assert_eq!(text.unwrap(), "hello", "{name}");
        server.join().unwrap();
    }

    let listener = in_pod(&pod, move || listen(pod_ip, 8000));
    let server = answer_once(listener, node_ip);
    let text = in_cluster(&network, move || fetch((pod_ip, 8000).into()));
    assert_eq!(text.unwrap(), "hello", "a probe");
    server.join().unwrap();
}

#[tokio::test]
async fn cluster_network_a_detached_pod_is_gone_and_its_address_can_be_asked_for() {
    let Some(network) = network() else { return };
    let wanted = Some("10.244.7.7".parse().unwrap());
    let pod = network.attach("old", wanted).await.unwrap();
    assert_eq!(Some(pod.ip), wanted);
    assert_eq!(network.attach("old", None).await.unwrap().ip, pod.ip);
    assert!(matches!(
        network.attach("other", wanted).await,
        Err(NetworkError::AddressInUse(_))
    ));
    let pod_ip = pod.ip;
    let _listener = in_pod(&pod, move || listen(pod_ip, 80));
    in_cluster(&network, move || {
        TcpStream::connect_timeout(&(pod_ip, 80).into(), TIMEOUT).unwrap()
    });

    network.detach("old").await;
    network.detach("never there").await;
    let refused = in_cluster(&network, move || {
        TcpStream::connect_timeout(&(pod_ip, 80).into(), TIMEOUT)
    });
    assert_eq!(
        refused.unwrap_err().kind(),
        io::ErrorKind::NetworkUnreachable
    );
    let node_ip = network.node_ip();
    let _node = in_cluster(&network, move || listen(node_ip, 6443));
    let silenced = in_pod(&pod, move || {
        TcpStream::connect_timeout(&(node_ip, 6443).into(), Duration::from_millis(200))
    });
    assert_eq!(silenced.unwrap_err().kind(), io::ErrorKind::TimedOut);
    assert_eq!(network.attach("new", wanted).await.unwrap().ip, pod_ip);
}

#[tokio::test]
async fn cluster_network_a_pod_has_no_way_out_but_the_proxy() {
    let Some(network) = network() else { return };
    let pod = network.attach("pod", None).await.unwrap();
    let begun = Instant::now();
    let outside = in_pod(&pod, || fetch("192.0.2.1:80".parse().unwrap()));
    assert!(outside.is_err());
    assert!(begun.elapsed() < TIMEOUT, "refused, not lost");
}

#[tokio::test]
async fn cluster_network_many_pods_come_and_go_quickly() {
    let Some(network) = network() else { return };
    network.attach("warm", None).await.unwrap();
    let begun = Instant::now();
    let mut pods = Vec::new();
    for number in 0..20 {
        let uid = format!("pod-{number}");
        pods.push(network.attach(&uid, None).await.unwrap());
    }
    let attach = begun.elapsed() / 20;
    let begun = Instant::now();
    for number in 0..20 {
        network.detach(&format!("pod-{number}")).await;
    }
    let detach = begun.elapsed() / 20;
    // The goal is 10 ms; a busy machine that builds at the same time gets more.
    let limit = Duration::from_millis(200);
    assert!(attach < limit, "{attach:?} to attach a pod");
    assert!(detach < limit, "{detach:?} to detach a pod");
}

#[test]
fn overlapping_ranges_are_refused() {
    let refused = ClusterNetwork::create(ClusterNetworkOptions {
        pod_cidr: "10.0.0.0/8".parse().unwrap(),
        service_cidr: "10.96.0.0/16".parse().unwrap(),
        node_ip: Ipv4Addr::new(10, 0, 0, 1),
        local_addresses: Vec::new(),
    });
    assert!(matches!(refused, Err(NetworkError::System { .. })));
}
