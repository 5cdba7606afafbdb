//! Memory and time of the compiler at the size that is planned for: 10,000 Services with 250,000
//! endpoints.
//!
//! `cargo run -p sealane-config --example compile [SERVICES] [ENDPOINTS EACH] [names]`
//!
//! With `names` as for a DNS server: 100,000 Services without endpoints are to take at most 100 MB.
#![allow(clippy::print_stdout, reason = "a figure is what it is for")]

use std::collections::BTreeMap;
use std::fs;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use sealane_config::compile::endpoint_slice::{
    Endpoint, EndpointConditions, EndpointHints, EndpointPort, EndpointSlice, Hinted, Metadata,
    ObjectReference,
};
use sealane_config::compile::{
    Change, Compiler, Delta, GatewayOptions, Names, NodeIdentity, ObjectKey, ServiceRecord,
    SliceRecord,
};
use sealane_config::snapshot;
use tokio::time::Instant;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Objects a page of a list, as the watches ask for them.
const PAGE: usize = 500;
const NODES: usize = 1_000;
const ZONES: usize = 3;
const NAMESPACES: usize = 100;
/// Changes of one slice that are timed.
const CHANGES: usize = 1_000;

fn main() {
    let names_only = std::env::args().any(|argument| argument == "names");
    let mut arguments = std::env::args()
        .skip(1)
        .filter_map(|text| text.parse().ok());
    let services = arguments.next().unwrap_or(10_000);
    let each = arguments.next().unwrap_or(25);
    let size = Size { services, each };
    let gateway = GatewayOptions::default();
    let here = NodeIdentity {
        name: node(7).into(),
    };
    let mut compiler = match names_only {
        true => Compiler::new(gateway, None).without_traffic(),
        false => Compiler::new(gateway, Some(here)),
    };
    let (mut publisher, reader) = snapshot::channel();
    let before = memory("VmRSS");

    let started = Instant::now();
    size.list_services(&mut compiler);
    size.list_slices(&mut compiler);
    let listed = started.elapsed();
    let started = Instant::now();
    let built = compiler.build(Instant::now(), 0);
    let compiled = started.elapsed();
    println!("{:?}", built.work);
    publisher.publish(built.snapshot);
    println!("read {listed:?}, compiled {compiled:?}");
    let steady = memory("VmRSS");
    println!(
        "memory {} MB, {} MB at the start",
        steady >> 10,
        before >> 10
    );

    // The peak is counted from here.
    if fs::write("/proc/self/clear_refs", "5").is_err() {
        println!("the peak cannot be reset here, so it is that of the whole run");
    }
    size.list_services(&mut compiler);
    size.list_slices(&mut compiler);
    let built = compiler.build(Instant::now(), 0);
    println!("listed again: {:?}", built.work);
    drop(built);
    let peak = memory("VmHWM");
    println!(
        "peak of a relist {} MB, {} % of {} MB",
        peak >> 10,
        peak * 100 / steady,
        steady >> 10
    );

    let mut names = Names::default();
    let mut slowest = std::time::Duration::ZERO;
    let started = Instant::now();
    for change in 0..CHANGES {
        let service = change * 7 % services;
        let (key, slice) = size.slice(service, change % each.max(1));
        let record = SliceRecord::read(&key, slice, &mut names);
        let begun = Instant::now();
        compiler.apply(Change::Slices(Delta::Set(key, Ok(record))), begun);
        let built = compiler.build(begun, 1);
        publisher.publish(built.snapshot);
        slowest = slowest.max(begun.elapsed());
    }
    println!(
        "{CHANGES} changes of one slice: {:?} each with reading it, {slowest:?} at most",
        started.elapsed() / u32::try_from(CHANGES).unwrap_or(1)
    );
    println!("memory {} MB", memory("VmRSS") >> 10);
    drop(reader);
}

struct Size {
    services: usize,
    each: usize,
}

fn node(number: usize) -> String {
    format!("ip-10-0-{}-{}.internal", number / 256, number % 256)
}

fn namespace(service: usize) -> String {
    format!("team-{}", service % NAMESPACES)
}

fn name(service: usize) -> String {
    format!("checkout-service-{service}")
}

