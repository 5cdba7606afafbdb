//! The API server goes away, a node changes its zone, and proxies end and start again.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::json;

use super::net::{NODE_A, NODE_B};
use super::objects::{Service, ready};
use super::probe::{Connection, Outcome, PATIENCE, Protocol};
use super::serve::PORTS;
use super::table::{Got, answer, becomes, probe};
use super::world::{World, until};

/// Longest time for a process to end.
const END: Duration = Duration::from_secs(5);

fn all(world: &World, protocol: Protocol, addr: SocketAddr, got: &Got) {
    for client in ["a3", "b3"] {
        becomes(world, client, protocol, addr, got);
    }
}

/// S13: hints are read anew when the node's zone changes.
pub(super) fn proxy_s13_another_zone(world: &World) {
    let endpoints = [ready("a1").for_zone("z1"), ready("b1").for_zone("z2")];
    let service = Service::new("zones").endpoints(endpoints).create(world);
    let vip = service.cluster(Protocol::Opaque);
    becomes(world, "a3", Protocol::Opaque, vip, &answer(&["a1"]));
    let zone = |name: &str| json!({"metadata": {"labels": {"topology.kubernetes.io/zone": name}}});
    world.patch("Node", NODE_A, zone("z2"));
    becomes(world, "a3", Protocol::Opaque, vip, &answer(&["b1"]));
    world.patch("Node", NODE_A, zone("z1"));
    becomes(world, "a3", Protocol::Opaque, vip, &answer(&["a1"]));
}

/// O9: the last state goes on, and what was missed is made up for, deletions included.
pub(super) fn proxy_o9_the_api_server_goes_away(world: &World) {
    let kept = Service::new("kept").endpoints([ready("a1")]).create(world);
    let gone = Service::new("gone").endpoints([ready("b1")]).create(world);
    let (vip, gone_vip) = (
        kept.cluster(Protocol::Opaque),
        gone.cluster(Protocol::Opaque),
    );
    all(world, Protocol::Opaque, vip, &answer(&["a1"]));
    all(world, Protocol::Opaque, gone_vip, &answer(&["b1"]));
    for relay in world.relays.values() {
        world.block_on(relay.cut());
    }
    for node in [NODE_A, NODE_B] {
        until("the outage is noticed", || {
            let log = world.with_proxy(node, |proxy| proxy.process.log());
            if log.contains("watch interrupted") {
                Ok(())
            } else {
                Err(log)
            }
        });
    }
    kept.set_endpoints(world, &[ready("b1")]);
    world.delete("Service", &gone.name);
    let new = Service::new("new").endpoints([ready("a2")]).create(world);
    for protocol in [Protocol::Http, Protocol::Opaque, Protocol::Datagram] {
        all(world, protocol, kept.cluster(protocol), &answer(&["a1"]));
        all(world, protocol, gone.cluster(protocol), &answer(&["b1"]));
        all(world, protocol, new.cluster(protocol), &Got::NoAnswer);
    }
    for node in [NODE_A, NODE_B] {
        world.until_ready(node);
    }
    for relay in world.relays.values() {
        world.block_on(relay.heal());
    }
    let sees = |client: &str, addr, got: &Got| {
        let what = format!("{client} after the outage");
        until(&what, || probe(world, client, Protocol::Opaque, addr, got));
    };
    for client in ["a3", "b3"] {
        sees(client, vip, &answer(&["b1"]));
        sees(client, gone_vip, &Got::Nothing);
        sees(client, new.cluster(Protocol::Opaque), &answer(&["a2"]));
    }
}

/// S25: an orderly end leaves nothing behind, and the next start serves again. The other node goes on.
pub(super) fn proxy_s25_a_proxy_is_restarted(world: &World) {
    let service = Service::new("restarts")
        .endpoints([ready("a1")])
        .create(world);
    let vip = service.cluster(Protocol::Opaque);
    all(world, Protocol::Opaque, vip, &answer(&["a1"]));
    let mut through_b = connect(world, "b3", vip);
    end(world, NODE_A, "TERM");
    assert!(!tables(world).contains("sealane"), "{}", tables(world));
    probe(world, "a3", Protocol::Opaque, vip, &Got::NoAnswer).unwrap();
    pods_reach_each_other(world);
    world.start_proxy(NODE_A);
    world.until_ready(NODE_A);
    all(world, Protocol::Opaque, vip, &answer(&["a1"]));
    assert!(matches!(through_b.say(), Outcome::Answered(_)));
}

