use crate::config::Fallthrough;
use crate::name::Name;
use crate::settings::{DnsSettings, reverse_zones};
use crate::testing::{World, ask_with};

fn world() -> World {
    World::new()
        .with_endpoints(
            "svc1",
            &["10.0.0.1", "fd00::1"],
            &["http/tcp/80"],
            &["10.0.0.100"],
        )
        .headless(
            "hdls",
            &["http/tcp/80"],
            &["10.0.0.100=named", "10.0.0.101", "!10.0.0.102"],
        )
        .headless("clash", &["http/tcp/80"], &["10.0.0.1"])
        .headless("six", &["http/tcp/80"], &["fd00::abcd"])
}

const ONE_V6: &str = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.D.f.ip6.arpa";

fn strict() -> DnsSettings {
    DnsSettings {
        fallthrough: Fallthrough::No,
        ..DnsSettings::default()
    }
}

fn ask(name: &str, record_type: &str) -> Vec<String> {
    ask_with(&world().build(), &DnsSettings::default(), name, record_type)
}

fn targets(lines: &[String]) -> Vec<&str> {
    lines
        .iter()
        .filter_map(|line| Some(line.split_once(" IN PTR ")?.1))
        .collect()
}

#[test]
fn dns_r1_a_cluster_ip_has_one_name() {
    assert_eq!(
        ask("1.0.0.10.in-addr.arpa", "PTR"),
        [
            "NOERROR",
            "1.0.0.10.in-addr.arpa. 30 IN PTR svc1.testns.svc.cluster.local."
        ]
    );
    assert_eq!(
        targets(&ask(ONE_V6, "PTR")),
        ["svc1.testns.svc.cluster.local."]
    );
    let other = ask("1.0.0.10.in-addr.arpa", "A");
    assert!(
        other[0] == "NOERROR" && other[1].starts_with("@in-addr.arpa. 30 IN SOA"),
        "{other:?}"
    );
}

#[test]
fn dns_r2_an_endpoint_has_a_name_for_each_service() {
    assert_eq!(
        targets(&ask("101.0.0.10.in-addr.arpa", "PTR")),
        ["10-0-0-101.hdls.testns.svc.cluster.local."]
    );
    let six = "d.c.b.a.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa";
    assert_eq!(
        targets(&ask(six, "PTR")),
        ["fd00--abcd.six.testns.svc.cluster.local."]
    );
    assert_eq!(
        ask("102.0.0.10.in-addr.arpa", "PTR"),
        ["NOT MINE"],
        "not ready"
    );
}

#[test]
fn dns_r3_host_names_come_first() {
    let found = ask("100.0.0.10.in-addr.arpa", "PTR");
    assert_eq!(
        targets(&found),
        [
            "named.hdls.testns.svc.cluster.local.",
            "10-0-0-100.svc1.testns.svc.cluster.local."
        ]
    );
    let settings = DnsSettings {
        ptr_hostname_only: true,
        ..DnsSettings::default()
    };
    let snapshot = world().build();
    let found = ask_with(&snapshot, &settings, "100.0.0.10.in-addr.arpa", "PTR");
    assert_eq!(targets(&found), ["named.hdls.testns.svc.cluster.local."]);
    let found = ask_with(&snapshot, &settings, "101.0.0.10.in-addr.arpa", "PTR");
    assert_eq!(targets(&found).len(), 1);
}

#[test]
fn dns_r4_unknown_addresses_fall_through_or_do_not_exist() {
    let snapshot = world().build();
    for name in [
        "9.9.9.9.in-addr.arpa",
        "0.0.10.in-addr.arpa",
        "01.0.0.10.in-addr.arpa",
        "x.1.0.0.10.in-addr.arpa",
        "256.0.0.10.in-addr.arpa",
        "1.0.ip6.arpa",
    ] {
        assert_eq!(ask(name, "PTR"), ["NOT MINE"], "{name}");
        let found = ask_with(&snapshot, &strict(), name, "PTR");
        assert_eq!(found[0], "NXDOMAIN", "{name}");
        let zone = if name.ends_with("ip6.arpa") {
            "@ip6.arpa. "
        } else {
            "@in-addr.arpa. "
        };
        assert!(found[1].starts_with(zone), "{found:?}");
    }
    let apex = ask_with(&snapshot, &strict(), "in-addr.arpa", "SOA");
    assert!(
        apex[0] == "NOERROR" && apex[1].starts_with("in-addr.arpa. 30 IN SOA"),
        "{apex:?}"
    );
    assert_eq!(
        ask_with(&snapshot, &strict(), "in-addr.arpa", "A")[0],
        "NOERROR"
    );
}

#[test]
fn dns_r5_before_sync_nothing_is_forwarded() {
    let snapshot = world().not_synced().build();
    let ask = |name, settings: &DnsSettings| ask_with(&snapshot, settings, name, "PTR");
    let defaults = DnsSettings::default();
    assert_eq!(ask("9.9.9.9.in-addr.arpa", &defaults)[0], "SERVFAIL STOP");
    assert_eq!(targets(&ask("1.0.0.10.in-addr.arpa", &defaults)).len(), 1);
    let compat = DnsSettings {
        compat_coredns: true,
        ..defaults
    };
    assert_eq!(ask("9.9.9.9.in-addr.arpa", &compat), ["NOT MINE"]);
}

#[test]
fn dns_r6_only_configured_reverse_zones_are_ours() {
    let service_cidr: Vec<Name> = reverse_zones("10.0.0.0".parse().unwrap(), 24);
    let settings = DnsSettings {
        reverse_zones: service_cidr,
        ..strict()
    };
    let snapshot = world().build();
    let ask = |name| ask_with(&snapshot, &settings, name, "PTR");
    assert_eq!(targets(&ask("1.0.0.10.in-addr.arpa")).len(), 1);
    let missing = ask("7.0.0.10.in-addr.arpa");
    assert!(
        missing[1].starts_with("@0.0.10.in-addr.arpa. "),
        "{missing:?}"
    );
    assert_eq!(ask("1.1.0.10.in-addr.arpa"), ["NOT MINE"]);
    assert_eq!(ask(ONE_V6), ["NOT MINE"]);
}
