//! Which endpoints a connection to a Service may use.

use std::sync::Arc;

use sealane_config::model::{Endpoint, Scope, ServicePort, TrafficPolicy};

use super::*;
use crate::connect::Barred;
use crate::testing::{Origin, PORT, key};

/// Changes how Service `api` is treated.
fn treat(world: &mut World, port: &ServicePort, policy: TrafficPolicy) {
    let port = Arc::new(ServicePort {
        policy: Arc::new(policy),
        ..port.clone()
    });
    let mut service = (**world.snapshot.services.get(&key("api")).unwrap()).clone();
    service.ports = vec![port];
    let services = &mut world.snapshot.services;
    services.insert_mut(key("api"), Arc::new(service));
    world.publish();
}

/// Gives Service `api` an endpoint here and one elsewhere, where there is one.
fn publish(world: &mut World, local: &[SocketAddr], elsewhere: &[SocketAddr]) {
    let all: Vec<SocketAddr> = local.iter().chain(elsewhere).copied().collect();
    let port = world.service("api", AppProtocol::Http, &all);
    let policy = TrafficPolicy {
        internal: Scope::Local,
        ..TrafficPolicy::default()
    };
    let is_local = |endpoint: &&Arc<Endpoint>| local.contains(&endpoint.addr.socket());
    let here = port.endpoints.iter().filter(is_local).cloned();
    let port = ServicePort {
        local: Some(here.collect()),
        ..(*port).clone()
    };
    treat(world, &port, policy);
}

/// A name, endpoints here and elsewhere, who may be chosen, and whether nobody may although there is
/// somebody.
type Case = (
    &'static str,
    &'static [&'static str],
    &'static [&'static str],
    &'static [&'static str],
    bool,
);

#[test]
fn proxy_s5_s6_local_is_for_those_who_dial_the_cluster_ip() {
    const HERE: &[&str] = &["10.1.0.1:80"];
    const THERE: &[&str] = &["10.1.0.2:80"];
    let cases: [Case; 4] = [
        ("here and there", HERE, THERE, HERE, false),
        ("only there", &[], THERE, &[], true),
        ("only here", HERE, &[], HERE, false),
        ("nowhere", &[], &[], &[], false),
    ];
    for (name, local, elsewhere, want, is_cut_off) in cases {
        let addrs = |list: &[&str]| -> Vec<SocketAddr> {
            list.iter().map(|addr| addr.parse().unwrap()).collect()
        };
        let mut world = World::new();
        publish(&mut world, &addrs(local), &addrs(elsewhere));
        let target = |reach| {
            let target = ServiceTarget {
                reader: world.reader.clone(),
                backend: backend("api"),
                dialled: Dialled {
                    reach,
                    ..Dialled::default()
                },
                fixed: None,
            };
            target.resolve(Upstream::Http1).unwrap()
        };
        let chosen = |target: &Target| -> Vec<SocketAddr> {
            target.endpoints().iter().map(|e| e.addr.socket()).collect()
        };
        let by_cluster_ip = target(Reach::ClusterIp);
        assert_eq!(chosen(&by_cluster_ip), addrs(want), "{name}");
        assert_eq!(by_cluster_ip.is_cut_off(), is_cut_off, "{name}");
        let all = addrs(&[local, elsewhere].concat());
        let by_other = target(Reach::Inside);
        assert_eq!(chosen(&by_other), all, "{name}, by another address");
        assert!(!by_other.is_cut_off(), "{name}, by another address");
        let outside = target(Reach::Outside);
        assert_eq!(chosen(&outside), all, "{name}, from outside");
        assert_eq!(by_cluster_ip.port.port, PORT);
    }
}

#[tokio::test]
async fn proxy_s5_requests_stay_on_the_node() {
    on_worker(async {
        let (here, there) = (Origin::named("here").await, Origin::named("there").await);
        let mut front = Front::new(&[here.addr, there.addr]).await;
        publish(&mut front.world, &[here.addr], &[there.addr]);
        let mut client = front.client().await;
        for _ in 0..20 {
            assert_eq!(client.get("a.test", "/").await.status, 200);
        }
        assert_eq!((here.hits(), there.hits()), (20, 0));
        publish(&mut front.world, &[], &[there.addr]);
        let response = client.get("a.test", "/").await;
        assert_eq!(
            (response.status, response.header("sealane-error")),
            (503, "no_endpoints"),
            "not sent to another node"
        );
        assert_eq!(there.hits(), 0);
    })
    .await;
}

#[tokio::test]
async fn proxy_s12_requests_of_a_client_stay_with_an_endpoint_while_it_is_there() {
    on_worker(async {
        let (a, b) = (Origin::named("a").await, Origin::named("b").await);
        let mut front = Front::new(&[a.addr, b.addr]).await;
        let policy = TrafficPolicy {
            affinity: Some(Duration::from_secs(10_800)),
            ..TrafficPolicy::default()
        };
        let addrs = [a.addr, b.addr];
        let port = front.world.service("api", AppProtocol::Http, &addrs);
        treat(&mut front.world, &port, policy.clone());
        for _ in 0..4 {
            let mut client = front.client().await;
            for _ in 0..10 {
                assert_eq!(client.get("a.test", "/").await.status, 200);
            }
        }
        let hits = [a.hits(), b.hits()];
        assert!(hits.contains(&0) && hits.contains(&40), "{hits:?}");
        let (gone, left) = if a.hits() > 0 { (&a, &b) } else { (&b, &a) };
        let port = front.world.service("api", AppProtocol::Http, &[left.addr]);
        treat(&mut front.world, &port, policy.clone());
        let mut client = front.client().await;
        assert_eq!(client.get("a.test", "/").await.status, 200);
        let port = front.world.service("api", AppProtocol::Http, &addrs);
        treat(&mut front.world, &port, policy);
        for _ in 0..20 {
            assert_eq!(client.get("a.test", "/").await.status, 200);
        }
        assert_eq!((gone.hits(), left.hits()), (40, 21), "it does not go back");
    })
    .await;
}

#[tokio::test]
async fn reliability_b19_an_endpoint_that_is_barred_is_not_asked_and_the_reason_told() {
    on_worker(async {
        let origin = Origin::named("inside").await;
        let front = Front::new(&[origin.addr]).await;
        let port = front.world.snapshot.backend(&backend("api")).unwrap();
        let target = Target::new(port.clone(), Upstream::Http1);
        for (name, listeners, status, reason) in [
            ("loopback", Vec::new(), 502, "address_refused"),
            ("itself", vec![origin.addr], 508, "loop"),
        ] {
            let barred = Barred::new(listeners, Vec::new().into(), []);
            let connector = Connector::Barring(Arc::new(barred));
            let engine = Engine::new(connector, EngineOptions::default());
            let request = http::Request::new(Body::empty());
            let response = Box::pin(engine.forward(request, &target)).await;
            assert_eq!(response.status().as_u16(), status, "{name}");
            assert_eq!(response.headers()["sealane-error"], reason, "{name}");
        }
        assert_eq!(origin.hits(), 0);
    })
    .await;
}