/// S25: what a crash leaves in the kernel leads nowhere, and stays until the next start has a state.
pub(super) fn proxy_s25_a_proxy_is_killed(world: &World) {
    let service = Service::new("crashes")
        .endpoints([ready("a1")])
        .create(world);
    let empty = Service::new("empty").endpoints([]).create(world);
    let vip = service.cluster(Protocol::Opaque);
    let refused = empty.cluster(Protocol::Opaque);
    all(world, Protocol::Opaque, vip, &answer(&["a1"]));
    all(world, Protocol::Opaque, refused, &Got::Refused);
    let mut through_a = connect(world, "a3", vip);
    let mut through_b = connect(world, "b3", vip);
    end(world, NODE_A, "KILL");
    assert!(
        !matches!(through_a.say(), Outcome::Answered(_)),
        "its relay is gone"
    );
    assert!(
        matches!(through_b.say(), Outcome::Answered(_)),
        "the other node goes on"
    );
    let safe = |when: &str| {
        for (addr, got) in [(vip, Got::NoAnswer), (refused, Got::Refused)] {
            let seen = probe(world, "a3", Protocol::Opaque, addr, &got);
            seen.unwrap_or_else(|seen| panic!("{when}, {addr}: {seen}"));
        }
        probe(world, "b3", Protocol::Opaque, vip, &answer(&["a1"])).unwrap();
        pods_reach_each_other(world);
    };
    safe("after the crash");
    world.block_on(world.relays[NODE_A].cut());
    world.start_proxy(NODE_A);
    safe("before the state is there");
    world.block_on(world.relays[NODE_A].heal());
    world.until_ready(NODE_A);
    all(world, Protocol::Opaque, vip, &answer(&["a1"]));
    all(world, Protocol::Opaque, refused, &Got::Refused);
    assert!(matches!(through_b.say(), Outcome::Answered(_)));
}

fn connect(world: &World, from: &str, addr: SocketAddr) -> Connection {
    let namespace = &world.net.place(from).namespace;
    let opened = namespace.run(move || Connection::open(addr, PATIENCE));
    opened.unwrap_or_else(|outcome| panic!("{outcome:?}"))
}

fn end(world: &World, node: &'static str, signal: &str) {
    world.with_proxy(node, |proxy| {
        proxy.process.signal(signal);
        let status = proxy.process.wait(END);
        assert_eq!(
            status.success(),
            signal == "TERM",
            "{}",
            proxy.process.log()
        );
    });
}

/// Pods, and programs on the node itself, reach pods whatever becomes of the proxy.
fn pods_reach_each_other(world: &World) {
    let [a1, b1] = [("a1", &["a1:8001"]), ("b1", &["b1:8001"])];
    let dialled = [
        ("a3", a1),
        ("a3", b1),
        (NODE_A, a1),
        (NODE_A, b1),
        ("outside", a1),
    ];
    for (client, (pod, answers)) in dialled {
        let addr = (world.net.place(pod).v4, PORTS[1]).into();
        let got = answer(answers).seeing(client);
        let seen = probe(world, client, Protocol::Opaque, addr, &got);
        seen.unwrap_or_else(|seen| panic!("{client} to {pod}: {seen}"));
    }
}

/// The tables of node A.
fn tables(world: &World) -> String {
    world.net.place(NODE_A).namespace.run(|| {
        let listed = std::process::Command::new("nft")
            .args(["list", "tables"])
            .output();
        listed.map_or_else(
            |error| error.to_string(),
            |listed| String::from_utf8_lossy(&listed.stdout).into_owned(),
        )
    })
}
