//! Addresses of Services other than the cluster IP, both families, and whom pods see.

use serde_json::json;

use super::net::{Family, NODE_A, NODE_B};
use super::objects::{Service, ready};
use super::probe::{Outcome, PATIENCE, Protocol, ask};
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
            .expect("b3", To::NodePort(NODE_A), answer(&["a1", "b1"]))
            .expect(NODE_A, To::NodePort(NODE_A), answer(&["a1", "b1"]))
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
        Case::new("proxy_s9_beside_the_source_ranges", both(), |s| {
            s.balanced()
                .spec("loadBalancerSourceRanges", ranges(&["192.168.0.0/16"]))
        })
        .expect("outside", To::Balancer(NODE_A), Got::Nothing)
        .expect("outside", To::Balancer(NODE_B), Got::Nothing)
        .expect("outside", To::NodePort(NODE_A), answer(&["a1", "b1"]))
        .expect("a3", To::Cluster, answer(&["a1", "b1"])),
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
    let cases = [
        Case::new("proxy_s23_on_this_node", [ready("a1")], |s| s)
            .expect("a3", To::Cluster, answer(&["a1"]).seeing("a3"))
            .expect("outside", To::Cluster, answer(&["a1"]).seeing(NODE_A)),
        Case::new("proxy_s23_on_the_other_node", [ready("b1")], |s| s)
            .expect("a3", To::Cluster, answer(&["b1"]).seeing("a3"))
            .expect("b3", To::Cluster, answer(&["b1"]).seeing("b3"))
            .expect("outside", To::Cluster, answer(&["b1"]).seeing(NODE_A)),
    ];
    check(world, cases);
}

pub(super) fn proxy_s21_each_family_for_itself(world: &World) {
    if !world.has_ipv6() {
        return;
    }
    let v6 = |case: Case, from, to, got| case.expect_over(Family::V6, from, to, got);
    let both = Case::new("proxy_s21_both_families", [ready("a1")], |s| {
        s.dual_stack([ready("a1"), ready("b1")])
            .balanced()
            .external()
    })
    .expect("a3", To::Cluster, answer(&["a1"]))
    .expect("outside", To::Balancer(NODE_A), answer(&["a1"]));
    let both = v6(both, "a3", To::Cluster, answer(&["a1", "b1"]));
    let both = v6(both, "b3", To::Cluster, answer(&["a1", "b1"]));
    let both = v6(both, "outside", To::Balancer(NODE_A), answer(&["a1", "b1"]));
    let both = v6(both, "outside", To::External(NODE_B), answer(&["a1", "b1"]));
    let both = v6(both, "outside", To::NodePort(NODE_B), answer(&["a1", "b1"]));
    let both = v6(both, "a3", To::ClusterPort(79), Got::Refused);
    let both = v6(both, "a3", To::Fixed("fd00:96::fff0"), Got::Nothing);
    let first = Case::new(
        "proxy_s21_only_the_first_has_endpoints",
        [ready("b1")],
        |s| s.dual_stack([]).balanced().external(),
    )
    .expect("a3", To::Cluster, answer(&["b1"]))
    .expect("outside", To::NodePort(NODE_A), answer(&["b1"]));
    let first = v6(first, "a3", To::Cluster, Got::Refused);
    let first = v6(first, "outside", To::NodePort(NODE_A), Got::Refused);
    let first = v6(first, "outside", To::Balancer(NODE_B), Got::Refused);
    let first = v6(first, "outside", To::External(NODE_A), Got::Refused);
    let ranges = Case::new("proxy_s21_source_ranges", [ready("a1")], |s| {
        s.dual_stack([ready("a1")]).balanced().spec(
            "loadBalancerSourceRanges",
            json!(["10.0.0.9/32", "fd00:1::/64"]),
        )
    })
    .expect("outside", To::Balancer(NODE_A), answer(&["a1"]));
    let ranges = v6(ranges, "outside", To::Balancer(NODE_A), Got::Nothing);
    check(world, [both, first, ranges]);
}

/// A pod that dials an endpoint itself may get any port of its range for it. If it were that of a
/// connection which the proxy has made from the pod's address, the answers would be the proxy's.
pub(super) fn proxy_s23_from_ports_that_pods_do_not_choose(world: &World) {
    const CONNECTIONS: usize = 20;
    let service = Service::new("s23-ports")
        .endpoints([ready("a2")])
        .create(world);
    world.settle();
    for protocol in [Protocol::Http, Protocol::Opaque] {
        let vip = service.cluster(protocol);
        let (range, seen) = world.net.place("a3").namespace.run(move || {
            let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range");
            let asked = (0..CONNECTIONS).map(|_| ask(protocol, vip, PATIENCE));
            (range.unwrap(), asked.collect::<Vec<_>>())
        });
        let mut bounds = range
            .split_whitespace()
            .map(|port| port.parse::<u16>().unwrap());
        let range = bounds.next().unwrap()..=bounds.next().unwrap();
        for outcome in seen {
            let Outcome::Answered(said) = outcome else {
                panic!("{protocol:?}: {outcome:?}");
            };
            assert_eq!(world.net.name_of(said.client.ip()), "a3");
            assert!(
                !range.contains(&said.client.port()),
                "{protocol:?}: {said:?} in {range:?}"
            );
        }
    }
}
