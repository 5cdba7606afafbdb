//! Options of the `kubernetes` plugin.

use crate::config::Fallthrough;
use crate::settings::{DnsSettings, PodsMode};
use crate::testing::{SOA, World, ask_with, check};

fn name(text: &str) -> crate::Name {
    text.parse().unwrap()
}

#[test]
fn dns_p3_only_addresses_of_pods_of_the_namespace() {
    let world = World::new()
        .pod("testns", "10.1.0.1")
        .pod("testns", "fd00::1")
        .pod("default", "10.1.0.2")
        .build();
    let verified = DnsSettings {
        pods: PodsMode::Verified,
        ..DnsSettings::default()
    };
    check(
        &world,
        &verified,
        &[
            (
                "10-1-0-1.testns.pod.Z",
                "A",
                &["NOERROR", "$N 30 IN A 10.1.0.1"],
            ),
            ("10-1-0-1.testns.pod.Z", "AAAA", &["NODATA"]),
            ("10-1-0-1.testns.pod.Z", "SRV", &["NODATA"]),
            (
                "fd00--1.testns.pod.Z",
                "AAAA",
                &["NOERROR", "$N 30 IN AAAA fd00::1"],
            ),
            ("fd00--1.testns.pod.Z", "A", &["NODATA"]),
            ("10-1-0-2.testns.pod.Z", "A", &["NXDOMAIN"]),
            (
                "10-1-0-2.default.pod.Z",
                "A",
                &["NOERROR", "$N 30 IN A 10.1.0.2"],
            ),
            ("10-1-0-3.testns.pod.Z", "A", &["NXDOMAIN"]),
            ("10-1-0-1.nope.pod.Z", "A", &["NXDOMAIN"]),
            ("testns.pod.Z", "A", &["NODATA"]),
        ],
    );
}

#[test]
fn dns_a4_only_namespaces_that_are_named_exist() {
    let world = World::new()
        .with_endpoints("svc1", &["10.0.0.1"], &["http/tcp/80"], &["10.1.0.1"])
        .build();
    let ask = |namespaces: &[&str], name, record_type| {
        let settings = DnsSettings {
            namespaces: namespaces.iter().map(|&name| name.into()).collect(),
            fallthrough: Fallthrough::No,
            ..DnsSettings::default()
        };
        ask_with(&world, &settings, name, record_type).remove(0)
    };
    for (name, record_type) in [
        ("svc1.testns.svc.cluster.local", "A"),
        ("testns.svc.cluster.local", "A"),
        ("1-2-3-4.testns.pod.cluster.local", "A"),
        ("1.0.0.10.in-addr.arpa", "PTR"),
        ("1.0.1.10.in-addr.arpa", "PTR"),
    ] {
        assert_eq!(ask(&[], name, record_type), "NOERROR", "{name}");
        assert_eq!(ask(&["default", "testns"], name, record_type), "NOERROR");
        assert_eq!(ask(&["default"], name, record_type), "NXDOMAIN", "{name}");
    }
}

#[test]
fn dns_r1_several_zones_and_the_primary_one() {
    let world = World::new()
        .cluster_ip("svc1", &["10.0.0.1"], &["http/tcp/80"])
        .build();
    let settings = DnsSettings {
        zones: vec![name("cluster.local"), name("local"), name("k8s.test")],
        ..DnsSettings::default()
    };
    let ask = |name: &str, record_type| ask_with(&world, &settings, name, record_type);
    for zone in ["cluster.local", "K8S.test", "local"] {
        let name = format!("svc1.testns.svc.{zone}");
        assert_eq!(
            ask(&name, "A"),
            ["NOERROR", &format!("{name}. 30 IN A 10.0.0.1")]
        );
        let srv = ask(&name, "SRV");
        assert!(srv[1].ends_with(&format!("80 {name}.")), "{srv:?}");
    }
    assert_eq!(
        ask("1.0.0.10.in-addr.arpa", "PTR")[1],
        "1.0.0.10.in-addr.arpa. 30 IN PTR svc1.testns.svc.cluster.local."
    );
    assert!(ask("nope.cluster.local", "A")[1].starts_with("@cluster.local. "));
    assert!(ask("nope.local", "A")[1].starts_with("@local. "));
    assert_eq!(ask("example.org", "A"), ["NOT MINE"]);
}

#[test]
fn dns_r4_names_that_are_not_known_fall_through_where_asked() {
    let world = World::new()
        .cluster_ip("svc1", &["10.0.0.1"], &["http/tcp/80"])
        .external("lost", "nope.testns.svc.cluster.local");
    let settings = DnsSettings {
        fallthrough: Fallthrough::Zones(vec![
            name("other.svc.cluster.local"),
            name("testns.svc.cluster.local"),
        ]),
        ..DnsSettings::default()
    };
    let snapshot = world.build();
    let ask = |name, record_type| ask_with(&snapshot, &settings, name, record_type);
    assert_eq!(ask("nope.testns.svc.cluster.local", "A"), ["NOT MINE"]);
    assert_eq!(ask("a.other.svc.cluster.local", "A"), ["NOT MINE"]);
    assert_eq!(
        ask("nope.default.svc.cluster.local", "A"),
        ["NXDOMAIN", SOA]
    );
    assert_eq!(ask("9.0.0.10.in-addr.arpa", "PTR")[0], "NXDOMAIN");
    // What exists does not fall through, whatever is asked for.
    assert_eq!(
        ask("svc1.testns.svc.cluster.local", "AAAA"),
        ["NOERROR", SOA]
    );
    let lost = ask("lost.testns.svc.cluster.local", "A");
    assert_eq!(lost.last().unwrap(), "THEN nope.testns.svc.cluster.local.");
}

#[test]
fn dns_n1_nothing_falls_through_before_sync() {
    let snapshot = World::new().not_synced().build();
    let settings = |compat_coredns| DnsSettings {
        fallthrough: Fallthrough::Zones(vec![crate::Name::root()]),
        compat_coredns,
        ..DnsSettings::default()
    };
    for name in ["nope.testns.svc.cluster.local", "1.0.0.10.in-addr.arpa"] {
        let ours = ask_with(&snapshot, &settings(false), name, "A");
        assert_eq!(ours[0], "SERVFAIL STOP", "{name}");
        assert_eq!(
            ask_with(&snapshot, &settings(true), name, "A"),
            ["NOT MINE"]
        );
    }
}

#[test]
fn dns_v8_compatible_pods_have_srv_records() {
    let world = World::new().build();
    let compat = DnsSettings {
        compat_coredns: true,
        ..DnsSettings::default()
    };
    let srv: &[&str] = &["NOERROR", "$N 30 IN SRV 0 100 0 $N", "+$N 30 IN A 1.2.3.4"];
    check(&world, &compat, &[("1-2-3-4.testns.pod.Z", "SRV", srv)]);
    let none: &[&str] = &["NODATA"];
    check(
        &world,
        &DnsSettings::default(),
        &[("1-2-3-4.testns.pod.Z", "SRV", none)],
    );
}