impl Size {
    fn list_services(&self, compiler: &mut Compiler) {
        let now = Instant::now();
        let mut names = Names::default();
        compiler.apply(Change::Services(Delta::ListBegin), now);
        for page in (0..self.services).collect::<Vec<_>>().chunks(PAGE) {
            let read = |&index: &usize| {
                let key = names.key(&namespace(index), &name(index));
                let record = ServiceRecord::read(&key, service(index), &mut names);
                (key, Ok(Some(record)))
            };
            let page = Delta::Page(page.iter().map(read).collect());
            compiler.apply(Change::Services(page), now);
        }
        compiler.apply(Change::Services(Delta::ListEnd), now);
    }

    fn list_slices(&self, compiler: &mut Compiler) {
        let now = Instant::now();
        let mut names = Names::default();
        compiler.apply(Change::Slices(Delta::ListBegin), now);
        let with_slice = if self.each == 0 { 0 } else { self.services };
        for page in (0..with_slice).collect::<Vec<_>>().chunks(PAGE) {
            let read = |&index: &usize| {
                let (key, slice) = self.slice(index, usize::MAX);
                let key = names.key(&key.namespace, &key.name);
                let record = SliceRecord::read(&key, slice, &mut names);
                (key, Ok(record))
            };
            let page = Delta::Page(page.iter().map(read).collect());
            compiler.apply(Change::Slices(page), now);
        }
        compiler.apply(Change::Slices(Delta::ListEnd), now);
    }

    /// The slice of a Service; its endpoint number `unready` is not ready.
    fn slice(&self, service: usize, unready: usize) -> (ObjectKey, EndpointSlice) {
        let name = name(service);
        let key = ObjectKey::new(&namespace(service), &format!("{name}-x7k2p"));
        let endpoints = (0..self.each).map(|index| self.endpoint(service, index, unready));
        let label = ("kubernetes.io/service-name".to_owned(), name);
        let slice = EndpointSlice {
            address_type: "IPv4".into(),
            metadata: Metadata {
                labels: BTreeMap::from([label]),
                ..Metadata::default()
            },
            endpoints: endpoints.collect(),
            ports: vec![EndpointPort {
                name: Some("http".into()),
                port: Some(8080),
                protocol: Some("TCP".into()),
            }],
        };
        (key, slice)
    }

    fn endpoint(&self, service: usize, index: usize, unready: usize) -> Endpoint {
        let number = service * self.each + index;
        // Pods of a Service are spread over nodes, each of which has its own range of addresses.
        let (on, place) = (number * 7 % NODES, number / NODES);
        let ip = format!(
            "10.{}.{}.{}",
            64 + on / 256 + 4 * (place / 256),
            on % 256,
            place % 256
        );
        let ready = Some(index != unready);
        let zone = format!("eu-west-{}", on % ZONES);
        Endpoint {
            addresses: vec![ip],
            conditions: Some(EndpointConditions {
                ready,
                serving: ready,
                terminating: Some(false),
            }),
            hints: Some(EndpointHints {
                for_zones: vec![Hinted { name: zone.clone() }],
                ..EndpointHints::default()
            }),
            node_name: Some(node(on)),
            target_ref: Some(ObjectReference {
                kind: "Pod".into(),
                name: format!("{}-7d4b9c6f5d-{number:05x}", name(service)),
                namespace: namespace(service),
                uid: format!("c0ffee00-dead-4bee-8000-{number:012x}"),
            }),
            zone: Some(zone),
            ..Endpoint::default()
        }
    }
}

fn port(name: &str, port: i32) -> core::ServicePort {
    core::ServicePort {
        name: Some(name.into()),
        port,
        protocol: Some("TCP".into()),
        ..core::ServicePort::default()
    }
}

fn service(index: usize) -> core::Service {
    let ip = format!(
        "10.{}.{}.{}",
        32 + index / 65_536,
        index / 256 % 256,
        index % 256
    );
    core::Service {
        metadata: ObjectMeta::default(),
        spec: Some(core::ServiceSpec {
            cluster_ip: Some(ip.clone()),
            cluster_ips: Some(vec![ip]),
            ports: Some(vec![port("http", 80), port("metrics", 9090)]),
            type_: Some("ClusterIP".into()),
            ..core::ServiceSpec::default()
        }),
        status: None,
    }
}

/// A figure of this process in KiB.
fn memory(field: &str) -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with(field));
    let number = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
    number.unwrap_or_default()
}
