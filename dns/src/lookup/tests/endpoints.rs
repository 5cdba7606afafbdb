use crate::settings::DnsSettings;
use crate::testing::{Case, World, check};

fn world() -> World {
    World::new()
        .headless(
            "hdls",
            &["http/tcp/80", "admin/tcp/81"],
            &[
                "172.0.0.2=pod0",
                "172.0.0.3",
                "!172.0.0.4=down",
                "172.0.0.5=twin",
                "172.0.0.6=twin",
            ],
        )
        .headless("six", &["http/tcp/80"], &["5678:abcd::1", "5678:abcd::"])
        .headless("empty", &["http/tcp/80"], &[])
        .headless("unready", &["http/tcp/80"], &["!172.0.0.9=ep"])
        .headless("portless", &[], &["172.0.0.7=solo"])
        .with_endpoints(
            "svc",
            &["10.0.0.1"],
            &["http/tcp/80"],
            &["172.0.0.20=ep1a", "!172.0.0.21"],
        )
}

fn run(cases: &[Case]) {
    check(&world().build(), &DnsSettings::default(), cases);
}

#[test]
fn dns_b1_headless_answers_every_ready_endpoint() {
    run(&[(
        "hdls.S",
        "A",
        &[
            "NOERROR",
            "$N 30 IN A 172.0.0.2",
            "$N 30 IN A 172.0.0.3",
            "$N 30 IN A 172.0.0.5",
            "$N 30 IN A 172.0.0.6",
        ],
    )]);
    let twice = World::new().headless("hdls", &["a/tcp/1"], &["172.0.0.2=a", "172.0.0.2=b"]);
    let once: &[Case] = &[("hdls.S", "A", &["NOERROR", "$N 30 IN A 172.0.0.2"])];
    check(&twice.build(), &DnsSettings::default(), once);
}

#[test]
fn dns_b2_headless_without_ready_endpoints_does_not_exist() {
    for record_type in ["A", "AAAA", "SRV", "TXT"] {
        run(&[
            ("empty.S", record_type, &["NXDOMAIN"]),
            ("unready.S", record_type, &["NXDOMAIN"]),
            ("_http._tcp.unready.S", record_type, &["NXDOMAIN"]),
            ("_tcp.unready.S", record_type, &["NXDOMAIN"]),
        ]);
    }
}

#[test]
fn dns_b3_headless_of_the_other_family_is_no_data() {
    run(&[("hdls.S", "AAAA", &["NODATA"]), ("six.S", "A", &["NODATA"])]);
}

#[test]
fn dns_b4_host_names_of_endpoints() {
    run(&[
        ("pod0.hdls.S", "A", &["NOERROR", "$N 30 IN A 172.0.0.2"]),
        ("pod0.hdls.S", "AAAA", &["NODATA"]),
        (
            "twin.hdls.S",
            "A",
            &["NOERROR", "$N 30 IN A 172.0.0.5", "$N 30 IN A 172.0.0.6"],
        ),
        ("pod1.hdls.S", "A", &["NXDOMAIN"]),
        ("x.pod0.hdls.S", "A", &["NXDOMAIN"]),
    ]);
}

#[test]
fn dns_b5_addresses_name_endpoints_without_host_name() {
    run(&[
        (
            "172-0-0-3.hdls.S",
            "A",
            &["NOERROR", "$N 30 IN A 172.0.0.3"],
        ),
        ("172-0-0-2.hdls.S", "A", &["NXDOMAIN"]),
        ("172-0-0-03.hdls.S", "A", &["NXDOMAIN"]),
        (
            "5678-abcd--1.six.S",
            "AAAA",
            &["NOERROR", "$N 30 IN AAAA 5678:abcd::1"],
        ),
        (
            "5678-ABCD--0.six.S",
            "AAAA",
            &["NOERROR", "$N 30 IN AAAA 5678:abcd::"],
        ),
        ("5678-abcd-0-0-0-0-0-1.six.S", "AAAA", &["NXDOMAIN"]),
    ]);
}

#[test]
fn dns_b6_endpoints_by_pod_name() {
    let settings = DnsSettings {
        endpoint_pod_names: true,
        ..DnsSettings::default()
    };
    let cases: &[Case] = &[
        ("pod0.hdls.S", "A", &["NOERROR", "$N 30 IN A 172.0.0.2"]),
        (
            "pod-172x0x0x3.hdls.S",
            "A",
            &["NOERROR", "$N 30 IN A 172.0.0.3"],
        ),
        ("pod-172x0x0x2.hdls.S", "A", &["NXDOMAIN"]),
        ("172-0-0-3.hdls.S", "A", &["NXDOMAIN"]),
    ];
    check(&world().build(), &settings, cases);
    run(&[("pod-172x0x0x3.hdls.S", "A", &["NXDOMAIN"])]);
}

