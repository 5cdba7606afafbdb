//! Which pods get what is sent to a cluster IP, and what is refused.

use serde_json::json;

use super::net::{NODE_A, NODE_B};
use super::objects::{Slice, ended, ready, terminating, unready, with_conditions};
use super::probe::Protocol;
use super::table::{Case, Got, To, answer, check, probe};
use super::world::World;

pub(super) fn proxy_s1_s2_s4_s20_endpoints_that_can_be_used_and_refusals_at_once(world: &World) {
    let all = [ready("a1"), ready("a2"), ready("b1")];
    let missing = [
        with_conditions("a1", json!({})),
        unready("a2"),
        ended("b1"),
        terminating("b2"),
    ];
    let ip = |pod| world.net.place(pod).v4.to_string();
    let slice = |addresses: Vec<String>, port| Slice {
        labelled: true,
        addresses,
        port,
    };
    let strangers = Slice {
        labelled: false,
        addresses: vec![ip("b3")],
        port: Some(8000),
    };
    let cases = [
        Case::new("proxy_s1_all_endpoints_from_everywhere", all, |s| s)
            .expect("a3", To::Cluster, answer(&["a1", "a2", "b1"]))
            .expect("b3", To::Cluster, answer(&["a1", "a2", "b1"]))
            .expect("outside", To::Cluster, answer(&["a1", "a2", "b1"]))
            .expect(NODE_A, To::Cluster, answer(&["a1", "a2", "b1"]))
            .expect("a3", To::ClusterPort(79), Got::Refused)
            .expect("b3", To::ClusterPort(79), Got::Refused)
            .expect("a3", To::Fixed("10.96.255.200"), Got::Nothing)
            .expect("b3", To::Fixed("10.96.255.200"), Got::Nothing),
        Case::new("proxy_s2_conditions", missing, |s| s)
            .expect("a3", To::Cluster, answer(&["a1"]))
            .expect("b3", To::Cluster, answer(&["a1"])),
        Case::new("proxy_s2_slices", [ready("a1")], |s| {
            s.slice(slice(vec![ip("a1")], Some(8000)))
                .slice(slice(vec![ip("b1"), ip("b2")], Some(8000)))
                .slice(slice(vec!["a2.test".to_owned()], Some(8000)))
                .slice(strangers)
        })
        .expect("a3", To::Cluster, answer(&["a1", "b1"]))
        .expect("b3", To::Cluster, answer(&["a1", "b1"])),
        Case::new("proxy_s4_no_endpoints", [], |s| s.balanced().external())
            .expect("a3", To::Cluster, Got::Refused)
            .expect("b3", To::Cluster, Got::Refused)
            .expect("outside", To::Cluster, Got::Refused)
            .expect(NODE_A, To::Cluster, Got::Refused)
            .expect(NODE_A, To::NodePort(NODE_A), Got::Refused)
            .expect(NODE_A, To::Balancer(NODE_B), Got::Refused)
            .expect("a3", To::NodePort(NODE_A), Got::Refused)
            .expect("a3", To::NodePort(NODE_B), Got::Refused)
            .expect("outside", To::NodePort(NODE_B), Got::Refused)
            .expect("outside", To::Balancer(NODE_A), Got::Refused)
            .expect("a3", To::Balancer(NODE_A), Got::Refused)
            .expect("outside", To::External(NODE_B), Got::Refused)
            .expect("b3", To::External(NODE_A), Got::Refused),
        Case::new("proxy_s4_none_ready", [unready("a1"), ended("b1")], |s| s)
            .expect("a3", To::Cluster, Got::Refused)
            .expect("b3", To::Cluster, Got::Refused),
        Case::new(
            "proxy_s20_a_target_port_for_each_slice",
            [ready("a1")],
            |s| {
                s.slice(slice(vec![ip("b1")], Some(8001)))
                    .slice(slice(vec![ip("b2")], None))
            },
        )
        .expect("a3", To::Cluster, answer(&["a1", "b1:8001"]))
        .expect("b3", To::Cluster, answer(&["a1", "b1:8001"])),
    ];
    check(world, cases);
}

pub(super) fn proxy_s11_s14_services_of_others_and_pods_that_are_not_ready(world: &World) {
    let published = || {
        let ending = json!({"ready": true, "serving": true, "terminating": true});
        [with_conditions("a1", ending), ready("b1")]
    };
    let cases = [
        Case::new("proxy_s11_another_proxy", [ready("a1")], |s| {
            s.label("service.kubernetes.io/service-proxy-name", "other")
        })
        .expect("a3", To::Cluster, Got::NoAnswer)
        .expect("b3", To::Cluster, Got::NoAnswer),
        Case::new("proxy_s11_said_to_be_headless", [ready("a1")], |s| {
            s.label("service.kubernetes.io/headless", "").node_ports()
        })
        .expect("a3", To::Cluster, Got::NoAnswer)
        .expect("outside", To::NodePort(NODE_A), Got::NoAnswer),
        Case::new("proxy_s14_published", published(), |s| {
            s.spec("publishNotReadyAddresses", true)
        })
        .expect("a3", To::Cluster, answer(&["a1", "b1"]))
        .expect("b3", To::Cluster, answer(&["a1", "b1"])),
        Case::new("proxy_s14_not_published", published(), |s| s)
            .expect("a3", To::Cluster, answer(&["b1"]))
            .expect("b3", To::Cluster, answer(&["b1"])),
    ];
    check(world, cases);
}

/// Whatever leads to the proxy's own listener leads nowhere.
pub(super) fn proxy_i5_the_proxy_is_no_endpoint(world: &World) {
    let flows: &[Protocol] = &[Protocol::Http, Protocol::Opaque];
    let itself = |node| Slice {
        labelled: true,
        addresses: vec![world.net.place(node).v4.to_string()],
        port: Some(15001),
    };
    let cases = [
        Case::new("proxy_i5_an_endpoint_that_is_the_proxy", [], |s| {
            s.slice(itself(NODE_A))
        })
        .only(flows)
        .expect("a3", To::Cluster, Got::NoAnswer)
        .expect("outside", To::Cluster, Got::NoAnswer),
        Case::new("proxy_i5_beside_another", [ready("a1")], |s| {
            s.slice(itself(NODE_A))
        })
        .only(&[Protocol::Opaque])
        .expect("a3", To::Cluster, answer(&["a1"])),
    ];
    check(world, cases);
    for client in ["a3", "outside", NODE_A] {
        let addr = (world.net.place(NODE_A).v4, 15001).into();
        for protocol in flows {
            probe(world, client, *protocol, addr, &Got::NoAnswer).unwrap();
        }
    }
}
