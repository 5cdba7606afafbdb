//! `gateway`, `dns` and `node` on a real API server, each with no more rights than `deploy/` gives it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::mode::{Kubernetes, Mode, NODE_IP, Node, Pod, Right, get};
use crate::support::{eventually, has, output};

pub(crate) const HOST: &str = "shop.test";

const GATEWAY: [&str; 11] = [
    "gateway",
    "--http",
    "0.0.0.0:0",
    "--https",
    "0.0.0.0:0",
    "--publish-address",
    "192.0.2.7",
    "--drain-delay",
    "1",
    "--lease",
    "sealane/sealane-gateway",
];

/// A Service without selector, its endpoint, and an Ingress for it.
pub(crate) fn shop(endpoint: Ipv4Addr) -> [Value; 3] {
    [
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "shop", "namespace": "default"},
            "spec": {"ports": [{"name": "http", "port": 80, "targetPort": 8000}]},
        }),
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "name": "shop-1", "namespace": "default",
                "labels": {"kubernetes.io/service-name": "shop"},
            },
            "addressType": "IPv4",
            "endpoints": [{"addresses": [endpoint], "conditions": {"ready": true}}],
            "ports": [{"name": "http", "port": 8000, "protocol": "TCP"}],
        }),
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
            "metadata": {"name": "shop", "namespace": "default"},
            "spec": {
                "ingressClassName": "sealane",
                "rules": [{"host": HOST, "http": {"paths": [{
                    "path": "/", "pathType": "Prefix",
                    "backend": {"service": {"name": "shop", "port": {"name": "http"}}},
                }]}}],
            },
        }),
    ]
}

fn cluster_ip(kubernetes: &Kubernetes) -> IpAddr {
    let args = ["get", "service", "shop", "-o", "jsonpath={.spec.clusterIP}"];
    output(&mut kubernetes.kubectl(&args)).parse().unwrap()
}

