//! The API server comes late, goes away or falls silent; an upstream is dead.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::time::{Duration, Instant};

use sealane_test_kubernetes::{FaultProxy, Network};
use serde_json::{Value, json};

use crate::client::{Client, Transport};
use crate::embedded::Embedded;
use crate::objects::{NAMESPACE, service};
use crate::servers::{Server, Settings};
use crate::support::until;
use crate::upstream;
use crate::wire::{Query, Reply, flag, kind, rcode};

/// How long convergence may take once a silent network has healed.
const CONVERGED: Duration = Duration::from_secs(60);
/// What a dead upstream may cost.
const HEDGED: Duration = Duration::from_millis(300);
/// What a machine that does other things as well adds.
const SLACK: Duration = Duration::from_millis(100);

fn web(name: &str) -> Value {
    service(name, json!({"ports": [{"name": "http", "port": 80}]}))
}

async fn with_namespace(embedded: &Embedded) {
    let namespace =
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    embedded.api.create(&namespace).await;
}

fn full(service: &str) -> String {
    format!("{service}.{NAMESPACE}.svc.cluster.local")
}

fn ask(client: &mut Client, name: &str, kind: u16) -> Reply {
    client.ask(&Query::new(name, kind), Transport::Udp).unwrap()
}

/// N1, N2, F26: DNS before the API server. Nothing is denied that may exist; the rest is answered.
#[tokio::test(flavor = "multi_thread")]
async fn dns_n1_n2_reliability_f26_started_before_the_api_server() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    // It is there, but not to be reached.
    let early = Embedded::start(listener).await;
    let proxy = FaultProxy::start(addr).await.unwrap();
    proxy.set(Network::Down);
    let kubeconfig = early.kubeconfig_for(&proxy.url());
    let upstream = upstream::start();
    let upstreams = [upstream];
    let settings = Settings::new(&kubeconfig, &upstreams);
    with_namespace(&early).await;
    early.api.create(&web("web")).await;
    let mut server = Server::sealane(early.directory.path(), &settings);
    let mut client = Client::new(server.addr);
    tokio::task::block_in_place(|| {
        let apex = Query::new("cluster.local", kind::SOA);
        until("the zone's SOA record", || {
            server.process().check().unwrap();
            let reply = client.ask(&apex, Transport::Tcp)?;
            match reply.rcode == rcode::NOERROR && reply.answer.len() == 1 {
                true => Ok(()),
                false => Err(reply.to_string()),
            }
        });
        for name in [&*full("web"), &*full("missing"), "1.0.96.10.in-addr.arpa"] {
            let kind = if name.ends_with("arpa") {
                kind::PTR
            } else {
                kind::A
            };
            let reply = ask(&mut client, name, kind);
            assert_eq!(reply.rcode, rcode::SERVFAIL, "{name}: {reply}");
            assert_eq!(reply.authority.len(), 1, "{name}: {reply}");
        }
        let other = ask(&mut client, "www.example.com", kind::A);
        assert_eq!(other.data(kind::A), ["192.0.2.80"]);
        assert_eq!(server.ready(), Ok(503));
        assert_eq!(server.health(), Ok(200));
        proxy.set(Network::Up);
        server.until_ready();
        assert_eq!(ask(&mut client, &full("web"), kind::A).answer.len(), 1);
        let missing = ask(&mut client, &full("missing"), kind::A);
        assert_eq!(missing.rcode, rcode::NXDOMAIN, "{missing}");
        let reverse = ask(&mut client, "1.0.96.10.in-addr.arpa", kind::PTR);
        assert_ne!(
            reverse.rcode,
            rcode::SERVFAIL,
            "nothing is remembered: {reverse}"
        );
    });
}

