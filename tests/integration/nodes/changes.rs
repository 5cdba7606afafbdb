//! What changes of the API do to connections that are open and to those that follow.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::net::{Family, NODE_A, NODE_B, OUTSIDE};
use super::objects::{Made, Service, ready, unready};
use super::probe::{Connection, Outcome, PATIENCE, Protocol, ask};
use super::table::{Got, answer, becomes, probe};
use super::world::{World, until};
use crate::support::mode::get;

/// A node port of those that are not given out unasked (KEP-3668).
const HEALTH_PORT: u16 = 30_010;

/// Pods of the two nodes that dial.
const CLIENTS: [&str; 2] = ["a3", "b3"];

pub(super) fn proxy_s19_open_connections_outlive_endpoints_policies_and_services(world: &World) {
    let mut service = Service::new("s19").endpoints([ready("a1")]).create(world);
    let vip = service.cluster(Protocol::Opaque);
    becomes(world, "a3", Protocol::Opaque, vip, &answer(&["a1"]));
    becomes(world, "b3", Protocol::Opaque, vip, &answer(&["a1"]));
    let mut open = CLIENTS.map(|client| connect(world, client, &service));
    let mut go_on = |change: &str| {
        for connection in &mut open {
            let Outcome::Answered(said) = connection.say() else {
                panic!("cut by {change}");
            };
            assert_eq!(said.pod, "a1", "{change}");
        }
    };
    go_on("nothing");
    service.set_endpoints(world, &[ready("b1"), unready("a1")]);
    becomes(world, "a3", Protocol::Opaque, vip, &answer(&["b1"]));
    go_on("the end of the endpoint");
    service.set_endpoints(world, &[]);
    becomes(world, "b3", Protocol::Opaque, vip, &Got::Refused);
    go_on("the end of all endpoints");
    service.patch(world, json!({"spec": {"internalTrafficPolicy": "Local"}}));
    service.set_endpoints(world, &[ready("b1")]);
    becomes(world, "b3", Protocol::Opaque, vip, &answer(&["b1"]));
    go_on("a policy");
    world.delete("Service", &service.name);
    becomes(world, "a3", Protocol::Opaque, vip, &Got::Nothing);
    becomes(world, "b3", Protocol::Opaque, vip, &Got::Nothing);
    go_on("the end of the Service");
}

fn connect(world: &World, from: &str, service: &Made) -> Connection {
    let vip = service.cluster(Protocol::Opaque);
    let namespace = &world.net.place(from).namespace;
    let opened = namespace.run(move || Connection::open(vip, PATIENCE));
    opened.unwrap_or_else(|outcome| panic!("{outcome:?}"))
}

pub(super) fn proxy_s24_s20_s11_other_types_ports_and_labels_within_a_second(world: &World) {
    let mut service = Service::new("s24").endpoints([ready("a1")]).create(world);
    let all = |addr: std::net::SocketAddr, protocol, got: &Got| {
        for client in CLIENTS {
            becomes(world, client, protocol, addr, got);
        }
    };
    let first = service.cluster(Protocol::Opaque);
    all(first, Protocol::Opaque, &answer(&["a1"]));

    // To NodePort and back.
    service.patch(world, json!({"spec": {"type": "NodePort"}}));
    let node_port = service.node_port(Protocol::Opaque);
    let at_a = (world.net.place(NODE_A).v4, node_port).into();
    becomes(world, "outside", Protocol::Opaque, at_a, &answer(&["a1"]));
    let without = without_node_ports(&service.object);
    service.patch(
        world,
        json!({"spec": {"type": "ClusterIP", "ports": without}}),
    );
    becomes(world, "outside", Protocol::Opaque, at_a, &Got::Refused);
    all(first, Protocol::Opaque, &answer(&["a1"]));

    // To ExternalName and back, which may give it another address.
    let alias = json!({"type": "ExternalName", "externalName": "elsewhere.test",
        "clusterIP": null, "clusterIPs": null});
    service.patch(world, json!({"spec": alias}));
    all(first, Protocol::Opaque, &Got::Nothing);
    service.patch(
        world,
        json!({"spec": {"type": "ClusterIP", "externalName": null}}),
    );
    let second = service.cluster(Protocol::Opaque);
    all(second, Protocol::Opaque, &answer(&["a1"]));

    // From TCP to UDP on the same port.
    let ports = service.object["spec"]["ports"].as_array().unwrap().clone();
    let only_udp: Vec<_> = ports
        .iter()
        .filter(|port| port["protocol"] == "UDP")
        .collect();
    let only_tcp: Vec<_> = ports
        .iter()
        .filter(|port| port["protocol"] == "TCP")
        .collect();
    service.patch(world, json!({"spec": {"ports": only_tcp}}));
    all(second, Protocol::Datagram, &Got::Refused);
    service.patch(world, json!({"spec": {"ports": only_udp}}));
    all(second, Protocol::Datagram, &answer(&["a1"]));
    all(second, Protocol::Opaque, &Got::Refused);

    // A port that comes, changes its name and goes.
    let more = |name: &str| {
        let port = json!({"name": name, "port": 82, "targetPort": 8001, "appProtocol": "tcp"});
        let mut ports = ports.clone();
        ports.push(port);
        (
            json!({"spec": {"ports": ports}}),
            json!({"ports": [{"name": name, "port": 8001}]}),
        )
    };
    let third = (second.ip(), 82).into();
    for name in ["more", "renamed"] {
        let (in_service, in_slice) = more(name);
        service.patch(world, in_service);
        world.patch("EndpointSlice", &service.slice_name(Family::V4), in_slice);
        all(third, Protocol::Opaque, &answer(&["a1:8001"]));
    }
    service.patch(world, json!({"spec": {"ports": only_tcp}}));
    all(third, Protocol::Opaque, &Got::Refused);

    // Another Service with the same address.
    world.delete("Service", &service.name);
    world.delete("EndpointSlice", &service.slice_name(Family::V4));
    let service = Service::new("s24-again")
        .spec("clusterIP", second.ip().to_string())
        .endpoints([ready("b1")]);
    let mut service = service.create(world);
    all(second, Protocol::Opaque, &answer(&["b1"]));

    // Somebody else's, and ours again.
    for label in [
        "service.kubernetes.io/service-proxy-name",
        "service.kubernetes.io/headless",
    ] {
        service.patch(world, json!({"metadata": {"labels": {label: "other"}}}));
        all(second, Protocol::Opaque, &Got::NoAnswer);
        service.patch(world, json!({"metadata": {"labels": {label: null}}}));
        all(second, Protocol::Opaque, &answer(&["b1"]));
    }
}

