//! What does it cost to check a request's fields and to write who it is from, however many there are?
#![allow(missing_docs, reason = "made by criterion's macros")]

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use http::{HeaderName, HeaderValue, Request};
use sealane_bench_micro::Seeded;
use sealane_ingress::Peer;
use sealane_proxy::http::gate;

const SEED: u64 = 7;

/// Requests that take turns.
const REQUESTS: usize = 256;

/// A request as a browser's, with `count` fields of which some claim to say where it is from.
fn request(count: usize, seeded: &mut Seeded) -> Request<()> {
    let request = Request::get("/shop/a/b?c=d").header("host", "host-7.example.test");
    let mut request = request.body(()).expect("a request");
    let claims = ["x-forwarded-for", "x-real-ip", "forwarded", "x-scheme"];
    for number in 0..count - 1 {
        let name = match number % 8 {
            7 => claims[number / 8 % claims.len()].to_owned(),
            _ => format!("x-field-{}", seeded.below(100_000)),
        };
        let value = format!("{:0length$}", 7, length = 8 + seeded.below(56));
        let name = HeaderName::try_from(name).expect("a name");
        let value = HeaderValue::try_from(value).expect("a value");
        request.headers_mut().append(name, value);
    }
    request
}

fn headers(criterion: &mut Criterion) {
    let peer = Peer::new(IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9)), 443, true);
    let mut group = criterion.benchmark_group("headers");
    for count in [2, 16, 64] {
        let mut seeded = Seeded::new(SEED);
        let requests: Vec<_> = (0..REQUESTS).map(|_| request(count, &mut seeded)).collect();
        let mut next = requests.iter().cycle();
        group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
            bencher.iter_batched(
                || next.next().expect("it goes round").clone(),
                |mut request| {
                    gate::admit(&mut request).expect("a good request");
                    peer.write(request.headers_mut(), || [SEED, SEED]);
                    black_box(request)
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, headers);
criterion_main!(benches);
