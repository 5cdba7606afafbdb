use crate::settings::DnsSettings;
use crate::testing::{World, ask_with, check};

fn world() -> World {
    World::new()
        .cluster_ip("svc1", &["10.0.0.1"], &["http/tcp/80"])
        .cluster_ip("svc6", &["1234:abcd::1"], &["http/tcp/80"])
        .cluster_ip("dual", &["10.0.0.3", "10::3"], &["http/tcp/80"])
        .cluster_ip(
            "many",
            &["10.0.0.4"],
            &["http/tcp/80", "/tcp/81", "dns/udp/53"],
        )
        .external("ext", "ext.example.com")
}

fn run(cases: &[crate::testing::Case]) {
    check(&world().build(), &DnsSettings::default(), cases);
}

#[test]
fn dns_a1_cluster_ip_answers() {
    run(&[
        ("svc1.S", "A", &["NOERROR", "$N 30 IN A 10.0.0.1"]),
        ("svc6.S", "AAAA", &["NOERROR", "$N 30 IN AAAA 1234:abcd::1"]),
    ]);
    let settings = DnsSettings {
        ttl: 5,
        ..DnsSettings::default()
    };
    let found = ask_with(
        &world().build(),
        &settings,
        "svc1.testns.svc.cluster.local",
        "A",
    );
    assert_eq!(found[1], "svc1.testns.svc.cluster.local. 5 IN A 10.0.0.1");
}

#[test]
fn dns_a2_other_types_of_a_service_are_no_data() {
    for record_type in [
        "AAAA", "MX", "CNAME", "HTTPS", "SVCB", "HINFO", "ANY", "PTR", "TXT", "SOA", "NS", "TYPE0",
        "TYPE999",
    ] {
        run(&[("svc1.S", record_type, &["NODATA"])]);
    }
    run(&[("svc6.S", "A", &["NODATA"])]);
}

#[test]
fn dns_a3_cluster_ip_without_endpoints_answers() {
    let world = world().with_endpoints("down", &["10.0.0.9"], &["http/tcp/80"], &["!10.1.0.1"]);
    let snapshot = world.build();
    let cases: &[crate::testing::Case] = &[("down.S", "A", &["NOERROR", "$N 30 IN A 10.0.0.9"])];
    check(&snapshot, &DnsSettings::default(), cases);
    let ignoring = DnsSettings {
        ignore_empty_service: true,
        ..DnsSettings::default()
    };
    let cases: &[crate::testing::Case] = &[
        ("down.S", "A", &["NXDOMAIN"]),
        ("_http._tcp.down.S", "SRV", &["NXDOMAIN"]),
        ("_tcp.down.S", "A", &["NXDOMAIN"]),
    ];
    check(&snapshot, &ignoring, cases);
}

#[test]
fn dns_a4_what_does_not_exist() {
    run(&[
        ("nope.S", "A", &["NXDOMAIN"]),
        ("svc1.nope.svc.Z", "A", &["NXDOMAIN"]),
        ("svc1.default.svc.Z", "A", &["NXDOMAIN"]),
        ("svc1.testns.foo.Z", "A", &["NXDOMAIN"]),
        ("foo.Z", "A", &["NXDOMAIN"]),
        ("svc1.Z", "A", &["NXDOMAIN"]),
        ("google.com.testns.svc.Z", "AAAA", &["NXDOMAIN"]),
    ]);
}

#[test]
fn dns_a5_too_many_labels_and_wildcards() {
    run(&[
        ("a.b.c.svc1.S", "A", &["NXDOMAIN"]),
        ("a._http._tcp.svc1.S", "SRV", &["NXDOMAIN"]),
        ("*.S", "A", &["NXDOMAIN"]),
        ("any.S", "A", &["NXDOMAIN"]),
        ("svc1.*.svc.Z", "A", &["NXDOMAIN"]),
        ("svc1.any.svc.Z", "A", &["NXDOMAIN"]),
        ("*._tcp.svc1.S", "SRV", &["NXDOMAIN"]),
        ("*.*.svc1.S", "SRV", &["NXDOMAIN"]),
        ("1.2.3.4.5.6.7.8.9.10.11.12.Z", "A", &["NXDOMAIN"]),
    ]);
}

#[test]
fn dns_d1_dual_stack_answers_each_family() {
    run(&[
        ("dual.S", "A", &["NOERROR", "$N 30 IN A 10.0.0.3"]),
        ("dual.S", "AAAA", &["NOERROR", "$N 30 IN AAAA 10::3"]),
        (
            "_http._tcp.dual.S",
            "SRV",
            &[
                "NOERROR",
                "$N 30 IN SRV 0 100 80 dual.testns.svc.cluster.local.",
                "+dual.testns.svc.cluster.local. 30 IN A 10.0.0.3",
                "+dual.testns.svc.cluster.local. 30 IN AAAA 10::3",
            ],
        ),
    ]);
}

#[test]
fn dns_v1_srv_of_a_named_port() {
    run(&[(
        "_http._tcp.svc1.S",
        "SRV",
        &[
            "NOERROR",
            "$N 30 IN SRV 0 100 80 svc1.testns.svc.cluster.local.",
            "+svc1.testns.svc.cluster.local. 30 IN A 10.0.0.1",
        ],
    )]);
}

#[test]
fn dns_v2_srv_of_the_service_is_for_all_ports() {
    run(&[(
        "many.S",
        "SRV",
        &[
            "NOERROR",
            "$N 30 IN SRV 0 33 53 $N",
            "$N 30 IN SRV 0 33 80 $N",
            "$N 30 IN SRV 0 33 81 $N",
            "+$N 30 IN A 10.0.0.4",
        ],
    )]);
}

#[test]
fn dns_v3_unknown_ports() {
    run(&[
        ("_x._tcp.many.S", "SRV", &["NXDOMAIN"]),
        ("_http._udp.many.S", "SRV", &["NXDOMAIN"]),
        ("_._tcp.many.S", "SRV", &["NXDOMAIN"]),
        ("_http._sctp.many.S", "SRV", &["NXDOMAIN"]),
        ("_http._.many.S", "SRV", &["NXDOMAIN"]),
    ]);
}

#[test]
fn dns_v6_underscores_may_be_missing_and_ports_have_addresses() {
    run(&[
        (
            "http.tcp.svc1.S",
            "SRV",
            &[
                "NOERROR",
                "$N 30 IN SRV 0 100 80 svc1.testns.svc.cluster.local.",
                "+svc1.testns.svc.cluster.local. 30 IN A 10.0.0.1",
            ],
        ),
        (
            "_http._tcp.svc1.S",
            "A",
            &["NOERROR", "$N 30 IN A 10.0.0.1"],
        ),
        ("_http._tcp.svc1.S", "AAAA", &["NODATA"]),
        ("_http._tcp.svc1.S", "TXT", &["NODATA"]),
    ]);
}

#[test]
fn dns_v7_srv_of_an_external_name() {
    run(&[
        ("ext.S", "SRV", &["NODATA"]),
        ("_http._tcp.ext.S", "SRV", &["NXDOMAIN"]),
        ("_tcp.ext.S", "SRV", &["NXDOMAIN"]),
    ]);
}
