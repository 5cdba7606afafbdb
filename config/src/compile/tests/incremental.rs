//! Work is proportional to what changed.

use std::sync::Arc;

use serde_json::json;

use super::world::{EPOCH, World, one_host, path, service, vip};
use crate::compile::Work;

fn ip(index: usize) -> String {
    format!(
        "10.{}.{}.{}",
        96 + index / 65_536,
        index / 256 % 256,
        index % 256
    )
}

/// `count` Services with a slice and an Ingress each.
fn crowd(count: usize) -> World {
    let mut world = World::new();
    for index in 0..count {
        let name = format!("s{index}");
        world.service(
            &name,
            json!({"clusterIP": ip(index), "ports": [{"name": "http", "port": 80}]}),
        );
        world.slice(&name, &name, json!([{"addresses": ["172.16.0.1"]}]));
        let host = format!("{name}.test");
        world.ingress(
            &name,
            0,
            json!({}),
            one_host(&host, json!([path("Prefix", "/", &name)])),
        );
    }
    world
}

#[test]
fn proxy_s27_work_does_not_grow_with_the_number_of_services() {
    for count in [10, 1_000] {
        let mut world = crowd(count);
        let (before, work) = world.build_counted();
        assert_eq!(
            work,
            Work {
                services: count,
                slices: count,
                endpoints: count,
                hosts: count,
            }
        );

        world.slice(
            "s7",
            "s7",
            json!([{"addresses": ["172.16.0.2"]}, {"addresses": ["172.16.0.1"]}]),
        );
        let (after, work) = world.build_counted();
        assert_eq!(
            work,
            Work {
                services: 1,
                slices: 1,
                endpoints: 2,
                hosts: 0,
            },
            "one slice of {count}"
        );
        assert_eq!(vip(&after, &format!("{}:80", ip(7))).unwrap().len(), 2);
        let same = |name: &str| {
            std::ptr::eq(
                service(&before, name).unwrap(),
                service(&after, name).unwrap(),
            )
        };
        assert!(same("s8") && !same("s7"), "the others are shared");

        world.service(
            "s3",
            json!({"clusterIP": ip(3), "ports": [{"name": "http", "port": 8080}]}),
        );
        let (_, work) = world.build_counted();
        assert_eq!(
            work,
            Work {
                services: 1,
                slices: 1,
                endpoints: 1,
                hosts: 1,
            },
            "ports of one Service of {count}"
        );

        let spec = json!({"rules": [{"host": "s5.test"}, {"host": "new.test"}], "tls": [{"hosts": ["s5.test"]}]});
        world.ingress("s5", 0, json!({}), spec);
        let (after, work) = world.build_counted();
        assert_eq!(
            work,
            Work {
                hosts: 2,
                ..Work::default()
            },
            "one Ingress of {count}"
        );
        let routes =
            |snapshot: &crate::Snapshot| Arc::clone(snapshot.routes.host("s6.test").unwrap());
        assert!(Arc::ptr_eq(&routes(&before), &routes(&after)));

        world.slice(
            "s7",
            "s7",
            json!([{"addresses": ["172.16.0.2"]}, {"addresses": ["172.16.0.1"]}]),
        );
        let (_, work) = world.build_counted();
        assert_eq!(work, Work::default(), "the same object again");
    }
}