/// N3, F25: what was known is answered, and the server stays ready, while the API server is away.
#[tokio::test(flavor = "multi_thread")]
async fn dns_n3_reliability_f25_the_api_server_goes_away_and_comes_back() {
    let embedded = Embedded::here().await;
    let proxy = FaultProxy::start(embedded.addr).await.unwrap();
    let kubeconfig = embedded.kubeconfig_for(&proxy.url());
    with_namespace(&embedded).await;
    embedded.api.create(&web("web")).await;
    let settings = Settings::new(&kubeconfig, &[]);
    let mut server = Server::sealane(embedded.directory.path(), &settings);
    let mut client = Client::new(server.addr);
    tokio::task::block_in_place(|| server.until_ready());
    // Added objects are answered within a second of their event.
    let begun = Instant::now();
    embedded.api.create(&web("added")).await;
    tokio::task::block_in_place(|| server.until_answers(&full("added")));
    assert!(
        begun.elapsed() < Duration::from_secs(1),
        "{:?}",
        begun.elapsed()
    );
    proxy.set(Network::Down);
    embedded.api.create(&web("unheard")).await;
    tokio::task::block_in_place(|| {
        let end = Instant::now() + Duration::from_secs(3);
        while Instant::now() < end {
            assert_eq!(ask(&mut client, &full("web"), kind::A).answer.len(), 1);
            let unheard = ask(&mut client, &full("unheard"), kind::A);
            assert_eq!(unheard.rcode, rcode::NXDOMAIN, "{unheard}");
            assert_eq!(server.ready(), Ok(200));
        }
        proxy.set(Network::Up);
        server.until_answers(&full("unheard"));
    });
}

/// The ninth complaint: a watch that is swallowed by the network is given up and begun anew.
#[tokio::test(flavor = "multi_thread")]
async fn dns_f9_a_black_holed_watch_converges_within_a_minute() {
    let embedded = Embedded::here().await;
    let proxy = FaultProxy::start(embedded.addr).await.unwrap();
    let kubeconfig = embedded.kubeconfig_for(&proxy.url());
    with_namespace(&embedded).await;
    embedded.api.create(&web("web")).await;
    let settings = Settings::new(&kubeconfig, &[]);
    let mut server = Server::sealane(embedded.directory.path(), &settings);
    tokio::task::block_in_place(|| server.until_ready());
    proxy.set(Network::BlackHole);
    embedded.api.create(&web("unheard")).await;
    tokio::task::block_in_place(|| {
        let mut client = Client::new(server.addr);
        assert_eq!(ask(&mut client, &full("web"), kind::A).answer.len(), 1);
        let unheard = ask(&mut client, &full("unheard"), kind::A);
        assert_eq!(unheard.rcode, rcode::NXDOMAIN, "{unheard}");
        // What was open stays swallowed; only new connections pass.
        proxy.set(Network::Up);
        let healed = Instant::now();
        server.until_answers(&full("unheard"));
        eprintln!("current {:?} after the network healed", healed.elapsed());
        assert!(healed.elapsed() < CONVERGED, "{:?}", healed.elapsed());
    });
}

/// The sixth complaint: the first of two upstreams is dead.
#[tokio::test(flavor = "multi_thread")]
async fn dns_f6_a_dead_first_upstream_costs_300_ms_once() {
    let embedded = Embedded::here().await;
    // Receives and says nothing.
    let dead = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let alive = upstream::start();
    let upstreams = [dead.local_addr().unwrap(), alive];
    let settings = Settings::new(&embedded.kubeconfig, &upstreams);
    let mut server = Server::sealane(embedded.directory.path(), &settings);
    tokio::task::block_in_place(|| {
        server.until_ready();
        let mut client = Client::new(server.addr);
        let mut times = Vec::new();
        for number in 0..20 {
            let name = format!("a{number}.example.com");
            let begun = Instant::now();
            let reply = ask(&mut client, &name, kind::A);
            times.push(begun.elapsed());
            assert_eq!(reply.rcode, rcode::NXDOMAIN, "{reply}");
            assert!(reply.has(flag::RA));
        }
        eprintln!("with a dead first upstream: {times:?}");
        assert!(times[0] < HEDGED + SLACK, "{times:?}");
        let slow = times.iter().filter(|time| **time > SLACK).count();
        assert!(slow <= 1, "more than one was slow: {times:?}");
    });
}
