//! Addresses and node ports of Services, and the default IngressClass.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::support::*;
use crate::api::{ApiOptions, ApiServer, Store};

fn with_spec(name: &str, spec: Value) -> Value {
    let mut object = service(name);
    for (field, value) in spec.as_object().expect("a map") {
        object["spec"][field] = value.clone();
    }
    object
}

#[tokio::test]
async fn cluster_n3_services_get_distinct_addresses() {
    let options = ApiOptions {
        service_cidr: "10.96.0.0/27".parse().expect("a range"),
        ..ApiOptions::default()
    };
    let server = server_with(options).await;
    let mut seen = BTreeSet::new();
    let mut last = None;
    for at in 0..40 {
        let created = post(&server, SERVICES, service(&format!("s{at}"))).await;
        if created.code != 201 {
            last = Some(created);
            break;
        }
        let ip = created.json["spec"]["clusterIP"]
            .as_str()
            .expect("an address")
            .to_owned();
        assert_eq!(created.json["spec"]["clusterIPs"], json!([ip]));
        assert!(ip != "10.96.0.1" && ip != "10.96.0.10", "{ip} is reserved");
        assert!(seen.insert(ip), "an address was given twice");
    }
    // 32 addresses without the first, the last, .1 (kubernetes) and .10 (DNS).
    assert_eq!(seen.len(), 28);
    let full = last.expect("the range is used up");
    assert_eq!(full.code, 422);
    assert!(
        full.message().contains("range is full"),
        "{}",
        full.message()
    );
    let dns = post(
        &server,
        SERVICES,
        with_spec("dns", json!({"clusterIP": "10.96.0.10"})),
    )
    .await;
    assert_eq!(dns.code, 201, "{}", dns.text);
}

#[tokio::test]
async fn cluster_n3_addresses_asked_for() {
    let server = server().await;
    let asked = post(
        &server,
        SERVICES,
        with_spec("a", json!({"clusterIP": "10.96.0.77"})),
    )
    .await;
    assert_eq!(asked.json["spec"]["clusterIPs"], json!(["10.96.0.77"]));
    for (name, spec, expected) in [
        (
            "taken",
            json!({"clusterIP": "10.96.0.77"}),
            "spec.clusterIPs: Invalid value: [\"10.96.0.77\"]: failed to allocate IP 10.96.0.77: provided IP is already allocated",
        ),
        (
            "kubernetes",
            json!({"clusterIP": "10.96.0.1"}),
            "spec.clusterIPs: Invalid value: [\"10.96.0.1\"]: failed to allocate IP 10.96.0.1: provided IP is already allocated",
        ),
        (
            "outside",
            json!({"clusterIP": "10.98.0.77"}),
            "spec.clusterIPs: Invalid value: [\"10.98.0.77\"]: failed to allocate IP 10.98.0.77: the provided network does not match the current range",
        ),
        (
            "no address",
            json!({"clusterIP": "x"}),
            "spec.clusterIPs[0]: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
        ),
        (
            "two families",
            json!({"ipFamilyPolicy": "RequireDualStack"}),
            "spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": this cluster is not configured for dual-stack services",
        ),
        (
            "family",
            json!({"ipFamilies": ["IPv6"]}),
            "spec.ipFamilies[0]: Invalid value: \"IPv6\": not configured on this cluster",
        ),
    ] {
        let refused = post(&server, SERVICES, with_spec("b", spec)).await;
        assert_eq!(refused.code, 422, "{name}: {}", refused.text);
        assert_eq!(
            refused.message(),
            format!("Service \"b\" is invalid: {expected}"),
            "{name}"
        );
    }
    let path = format!("{SERVICES}/a");
    for patch in [
        json!({"spec": {"clusterIP": "10.96.0.99"}}),
        json!({"spec": {"clusterIPs": ["10.96.0.99"]}}),
    ] {
        let moved = merge(&server, &path, patch).await;
        assert_eq!(moved.code, 422);
        assert_eq!(
            moved.message(),
            "Service \"a\" is invalid: spec.clusterIPs[0]: Invalid value: [\"10.96.0.99\"]: may not change once set"
        );
    }
    let headless = post(
        &server,
        SERVICES,
        with_spec("h", json!({"clusterIP": "None"})),
    )
    .await;
    assert_eq!(headless.json["spec"]["clusterIPs"], json!(["None"]));
}

#[tokio::test]
async fn cluster_n3_put_without_address_keeps_it_and_external_names_free_it() {
    let server = server().await;
    let created = post(&server, SERVICES, service("a")).await;
    let ip = created.json["spec"]["clusterIP"]
        .as_str()
        .expect("an address")
        .to_owned();
    let path = format!("{SERVICES}/a");
    let kept = put(&server, &path, &service("a")).await;
    assert_eq!(kept.json["spec"]["clusterIP"], ip);
    let external = merge(
        &server,
        &path,
        json!({"spec": {"type": "ExternalName", "externalName": "a.b"}}),
    )
    .await;
    assert_eq!(external.code, 200, "{}", external.text);
    for field in [
        "clusterIP",
        "clusterIPs",
        "ipFamilies",
        "internalTrafficPolicy",
    ] {
        assert!(external.json["spec"].get(field).is_none(), "{field}");
    }
    let next = post(&server, SERVICES, with_spec("b", json!({"clusterIP": ip}))).await;
    assert_eq!(next.code, 201, "the address is free again: {}", next.text);
    let back = merge(
        &server,
        &path,
        json!({"spec": {"type": "ClusterIP", "externalName": null}}),
    )
    .await;
    assert_eq!(back.code, 200, "{}", back.text);
    assert!(
        back.json["spec"]["clusterIP"]
            .as_str()
            .is_some_and(|new| new != ip)
    );
}

