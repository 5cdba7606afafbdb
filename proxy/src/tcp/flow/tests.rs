use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use sealane_config::model::{self, AppProtocol, ClientAddr, Endpoint, ServiceKey, ServicePort};
use tokio::net::TcpListener;

use super::*;
use crate::http::Upstream;
use crate::testing::Refusing;

fn port(addrs: &[SocketAddr]) -> Target {
    let endpoint = |&addr: &SocketAddr| Arc::new(Endpoint::at(addr));
    let port = ServicePort {
        service: ServiceKey {
            namespace: "default".into(),
            name: "db".into(),
        },
        name: "".into(),
        port: 5432,
        protocol: model::Protocol::Tcp,
        node_port: None,
        app_protocol: AppProtocol::Tcp,
        endpoints: addrs.iter().map(endpoint).collect(),
        local: None,
        everywhere: None,
        policy: Arc::default(),
        http: Arc::default(),
    };
    Target::new(Arc::new(port), Upstream::Http1)
}

fn flows() -> Flows {
    Flows::new(Connector::Direct)
}

fn ends() -> Ends {
    Ends {
        client: ClientAddr((Ipv4Addr::LOCALHOST, 9).into()),
        dialled: (Ipv4Addr::LOCALHOST, 5432).into(),
    }
}

#[tokio::test]
async fn proxy_l13_a_flow_that_cannot_connect_tries_another_endpoint() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let good = listener.local_addr().unwrap();
    let refusing = [Refusing::bind(), Refusing::bind()];
    let port = port(&[refusing[0].addr, good, refusing[1].addr]);
    for seed in 0..20 {
        let balancer = Balancer::seeded(seed);
        let flow = flows().connect(ends(), &port, &balancer).await;
        let (stream, flight) = flow.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), good);
        let in_flight = || -> Vec<u32> {
            let loads = port.endpoints().iter();
            loads.map(|e| e.stats.in_flight.load(Relaxed)).collect()
        };
        assert_eq!(in_flight(), [0, 1, 0], "the flow counts until it ends");
        drop(flight);
        assert_eq!(in_flight(), [0, 0, 0]);
    }
}

#[tokio::test]
async fn a_flow_without_any_endpoint_says_why() {
    let balancer = Balancer::seeded(1);
    let none = flows().connect(ends(), &port(&[]), &balancer).await;
    assert!(matches!(none, Err(FlowError::NoEndpoints)));
    let refusing = [Refusing::bind(), Refusing::bind()];
    let all_refuse = port(&[refusing[0].addr, refusing[1].addr]);
    let refused = flows().connect(ends(), &all_refuse, &balancer).await;
    let Err(FlowError::Connect { tried, source, .. }) = refused else {
        panic!("nobody listens");
    };
    assert_eq!(
        (tried, source.kind()),
        (2, io::ErrorKind::ConnectionRefused)
    );
}
