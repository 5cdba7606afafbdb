//! Endpoints that move between slices.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::world::{World, service, slice, vip};
use crate::Snapshot;
use crate::defaults::SLICE_MOVE_GRACE;

const VIP: &str = "10.96.0.1:80";

fn world() -> World {
    let mut world = World::new();
    world.service(
        "web",
        json!({"clusterIP": "10.96.0.1", "ports": [{"name": "http", "port": 80}]}),
    );
    world
}

fn ready(hosts: &BTreeSet<u8>) -> Value {
    let one =
        |host: &u8| json!({"addresses": [format!("10.1.0.{host}")], "conditions": {"ready": true}});
    Value::Array(hosts.iter().map(one).collect())
}

/// The last octets of the addresses that DNS answers and that take traffic; both are the same.
fn served(snapshot: &Snapshot) -> BTreeSet<u8> {
    let host = |addr: &str| addr.rsplit('.').next().unwrap().parse::<u8>().unwrap();
    let web = service(snapshot, "web").unwrap();
    let dns: BTreeSet<u8> = web
        .endpoints
        .iter()
        .filter(|endpoint| endpoint.ready)
        .map(|endpoint| host(&endpoint.addr().to_string()))
        .collect();
    let traffic = vip(snapshot, VIP).unwrap();
    let traffic: BTreeSet<u8> = traffic
        .iter()
        .map(|addr| host(addr.trim_end_matches(":8080")))
        .collect();
    assert_eq!(dns, traffic);
    dns
}

fn grace() -> u64 {
    u64::try_from(SLICE_MOVE_GRACE.as_millis()).unwrap()
}

#[test]
fn dns_b12_removal_may_arrive_first() {
    let mut world = world();
    world.slice("x", "web", ready(&[1, 2].into()));
    assert_eq!(served(&world.build()), [1, 2].into());
    world.slice("x", "web", ready(&[2].into()));
    assert_eq!(served(&world.build()), [1, 2].into(), "held");
    world.wait(grace() - 1);
    world.slice("y", "web", ready(&[1].into()));
    assert_eq!(served(&world.build()), [1, 2].into(), "arrived");
    assert_eq!(
        world.compiler.next_deadline(),
        None,
        "nothing is held any more"
    );
    world.delete_slice("x");
    assert_eq!(
        served(&world.build()),
        [1, 2].into(),
        "a deleted slice is a removal too"
    );
    world.slice("y", "web", ready(&[1, 2].into()));
    assert_eq!(served(&world.build()), [1, 2].into());
}

#[test]
fn dns_b12_real_removal_takes_effect_within_the_grace() {
    let mut world = world();
    world.slice("x", "web", ready(&[1, 2].into()));
    world.build();
    world.slice("x", "web", ready(&[2].into()));
    world.build();
    let deadline = world.compiler.next_deadline().unwrap();
    assert_eq!(deadline, world.now + SLICE_MOVE_GRACE);
    world.wait(grace());
    let (snapshot, work) = world.build_counted();
    assert_eq!(served(&snapshot), [2].into());
    assert_eq!(work.services, 1);
    assert_eq!(world.compiler.next_deadline(), None);
}

#[test]
fn dns_b9_own_transition_is_believed_at_once() {
    let conditions = [
        ("not ready", json!({"ready": false})),
        (
            "terminating",
            json!({"ready": false, "serving": false, "terminating": true}),
        ),
    ];
    for (name, conditions) in conditions {
        let mut world = world();
        world.slice("x", "web", ready(&[1, 2].into()));
        world.build();
        world.slice(
            "x",
            "web",
            json!([
            {"addresses": ["10.1.0.1"], "conditions": conditions.clone()},
            {"addresses": ["10.1.0.2"], "conditions": {"ready": true}}]),
        );
        assert_eq!(served(&world.build()), [2].into(), "{name}");
        world.slice("x", "web", ready(&[2].into()));
        assert_eq!(served(&world.build()), [2].into(), "{name}, then gone");
        assert_eq!(
            world.compiler.next_deadline(),
            None,
            "{name}: nothing is held"
        );
    }
}

#[test]
fn dns_b12_the_slice_that_has_it_now_speaks_for_it() {
    let mut world = world();
    world.slice("x", "web", ready(&[1].into()));
    world.build();
    world.delete_slice("x");
    world.build();
    world.slice(
        "y",
        "web",
        json!([{"addresses": ["10.1.0.1"], "conditions": {"ready": false}}]),
    );
    assert_eq!(served(&world.build()), [].into());
}

#[test]
fn dns_b12_a_list_overrules_what_is_held() {
    let mut world = world();
    world.slice("x", "web", ready(&[1, 2].into()));
    world.build();
    world.slice("x", "web", ready(&[2].into()));
    world.build();
    world.list_slices(vec![slice("z", "web", ready(&[3].into()))]);
    assert_eq!(served(&world.build()), [3].into());
    assert_eq!(world.compiler.next_deadline(), None);
}

/// One endpoint goes to another slice.
#[derive(Clone, Debug)]
struct Move {
    host: u8,
    to: u8,
    removal_first: bool,
    /// Between the two halves, milliseconds, within the grace.
    apart: u64,
    /// Until the next move.
    pause: u64,
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = (1_u8..=12, 0_u8..4, any::<bool>(), 0..grace(), 0_u64..120);
    let one = one.prop_map(|(host, to, removal_first, apart, pause)| Move {
        host,
        to,
        removal_first,
        apart,
        pause,
    });
    prop::collection::vec(one, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn dns_b12_no_gap_while_slices_move(moves in moves()) {
        let all: BTreeSet<u8> = (1..=12).collect();
        let mut slices: BTreeMap<u8, BTreeSet<u8>> = BTreeMap::from([(0, all.clone())]);
        let mut world = world();
        world.slice("s0", "web", ready(&all));
        prop_assert_eq!(served(&world.build()), all.clone());
        for step in moves {
            let from = *slices.iter().find(|(_, hosts)| hosts.contains(&step.host)).unwrap().0;
            if from == step.to {
                continue;
            }
            slices.get_mut(&from).unwrap().remove(&step.host);
            slices.entry(step.to).or_default().insert(step.host);
            let mut order = [from, step.to];
            if !step.removal_first {
                order.reverse();
            }
            for (half, changed) in order.into_iter().enumerate() {
                if half == 1 {
                    world.wait(step.apart);
                }
                let name = format!("s{changed}");
                match &slices[&changed] {
                    hosts if hosts.is_empty() => world.delete_slice(&name),
                    hosts => world.slice(&name, "web", ready(hosts)),
                }
                prop_assert_eq!(served(&world.build()), all.clone());
            }
            world.wait(step.pause);
        }
        prop_assert_eq!(served(&world.build()), all);
        prop_assert_eq!(world.compiler.next_deadline(), None);
    }
}
