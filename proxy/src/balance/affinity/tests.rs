use std::net::Ipv4Addr;

use sealane_config::model::{AppProtocol, Balancing, Scope, TrafficPolicy};

use super::*;
use crate::balance::{Balancer, Flight};
use crate::testing::endpoint;

const MINUTE: Duration = Duration::from_secs(60);

fn client(number: u8) -> IpAddr {
    Ipv4Addr::new(10, 244, 1, number).into()
}

fn port(name: &str, endpoints: u16, timeout: Option<Duration>) -> ServicePort {
    let endpoints = (0..endpoints).map(|i| endpoint(([10, 244, 0, 1], 8000 + i).into()));
    ServicePort {
        service: ServiceKey {
            namespace: "default".into(),
            name: name.into(),
        },
        name: "".into(),
        port: 80,
        protocol: Protocol::Tcp,
        node_port: None,
        app_protocol: AppProtocol::Tcp,
        endpoints: endpoints.collect(),
        local: None,
        everywhere: None,
        policy: Arc::new(TrafficPolicy {
            affinity: timeout,
            ..TrafficPolicy::default()
        }),
        http: Arc::default(),
    }
}

/// Where a client's next connection goes.
fn next(balancer: &Balancer, number: u8, port: &ServicePort) -> u16 {
    let picked = balancer.pick_for(Some(client(number)), port, Scope::Cluster, &[]);
    picked.unwrap().addr.port()
}

fn stays(balancer: &Balancer, number: u8, port: &ServicePort) -> bool {
    let first = next(balancer, number, port);
    (0..50).all(|_| next(balancer, number, port) == first)
}

#[tokio::test(start_paused = true)]
async fn proxy_s12_a_client_stays_on_all_workers_and_others_are_spread() {
    let table = Affinity::default();
    let workers = [Balancer::sharing(table.clone()), Balancer::sharing(table)];
    let sticky = port("sticky", 10, Some(MINUTE));
    let first = next(&workers[0], 1, &sticky);
    for _ in 0..50 {
        assert_eq!(next(&workers[0], 1, &sticky), first);
        assert_eq!(next(&workers[1], 1, &sticky), first);
    }
    let mapped = Some("::ffff:10.244.1.1".parse().unwrap());
    let picked = workers[1].pick_for(mapped, &sticky, Scope::Cluster, &[]);
    assert_eq!(picked.unwrap().addr.port(), first, "the same client");
    let others: std::collections::HashSet<u16> =
        (2..100).map(|n| next(&workers[0], n, &sticky)).collect();
    assert!(others.len() > 5, "{others:?}");
    assert!(!stays(&workers[0], 1, &port("loose", 10, None)));
    let unknown: std::collections::HashSet<_> = (0..50)
        .map(|_| workers[0].pick_for(None, &sticky, Scope::Cluster, &[]))
        .map(|picked| picked.unwrap().addr)
        .collect();
    assert!(unknown.len() > 5, "{unknown:?}");
}

#[tokio::test(start_paused = true)]
async fn proxy_s12_ports_and_services_are_on_their_own() {
    let balancer = Balancer::new();
    let one = port("one", 1000, Some(MINUTE));
    let mut other_port = one.clone();
    other_port.port = 81;
    let mut other_protocol = one.clone();
    other_protocol.protocol = Protocol::Udp;
    let mut other_service = one.clone();
    other_service.service.name = "two".into();
    let first = next(&balancer, 1, &one);
    // One in a thousand is where the first is by chance.
    let others = [other_port, other_protocol, other_service];
    let same = others.iter().filter(|o| next(&balancer, 1, o) == first);
    assert!(same.count() < 2);
    assert_eq!(next(&balancer, 1, &one), first);
}

