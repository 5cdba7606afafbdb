//! Traffic policies, topology and the fallback to pods that are ending.

use super::net::{NODE_A, NODE_B};
use super::objects::{ended, ready, terminating, unready};
use super::table::{Case, Got, To, answer, check};
use super::world::World;

pub(super) fn proxy_s3_s13_fallback_to_pods_that_are_ending_and_topology(world: &World) {
    let local = |s: super::objects::Service| s.spec("internalTrafficPolicy", "Local");
    let cases = [
        Case::new(
            "proxy_s3_ready_ones_first",
            [terminating("a1"), ready("b1")],
            |s| s,
        )
        .expect("a3", To::Cluster, answer(&["b1"]))
        .expect("b3", To::Cluster, answer(&["b1"])),
        Case::new(
            "proxy_s3_none_ready",
            [terminating("a1"), unready("a2"), ended("b1")],
            |s| s,
        )
        .expect("a3", To::Cluster, answer(&["a1"]))
        .expect("b3", To::Cluster, answer(&["a1"])),
        Case::new(
            "proxy_s3_each_scope_for_itself",
            [terminating("a1"), ready("b1")],
            local,
        )
        .expect("a3", To::Cluster, answer(&["a1"]))
        .expect("b3", To::Cluster, answer(&["b1"])),
        Case::new(
            "proxy_s3_without_topology",
            [
                terminating("a1").for_zone("z1"),
                terminating("b1").for_zone("z2"),
            ],
            |s| s,
        )
        .expect("a3", To::Cluster, answer(&["a1", "b1"]))
        .expect("b3", To::Cluster, answer(&["a1", "b1"])),
        Case::new(
            "proxy_s13_hints_name_zones",
            [ready("a1").for_zone("z1"), ready("b1").for_zone("z2")],
            |s| s,
        )
        .expect("a3", To::Cluster, answer(&["a1"]))
        .expect("b3", To::Cluster, answer(&["b1"])),
        Case::new(
            "proxy_s13_one_without_hints",
            [ready("a1").for_zone("z1"), ready("b1")],
            |s| s,
        )
        .expect("a3", To::Cluster, answer(&["a1", "b1"]))
        .expect("b3", To::Cluster, answer(&["a1", "b1"])),
        Case::new(
            "proxy_s13_hints_name_nodes",
            [
                ready("a1").for_node(NODE_A).for_zone("z2"),
                ready("b1").for_node(NODE_B).for_zone("z1"),
            ],
            |s| s,
        )
        .expect("a3", To::Cluster, answer(&["a1"]))
        .expect("b3", To::Cluster, answer(&["b1"])),
        Case::new(
            "proxy_s13_no_hint_for_this_node",
            [ready("a1").for_node(NODE_A), ready("a2").for_node(NODE_A)],
            |s| s,
        )
        .expect("a3", To::Cluster, answer(&["a1", "a2"]))
        .expect("b3", To::Cluster, answer(&["a1", "a2"])),
    ];
    check(world, cases);
}

pub(super) fn proxy_s5_s6_s7_policies_for_traffic_from_within_and_from_outside(world: &World) {
    let internal = |s: super::objects::Service| s.spec("internalTrafficPolicy", "Local");
    let external = |s: super::objects::Service| {
        s.balanced()
            .external()
            .spec("externalTrafficPolicy", "Local")
    };
    let cases = [
        Case::new(
            "proxy_s5_local",
            [ready("a1"), ready("a2"), ready("b1")],
            internal,
        )
        .expect("a3", To::Cluster, answer(&["a1", "a2"]))
        .expect("b3", To::Cluster, answer(&["b1"])),
        Case::new("proxy_s5_none_here", [ready("a1")], internal)
            .expect("a3", To::Cluster, answer(&["a1"]))
            .expect("b3", To::Cluster, Got::Nothing)
            .expect(NODE_A, To::Cluster, answer(&["a1"]))
            .expect(NODE_B, To::Cluster, Got::Nothing),
        Case::new("proxy_s5_none_anywhere", [], internal)
            .expect("a3", To::Cluster, Got::Refused)
            .expect("b3", To::Cluster, Got::Refused),
        Case::new("proxy_s5_not_for_node_ports", [ready("a1")], |s| {
            internal(s).node_ports()
        })
        .expect("b3", To::NodePort(NODE_B), answer(&["a1"]))
        .expect("outside", To::NodePort(NODE_B), answer(&["a1"])),
        Case::new("proxy_s6_local", [ready("a1")], external)
            .expect(
                "outside",
                To::Balancer(NODE_A),
                answer(&["a1"]).seeing("outside"),
            )
            .expect(
                "outside",
                To::NodePort(NODE_A),
                answer(&["a1"]).seeing("outside"),
            )
            .expect(
                "outside",
                To::External(NODE_A),
                answer(&["a1"]).seeing("outside"),
            )
            .expect("outside", To::Balancer(NODE_B), Got::Nothing)
            .expect("outside", To::NodePort(NODE_B), Got::Nothing)
            .expect("outside", To::External(NODE_B), Got::Nothing)
            .expect("a3", To::Cluster, answer(&["a1"]))
            .expect("b3", To::Cluster, answer(&["a1"])),
        Case::new("proxy_s6_pods_are_not_outside", [ready("a1")], external)
            .expect("a3", To::Balancer(NODE_B), answer(&["a1"]))
            .expect("b3", To::Balancer(NODE_A), answer(&["a1"]))
            .expect("b3", To::External(NODE_B), answer(&["a1"]))
            .expect("b3", To::NodePort(NODE_B), answer(&["a1"]))
            .expect(NODE_B, To::NodePort(NODE_B), answer(&["a1"]))
            .expect(NODE_B, To::Balancer(NODE_A), answer(&["a1"])),
        Case::new("proxy_s6_none_anywhere", [], external)
            .expect("outside", To::Balancer(NODE_A), Got::Refused)
            .expect("outside", To::NodePort(NODE_B), Got::Refused)
            .expect("outside", To::External(NODE_B), Got::Refused),
        Case::new("proxy_s7_any_endpoint", [ready("b1")], |s| {
            s.balanced().external()
        })
        .expect(
            "outside",
            To::NodePort(NODE_A),
            answer(&["b1"]).seeing(NODE_A),
        )
        .expect(
            "outside",
            To::NodePort(NODE_B),
            answer(&["b1"]).seeing(NODE_B),
        )
        .expect(
            "outside",
            To::Balancer(NODE_A),
            answer(&["b1"]).seeing(NODE_A),
        )
        .expect(
            "outside",
            To::External(NODE_A),
            answer(&["b1"]).seeing(NODE_A),
        ),
    ];
    check(world, cases);
}
