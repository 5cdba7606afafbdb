//! Names: from the host with dig, and inside pods through the resolver of the C library.

use std::process::Command;

use crate::support::cluster::Cluster;
use crate::support::{has, output};

#[tokio::test(flavor = "multi_thread")]
async fn dig_gets_every_kind_of_answer() {
    if !has("dig") {
        return;
    }
    let cluster = Cluster::shop().await;
    let dns = cluster.dns();
    let dig = |args: &[&str]| {
        let mut command = Command::new("dig");
        command
            .arg(format!("@{}", dns.ip()))
            .args(["-p", &dns.port().to_string()]);
        output(command.args(args))
    };
    let short = |args: &[&str]| {
        let mut all = vec!["+short"];
        all.extend(args);
        let mut lines: Vec<String> = dig(&all).lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let service = cluster.get(&["service", "api"]);
    let vip = service["spec"]["clusterIP"].as_str().unwrap().to_owned();
    let pods = cluster.get(&["pods", "-l", "app=api"]);
    let mut addresses: Vec<String> = pods["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|pod| pod["status"]["podIP"].as_str().unwrap().to_owned())
        .collect();
    addresses.sort();

    let name = "api.default.svc.cluster.local";
    assert_eq!(short(&["A", name]), [vip.as_str()]);
    assert_eq!(short(&["A", name, "+tcp"]), [vip.as_str()]);
    assert_eq!(short(&["AAAA", name]), [""; 0], "NODATA");
    assert_eq!(
        short(&["SRV", &format!("_http._tcp.{name}")]),
        [format!("0 100 80 {name}.")]
    );
    assert_eq!(short(&["-x", &vip]), [format!("{name}.")]);
    assert_eq!(
        short(&["A", "api-pods.default.svc.cluster.local"]),
        addresses,
        "headless"
    );
    assert_eq!(
        short(&["CNAME", "payments.default.svc.cluster.local"]),
        ["payments.example.com."]
    );
    let missing = dig(&["A", "nobody.default.svc.cluster.local"]);
    assert!(missing.contains("status: NXDOMAIN"), "{missing}");
    assert!(missing.contains("SOA"), "{missing}");
    assert!(missing.contains(" aa "), "{missing}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_reach_services_by_short_and_long_names_through_the_cluster_ip() {
    if !has("kubectl") || !has("curl") {
        return;
    }
    let cluster = Cluster::shop().await;
    let from = cluster.pods("app=docs").remove(0);
    let source = cluster.get(&["pod", &from])["status"]["podIP"]
        .as_str()
        .unwrap()
        .to_owned();
    for url in [
        "http://api/",
        "http://api.default/",
        "http://api.default.svc.cluster.local/",
        "http://api-pods:8000/",
    ] {
        let text = cluster.kubectl_output(&[
            "exec",
            &from,
            "--",
            "curl",
            "-sS",
            "--max-time",
            "5",
            "-w",
            "\n%{remote_ip}",
            url,
        ]);
        let (body, remote) = text.trim_end().rsplit_once('\n').unwrap();
        let seen: serde_json::Value = serde_json::from_str(body).expect(body);
        assert!(
            seen["pod"].as_str().unwrap().starts_with("api-"),
            "{url}: {seen}"
        );
        if !url.contains("pods") {
            let service = cluster.get(&["service", "api"]);
            assert_eq!(
                remote,
                service["spec"]["clusterIP"].as_str().unwrap(),
                "{url}"
            );
        }
    }
    let host_name = cluster.kubectl_output(&["exec", &from, "--", "hostname"]);
    assert_eq!(host_name.trim(), from);
    let hosts = cluster.kubectl_output(&["exec", &from, "--", "cat", "/etc/hosts"]);
    assert!(hosts.contains(&source), "{hosts}");
    let resolv = cluster.kubectl_output(&["exec", &from, "--", "cat", "/etc/resolv.conf"]);
    assert!(resolv.contains("nameserver 10.96.0.10"), "{resolv}");
    assert!(
        resolv.contains("search default.svc.cluster.local"),
        "{resolv}"
    );
}
