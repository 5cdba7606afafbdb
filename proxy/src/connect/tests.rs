use std::net::Ipv4Addr;

use super::*;

#[test]
fn a_block_contains_its_addresses() {
    for (block, addr, inside) in [
        ("10.244.0.0/16", "10.244.255.1", true),
        ("10.244.0.0/16", "10.245.0.1", false),
        ("10.244.0.0/16", "::ffff:10.244.0.1", false),
        ("0.0.0.0/0", "192.0.2.1", true),
        ("192.0.2.1/32", "192.0.2.1", true),
        ("192.0.2.1/32", "192.0.2.0", false),
        ("fd00::/8", "fd12::1", true),
        ("fd00::/8", "fe80::1", false),
        ("::/0", "2001:db8::1", true),
    ] {
        let block: Cidr = block.parse().unwrap();
        assert_eq!(
            block.contains(addr.parse().unwrap()),
            inside,
            "{block:?} {addr}"
        );
    }
}

#[test]
fn what_is_not_a_block_is_refused() {
    for text in [
        "",
        "10.0.0.0",
        "10.0.0.0/33",
        "::/129",
        "10.0.0/8",
        "10.0.0.0/-1",
        "x/8",
    ] {
        assert_eq!(text.parse::<Cidr>(), Err(BadCidr(text.to_owned())));
    }
}

#[tokio::test]
async fn endpoints_outside_the_cluster_are_reached_through_the_hosts_sockets() {
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .unwrap();
    let addr = EndpointAddr(listener.local_addr().unwrap());
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
        let (stream, _) = tokio::join!(connector.connect(addr), listener.accept());
        assert!(stream.unwrap().nodelay().unwrap());
    }
}

#[tokio::test]
async fn reliability_f7_a_refused_connection_fails_at_once() {
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .unwrap();
    let addr = EndpointAddr(listener.local_addr().unwrap());
    drop(listener);
    let error = Connector::Direct.connect(addr).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
}
