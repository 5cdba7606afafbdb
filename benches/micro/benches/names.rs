//! What does it cost to look a name up, and to write the answer down?
#![allow(missing_docs, reason = "made by criterion's macros")]

use std::hint::black_box;
use std::net::Ipv4Addr;

use criterion::{Criterion, criterion_group, criterion_main};
use hickory_proto::rr::RecordType;
use sealane_bench_micro::{Seeded, World, addresses};
use sealane_dns::DnsSettings;
use sealane_dns::answer::encode::{self, Transport};
use sealane_dns::lookup::{self, Outcome};
use sealane_dns::message::{self, Question};

const SEED: u64 = 7;
const SERVICES: usize = 10_000;

fn names(criterion: &mut Criterion) {
    let mut world = World::new().expect("a class");
    for number in 0..SERVICES {
        let ip = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 96, 0, 1)) + number as u32);
        let name = format!("web-{number}");
        let service = world.service(&name, ip);
        service
            .and(world.endpoints(&name, &addresses(3)))
            .expect("a Service");
    }
    let snapshot = world.snapshot();
    let settings = DnsSettings::default();
    let mut seeded = Seeded::new(SEED);
    let mut question = |record_type| {
        let name = format!("web-{}.default.svc.cluster.local", seeded.below(SERVICES));
        Question::new(name.parse().expect("a name"), record_type)
    };
    let mut group = criterion.benchmark_group("names");
    for (name, record_type) in [("A", RecordType::A), ("SRV", RecordType::SRV)] {
        let questions: Vec<_> = (0..1024).map(|_| question(record_type)).collect();
        let mut next = questions.iter().cycle();
        group.bench_function(format!("look up, {name}"), |bencher| {
            bencher.iter(|| {
                let question = next.next().expect("it goes round");
                lookup::answer(&snapshot, &settings, black_box(question))
            });
        });
        let first = &questions[0];
        let Outcome::Done(answer) = lookup::answer(&snapshot, &settings, first) else {
            panic!("{first:?} is not answered");
        };
        let asked = encode::query(7, first, None, 0x0100);
        let query = message::parse(&asked).expect("a query");
        let mut out = Vec::with_capacity(512);
        group.bench_function(format!("parse and encode, {name}"), |bencher| {
            bencher.iter(|| {
                let query = message::parse(black_box(&asked));
                out.clear();
                encode::reply(&query.expect("a query"), &answer, Transport::Udp, &mut out);
                out.len()
            });
        });
        drop(query);
    }
    group.finish();
}

criterion_group!(benches, names);
criterion_main!(benches);
