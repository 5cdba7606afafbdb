//! Addresses of Services other than the cluster IP, both families, and whom pods see.

use serde_json::json;

use super::net::{Family, NODE_A, NODE_B};
use super::objects::ready;
use super::probe::Protocol;
use super::table::{Case, Got, To, answer, check};
use super::world::World;

pub(super) fn proxy_s8_s9_s10_node_ports_load_balancers_and_external_ips(world: &World) {
    let both = || [ready("a1"), ready("b1")];
    let ranges = |ranges: &[&str]| json!(ranges);
    let cases = [
        Case::new("proxy_s8_node_ports", both(), |s| s.node_ports())
            .expect("outside", To::NodePort(NODE_A), answer(&["a1", "b1"]))
            .expect("outside", To::NodePort(NODE_B), answer(&["a1", "b1"]))
            .expect("a3", To::NodePort(NODE_A), answer(&["a1", "b1"]))
            .expect(NODE_A, To::NodePort(NODE_B), answer(&["a1", "b1"]))
            .expect(NODE_A, To::Localhost, answer(&["a1", "b1"])),
        Case::new("proxy_s9_load_balancer", both(), |s| s.balanced())
            .expect("outside", To::Balancer(NODE_A), answer(&["a1", "b1"]))
            .expect("outside", To::Balancer(NODE_B), answer(&["a1", "b1"]))
            .expect("a3", To::Balancer(NODE_B), answer(&["a1", "b1"]))
            .expect("outside", To::NodePort(NODE_B), answer(&["a1", "b1"])),
        Case::new("proxy_s9_without_node_ports", both(), |s| {
            s.balanced().spec("allocateLoadBalancerNodePorts", false)
        })
        .expect("outside", To::Balancer(NODE_A), answer(&["a1", "b1"])),
        Case::new("proxy_s9_a_balancer_that_is_a_proxy", both(), |s| {
            s.balanced_by("Proxy")
        })
        .expect("outside", To::Balancer(NODE_A), Got::NoAnswer)
        .expect("outside", To::NodePort(NODE_A), answer(&["a1", "b1"])),
        Case::new("proxy_s9_within_the_source_ranges", both(), |s| {
            s.balanced().spec(
                "loadBalancerSourceRanges",
                ranges(&["192.168.0.0/16", " 10.0.0.9/32 "]),
            )
        })
        .expect("outside", To::Balancer(NODE_A), answer(&["a1", "b1"])),
        Case::new("proxy_s10_external_ips", both(), |s| s.external())
            .expect("outside", To::External(NODE_A), answer(&["a1", "b1"]))
            .expect("outside", To::External(NODE_B), answer(&["a1", "b1"]))
            .expect("a3", To::External(NODE_B), answer(&["a1", "b1"])),
    ];
    check(world, cases);
}

pub(super) fn proxy_s22_a_pod_reaches_itself(world: &World) {
    let cases = [Case::new("proxy_s22_a_pod_and_itself", [ready("a1")], |s| {
        s.node_ports()
    })
    .expect("a1", To::Cluster, answer(&["a1"]).seeing(NODE_A))
    .expect("a1", To::NodePort(NODE_A), answer(&["a1"]).seeing(NODE_A))];
    check(world, cases);
}

pub(super) fn proxy_s23_pods_see_who_dials_if_it_is_a_pod(world: &World) {
    let flows: &[Protocol] = &[Protocol::Opaque, Protocol::Datagram];
    let cases = [
        Case::new("proxy_s23_on_this_node", [ready("a1")], |s| s)
            .only(flows)
            .expect("a3", To::Cluster, answer(&["a1"]).seeing("a3"))
            .expect("outside", To::Cluster, answer(&["a1"]).seeing(NODE_A)),
        Case::new("proxy_s23_on_the_other_node", [ready("b1")], |s| s)
            .only(flows)
            .expect("a3", To::Cluster, answer(&["b1"]).seeing("a3"))
            .expect("b3", To::Cluster, answer(&["b1"]).seeing("b3"))
            .expect("outside", To::Cluster, answer(&["b1"]).seeing(NODE_A)),
    ];
    check(world, cases);
}

pub(super) fn proxy_s21_datagrams_of_each_family(world: &World) {
    let datagrams: &[Protocol] = &[Protocol::Datagram];
    let cases = [Case::new("proxy_s21_both_families", [ready("a1")], |s| {
        s.dual_stack([ready("a1"), ready("b1")])
    })
    .only(datagrams)
    .expect("a3", To::Cluster, answer(&["a1"]))
    .expect_over(Family::V6, "a3", To::Cluster, answer(&["a1", "b1"]))
    .expect_over(Family::V6, "b3", To::Cluster, answer(&["a1", "b1"]))];
    if world.has_ipv6() {
        check(world, cases);
    }
}
