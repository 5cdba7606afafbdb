//! Which endpoints a connection to a Service may use.

use std::sync::Arc;

use sealane_config::model::{Endpoint, Scope, ServicePort, TrafficPolicy};

use super::*;
use crate::testing::{Origin, PORT, key};

/// Gives Service `api` an endpoint here and one elsewhere, where there is one.
fn publish(world: &mut World, local: &[SocketAddr], elsewhere: &[SocketAddr]) {
    let all: Vec<SocketAddr> = local.iter().chain(elsewhere).copied().collect();
    let port = world.service("api", AppProtocol::Http, &all);
    let policy = TrafficPolicy {
        internal: Scope::Local,
        ..TrafficPolicy::default()
    };
    let is_local = |endpoint: &&Arc<Endpoint>| local.contains(&endpoint.addr.0);
    let here = port.endpoints.iter().filter(is_local).cloned();
    let port = Arc::new(ServicePort {
        local: Some(here.collect()),
        policy: Arc::new(policy),
        ..(*port).clone()
    });
    let mut service = (**world.snapshot.services.get(&key("api")).unwrap()).clone();
    service.ports = vec![port];
    let services = &mut world.snapshot.services;
    services.insert_mut(key("api"), Arc::new(service));
    world.publish();
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
        let target = |by_cluster_ip| {
            let target = ServiceTarget {
                reader: world.reader.clone(),
                backend: backend("api"),
                by_cluster_ip,
            };
            target.resolve(Upstream::Http1).unwrap()
        };
        let chosen = |target: &Target| -> Vec<SocketAddr> {
            target.endpoints().iter().map(|e| e.addr.0).collect()
        };
        let by_cluster_ip = target(true);
        assert_eq!(chosen(&by_cluster_ip), addrs(want), "{name}");
        assert_eq!(by_cluster_ip.is_cut_off(), is_cut_off, "{name}");
        let by_other = target(false);
        let all = addrs(&[local, elsewhere].concat());
        assert_eq!(chosen(&by_other), all, "{name}, by another address");
        assert!(!by_other.is_cut_off(), "{name}, by another address");
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
