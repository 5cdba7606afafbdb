//! What does it cost to decide on a request, however many hosts there are, and with filters?
#![allow(missing_docs, reason = "made by criterion's macros")]

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use http::Request;
use sealane_bench_micro::{Seeded, World, addresses, host};
use sealane_config::Snapshot;
use sealane_ingress::decide::{Came, decide};
use sealane_proxy::balance::Balancer;
use serde_json::{Value, json};

const SEED: u64 = 7;

/// So many hosts with a rule each.
fn hosts(count: usize, path: &str, annotations: &Value) -> Snapshot {
    let mut world = World::new().expect("a class");
    let service = world.service("web", Ipv4Addr::new(10, 96, 0, 7));
    service.expect("a Service");
    world.endpoints("web", &addresses(3)).expect("endpoints");
    for number in 0..count {
        let ingress = world.ingress(&host(number), path, "web", annotations.clone());
        ingress.expect("an Ingress");
    }
    world.snapshot()
}

fn decision(criterion: &mut Criterion) {
    let rewritten = json!({
        "nginx.ingress.kubernetes.io/use-regex": "true",
        "nginx.ingress.kubernetes.io/rewrite-target": "/$2",
        "nginx.ingress.kubernetes.io/enable-cors": "true",
    });
    let mut group = criterion.benchmark_group("route");
    for (name, count, path, annotations) in [
        ("10 hosts", 10, "/", json!({})),
        ("20,000 hosts", 20_000, "/", json!({})),
        ("1,000 hosts, rewritten", 1000, "/shop(/|$)(.*)", rewritten),
    ] {
        let snapshot = hosts(count, path, &annotations);
        let balancer = Balancer::seeded(SEED);
        let mut seeded = Seeded::new(SEED);
        let request = |number: usize| {
            let request = Request::get("/shop/a/b?c=d").header("host", host(number));
            request.body(()).expect("a request")
        };
        let requests: Vec<_> = (0..1024).map(|_| request(seeded.below(count))).collect();
        let mut next = requests.iter().cycle();
        group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
            bencher.iter(|| {
                let came = Came {
                    client: IpAddr::V4(Ipv4Addr::LOCALHOST),
                    secure: false,
                    https_port: 443,
                    session: None,
                };
                let request = next.next().expect("it goes round");
                decide(&snapshot, black_box(request), came, &balancer).is_ok()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, decision);
criterion_main!(benches);