#[test]
fn dns_b7_endpoint_names_below_a_cluster_ip() {
    run(&[
        ("ep1a.svc.S", "A", &["NOERROR", "$N 30 IN A 172.0.0.20"]),
        ("172-0-0-21.svc.S", "A", &["NXDOMAIN"]),
        ("down.hdls.S", "A", &["NXDOMAIN"]),
    ]);
}

#[test]
fn dns_b9_readiness_alone_decides() {
    let published = World::new().headless("hdls", &["a/tcp/1"], &["172.0.0.2=a", "!172.0.0.3=b"]);
    let cases: &[Case] = &[
        ("a.hdls.S", "A", &["NOERROR", "$N 30 IN A 172.0.0.2"]),
        ("b.hdls.S", "A", &["NXDOMAIN"]),
        ("hdls.S", "A", &["NOERROR", "$N 30 IN A 172.0.0.2"]),
    ];
    check(&published.build(), &DnsSettings::default(), cases);
}

#[test]
fn dns_b11_headless_without_ports() {
    run(&[
        ("portless.S", "A", &["NOERROR", "$N 30 IN A 172.0.0.7"]),
        ("portless.S", "SRV", &["NODATA"]),
        ("solo.portless.S", "A", &["NOERROR", "$N 30 IN A 172.0.0.7"]),
        ("solo.portless.S", "SRV", &["NODATA"]),
        ("_http._tcp.portless.S", "SRV", &["NXDOMAIN"]),
    ]);
}

#[test]
fn dns_b11_without_endpoints_only_cluster_ips_exist() {
    let settings = DnsSettings {
        no_endpoints: true,
        ..DnsSettings::default()
    };
    let cases: &[Case] = &[
        ("hdls.S", "A", &["NXDOMAIN"]),
        ("pod0.hdls.S", "A", &["NXDOMAIN"]),
        ("_http._tcp.hdls.S", "SRV", &["NXDOMAIN"]),
        ("ep1a.svc.S", "A", &["NXDOMAIN"]),
        ("svc.S", "A", &["NOERROR", "$N 30 IN A 10.0.0.1"]),
    ];
    let snapshot = world().build();
    check(&snapshot, &settings, cases);
    let ptr = |addr| crate::testing::ask_with(&snapshot, &settings, addr, "PTR");
    assert_eq!(ptr("2.0.0.172.in-addr.arpa"), ["NOT MINE"]);
    assert_eq!(ptr("1.0.0.10.in-addr.arpa").len(), 2);
}

#[test]
fn dns_v4_srv_of_headless_names_every_endpoint() {
    run(&[
        (
            "_http._tcp.hdls.S",
            "SRV",
            &[
                "NOERROR",
                "$N 30 IN SRV 0 33 80 172-0-0-3.hdls.testns.svc.cluster.local.",
                "$N 30 IN SRV 0 33 80 pod0.hdls.testns.svc.cluster.local.",
                "$N 30 IN SRV 0 33 80 twin.hdls.testns.svc.cluster.local.",
                "+172-0-0-3.hdls.testns.svc.cluster.local. 30 IN A 172.0.0.3",
                "+pod0.hdls.testns.svc.cluster.local. 30 IN A 172.0.0.2",
                "+twin.hdls.testns.svc.cluster.local. 30 IN A 172.0.0.5",
                "+twin.hdls.testns.svc.cluster.local. 30 IN A 172.0.0.6",
            ],
        ),
        (
            "pod0.hdls.S",
            "SRV",
            &[
                "NOERROR",
                "$N 30 IN SRV 0 50 80 $N",
                "$N 30 IN SRV 0 50 81 $N",
                "+$N 30 IN A 172.0.0.2",
            ],
        ),
    ]);
}

#[test]
fn dns_v5_weight_is_an_equal_share() {
    for (endpoints, weight) in [(1, 100), (3, 33), (5, 20), (100, 1), (101, 1), (300, 1)] {
        let addrs: Vec<String> = (0..endpoints)
            .map(|n| format!("172.16.{}.{}", n / 250, n % 250))
            .collect();
        let addrs: Vec<&str> = addrs.iter().map(String::as_str).collect();
        let snapshot = World::new().headless("h", &["a/tcp/1"], &addrs).build();
        let found = crate::testing::ask_with(
            &snapshot,
            &DnsSettings::default(),
            "_a._tcp.h.testns.svc.cluster.local",
            "SRV",
        );
        let weighted = format!(" IN SRV 0 {weight} 1 ");
        let count = found.iter().filter(|line| line.contains(&weighted)).count();
        assert_eq!(count, endpoints, "{endpoints} endpoints");
    }
}
