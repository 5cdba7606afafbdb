use std::net::{Ipv4Addr, SocketAddr};

use super::*;
use crate::testing::Refusing;

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test]
async fn endpoints_outside_the_cluster_are_reached_through_the_hosts_sockets() {
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .unwrap();
    let addr = EndpointAddr::from(listener.local_addr().unwrap());
    for connector in [
        Connector::Direct,
        Connector::Split {
            cluster: Arc::from(["127.0.0.0/8".parse().unwrap()]),
            host: HostSockets::here(),
        },
        Connector::Split {
            cluster: Arc::from(["10.244.0.0/16".parse().unwrap()]),
            host: HostSockets::spawn().unwrap(),
        },
    ] {
        let (stream, _) = tokio::join!(connector.connect(addr, SECOND), listener.accept());
        assert!(stream.unwrap().nodelay().unwrap());
    }
}

#[tokio::test]
async fn reliability_f7_a_refused_connection_fails_at_once() {
    let refusing = Refusing::bind();
    let addr = EndpointAddr::from(refusing.addr);
    let error = Connector::Direct.connect(addr, SECOND).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
}

#[test]
fn proxy_s22_s23_the_clients_address_is_kept_where_replies_come_back() {
    let options = InterceptOptions {
        node_ips: vec!["10.244.0.1".parse().unwrap()].into(),
        pod_cidrs: vec![
            "10.244.0.0/16".parse().unwrap(),
            "fd00::/64".parse().unwrap(),
        ],
        ..InterceptOptions::default()
    };
    let connector = Connector::Direct.of_node(&options);
    for (name, client, endpoint, expected) in [
        ("pod to pod", "10.244.0.5", "10.244.0.6", true),
        ("outside to pod", "192.0.2.1", "10.244.0.6", true),
        ("pod to itself", "10.244.0.5", "10.244.0.5", false),
        ("pod to node", "10.244.0.5", "10.244.0.1", false),
        ("node to pod", "10.244.0.1", "10.244.0.6", false),
        ("pod to outside", "10.244.0.5", "192.0.2.1", false),
        ("the other family", "10.244.0.5", "fd00::1", false),
    ] {
        let client = client.parse().unwrap();
        let endpoint = EndpointAddr::from(SocketAddr::new(endpoint.parse().unwrap(), 80));
        let kept = connector.source(Some(client), endpoint);
        assert_eq!(kept, expected.then_some(client), "{name}");
        assert_eq!(connector.source(None, endpoint), None, "{name}");
        assert_eq!(Connector::Direct.source(Some(client), endpoint), None);
    }
}

#[tokio::test]
async fn reliability_b19_addresses_that_are_no_endpoints_are_never_dialled() {
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .unwrap();
    let port = listener.local_addr().unwrap().port();
    let node: IpAddr = "192.0.2.7".parse().unwrap();
    let options = InterceptOptions {
        port: 15001,
        node_ips: vec![node].into(),
        ..InterceptOptions::default()
    };
    let connector = Connector::Direct.of_node(&options);
    for (name, ip, port) in [
        ("loopback", "127.0.0.1", port),
        ("all of loopback", "127.9.9.9", port),
        ("IPv4 in an IPv6 coat", "::ffff:127.0.0.1", port),
        ("IPv6 loopback", "::1", port),
        ("unspecified", "0.0.0.0", port),
        ("metadata service", "169.254.169.254", 80),
        ("IPv6 link-local", "fe80::1", 80),
        ("multicast", "224.0.0.1", 80),
        ("own listener", "192.0.2.7", 15001),
    ] {
        let addr = EndpointAddr::from(SocketAddr::new(ip.parse().unwrap(), port));
        let refused = connector.connect(addr, SECOND).await.unwrap_err();
        let expected = if port == 15001 {
            io::ErrorKind::Deadlock
        } else {
            io::ErrorKind::PermissionDenied
        };
        assert_eq!(refused.kind(), expected, "{name}");
    }
    let accepted = tokio::time::timeout(Duration::from_millis(20), listener.accept());
    assert!(accepted.await.is_err(), "nothing was dialled");
}

#[test]
fn reliability_b19_a_gateway_dials_neither_its_own_machine_nor_itself() {
    let own: IpAddr = "192.0.2.7".parse().unwrap();
    let all = |port| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    let one = SocketAddr::from((Ipv4Addr::new(192, 0, 2, 8), 9443));
    let barred = |allowed: &[&str]| {
        let allowed = allowed.iter().map(|cidr| cidr.parse().unwrap());
        Barred::new([all(8080), one], vec![own].into(), allowed)
    };
    let (strict, loopback) = (barred(&[]), barred(&["127.0.0.0/8"]));
    let denied = Err(io::ErrorKind::PermissionDenied);
    let itself = Err(io::ErrorKind::Deadlock);
    for (name, addr, expected, where_loopback_is_allowed) in [
        ("a pod", "10.244.0.5:8080", Ok(()), Ok(())),
        ("an IPv6 pod", "[fd00::5]:8080", Ok(()), Ok(())),
        ("loopback", "127.0.0.1:6443", denied, Ok(())),
        ("a loopback pod", "127.244.0.5:80", denied, Ok(())),
        ("in an IPv6 coat", "[::ffff:127.0.0.1]:80", denied, Ok(())),
        ("IPv6 loopback", "[::1]:80", denied, denied),
        ("unspecified", "0.0.0.0:80", denied, denied),
        ("metadata", "169.254.169.254:80", denied, denied),
        (
            "metadata in a coat",
            "[::ffff:169.254.169.254]:80",
            denied,
            denied,
        ),
        ("IPv6 link-local", "[fe80::1]:80", denied, denied),
        ("multicast", "224.0.0.1:80", denied, denied),
        ("own listener", "192.0.2.7:8080", itself, itself),
        ("own listener on loopback", "127.0.0.1:8080", itself, itself),
        (
            "own listener in a coat",
            "[::ffff:192.0.2.7]:8080",
            itself,
            itself,
        ),
        ("own address, other port", "192.0.2.7:8081", Ok(()), Ok(())),
        (
            "a listener on one address",
            "192.0.2.8:9443",
            itself,
            itself,
        ),
        ("its port elsewhere", "192.0.2.7:9443", Ok(()), Ok(())),
    ] {
        let addr = addr.parse().unwrap();
        let check = |barred: &Barred| barred.check(addr).map_err(|error| error.kind());
        assert_eq!(check(&strict), expected, "{name}");
        assert_eq!(
            check(&loopback),
            where_loopback_is_allowed,
            "{name}, loopback"
        );
    }
}

#[tokio::test]
async fn reliability_b19_what_is_barred_is_not_connected_to() {
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .unwrap();
    let addr = EndpointAddr::from(listener.local_addr().unwrap());
    let barred = Barred::new([], Vec::new().into(), []);
    let connector = Connector::Barring(Arc::new(barred));
    let refused = connector.connect(addr, SECOND).await.unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
    let refused = connector.udp(addr).await.unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
}
