use std::net::Ipv4Addr;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

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
        let (stream, _) = tokio::join!(connector.connect(addr, SECOND), listener.accept());
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
    let error = Connector::Direct.connect(addr, SECOND).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
}
