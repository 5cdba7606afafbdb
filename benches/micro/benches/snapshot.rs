//! What does it cost to compile one change, in a large state?
#![allow(missing_docs, reason = "made by criterion's macros")]

use std::net::Ipv4Addr;

use criterion::{Criterion, criterion_group, criterion_main};
use sealane_bench_micro::{Seeded, World, addresses, host};
use serde_json::json;

const SEED: u64 = 7;
const SERVICES: usize = 10_000;
const ENDPOINTS: u32 = 25;
const HOSTS: usize = 20_000;

fn cluster_ip(number: usize) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 96, 0, 1)) + number as u32)
}

fn changes(criterion: &mut Criterion) {
    let mut world = World::new().expect("a class");
    let addresses = addresses(SERVICES as u32 * ENDPOINTS);
    let of = |number: usize| {
        let first = number * ENDPOINTS as usize;
        &addresses[first..first + ENDPOINTS as usize]
    };
    for number in 0..SERVICES {
        let name = format!("web-{number}");
        let service = world.service(&name, cluster_ip(number));
        service
            .and(world.endpoints(&name, of(number)))
            .expect("a Service");
    }
    for number in 0..HOSTS {
        let ingress = world.ingress(&host(number), "/", "web-0", json!({}));
        ingress.expect("an Ingress");
    }
    drop(world.snapshot());
    let mut seeded = Seeded::new(SEED);
    let mut group = criterion.benchmark_group("snapshot");
    let mut odd = false;
    group.bench_function("an endpoint of 250,000 leaves or comes", |bencher| {
        bencher.iter(|| {
            let number = seeded.below(SERVICES);
            odd = !odd;
            let left = &of(number)[usize::from(odd)..];
            world
                .endpoints(&format!("web-{number}"), left)
                .expect("a slice");
            world.snapshot()
        });
    });
    group.bench_function("an Ingress of 20,000 hosts is edited", |bencher| {
        bencher.iter(|| {
            let path = format!("/{}", seeded.below(1 << 20));
            let edited = host(seeded.below(HOSTS));
            let edit = world.ingress(&edited, &path, "web-0", json!({}));
            edit.expect("an Ingress");
            world.snapshot()
        });
    });
    group.finish();
}

criterion_group!(benches, changes);
criterion_main!(benches);
