use std::collections::HashMap;
use std::net::Ipv4Addr;

use sealane_config::model::Balancing;

use super::*;
use crate::balance::{Balancer, Flight};

const VIP: ([u8; 4], u16) = ([10, 96, 0, 1], 53);

fn endpoints(count: u8) -> Vec<Arc<Endpoint>> {
    let addr = |last| SocketAddr::from(([10, 244, 1, last], 5353));
    (0..count)
        .map(|last| Arc::new(Endpoint::at(addr(last))))
        .collect()
}

fn client(number: u32) -> SocketAddr {
    let ip = Ipv4Addr::from_bits(0x0af4_0000 + number / 50_000);
    SocketAddr::from((ip, (10_000 + number % 50_000) as u16))
}

fn seed(number: u32) -> Seed {
    Seed::of_flow(client(number), VIP.into())
}

/// Where each of so many flows goes, all of them in flight.
fn place(endpoints: &[Arc<Endpoint>], flows: u32) -> (Vec<EndpointAddr>, Vec<Flight>) {
    let placed = (0..flows).map(|number| {
        let endpoint = pick(endpoints, seed(number), &[]).unwrap();
        (endpoint.addr, Flight::start(endpoint))
    });
    placed.unzip()
}

fn busiest(placed: &[EndpointAddr], count: usize) -> f64 {
    let mut counts: HashMap<EndpointAddr, usize> = HashMap::new();
    for addr in placed {
        *counts.entry(*addr).or_default() += 1;
    }
    let most = counts.values().max().copied().unwrap_or(0);
    most as f64 * count as f64 / placed.len() as f64
}

#[test]
fn proxy_s1_flows_are_spread_no_worse_than_at_random() {
    for (count, flows, limit) in [(3, 3000, 1.1), (10, 1000, 1.35), (50, 5000, 1.35)] {
        let endpoints = endpoints(count);
        let (hashed, _flights) = place(&endpoints, flows);
        let balancer = Balancer::seeded(1);
        let idle = self::endpoints(count);
        let random: Vec<_> = (0..flows)
            .map(|_| {
                balancer
                    .pick(&idle, &[], &Balancing::default())
                    .unwrap()
                    .addr
            })
            .collect();
        let (ours, theirs) = (
            busiest(&hashed, count.into()),
            busiest(&random, count.into()),
        );
        eprintln!("{flows} flows, {count} endpoints: busiest/mean {ours:.3}, random {theirs:.3}");
        assert!(ours < limit, "{count} endpoints: {ours}");
    }
}

#[test]
fn proxy_s18_the_same_endpoints_mean_the_same_choice_and_one_less_moves_only_its_flows() {
    let all = endpoints(10);
    let (before, flights) = place(&all, 2000);
    drop(flights);
    // A new process knows nothing, and flows come in any order.
    let again = endpoints(10);
    let mut stays = 0;
    let mut flights = Vec::new();
    for number in (0..2000).rev() {
        let endpoint = pick(&again, seed(number), &[]).unwrap();
        flights.push(Flight::start(endpoint));
        stays += usize::from(endpoint.addr == before[number as usize]);
    }
    assert!(stays >= 1980, "{stays} of 2000 flows stay");

    let gone = all[3].addr;
    let less: Vec<_> = endpoints(10)
        .into_iter()
        .filter(|e| e.addr != gone)
        .collect();
    let (after, _flights) = place(&less, 2000);
    let moved = before.iter().zip(&after).filter(|(b, a)| b != a).count();
    let had_to = before.iter().filter(|addr| **addr == gone).count();
    assert!(moved >= had_to && moved <= had_to + 20, "{moved}, {had_to}");
}

#[test]
fn an_endpoint_far_over_its_share_is_passed_over() {
    let endpoints = endpoints(4);
    let first = pick(&endpoints, seed(1), &[]).unwrap().addr;
    let heavy = endpoints.iter().find(|e| e.addr == first).unwrap();
    let _many: Vec<Flight> = (0..200).map(|_| Flight::start(heavy)).collect();
    assert_ne!(pick(&endpoints, seed(1), &[]).unwrap().addr, first);
}

#[test]
fn proxy_s12_flows_of_one_client_stay_together_with_affinity() {
    let endpoints = endpoints(10);
    let seed = |client: &str| Seed::of_client(client.parse().unwrap(), "api", "default", 53);
    let one = pick(&endpoints, seed("10.244.0.9"), &[]).unwrap().addr;
    for _ in 0..5 {
        assert_eq!(pick(&endpoints, seed("10.244.0.9"), &[]).unwrap().addr, one);
    }
    let others = (0..50).map(|n| seed(&format!("10.244.0.{n}")));
    let others: Vec<_> = others
        .map(|s| pick(&endpoints, s, &[]).unwrap().addr)
        .collect();
    assert!(others.iter().any(|addr| *addr != one));
}

#[test]
fn what_refused_is_avoided_and_ejected_unless_nothing_else_is_left() {
    let endpoints = endpoints(3);
    let first = pick(&endpoints, seed(1), &[]).unwrap();
    let second = pick(&endpoints, seed(1), &[first.addr]).unwrap();
    assert_ne!(first.addr, second.addr);
    let flight = Flight::start(first);
    for _ in 0..5 {
        flight.failed(&endpoints, &Balancing::default());
    }
    drop(flight);
    let choice = pick(&endpoints, seed(1), &[]).unwrap();
    assert_ne!(choice.addr, first.addr, "ejected");

    let only = &endpoints[..1];
    assert!(pick(only, seed(1), &[only[0].addr]).is_some());
    assert!(pick(&[], seed(1), &[]).is_none());
}