#[tokio::test(start_paused = true)]
async fn proxy_s12_the_time_runs_from_the_last_connection() {
    for timeout in [1, 10_800, 86_400].map(Duration::from_secs) {
        let balancer = Balancer::new();
        let port = port("api", 1000, Some(timeout));
        let first = next(&balancer, 1, &port);
        for _ in 0..5 {
            tokio::time::advance(timeout - Duration::from_millis(1)).await;
            assert_eq!(next(&balancer, 1, &port), first, "{timeout:?}");
        }
        // By chance it is the same one once in a million.
        let mut moved = false;
        for _ in 0..2 {
            tokio::time::advance(timeout).await;
            moved |= next(&balancer, 1, &port) != first;
        }
        assert!(moved, "{timeout:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn proxy_s12_an_entry_ends_with_its_endpoint() {
    let balancer = Balancer::new();
    let whole = port("api", 10, Some(MINUTE));
    let first = next(&balancer, 1, &whole);
    let mut without = whole.clone();
    let others = whole.endpoints.iter().filter(|e| e.addr.port() != first);
    without.endpoints = others.cloned().collect();
    let second = next(&balancer, 1, &without);
    assert_ne!(first, second);
    assert_eq!(next(&balancer, 1, &whole), second, "it stays where it is");

    let mut replaced = whole.clone();
    let addrs = whole.endpoints.iter().map(|e| e.addr.socket());
    replaced.endpoints = addrs.map(endpoint).collect();
    let moved = (0..20).any(|number| {
        let before = next(&balancer, number, &whole);
        next(&balancer, number, &replaced) != before
    });
    assert!(moved, "other pods with the same addresses");
}

#[tokio::test(start_paused = true)]
async fn proxy_s12_ejection_and_connect_failure_end_an_entry() {
    let balancer = Balancer::new();
    let port = port("api", 4, Some(MINUTE));
    let by_port = |number: u16| {
        let mut all = port.endpoints.iter();
        all.find(|e| e.addr.port() == number).unwrap()
    };
    let first = next(&balancer, 1, &port);
    for _ in 0..5 {
        Flight::start(by_port(first)).failed(&port.endpoints, &Balancing::DEFAULT);
    }
    let second = next(&balancer, 1, &port);
    assert_ne!(second, first, "ejected");

    // A failed request goes elsewhere, but the client stays.
    let failed = by_port(second);
    let retried = balancer.pick_for(Some(client(1)), &port, Scope::Cluster, &[failed.addr]);
    assert_ne!(retried.unwrap().addr, failed.addr);
    assert_eq!(next(&balancer, 1, &port), second);

    // One that cannot be connected to is left.
    balancer.not_connected(Some(client(1)), &port, by_port(first));
    assert_eq!(next(&balancer, 1, &port), second, "it was not there");
    balancer.not_connected(Some(client(1)), &port, failed);
    let third = balancer.pick_for(Some(client(1)), &port, Scope::Cluster, &[failed.addr]);
    let third = third.unwrap().addr.port();
    assert_ne!(third, second);
    assert_eq!(next(&balancer, 1, &port), third);
}

#[tokio::test(start_paused = true)]
async fn proxy_s12_the_table_forgets_the_longest_unused_when_it_is_full() {
    let table = Affinity::default();
    let balancer = Balancer::sharing(table.clone());
    let port = port("api", 1000, Some(MINUTE));
    let first = next(&balancer, 1, &port);
    for number in 0..3 * u32::try_from(CAPACITY).unwrap() {
        let client = Some(Ipv4Addr::from(0x0b00_0000 + number).into());
        balancer.pick_for(client, &port, Scope::Cluster, &[]);
        if number % 1000 == 0 {
            assert_eq!(next(&balancer, 1, &port), first, "it is used");
        }
    }
    let shards = table.0.shards.iter().map(|shard| {
        let shard = shard.lock().unwrap();
        shard.younger.len() + shard.older.len()
    });
    let entries: usize = shards.sum();
    assert!(entries <= CAPACITY, "{entries}");
    assert!(entries > CAPACITY / 3, "{entries}");
}