/// What a GET from within a pod or the node gets: the status.
async fn until_served(what: &str, ask: impl Fn() -> Result<(u16, String), String>) {
    eventually(what, async || match ask() {
        Ok((200, _)) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn proxy_o6_o9_a_gateway_keeps_what_it_has_and_drains() {
    let Some(node) = Node::new() else { return };
    let Some(mut kubernetes) = Kubernetes::start().await else {
        return;
    };
    let pod = node.pod("shop").await;
    let _echo = pod.echo();
    let account = kubernetes.deploy("gateway").await;
    kubernetes.apply(&shop(pod.ip));
    let within = kubernetes.kubeconfig_within(&node, &account).await;
    let mut gateway = Mode::start(Some(&node), &within, &GATEWAY);
    let addr = SocketAddr::new(NODE_IP.into(), gateway.address("http").port());
    gateway.ready(Some(&node)).await;
    let ask = |path: &str| {
        let path = path.to_owned();
        node.run(move || get(addr, HOST, &path))
    };
    assert_eq!(ask("/").unwrap().0, 200);
    eventually("the status is written", async || {
        let path = "jsonpath={.status.loadBalancer.ingress[*].ip}";
        let args = ["get", "ingress", "shop", "-o", path];
        match output(&mut kubernetes.kubectl(&args)).as_str() {
            "192.0.2.7" => Ok(()),
            other => Err(format!("{other}\n{}", gateway.process.log())),
        }
    })
    .await;

    kubernetes.plane.kill_api_server();
    gateway.says("watch interrupted").await;
    assert_eq!(ask("/").unwrap().0, 200);
    assert_eq!(gateway.admin(Some(&node), "/readyz").0, 200);

    let in_flight = std::thread::scope(|scope| {
        let slow = scope.spawn(|| ask("/?delay=2s"));
        // Time for the request to arrive; if it is late, it comes within the drain delay.
        std::thread::park_timeout(Duration::from_millis(300));
        gateway.process.signal("TERM");
        let pending = loop {
            let (status, pending) = gateway.admin(Some(&node), "/readyz");
            if status != 200 {
                break pending;
            }
        };
        assert_eq!(pending, "[-] draining\n");
        assert_eq!(ask("/").unwrap().0, 200, "within the drain delay");
        slow.join().unwrap()
    });
    assert_eq!(in_flight.unwrap().0, 200);
    let status = gateway.process.wait(Duration::from_secs(10));
    assert!(status.success(), "{status}\n{}", gateway.process.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn proxy_o5_o6_ready_with_its_certificate_silent_about_keys_and_cut_off_after_the_grace() {
    const CANARY: &str = "canary-in-a-key";
    let Some(node) = Node::new() else { return };
    let Some(kubernetes) = Kubernetes::start().await else {
        return;
    };
    let pod = node.pod("shop").await;
    let _echo = pod.echo();
    let account = kubernetes.deploy("gateway").await;
    let mut objects = shop(pod.ip);
    objects[2]["spec"]["tls"] = json!([{"hosts": [HOST], "secretName": "broken"}]);
    // One more host, without TLS and therefore without a redirect.
    let mut plain = objects[2]["spec"]["rules"][0].clone();
    plain["host"] = "plain.test".into();
    objects[2]["spec"]["rules"]
        .as_array_mut()
        .unwrap()
        .push(plain);
    kubernetes.apply(&objects);
    kubernetes.apply(&[tls_secret("broken", "no certificate", CANARY)]);
    let within = kubernetes.kubeconfig_within(&node, &account).await;
    let own = ["--default-ssl-certificate", "default/own", "--grace", "1"];
    let mut gateway = Mode::start(Some(&node), &within, &[&GATEWAY[..], &own].concat());
    let pending = "[-] certificate loaded\n";
    eventually("only the certificate is missing", async || {
        match gateway.admin(Some(&node), "/readyz") {
            (503, missing) if missing == pending => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    let made = rcgen::generate_simple_self_signed([HOST.to_owned()]).unwrap();
    let key = made.signing_key.serialize_pem();
    kubernetes.apply(&[tls_secret("own", &made.cert.pem(), &key)]);
    gateway.ready(Some(&node)).await;
    let (_, snapshot) = gateway.admin(Some(&node), "/debug/snapshot");
    let snapshot: Value = serde_json::from_str(&snapshot).unwrap();
    assert_eq!(snapshot["defaultCertificate"], true, "{snapshot}");
    assert_eq!(snapshot["problems"]["bad_certificate"], 1, "{snapshot}");
    for path in ["/debug/snapshot", "/metrics", "/readyz", "/version"] {
        let (_, page) = gateway.admin(Some(&node), path);
        assert!(!page.contains(CANARY), "{path}: {page}");
    }
    assert!(!gateway.process.log().contains(CANARY));

    let addr = SocketAddr::new(NODE_IP.into(), gateway.address("http").port());
    let status = std::thread::scope(|scope| {
        let slow = scope.spawn(|| node.run(move || get(addr, "plain.test", "/?delay=50s")));
        // Time for the request to arrive; if it is late, it comes within the drain delay.
        std::thread::park_timeout(Duration::from_millis(300));
        gateway.process.signal("TERM");
        let status = gateway.process.wait(Duration::from_secs(8));
        let cut = slow.join().unwrap();
        assert!(!matches!(cut, Ok((200, _))), "{cut:?}");
        status
    });
    assert!(status.success(), "{status}\n{}", gateway.process.log());
    let log = gateway.process.log();
    assert!(log.contains("still in flight"), "{log}");
}

fn tls_secret(name: &str, certificate: &str, key: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
        "metadata": {"name": name, "namespace": "default"},
        "stringData": {"tls.crt": certificate, "tls.key": key},
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn proxy_o6_a_second_signal_ends_at_once() {
    let Some(kubernetes) = Kubernetes::start().await else {
        return;
    };
    let account = kubernetes.deploy("dns").await;
    let args = ["dns", "--dns", "127.0.0.1:0", "--drain-delay", "60"];
    let mut dns = Mode::start(None, &account, &args);
    dns.ready(None).await;
    dns.process.signal("TERM");
    dns.says("draining").await;
    dns.process.signal("TERM");
    let status = dns.process.wait(Duration::from_secs(5));
    assert!(status.success(), "{status}\n{}", dns.process.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn dns_answers_names_of_a_real_cluster() {
    if !has("dig") {
        return;
    }
    let Some(kubernetes) = Kubernetes::start().await else {
        return;
    };
    let account = kubernetes.deploy("dns").await;
    kubernetes.apply(&shop(Ipv4Addr::new(10, 244, 0, 9))[..2]);
    let args = [
        "dns",
        "--dns",
        "127.0.0.1:0",
        "--cluster-domain",
        "corp.test",
    ];
    let dns = Mode::start(None, &account, &args);
    dns.ready(None).await;
    let addr = dns.address("dns");
    let dig = |args: &[&str]| {
        let mut dig = Command::new("dig");
        dig.args(["+short", &format!("@{}", addr.ip()), "-p"])
            .arg(addr.port().to_string());
        output(dig.args(args)).trim().to_owned()
    };
    let vip = cluster_ip(&kubernetes).to_string();
    let name = "shop.default.svc.corp.test";
    assert_eq!(dig(&["A", name]), vip);
    assert_eq!(dig(&["A", name, "+tcp"]), vip);
    assert_eq!(dig(&["-x", &vip]), format!("{name}."));
    let pod = "10-244-0-9.default.pod.corp.test";
    assert_eq!(dig(&["A", pod]), "10.244.0.9");
    assert_eq!(dig(&["A", "10-244-0-9.missing.pod.corp.test"]), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn node_serves_services_of_a_real_cluster() {
    let Some(node) = Node::new() else { return };
    let Some(kubernetes) = Kubernetes::start().await else {
        return;
    };
    let (client, server) = (node.pod("client").await, node.pod("server").await);
    let _echo = server.echo();
    let account = kubernetes.deploy("node").await;
    let mut objects = shop(server.ip);
    objects[0]["spec"]["type"] = "NodePort".into();
    objects[0]["spec"]["ports"][0]["nodePort"] = 30080.into();
    kubernetes.apply(&objects[..2]);
    // The part of the role for --dns, which deploy/ does not bind.
    kubernetes.apply(&[json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": {"name": "sealane-node-dns"},
        "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io",
            "kind": "ClusterRole", "name": "sealane-node-dns",
        },
        "subjects": [{"kind": "ServiceAccount", "name": "node", "namespace": "sealane"}],
    })]);
    let within = kubernetes.kubeconfig_within(&node, &account).await;
    let args = [
        "node",
        "--node-name",
        "here",
        "--service-cidr",
        "10.96.0.0/16",
        "--pod-cidr",
        "10.244.0.0/16",
        "--dns",
        "10.244.0.1:53",
        "--drain-delay",
        "0",
    ];
    let mut proxy = Mode::start(Some(&node), &within, &args);
    proxy.ready(Some(&node)).await;
    let log = proxy.process.log();
    assert!(!log.contains("forbidden"), "{log}");
    let vip = SocketAddr::new(cluster_ip(&kubernetes), 80);
    let ask = |pod: &Pod, addr| pod.run(move || get(addr, "shop", "/"));
    until_served("the Service", || ask(&client, vip)).await;
    let node_port = SocketAddr::new(NODE_IP.into(), 30080);
    until_served("the node port", || ask(&client, node_port)).await;
    let direct = SocketAddr::new(server.ip.into(), 8000);
    assert_eq!(ask(&client, direct).unwrap().0, 200, "pods are left alone");
    if has("dig") {
        let name = "shop.default.svc.cluster.local";
        let mut dig = Command::new("dig");
        dig.args(["+short", "@10.244.0.1", "A", name]);
        let found = client.run(move || output(&mut dig));
        assert_eq!(found.trim(), vip.ip().to_string());
    }
    assert!(tables(&node).contains("table inet sealane"));

    proxy.process.signal("TERM");
    let status = proxy.process.wait(Duration::from_secs(10));
    assert!(status.success(), "{status}\n{}", proxy.process.log());
    assert!(
        !tables(&node).contains("sealane"),
        "the rules go with the proxy"
    );

    // What an earlier run left in the kernel is no obstacle.
    let proxy = Mode::start(Some(&node), &within, &args);
    proxy.ready(Some(&node)).await;
    until_served("the Service again", || ask(&client, vip)).await;
}

/// The node's tables, or what stands for them where there is no `nft`.
fn tables(node: &Node) -> String {
    node.run(|| {
        let listed = Command::new("nft").args(["list", "tables"]).output();
        listed.map_or_else(
            |error| error.to_string(),
            |listed| String::from_utf8_lossy(&listed.stdout).into_owned(),
        )
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn node_without_the_privilege_says_what_to_add() {
    if !has("setpriv") {
        return;
    }
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .args(["--inh-caps=-all", "--bounding-set=-all", "--no-new-privs"])
        .args([env!("CARGO_BIN_EXE_sealane"), "node", "--node-name", "here"]);
    let ended = command.output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(3), "{said}");
    assert!(said.contains("CAP_NET_ADMIN"), "{said}");
    assert!(said.contains("securityContext"), "{said}");
}

/// What the log says if the rule for a watched kind is missing.
fn watch_denied(resource: &str) -> String {
    format!("the verbs `list` and `watch` on `{resource}`")
}

#[tokio::test(flavor = "multi_thread")]
async fn dns_needs_every_rule_of_its_role_and_no_more() {
    let Some(kubernetes) = Kubernetes::start().await else {
        return;
    };
    let account = kubernetes.deploy("dns").await;
    let start = || Mode::start(None, &account, &["dns", "--dns", "127.0.0.1:0"]);
    let dns = start();
    dns.ready(None).await;
    assert!(
        !dns.process.log().contains("forbidden"),
        "{}",
        dns.process.log()
    );
    for (resource, named) in [
        ("services", "services"),
        ("endpointslices", "endpointslices.discovery.k8s.io"),
        ("namespaces", "namespaces"),
    ] {
        let right = Right {
            role: "clusterrole/sealane-dns",
            // The first list comes over the watch; `list` is for servers that cannot do that.
            verb: "watch",
            resource,
            name: None,
        };
        let role = kubernetes.revoke(&account, &right).await;
        let dns = start();
        dns.says(&watch_denied(named)).await;
        let pending = "[-] state synced\n".to_owned();
        assert_eq!(dns.admin(None, "/readyz"), (503, pending), "{resource}");
        kubernetes.restore(&account, &right, role).await;
        dns.ready(None).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn node_needs_every_rule_of_its_role_and_no_more() {
    let Some(node) = Node::new() else { return };
    let Some(kubernetes) = Kubernetes::start().await else {
        return;
    };
    let account = kubernetes.deploy("node").await;
    let within = kubernetes.kubeconfig_within(&node, &account).await;
    let start = || Mode::start(Some(&node), &within, &["node", "--node-name", "here"]);
    let proxy = start();
    proxy.ready(Some(&node)).await;
    let log = proxy.process.log();
    assert!(!log.contains("forbidden"), "{log}");
    drop(proxy);
    for (resource, named) in [
        ("services", "services"),
        ("endpointslices", "endpointslices.discovery.k8s.io"),
        ("nodes", "nodes"),
    ] {
        let right = Right {
            role: "clusterrole/sealane-node",
            // The first list comes over the watch; `list` is for servers that cannot do that.
            verb: "watch",
            resource,
            name: None,
        };
        let role = kubernetes.revoke(&account, &right).await;
        let proxy = start();
        proxy.says(&watch_denied(named)).await;
        kubernetes.restore(&account, &right, role).await;
        proxy.ready(Some(&node)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ingress_u4_gateway_needs_every_rule_of_its_role_and_no_more() {
    let Some(kubernetes) = Kubernetes::start().await else {
        return;
    };
    let account = kubernetes.deploy("gateway").await;
    let mut objects = shop(Ipv4Addr::new(10, 244, 0, 9));
    // Something to read a Secret and a ConfigMap for, and something to complain about.
    objects[2]["spec"]["tls"] = json!([{"hosts": [HOST], "secretName": "missing"}]);
    let headers = "nginx.ingress.kubernetes.io/custom-headers";
    objects[2]["metadata"]["annotations"] = json!({headers: "missing"});
    kubernetes.apply(&objects);
    let own = ["--http", "127.0.0.1:0", "--https", "127.0.0.1:0"];
    let lease = ["--lease", "sealane/sealane-gateway"];
    let settings = ["--configmap", "sealane/gateway"];
    let start = |publish: [&str; 2]| {
        let args = [
            &["gateway"],
            &own[..],
            &lease[..],
            &settings[..],
            &publish[..],
        ]
        .concat();
        Mode::start(None, &account, &args)
    };
    let by_address = ["--publish-address", "192.0.2.7"];
    let by_service = ["--publish-service", "sealane/gateway"];
    let gateway = start(by_address);
    gateway.ready(None).await;
    eventually("status and an Event are written", async || {
        let path = "jsonpath={.status.loadBalancer.ingress[*].ip}";
        let status = ["get", "ingress", "shop", "-o", path];
        let events = ["get", "events.events.k8s.io", "-o", "name"];
        let [status, events] =
            [&status[..], &events[..]].map(|args| output(&mut kubernetes.kubectl(args)));
        if status == "192.0.2.7" && !events.is_empty() {
            Ok(())
        } else {
            Err(format!("{status} {events}\n{}", gateway.process.log()))
        }
    })
    .await;
    let log = gateway.process.log();
    assert!(!log.contains("forbidden"), "{log}");
    drop(gateway);

    let (cluster, own) = ("clusterrole/sealane-gateway", "role/gateway");
    let certificates = "clusterrole/sealane-gateway-certificates";
    let config_maps = "clusterrole/sealane-gateway-config-maps";
    let lease = Some("sealane-gateway");
    let cannot = |verb: &str, resource: &str| format!("cannot {verb} resource \"{resource}\"");
    for (role, verb, resource, name, publish, said) in [
        (
            cluster,
            "watch",
            "services",
            None,
            by_address,
            watch_denied("services"),
        ),
        (
            cluster,
            "watch",
            "endpointslices",
            None,
            by_address,
            watch_denied("endpointslices.discovery.k8s.io"),
        ),
        (
            cluster,
            "watch",
            "ingressclasses",
            None,
            by_address,
            watch_denied("ingressclasses.networking.k8s.io"),
        ),
        (
            cluster,
            "watch",
            "ingresses",
            None,
            by_address,
            watch_denied("ingresses.networking.k8s.io"),
        ),
        (
            cluster,
            "get",
            "ingresses",
            None,
            by_address,
            cannot("get", "ingresses"),
        ),
        (
            cluster,
            "patch",
            "ingresses/status",
            None,
            by_address,
            cannot("patch", "ingresses/status"),
        ),
        (
            cluster,
            "create",
            "events",
            None,
            by_address,
            cannot("create", "events"),
        ),
        (
            own,
            "get",
            "leases",
            lease,
            by_address,
            cannot("get", "leases"),
        ),
        (
            own,
            "update",
            "leases",
            lease,
            by_address,
            cannot("update", "leases"),
        ),
        (
            own,
            "create",
            "leases",
            None,
            by_address,
            cannot("create", "leases"),
        ),
        (
            own,
            "get",
            "services",
            Some("gateway"),
            by_service,
            cannot("get", "services"),
        ),
        (
            own,
            "watch",
            "configmaps",
            Some("gateway"),
            by_address,
            watch_denied("configmaps"),
        ),
        (
            config_maps,
            "watch",
            "configmaps",
            None,
            by_address,
            watch_denied("configmaps"),
        ),
        (
            certificates,
            "watch",
            "secrets",
            None,
            by_address,
            watch_denied("secrets"),
        ),
    ] {
        let right = Right {
            role,
            verb,
            resource,
            name,
        };
        let before = kubernetes.revoke(&account, &right).await;
        undo(&kubernetes, verb == "create");
        let gateway = start(publish);
        gateway.says(&said).await;
        drop(gateway);
        if ![certificates, config_maps].contains(&role) {
            kubernetes.restore(&account, &right, before).await;
        }
    }
}

/// Makes a new gateway write everything again.
fn undo(kubernetes: &Kubernetes, lease: bool) {
    let empty = r#"{"status":{"loadBalancer":null}}"#;
    let patch = [
        "patch",
        "ingress",
        "shop",
        "--subresource=status",
        "--type=merge",
        "-p",
        empty,
    ];
    output(&mut kubernetes.kubectl(&patch));
    output(&mut kubernetes.kubectl(&["delete", "events.events.k8s.io", "--all"]));
    if lease {
        let delete = [
            "delete",
            "lease",
            "sealane-gateway",
            "-n",
            "sealane",
            "--ignore-not-found",
        ];
        output(&mut kubernetes.kubectl(&delete));
    }
}
