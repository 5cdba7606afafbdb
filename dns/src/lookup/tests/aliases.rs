use crate::settings::DnsSettings;
use crate::testing::{Case, SOA, World, ask_with, check};

fn world() -> World {
    World::new()
        .cluster_ip("svc1", &["10.0.0.1"], &["http/tcp/80"])
        .external("ext", "ext.example.com")
        .external("inner", "svc1.testns.svc.cluster.local")
        .external("twice", "ext.testns.svc.cluster.local")
        .external("gone", "nope.testns.svc.cluster.local")
        .external("self", "self.testns.svc.cluster.local")
        .external("a", "b.testns.svc.cluster.local")
        .external("b", "a.testns.svc.cluster.local")
        .external("literal", "1.2.3.4")
        .external("literal6", "fd00::1")
}

fn run(cases: &[Case]) {
    check(&world().build(), &DnsSettings::default(), cases);
}

#[test]
fn dns_e1_an_alias_leads_out() {
    run(&[
        (
            "ext.S",
            "A",
            &[
                "NOERROR",
                "$N 30 IN CNAME ext.example.com.",
                "THEN ext.example.com.",
            ],
        ),
        (
            "twice.S",
            "AAAA",
            &[
                "NOERROR",
                "$N 30 IN CNAME ext.testns.svc.cluster.local.",
                "ext.testns.svc.cluster.local. 30 IN CNAME ext.example.com.",
                "THEN ext.example.com.",
            ],
        ),
    ]);
}

#[test]
fn dns_e2_aliases_within_the_cluster_are_followed() {
    run(&[
        (
            "ext.S",
            "CNAME",
            &["NOERROR", "$N 30 IN CNAME ext.example.com."],
        ),
        (
            "inner.S",
            "A",
            &[
                "NOERROR",
                "$N 30 IN CNAME svc1.testns.svc.cluster.local.",
                "svc1.testns.svc.cluster.local. 30 IN A 10.0.0.1",
            ],
        ),
        (
            "inner.S",
            "AAAA",
            &[
                "NOERROR",
                "$N 30 IN CNAME svc1.testns.svc.cluster.local.",
                SOA,
            ],
        ),
    ]);
    for (links, expected) in [(10, "NOERROR"), (11, "SERVFAIL STOP")] {
        let mut world = world().external("link0", "svc1.testns.svc.cluster.local");
        for link in 1..links {
            let target = format!("link{}.testns.svc.cluster.local", link - 1);
            world = world.external(&format!("link{link}"), &target);
        }
        let name = format!("link{}.testns.svc.cluster.local", links - 1);
        let found = ask_with(&world.build(), &DnsSettings::default(), &name, "A");
        assert_eq!(found[0], expected, "{links} aliases");
    }
}

#[test]
fn dns_e4_aliases_to_nowhere() {
    run(&[
        (
            "gone.S",
            "A",
            &[
                "NXDOMAIN",
                "$N 30 IN CNAME nope.testns.svc.cluster.local.",
                SOA,
            ],
        ),
        (
            "gone.S",
            "CNAME",
            &["NOERROR", "$N 30 IN CNAME nope.testns.svc.cluster.local."],
        ),
        ("self.S", "A", &["SERVFAIL STOP"]),
        ("self.S", "CNAME", &["NOERROR", "$N 30 IN CNAME $N"]),
        ("a.S", "A", &["SERVFAIL STOP"]),
    ]);
}

#[test]
fn dns_e4_compatible_aliases_to_nowhere_have_no_records() {
    let compat = DnsSettings {
        compat_coredns: true,
        ..DnsSettings::default()
    };
    let cases: &[Case] = &[
        ("gone.S", "A", &["NODATA"]),
        (
            "gone.S",
            "CNAME",
            &["NOERROR", "$N 30 IN CNAME nope.testns.svc.cluster.local."],
        ),
        ("self.S", "A", &["NODATA"]),
        ("a.S", "AAAA", &["NODATA"]),
        ("inner.S", "AAAA", &["NODATA"]),
    ];
    check(&world().build(), &compat, cases);
}

#[test]
fn dns_e7_addresses_are_no_aliases() {
    for record_type in ["A", "AAAA", "CNAME", "TXT"] {
        run(&[
            ("literal.S", record_type, &["NXDOMAIN"]),
            ("literal6.S", record_type, &["NXDOMAIN"]),
            ("x.ext.S", record_type, &["NXDOMAIN"]),
        ]);
    }
}
