use crate::settings::{DnsSettings, PodsMode};
use crate::testing::{Case, SOA, World, ask_with, check};

fn world() -> World {
    World::new()
        .cluster_ip("svc1", &["10.0.0.1"], &["http/tcp/80"])
        .headless("hdls", &["dns/udp/53"], &["172.0.0.3"])
        .cluster_ip("plain", &["10.0.0.2"], &["/tcp/80"])
}

fn compat() -> DnsSettings {
    DnsSettings {
        compat_coredns: true,
        ..DnsSettings::default()
    }
}

fn run(cases: &[Case]) {
    check(&world().build(), &DnsSettings::default(), cases);
}

#[test]
fn dns_a6_names_above_services_exist() {
    for record_type in ["A", "AAAA", "SRV", "MX", "HINFO"] {
        run(&[
            ("Z", record_type, &["NODATA"]),
            ("svc.Z", record_type, &["NODATA"]),
            ("pod.Z", record_type, &["NODATA"]),
            ("testns.svc.Z", record_type, &["NODATA"]),
            ("testns.pod.Z", record_type, &["NODATA"]),
            ("nope.svc.Z", record_type, &["NXDOMAIN"]),
            ("nope.pod.Z", record_type, &["NXDOMAIN"]),
        ]);
    }
    let disabled = DnsSettings {
        pods: PodsMode::Disabled,
        ..DnsSettings::default()
    };
    check(
        &world().build(),
        &disabled,
        &[("testns.pod.Z", "A", &["NXDOMAIN"])],
    );
}

#[test]
fn dns_a7_names_without_records_are_no_data() {
    let exists: &[(&'static str, &'static str)] = &[
        ("Z", "TXT"),
        ("svc.Z", "TXT"),
        ("pod.Z", "TXT"),
        ("testns.svc.Z", "TXT"),
        ("_tcp.svc1.S", "A"),
        ("_tcp.svc1.S", "SRV"),
        ("_udp.hdls.S", "TXT"),
        ("dns.Z", "A"),
        ("dns-version.Z", "A"),
    ];
    for &(name, record_type) in exists {
        run(&[(name, record_type, &["NODATA"])]);
        let snapshot = world().build();
        check(&snapshot, &compat(), &[(name, record_type, &["NXDOMAIN"])]);
    }
    run(&[
        ("_udp.svc1.S", "A", &["NXDOMAIN"]),
        ("_tcp.hdls.S", "A", &["NXDOMAIN"]),
        ("_tcp.plain.S", "A", &["NXDOMAIN"]),
        ("_foo.svc1.S", "A", &["NXDOMAIN"]),
        ("foo.dns.Z", "A", &["NXDOMAIN"]),
    ]);
}

#[test]
fn dns_a8_soa_of_names_that_do_not_exist() {
    run(&[
        ("nope.S", "SOA", &["NXDOMAIN"]),
        ("svc1.S", "SOA", &["NODATA"]),
    ]);
    let snapshot = world().build();
    check(&snapshot, &compat(), &[("nope.S", "SOA", &["NODATA"])]);
}

#[test]
fn dns_a10_version() {
    run(&[(
        "dns-version.Z",
        "TXT",
        &["NOERROR", "$N 28800 IN TXT \"1.1.0\""],
    )]);
}

#[test]
fn dns_a11_apex() {
    run(&[("Z", "SOA", &["NOERROR", "$SOA"])]);
    let dns = || {
        world().with_endpoints(
            "kube-dns",
            &["10.96.0.10", "fd00::a"],
            &["dns/udp/53"],
            &["10.244.0.7", "10.244.0.8"],
        )
    };
    let own = |addrs: &[&str]| DnsSettings {
        own_addresses: addrs.iter().map(|addr| addr.parse().unwrap()).collect(),
        ..DnsSettings::default()
    };
    let service: &[Case] = &[
        (
            "Z",
            "NS",
            &[
                "NOERROR",
                "$N 30 IN NS kube-dns.testns.svc.cluster.local.",
                "+kube-dns.testns.svc.cluster.local. 30 IN A 10.96.0.10",
                "+kube-dns.testns.svc.cluster.local. 30 IN AAAA fd00::a",
            ],
        ),
        ("ns.dns.Z", "A", &["NOERROR", "$N 30 IN A 10.96.0.10"]),
        ("ns.dns.Z", "TXT", &["NODATA"]),
    ];
    for addrs in [&["127.0.0.1", "10.244.0.7"], &["127.0.0.1", "10.96.0.10"]] {
        check(&dns().build(), &own(addrs), service);
    }
    let headless = world().headless("dns", &["dns/udp/53"], &["10.244.0.7", "10.244.0.8"]);
    let by_endpoint: &[Case] = &[(
        "Z",
        "NS",
        &[
            "NOERROR",
            "$N 30 IN NS 10-244-0-7.dns.testns.svc.cluster.local.",
            "+10-244-0-7.dns.testns.svc.cluster.local. 30 IN A 10.244.0.7",
        ],
    )];
    check(&headless.build(), &own(&["10.244.0.7"]), by_endpoint);
    let alone: &[Case] = &[
        (
            "Z",
            "NS",
            &[
                "NOERROR",
                "$N 30 IN NS ns.dns.cluster.local.",
                "+ns.dns.cluster.local. 30 IN A 10.0.2.15",
            ],
        ),
        ("ns.dns.Z", "A", &["NOERROR", "$N 30 IN A 10.0.2.15"]),
        ("ns.dns.Z", "AAAA", &["NODATA"]),
    ];
    check(&world().build(), &own(&["127.0.0.1", "10.0.2.15"]), alone);
}