fn without_node_ports(service: &Value) -> Value {
    let mut ports = service["spec"]["ports"].clone();
    for port in ports.as_array_mut().unwrap() {
        port.as_object_mut().unwrap().remove("nodePort");
    }
    ports
}

pub(super) fn proxy_s12_a_client_stays_with_its_pod_until_that_is_not_ready(world: &World) {
    let pods = ["a1", "a2", "b1", "b2"];
    let service = Service::new("s12")
        .node_ports()
        .spec("sessionAffinity", "ClientIP")
        .endpoints(pods.map(ready))
        .create(world);
    world.settle();
    for protocol in [Protocol::Http, Protocol::Opaque, Protocol::Datagram] {
        let vip = service.cluster(protocol);
        let here = (world.net.place(NODE_A).v4, service.node_port(protocol)).into();
        let namespace = &world.net.place("a3").namespace;
        let once = |addr| match namespace.run(move || ask(protocol, addr, PATIENCE)) {
            Outcome::Answered(said) => said.pod,
            other => panic!("{protocol:?} to {addr}: {other:?}"),
        };
        let stays = || {
            let first = once(vip);
            for addr in [vip, here].repeat(8) {
                assert_eq!(once(addr), first, "{protocol:?} to {addr}");
            }
            first
        };
        let chosen = stays();
        let endpoints = pods.map(|pod| {
            if pod == chosen {
                unready(pod)
            } else {
                ready(pod)
            }
        });
        service.set_endpoints(world, &endpoints);
        world.settle();
        assert_ne!(stays(), chosen, "{protocol:?}");
        service.set_endpoints(world, &pods.map(ready));
        world.settle();
    }
}

/// Load balancers ask each node whether it has pods for them.
pub(super) fn proxy_s15_load_balancers_learn_where_pods_are(world: &World) {
    let service = Service::new("s15")
        .balanced()
        .spec("externalTrafficPolicy", "Local")
        .spec("healthCheckNodePort", HEALTH_PORT)
        .endpoints([ready("a1"), ready("a2")])
        .create(world);
    let says = |node: &str, status: u16, count: usize| {
        let addr = (world.net.place(node).v4, HEALTH_PORT).into();
        let outside = &world.net.place(OUTSIDE).namespace;
        until(&format!("{node}: {status}, {count}"), || {
            let (seen, body) = outside.run(move || get(addr, "balancer", "/"))?;
            let told: Value = serde_json::from_str(&body).map_err(|error| error.to_string())?;
            let expected = json!({"namespace": "default", "name": "s15"});
            if (seen, &told["service"]) == (status, &expected) && told["localEndpoints"] == count {
                Ok(())
            } else {
                Err(format!("{seen} {body}"))
            }
        });
    };
    says(NODE_A, 200, 2);
    says(NODE_B, 503, 0);
    service.set_endpoints(world, &[unready("a1"), unready("a2"), ready("b1")]);
    says(NODE_A, 503, 0);
    says(NODE_B, 200, 1);
}

pub(super) fn proxy_s27_new_connections_follow_a_change_soon(world: &World) {
    const CHANGES: usize = 40;
    let service = Service::new("s27").endpoints([ready("a1")]).create(world);
    let vip = service.cluster(Protocol::Opaque);
    for (node, client) in [(NODE_A, "a3"), (NODE_B, "b3")] {
        becomes(world, client, Protocol::Opaque, vip, &answer(&["a1"]));
        let mut took: Vec<Duration> = std::thread::scope(|scope| {
            let changes = scope.spawn(|| {
                world.net.place(client).namespace.enter();
                let change = |number: usize| {
                    let (pod, other) = [("b1", "a1"), ("a1", "b1")][number % 2];
                    service.set_endpoints(world, &[ready(pod), unready(other)]);
                    let written = Instant::now();
                    until_answered_by(pod, vip);
                    written.elapsed()
                };
                (0..CHANGES).map(change).collect()
            });
            changes.join().unwrap()
        });
        took.sort();
        let (median, longest) = (took[CHANGES / 2], took[CHANGES - 1]);
        eprintln!(
            "{node}: connections follow a written change after {median:?}, at most {longest:?}"
        );
        probe(world, client, Protocol::Opaque, vip, &answer(&["a1"])).unwrap();
    }
}

/// Dials from the calling thread's namespace.
fn until_answered_by(pod: &str, vip: std::net::SocketAddr) {
    let begun = Instant::now();
    loop {
        let last = ask(Protocol::Opaque, vip, PATIENCE);
        if matches!(&last, Outcome::Answered(said) if said.pod == pod) {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{last:?}");
    }
}
