//! What does it cost to choose an endpoint, however many there are?
#![allow(missing_docs, reason = "made by criterion's macros")]

use std::hint::black_box;
use std::net::Ipv4Addr;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use sealane_bench_micro::{World, addresses};
use sealane_config::model::{Protocol, Scope, ServiceKey};
use sealane_proxy::balance::{Balancer, Flight};

const SEED: u64 = 7;

fn pick(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pick");
    for count in [3, 100, 10_000] {
        let mut world = World::new().expect("a class");
        let service = world.service("web", Ipv4Addr::new(10, 96, 0, 7));
        let endpoints = world.endpoints("web", &addresses(count));
        service.and(endpoints).expect("a Service");
        let snapshot = world.snapshot();
        let key = ServiceKey {
            namespace: "default".into(),
            name: "web".into(),
        };
        let service = snapshot.services.get(&key).expect("a Service");
        let port = service.port(80, Protocol::Tcp).expect("a port");
        let balancer = Balancer::seeded(SEED);
        group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
            bencher.iter(|| {
                let picked = balancer.pick_for(None, black_box(port), Scope::Cluster, &[]);
                let flight = Flight::start(picked.expect("an endpoint"));
                flight.succeeded(Duration::from_micros(500));
            });
        });
    }
    group.finish();
}

criterion_group!(benches, pick);
criterion_main!(benches);