#[test]
fn dns_a12_name_servers_in_mixed_case() {
    let settings = DnsSettings {
        own_addresses: vec!["10.0.2.15".parse().unwrap()],
        ..DnsSettings::default()
    };
    let found = ask_with(&world().build(), &settings, "cLuster.Local", "NS");
    assert_eq!(
        found,
        [
            "NOERROR",
            "cLuster.Local. 30 IN NS ns.dns.cLuster.Local.",
            "+ns.dns.cLuster.Local. 30 IN A 10.0.2.15"
        ]
    );
    let found = ask_with(&world().build(), &compat(), "cLuster.Local", "NS");
    assert!(found.len() == 2 && found[1].contains("SOA"), "{found:?}");
}

#[test]
fn dns_k1_case_is_kept() {
    let snapshot = world().build();
    let settings = DnsSettings::default();
    let ask = |name, record_type| ask_with(&snapshot, &settings, name, record_type);
    assert_eq!(
        ask("SvC1.TeStNs.SvC.cLuStEr.LoCaL", "A"),
        ["NOERROR", "SvC1.TeStNs.SvC.cLuStEr.LoCaL. 30 IN A 10.0.0.1"]
    );
    assert_eq!(
        ask("_HtTp._TcP.sVc1.testns.SVC.cLuStEr.LoCaL", "SRV"),
        [
            "NOERROR",
            "_HtTp._TcP.sVc1.testns.SVC.cLuStEr.LoCaL. 30 IN SRV 0 100 80 \
             svc1.testns.svc.cLuStEr.LoCaL.",
            "+svc1.testns.svc.cLuStEr.LoCaL. 30 IN A 10.0.0.1",
        ]
    );
    assert_eq!(
        ask("SvC1.TeStNs.SvC.cLuStEr.LoCaL", "AAAA")[1],
        "@cLuStEr.LoCaL. 30 IN SOA ns.dns.cLuStEr.LoCaL. hostmaster.cLuStEr.LoCaL. \
         1499347823 7200 1800 86400 30"
    );
}

#[test]
fn dns_p1_pods() {
    run(&[
        (
            "1-2-3-4.testns.pod.Z",
            "A",
            &["NOERROR", "$N 30 IN A 1.2.3.4"],
        ),
        ("1-2-3-4.testns.pod.Z", "AAAA", &["NODATA"]),
        ("1-2-3-4.testns.pod.Z", "TXT", &["NODATA"]),
        (
            "fd00--7.default.pod.Z",
            "AAAA",
            &["NOERROR", "$N 30 IN AAAA fd00::7"],
        ),
        ("fd00--7.default.pod.Z", "A", &["NODATA"]),
        ("1-2-3-4.nope.pod.Z", "A", &["NXDOMAIN"]),
        ("1-2-3.testns.pod.Z", "A", &["NXDOMAIN"]),
        ("1-2-3-400.testns.pod.Z", "A", &["NXDOMAIN"]),
        ("podname.testns.pod.Z", "A", &["NXDOMAIN"]),
    ]);
    let disabled = DnsSettings {
        pods: PodsMode::Disabled,
        ..DnsSettings::default()
    };
    let cases: &[Case] = &[("1-2-3-4.testns.pod.Z", "A", &["NXDOMAIN"])];
    check(&world().build(), &disabled, cases);
}

#[test]
fn dns_v8_srv_of_a_pod_is_no_data() {
    run(&[("1-2-3-4.testns.pod.Z", "SRV", &["NODATA"])]);
}

#[test]
fn dns_n1_before_sync_nothing_is_known_to_be_missing() {
    let failed: &[&str] = &["SERVFAIL STOP", SOA];
    let snapshot = world().not_synced().build();
    let cases: &[Case] = &[
        ("nope.S", "A", failed),
        ("svc1.nope.svc.Z", "A", failed),
        ("foo.Z", "TXT", failed),
        ("1-2-3-4.nope.pod.Z", "A", failed),
        ("nope.svc1.S", "A", failed),
        ("Z", "SOA", &["NOERROR", "$SOA"]),
        ("svc1.S", "A", &["NOERROR", "$N 30 IN A 10.0.0.1"]),
    ];
    check(&snapshot, &DnsSettings::default(), cases);
    for name in ["example.com", "local", "xcluster.local", "."] {
        let found = ask_with(&snapshot, &DnsSettings::default(), name, "A");
        assert_eq!(found, ["NOT MINE"], "{name}");
    }
}