#[tokio::test]
async fn cluster_n3_node_ports() {
    let server = server().await;
    let node =
        |name: &str, port: Value| with_spec(name, json!({"type": "NodePort", "ports": port}));
    let created = post(&server, SERVICES, node("a", json!([{"port": 80}]))).await;
    let number = created.json["spec"]["ports"][0]["nodePort"]
        .as_u64()
        .expect("a node port");
    assert!((30_000..=32_767).contains(&number));
    let path = format!("{SERVICES}/a");
    let kept = put(&server, &path, &node("a", json!([{"port": 80}]))).await;
    assert_eq!(kept.json["spec"]["ports"][0]["nodePort"], number);

    for (name, asked, why) in [
        ("taken", number, "provided port is already allocated"),
        (
            "range",
            80,
            "provided port is not in the valid range. The range of valid ports is 30000-32767",
        ),
    ] {
        let refused = post(
            &server,
            SERVICES,
            node("b", json!([{"port": 81, "nodePort": asked}])),
        )
        .await;
        assert_eq!(
            refused.message(),
            format!(
                "Service \"b\" is invalid: spec.ports[0].nodePort: Invalid value: {asked}: {why}"
            ),
            "{name}"
        );
    }
    let both = post(
        &server,
        SERVICES,
        node(
            "d",
            json!([{"name": "t", "port": 53}, {"name": "u", "port": 53, "protocol": "UDP"}]),
        ),
    )
    .await;
    let ports = &both.json["spec"]["ports"];
    assert_eq!(ports[0]["nodePort"], ports[1]["nodePort"], "{}", both.text);

    let inner = merge(&server, &path, json!({"spec": {"type": "ClusterIP"}})).await;
    assert!(
        inner.json["spec"]["ports"][0].get("nodePort").is_none(),
        "{}",
        inner.text
    );
    let freed = post(
        &server,
        SERVICES,
        node("b", json!([{"port": 81, "nodePort": number}])),
    )
    .await;
    assert_eq!(freed.code, 201, "{}", freed.text);
}

#[tokio::test]
async fn cluster_n3_addresses_survive_a_restart() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("store.redb");
    let open = || ApiServer::new(Store::open(&file).expect("opens"), ApiOptions::default());
    let first = open();
    first.bootstrap().await.expect("bootstrap");
    let created = post(&first, SERVICES, service("a")).await;
    let ip = created.json["spec"]["clusterIP"]
        .as_str()
        .expect("an address")
        .to_owned();
    drop(first);
    let second = open();
    second.bootstrap().await.expect("bootstrap again");
    assert_eq!(
        get(&second, &format!("{SERVICES}/a")).await.json["spec"]["clusterIP"],
        ip
    );
    let taken = post(&second, SERVICES, with_spec("b", json!({"clusterIP": ip}))).await;
    assert_eq!(taken.code, 422);
}

#[tokio::test]
async fn cluster_n4_ingresses_get_the_default_class() {
    let server = server().await;
    let path = "/apis/networking.k8s.io/v1/namespaces/default/ingresses";
    let backend = json!({"service": {"name": "s", "port": {"number": 80}}});
    let plain = json!({"metadata": {"name": "a"}, "spec": {"defaultBackend": backend}});
    let created = post(&server, path, plain).await;
    assert_eq!(
        created.json["spec"]["ingressClassName"], "sealane",
        "{}",
        created.text
    );
    let named = json!({"metadata": {"name": "b"}, "spec": {"ingressClassName": "other", "defaultBackend": backend}});
    assert_eq!(
        post(&server, path, named).await.json["spec"]["ingressClassName"],
        "other"
    );
    let annotated = json!({"metadata": {"name": "c", "annotations": {"kubernetes.io/ingress.class": "nginx"}}, "spec": {"defaultBackend": backend}});
    assert!(
        post(&server, path, annotated).await.json["spec"]
            .get("ingressClassName")
            .is_none()
    );
}

#[tokio::test]
async fn cluster_n9_bootstrap_is_whole_and_can_be_repeated() {
    let options = ApiOptions {
        advertise: Some("127.0.0.1:6443".parse().expect("an address")),
        ..ApiOptions::default()
    };
    let server = server_with(options).await;
    let before = server.store().revision();
    server.bootstrap().await.expect("again");
    assert_eq!(server.store().revision(), before, "nothing changed");
    let namespaces = get(&server, "/api/v1/namespaces").await;
    let names: Vec<&str> = namespaces.json["items"]
        .as_array()
        .expect("items")
        .iter()
        .filter_map(|n| n["metadata"]["name"].as_str())
        .collect();
    assert_eq!(
        names,
        ["default", "kube-node-lease", "kube-public", "kube-system"]
    );
    let service = get(&server, &format!("{SERVICES}/kubernetes")).await;
    assert_eq!(service.json["spec"]["clusterIP"], "10.96.0.1");
    let slices = get(
        &server,
        "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes",
    )
    .await;
    assert_eq!(
        slices.json["endpoints"][0]["addresses"],
        json!(["127.0.0.1"])
    );
}

#[tokio::test]
async fn cluster_n6_loopback_endpoints_need_the_option() {
    let slice = json!({"metadata": {"name": "e"}, "addressType": "IPv4", "endpoints": [{"addresses": ["127.0.0.5"]}]});
    let path = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
    let refused = post(&server().await, path, slice.clone()).await;
    assert_eq!(refused.code, 422);
    assert!(
        refused
            .message()
            .contains("may not be in the loopback range"),
        "{}",
        refused.message()
    );
    let options = ApiOptions {
        allow_loopback_endpoints: true,
        ..ApiOptions::default()
    };
    assert_eq!(
        post(&server_with(options).await, path, slice).await.code,
        201
    );
}
