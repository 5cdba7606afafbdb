use std::net::Ipv4Addr;

use serde_json::{Value, json};

use super::*;

fn place() -> Place {
    Place {
        pod_ip: Ipv4Addr::new(10, 244, 0, 5).into(),
        host_ip: Ipv4Addr::new(10, 244, 0, 1).into(),
        cpus: 4,
        memory: 1 << 30,
    }
}

fn pod(container: Value) -> Pod {
    serde_json::from_value(json!({
        "metadata": {
            "name": "web-0", "namespace": "shop", "uid": "u-1",
            "labels": { "app": "web", "a.b/c": "d" }, "annotations": { "note": "x\"y" },
        },
        "spec": { "nodeName": "n1", "serviceAccountName": "sa", "containers": [container] },
    }))
    .unwrap()
}

fn sources() -> Sources {
    let map = json!({ "data": { "a": "1", "b": "2" } });
    let secret = json!({ "data": { "key": "c2VjcmV0" } });
    Sources {
        config_maps: [
            ("cm".to_owned(), Some(serde_json::from_value(map).unwrap())),
            ("gone".to_owned(), None),
        ]
        .into(),
        secrets: [(
            "s".to_owned(),
            Some(serde_json::from_value(secret).unwrap()),
        )]
        .into(),
        services: Vec::new(),
    }
}

fn run(container: Value, sources: &Sources) -> Result<Vec<(String, String)>, EnvError> {
    let mut container = container;
    container["name"] = "c".into();
    let pod = pod(container);
    let container = pod.spec.as_ref().unwrap().containers[0].clone();
    environment(Vec::new(), &pod, &container, &place(), sources)
}

fn get(env: &[(String, String)], name: &str) -> Option<String> {
    env.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone())
}

