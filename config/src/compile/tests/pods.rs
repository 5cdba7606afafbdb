//! Addresses of pods.

use serde_json::{Value, json};

use super::world::World;
use crate::compile::{Change, Delta, ObjectKey, PodRecord};
use crate::model::Pod;

fn set(world: &mut World, name: &str, pod: Value) {
    let key = ObjectKey::new("shop", name);
    let record = PodRecord::read(serde_json::from_value(pod).unwrap());
    world.apply(Change::Pods(Delta::Set(key, Ok(record))));
}

fn running(ips: &[&str]) -> Value {
    let ips: Vec<Value> = ips.iter().map(|ip| json!({"ip": ip})).collect();
    json!({"metadata": {}, "spec": {"containers": []},
        "status": {"phase": "Running", "podIP": ips[0]["ip"], "podIPs": ips}})
}

/// The pods that have the address.
fn at(world: &mut World, ip: &str) -> Vec<String> {
    let snapshot = world.build();
    let pods = snapshot.pods.get(&ip.parse().unwrap());
    let pods = pods.iter().flat_map(|pods| pods.iter());
    pods.map(|pod: &Pod| format!("{}/{}", pod.namespace, pod.name))
        .collect()
}

#[test]
fn dns_p3_pods_have_their_addresses_until_they_end() {
    let mut world = World::new();
    set(&mut world, "a", running(&["10.1.0.1", "fd00::1"]));
    assert_eq!(at(&mut world, "10.1.0.1"), ["shop/a"]);
    assert_eq!(at(&mut world, "fd00::1"), ["shop/a"]);
    assert!(world.compiler.build(world.now, 0).snapshot.pods.size() == 2);

    let mut ended = running(&["10.1.0.1", "fd00::1"]);
    ended["status"]["phase"] = json!("Succeeded");
    set(&mut world, "a", ended);
    assert!(at(&mut world, "10.1.0.1").is_empty());
    assert!(at(&mut world, "fd00::1").is_empty());
}

#[test]
fn dns_p3_a_pod_that_is_about_to_end_stays_as_it_was() {
    let mut world = World::new();
    set(&mut world, "a", running(&["10.1.0.1"]));
    let mut ending = running(&["10.1.0.9"]);
    ending["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    set(&mut world, "a", ending.clone());
    assert_eq!(at(&mut world, "10.1.0.1"), ["shop/a"]);
    assert!(at(&mut world, "10.1.0.9").is_empty());
    set(&mut world, "late", ending);
    assert!(at(&mut world, "10.1.0.9").is_empty());
    // Its address has gone to another pod by now.
    set(&mut world, "b", running(&["10.1.0.1"]));
    assert_eq!(at(&mut world, "10.1.0.1"), ["shop/a", "shop/b"]);
    world.apply(Change::Pods(Delta::Remove(ObjectKey::new("shop", "a"))));
    assert_eq!(at(&mut world, "10.1.0.1"), ["shop/b"]);
    world.apply(Change::Pods(Delta::Remove(ObjectKey::new("shop", "late"))));
    assert_eq!(at(&mut world, "10.1.0.1"), ["shop/b"]);
}

#[test]
fn changes_of_pods_that_say_nothing_new_are_none() {
    let mut world = World::new();
    set(&mut world, "a", running(&["10.1.0.1"]));
    assert!(world.compiler.build(world.now, 0).is_changed);
    let mut again = running(&["10.1.0.1"]);
    again["metadata"]["labels"] = json!({"a": "b"});
    set(&mut world, "a", again);
    assert!(!world.compiler.build(world.now, 0).is_changed);
}