#[test]
fn ingress_u2_16_000_ingresses_are_compiled_once_and_an_edit_costs_its_host() {
    const INGRESSES: usize = 16_000;
    let mut world = World::new();
    world.simple_service("a");
    let edit = |world: &mut World, index: usize, at: &str| {
        let host = format!("s{index}.test");
        let spec = one_host(&host, json!([path("Prefix", at, "a")]));
        world.ingress(&format!("s{index}"), 0, json!({}), spec);
        host
    };
    for index in 0..INGRESSES {
        edit(&mut world, index, "/");
    }
    let (before, work) = world.build_counted();
    assert_eq!(work.hosts, INGRESSES, "each host once, at the start");
    for number in 0..20 {
        let host = edit(&mut world, number * 797, "/edited");
        let (after, work) = world.build_counted();
        let one = Work {
            hosts: 1,
            ..Work::default()
        };
        assert_eq!(work, one, "{host}");
        let routes = |snapshot: &crate::Snapshot, host: &str| {
            Arc::clone(snapshot.routes.host(host).unwrap())
        };
        assert!(!Arc::ptr_eq(
            &routes(&before, &host),
            &routes(&after, &host)
        ));
        let other = "s1.test";
        assert!(Arc::ptr_eq(&routes(&before, other), &routes(&after, other)));
    }
}

#[test]
fn proxy_s27_n_changes_cost_n() {
    const SERVICES: usize = 2_000;
    let mut world = crowd(SERVICES);
    world.build();
    for changes in [1, 10, 100] {
        let mut total = Work::default();
        for change in 0..changes {
            let name = format!("s{}", change * 19 % SERVICES);
            let endpoints = json!([{"addresses": ["172.16.0.1"], "conditions": {"ready": change % 2 == 0}},
                {"addresses": [format!("172.16.1.{changes}")]}]);
            world.slice(&name, &name, endpoints);
            let (_, work) = world.build_counted();
            total.services += work.services;
            total.slices += work.slices;
            total.endpoints += work.endpoints;
            total.hosts += work.hosts;
        }
        let want = Work {
            services: changes,
            slices: changes,
            endpoints: 2 * changes,
            hosts: 0,
        };
        // What a change before took away is held for a moment, and is an endpoint as well.
        assert!(total.endpoints <= 3 * changes, "{total:?}");
        total.endpoints = 2 * changes;
        assert_eq!(total, want, "{changes} changes, one by one");
        world.wait(1_000);
        world.build();
    }
    for change in 0..100 {
        let name = format!("s{change}");
        for round in 0..3 {
            world.slice(
                &name,
                &name,
                json!([{"addresses": [format!("172.16.2.{round}")]}]),
            );
        }
    }
    let (_, work) = world.build_counted();
    assert_eq!(
        (work.services, work.slices),
        (100, 100),
        "a batch touches each once"
    );
}

#[test]
fn regular_expressions_are_compiled_once() {
    let mut world = World::new();
    world.simple_service("a");
    let annotations = json!({"nginx.ingress.kubernetes.io/use-regex": "true"});
    let spec = one_host("host", json!([path("ImplementationSpecific", "/a+", "a")]));
    world.ingress("first", 0, annotations, spec);
    let regex = |world: &mut World| match &super::world::host(&world.build(), "host")
        .rules
        .last()
        .unwrap()
        .path
    {
        crate::model::PathMatch::Regex(regex) => Arc::clone(regex),
        other => panic!("{other:?}"),
    };
    let before = regex(&mut world);
    world.ingress(
        "second",
        1,
        json!({}),
        one_host("host", json!([path("Exact", "/long/path", "a")])),
    );
    assert!(Arc::ptr_eq(&before, &regex(&mut world)));
}

#[test]
fn only_what_differs_is_a_change() {
    let mut world = crowd(3);
    let endpoints = || json!([{"addresses": ["172.16.0.1"]}]);
    let build = |world: &mut World| {
        world.epoch += 1;
        let built = world.compiler.build(world.now, world.epoch);
        (built.is_changed, built.snapshot.changed_at - EPOCH)
    };
    assert_eq!(build(&mut world), (true, 1));
    world.slice("s1", "s1", endpoints());
    assert_eq!(build(&mut world), (false, 1), "the same again");
    world.namespace("shop", true);
    assert_eq!(build(&mut world), (true, 3));
    world.slice("s1", "s1", json!([]));
    world.epoch -= 100;
    assert_eq!(
        build(&mut world),
        (true, 3),
        "the clock went back, the serial does not"
    );
}