#[test]
fn cluster_b9_expands_what_was_defined_before() {
    let env: Vec<(String, String)> = [("A", "1"), ("B", "$(A)")]
        .map(|(n, v)| (n.to_owned(), v.to_owned()))
        .into();
    for (text, expected) in [
        ("plain", "plain"),
        ("$(A)-$(A)", "1-1"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$(NOPE)", "$(NOPE)"),
        ("$A ${A}", "$A ${A}"),
        ("$(A", "$(A"),
        ("cost: 5$", "cost: 5$"),
        ("$(B)", "$(A)"),
    ] {
        assert_eq!(expand(text, &env), expected, "{text}");
    }
}

#[test]
fn cluster_b9_later_definitions_win_and_see_the_earlier() {
    let container = json!({
        "envFrom": [
            { "configMapRef": { "name": "cm" } },
            { "prefix": "P_", "configMapRef": { "name": "cm" } },
            { "secretRef": { "name": "s" } },
            { "configMapRef": { "name": "gone", "optional": true } },
        ],
        "env": [
            { "name": "EARLY", "value": "$(LATE)" },
            { "name": "a", "value": "own" },
            { "name": "LATE", "value": "$(a)/$(P_b)/$(key)" },
            { "name": "KEY", "valueFrom": { "secretKeyRef": { "name": "s", "key": "key" } } },
            { "name": "NONE", "valueFrom":
                { "configMapKeyRef": { "name": "cm", "key": "nope", "optional": true } } },
        ],
    });
    let env = run(container, &sources()).unwrap();
    for (name, expected) in [
        ("a", Some("own")),
        ("b", Some("2")),
        ("P_a", Some("1")),
        ("key", Some("secret")),
        ("EARLY", Some("$(LATE)")),
        ("LATE", Some("own/2/secret")),
        ("KEY", Some("secret")),
        ("NONE", None),
    ] {
        assert_eq!(get(&env, name).as_deref(), expected, "{name}");
    }
}

#[test]
fn cluster_b9_missing_references_are_named() {
    let from = |source: Value| json!({ "env": [{ "name": "X", "valueFrom": source }] });
    for (container, expected) in [
        (
            from(json!({ "configMapKeyRef": { "name": "cm", "key": "nope" } })),
            "couldn't find key nope in ConfigMap shop/cm",
        ),
        (
            from(json!({ "configMapKeyRef": { "name": "gone", "key": "a" } })),
            "configmap \"gone\" not found",
        ),
        (
            from(json!({ "secretKeyRef": { "name": "other", "key": "a" } })),
            "secret \"other\" not found",
        ),
        (
            json!({ "envFrom": [{ "configMapRef": { "name": "gone" } }] }),
            "configmap \"gone\" not found",
        ),
        (
            from(json!({ "fieldRef": { "fieldPath": "spec.nope" } })),
            "unsupported fieldPath: spec.nope",
        ),
    ] {
        let error = run(container, &sources()).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn cluster_b9_fields_of_the_pod() {
    for (path, expected) in [
        ("metadata.name", "web-0"),
        ("metadata.namespace", "shop"),
        ("metadata.uid", "u-1"),
        ("metadata.labels['app']", "web"),
        ("metadata.labels['a.b/c']", "d"),
        ("metadata.labels['none']", ""),
        ("metadata.annotations['note']", "x\"y"),
        ("metadata.labels", "a.b/c=\"d\"\napp=\"web\""),
        ("spec.nodeName", "n1"),
        ("spec.serviceAccountName", "sa"),
        ("status.podIP", "10.244.0.5"),
        ("status.podIPs", "10.244.0.5"),
        ("status.hostIP", "10.244.0.1"),
    ] {
        let container = json!({
            "env": [{ "name": "X", "valueFrom": { "fieldRef": { "fieldPath": path } } }],
        });
        let env = run(container, &sources()).unwrap();
        assert_eq!(get(&env, "X").as_deref(), Some(expected), "{path}");
    }
}

#[test]
fn cluster_b9_resources_round_up_and_have_defaults() {
    for (resource, divisor, expected) in [
        ("limits.cpu", None, "2"),
        ("limits.cpu", Some("1m"), "1500"),
        ("requests.cpu", None, "2"),
        ("limits.memory", None, "1073741824"),
        ("limits.memory", Some("1Mi"), "1024"),
        ("requests.memory", Some("1Mi"), "64"),
    ] {
        let mut reference = json!({ "resource": resource });
        if let Some(divisor) = divisor {
            reference["divisor"] = divisor.into();
        }
        let container = json!({
            "resources": { "limits": { "cpu": "1500m" }, "requests": { "memory": "64Mi" } },
            "env": [{ "name": "X", "valueFrom": { "resourceFieldRef": reference } }],
        });
        let env = run(container, &sources()).unwrap();
        assert_eq!(get(&env, "X").as_deref(), Some(expected), "{resource}");
    }
}

fn service(namespace: &str, name: &str, ip: &str) -> Service {
    serde_json::from_value(json!({
        "metadata": { "name": name, "namespace": namespace },
        "spec": {
            "clusterIP": ip,
            "ports": [{ "name": "http", "port": 80 }, { "name": "dns-udp", "port": 53, "protocol": "UDP" }],
        },
    }))
    .unwrap()
}

#[test]
fn cluster_b9_service_variables() {
    let services = [
        service("shop", "my-db", "10.96.0.7"),
        service("shop", "headless", "None"),
        service("default", "kubernetes", "10.96.0.1"),
    ];
    let env = service_variables(&services, true);
    for (name, expected) in [
        ("KUBERNETES_SERVICE_HOST", Some("10.96.0.1")),
        ("MY_DB_SERVICE_HOST", Some("10.96.0.7")),
        ("MY_DB_SERVICE_PORT", Some("80")),
        ("MY_DB_SERVICE_PORT_HTTP", Some("80")),
        ("MY_DB_SERVICE_PORT_DNS_UDP", Some("53")),
        ("MY_DB_PORT", Some("tcp://10.96.0.7:80")),
        ("MY_DB_PORT_80_TCP", Some("tcp://10.96.0.7:80")),
        ("MY_DB_PORT_53_UDP_PROTO", Some("udp")),
        ("MY_DB_PORT_53_UDP_PORT", Some("53")),
        ("MY_DB_PORT_53_UDP_ADDR", Some("10.96.0.7")),
        ("HEADLESS_SERVICE_HOST", None),
    ] {
        assert_eq!(get(&env, name).as_deref(), expected, "{name}");
    }
    let without_links = service_variables(&services, false);
    assert!(get(&without_links, "KUBERNETES_SERVICE_HOST").is_some());
    assert!(get(&without_links, "MY_DB_SERVICE_HOST").is_none());
}
