use serde_json::{Value, json};

use super::world::{EPOCH, World, answer, one_host, path, problems, route, rule};
use crate::Snapshot;
use crate::compile::gateway_api::{ApiChange, ApiRecord};
use crate::compile::{Change, Delta, ObjectKey};
use crate::model::{HostMatch, ProblemKind};

/// Objects of Gateway API in a world whose GatewayClass `ours` is ours.
struct Api(World);

/// Reads an object and applies it.
macro_rules! put {
    ($world:expr, $change:ident, $object:expr) => {{
        let object: Value = $object;
        let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
        let key = ObjectKey::new(text("namespace"), text("name"));
        let record = ApiRecord::read(serde_json::from_value(object.clone()).unwrap());
        let change = ApiChange::$change(Delta::Set(key, Ok(Some(record))));
        let now = $world.0.now;
        $world.0.compiler.apply(Change::GatewayApi(change), now);
    }};
}

impl Api {
    fn new() -> Self {
        let mut api = Self(World::new());
        put!(
            api,
            Classes,
            json!({"metadata": {"name": "ours"},
            "spec": {"controllerName": "sealane.dev/gateway"}})
        );
        put!(
            api,
            Classes,
            json!({"metadata": {"name": "theirs"},
            "spec": {"controllerName": "example.com/other"}})
        );
        for name in ["web", "api", "old"] {
            api.0.simple_service(name);
        }
        api
    }

    /// With Gateway `shop/edge`, which has one HTTP listener for all hosts of its namespace.
    fn with_gateway() -> Self {
        let mut api = Self::new();
        api.gateway("edge", "ours", json!([http(json!({}))]));
        api
    }

    fn gateway(&mut self, name: &str, class: &str, listeners: Value) {
        put!(
            self,
            Gateways,
            json!({"metadata": {"name": name, "namespace": "shop"},
            "spec": {"gatewayClassName": class, "listeners": listeners}})
        );
    }

    fn route(&mut self, name: &str, age: i64, spec: Value) {
        self.route_in("shop", name, age, spec);
    }

    fn route_in(&mut self, namespace: &str, name: &str, age: i64, mut spec: Value) {
        if spec["parentRefs"].is_null() {
            spec["parentRefs"] = json!([{"name": "edge", "namespace": "shop"}]);
        }
        let created = jiff::Timestamp::from_second(EPOCH + age).unwrap();
        put!(
            self,
            HttpRoutes,
            json!({"metadata": {"name": name, "namespace": namespace,
            "creationTimestamp": created.to_string()}, "spec": spec})
        );
    }

    fn grant(&mut self, namespace: &str, from: &str) {
        put!(
            self,
            Grants,
            json!({"metadata": {"name": "grant", "namespace": namespace}, "spec": {
            "from": [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "namespace": from}],
            "to": [{"group": "", "kind": "Service"}]}})
        );
    }

    fn remove(&mut self, change: ApiChange) {
        let now = self.0.now;
        self.0.compiler.apply(Change::GatewayApi(change), now);
    }

    fn build(&mut self) -> Snapshot {
        self.0.build()
    }
}

fn http(more: Value) -> Value {
    let mut listener = json!({"name": "http", "port": 80, "protocol": "HTTP"});
    for (name, value) in more.as_object().unwrap() {
        listener[name] = value.clone();
    }
    listener
}

fn to(service: &str) -> Value {
    json!([{"name": service, "port": 80}])
}

fn prefix(value: &str) -> Value {
    json!([{"path": {"type": "PathPrefix", "value": value}}])
}

fn messages(snapshot: &Snapshot) -> Vec<String> {
    let all = snapshot.problems.iter();
    all.map(|problem| format!("{} {}: {}", problem.object, problem.field, problem.message))
        .collect()
}

#[test]
fn routes_of_our_gateways_are_served() {
    let mut api = Api::with_gateway();
    api.route("it", 0, json!({"hostnames": ["a.test"], "rules": [
        {"matches": prefix("/"), "backendRefs": to("web")},
        {"matches": [{"path": {"type": "Exact", "value": "/api"}}, {"path": {"type": "PathPrefix", "value": "/v1"}}],
            "backendRefs": to("api")}]}));
    let snapshot = api.build();
    let cases = [
        ("/", "web:80"),
        ("/x", "web:80"),
        ("/api", "api:80"),
        ("/api/x", "web:80"),
        ("/v1", "api:80"),
        ("/v1/x", "api:80"),
        ("/v11", "web:80"),
    ];
    for (path, expected) in cases {
        assert_eq!(route(&snapshot, "a.test", path), expected, "{path}");
    }
    assert!(snapshot.routes.host("b.test").is_none());
    assert_eq!(messages(&snapshot), [""; 0]);
    let found = rule(&snapshot, "a.test", "/api").unwrap();
    assert_eq!(found.source.to_string(), "HTTPRoute shop/it");
    assert_eq!(&*found.field, "spec.rules[1].matches[0]");
    assert!(!found.filters.ssl_redirect);
}

#[test]
fn a_rule_without_matches_takes_everything() {
    let mut api = Api::with_gateway();
    api.route("it", 0, json!({"rules": [{"backendRefs": to("web")}]}));
    let snapshot = api.build();
    assert_eq!(route(&snapshot, "any.test", "/x"), "web:80");
    assert!(snapshot.routes.any.is_some());
}

#[test]
fn only_what_is_attached_to_a_gateway_of_ours_is_served() {
    let listeners = json!([
        http(json!({"hostname": "*.test"})),
        http(
            json!({"name": "all", "port": 8080, "hostname": "all.example", "allowedRoutes": {"namespaces": {"from": "All"}}})
        ),
        http(
            json!({"name": "grpc", "port": 81, "hostname": "grpc.example", "allowedRoutes": {"kinds": [{"kind": "GRPCRoute"}]}})
        ),
        http(
            json!({"name": "some", "port": 82, "hostname": "some.example", "allowedRoutes": {"namespaces": {"from": "Selector"}}})
        ),
    ]);
    let parent = |more: Value| {
        let mut parent = json!({"name": "edge", "namespace": "shop"});
        for (name, value) in more.as_object().unwrap() {
            parent[name] = value.clone();
        }
        json!([parent])
    };
    // Name, namespace of the route, its parents, its host, whether it is served.
    let cases = [
        (
            "host of the listener",
            "shop",
            parent(json!({})),
            "a.test",
            true,
        ),
        ("host of none", "shop", parent(json!({})), "a.other", false),
        (
            "other namespace",
            "else",
            parent(json!({})),
            "a.test",
            false,
        ),
        (
            "other namespace allowed",
            "else",
            parent(json!({})),
            "all.example",
            true,
        ),
        (
            "by section",
            "shop",
            parent(json!({"sectionName": "http"})),
            "a.test",
            true,
        ),
        (
            "wrong section",
            "shop",
            parent(json!({"sectionName": "all"})),
            "a.test",
            false,
        ),
        (
            "no such section",
            "shop",
            parent(json!({"sectionName": "none"})),
            "a.test",
            false,
        ),
        (
            "by port",
            "shop",
            parent(json!({"port": 80})),
            "a.test",
            true,
        ),
        (
            "wrong port",
            "shop",
            parent(json!({"port": 8080})),
            "a.test",
            false,
        ),
        (
            "kind not allowed",
            "shop",
            parent(json!({})),
            "grpc.example",
            false,
        ),
        ("selector", "shop", parent(json!({})), "some.example", false),
        (
            "other kind of parent",
            "shop",
            parent(json!({"kind": "Service", "group": ""})),
            "a.test",
            false,
        ),
        (
            "no such gateway",
            "shop",
            json!([{"name": "none"}]),
            "a.test",
            false,
        ),
        (
            "gateway of another class",
            "shop",
            json!([{"name": "foreign"}]),
            "a.test",
            false,
        ),
    ];
    for (name, namespace, parents, host, is_served) in cases {
        let mut api = Api::new();
        api.gateway("edge", "ours", listeners.clone());
        api.gateway("foreign", "theirs", json!([http(json!({}))]));
        api.route_in(
            namespace,
            "it",
            0,
            json!({"parentRefs": parents, "hostnames": [host],
            "rules": [{"backendRefs": [{"name": "web", "namespace": "shop", "port": 80}]}]}),
        );
        api.grant("shop", "else");
        let snapshot = api.build();
        assert_eq!(snapshot.routes.host(host).is_some(), is_served, "{name}");
        let told = messages(&snapshot)
            .iter()
            .any(|m| m.starts_with("HTTPRoute"));
        let is_ours = ![
            "other kind of parent",
            "no such gateway",
            "gateway of another class",
        ]
        .contains(&name);
        assert_eq!(
            told,
            is_ours && !is_served,
            "{name}: {:?}",
            messages(&snapshot)
        );
    }
}

#[test]
fn weights_are_kept_and_a_bad_backend_keeps_its_share() {
    let mut api = Api::with_gateway();
    api.route(
        "it",
        0,
        json!({"hostnames": ["a.test"], "rules": [{"backendRefs": [
        {"name": "web", "port": 80, "weight": 9},
        {"name": "api", "port": 80},
        {"name": "old", "port": 80, "weight": 0},
        {"name": "missing", "port": 80, "weight": 5}]}]}),
    );
    let snapshot = api.build();
    let found = rule(&snapshot, "a.test", "/").unwrap();
    let backends: Vec<(u32, bool)> = found
        .backends
        .iter()
        .map(|b| (b.weight, snapshot.backend(&b.backend).is_some()))
        .collect();
    assert_eq!(backends, [(9, true), (1, true), (5, false)]);
    assert_eq!(problems(&snapshot, ProblemKind::MissingService).len(), 1);
    let field = &snapshot.problems[0].to_owned().field;
    assert_eq!(field, "spec.rules[0].backendRefs");
    api.0.simple_service("missing");
    let snapshot = api.build();
    let found = rule(&snapshot, "a.test", "/").unwrap();
    assert!(
        found
            .backends
            .iter()
            .all(|b| snapshot.backend(&b.backend).is_some())
    );
    assert_eq!(messages(&snapshot), [""; 0]);
}

#[test]
fn services_of_other_namespaces_need_a_grant() {
    let mut api = Api::with_gateway();
    let service = json!({"metadata": {"name": "far", "namespace": "else"},
        "spec": {"clusterIP": "None", "ports": [{"port": 80}]}});
    api.0.service_object(service);
    api.route(
        "it",
        0,
        json!({"hostnames": ["a.test"], "rules": [{"backendRefs": [
        {"name": "far", "namespace": "else", "port": 80}]}]}),
    );
    assert_eq!(route(&api.build(), "a.test", "/"), "backend not allowed");
    api.grant("shop", "shop");
    assert_eq!(
        route(&api.build(), "a.test", "/"),
        "backend not allowed",
        "in the wrong namespace"
    );
    api.grant("else", "other");
    assert_eq!(
        route(&api.build(), "a.test", "/"),
        "backend not allowed",
        "from the wrong namespace"
    );
    api.grant("else", "shop");
    assert_eq!(route(&api.build(), "a.test", "/"), "far:80");
    api.remove(ApiChange::Grants(Delta::Remove(ObjectKey::new(
        "else", "grant",
    ))));
    assert_eq!(
        route(&api.build(), "a.test", "/"),
        "backend not allowed",
        "taken back"
    );
}

#[test]
fn what_is_not_supported_is_refused_and_said() {
    let cases = [
        (
            "headers",
            json!({"matches": [{"headers": [{"name": "x", "value": "y"}]}], "backendRefs": to("api")}),
        ),
        (
            "query",
            json!({"matches": [{"queryParams": [{"name": "x", "value": "y"}]}], "backendRefs": to("api")}),
        ),
        (
            "method",
            json!({"matches": [{"method": "GET"}], "backendRefs": to("api")}),
        ),
        (
            "regex",
            json!({"matches": [{"path": {"type": "RegularExpression", "value": "/a.*"}}], "backendRefs": to("api")}),
        ),
        (
            "filter",
            json!({"filters": [{"type": "RequestRedirect"}], "backendRefs": to("api")}),
        ),
        (
            "backend filter",
            json!({"backendRefs": [{"name": "api", "port": 80, "filters": [{"type": "RequestMirror"}]}]}),
        ),
        ("no backend", json!({})),
        (
            "no Service",
            json!({"backendRefs": [{"name": "api", "kind": "Bucket", "group": "example.com"}]}),
        ),
        ("no port", json!({"backendRefs": [{"name": "api"}]})),
        (
            "no weight",
            json!({"backendRefs": [{"name": "api", "port": 80, "weight": 0}]}),
        ),
    ];
    for (name, bad) in cases {
        let mut api = Api::with_gateway();
        let good = json!({"matches": prefix("/good"), "backendRefs": to("web")});
        api.route(
            "it",
            0,
            json!({"hostnames": ["a.test"], "rules": [bad, good]}),
        );
        let snapshot = api.build();
        let found = rule(&snapshot, "a.test", "/").unwrap();
        assert!(found.invalid.is_some(), "{name}: {}", answer(found));
        assert_eq!(route(&snapshot, "a.test", "/good"), "web:80", "{name}");
        if name != "no weight" {
            assert_eq!(
                messages(&snapshot).len(),
                1,
                "{name}: {:?}",
                messages(&snapshot)
            );
        }
    }
}

#[test]
fn of_two_rules_with_one_path_the_one_that_can_be_served_is() {
    let mut api = Api::with_gateway();
    api.route("it", 0, json!({"hostnames": ["a.test"], "rules": [
        {"matches": [{"path": {"value": "/"}, "headers": [{"name": "x", "value": "y"}]}], "backendRefs": to("api")},
        {"matches": prefix("/"), "backendRefs": to("web")},
        {"matches": prefix("/"), "backendRefs": to("old")}]}));
    let snapshot = api.build();
    assert_eq!(route(&snapshot, "a.test", "/"), "web:80");
    assert_eq!(messages(&snapshot).len(), 2, "{:?}", messages(&snapshot));
}

#[test]
fn ingress_i12_ingresses_and_routes_share_hosts_by_age() {
    for (ingress_age, expected, loser) in [(1, "web:80", "HTTPRoute"), (3, "api:80", "Ingress")] {
        let mut api = Api::with_gateway();
        let spec = one_host(
            "a.test",
            json!([path("Prefix", "/", "web"), path("Prefix", "/i", "web")]),
        );
        api.0.ingress("same", ingress_age, json!({}), spec);
        api.route(
            "same",
            2,
            json!({"hostnames": ["a.test"], "rules": [
            {"matches": prefix("/"), "backendRefs": to("api")},
            {"matches": prefix("/r"), "backendRefs": to("api")}]}),
        );
        let snapshot = api.build();
        assert_eq!(route(&snapshot, "a.test", "/x"), expected);
        assert_eq!(route(&snapshot, "a.test", "/i"), "web:80");
        assert_eq!(route(&snapshot, "a.test", "/r"), "api:80");
        let conflicts = problems(&snapshot, ProblemKind::Conflict);
        assert_eq!(conflicts.len(), 1);
        assert_eq!(conflicts[0].object.kind, loser);
        let winner = if loser == "Ingress" {
            "HTTPRoute shop/same"
        } else {
            "Ingress shop/same"
        };
        assert!(
            conflicts[0].message.contains(winner),
            "{}",
            conflicts[0].message
        );
        // Each goes without taking the other along.
        api.0.delete_ingress("same");
        assert_eq!(route(&api.build(), "a.test", "/i"), "api:80");
    }
}

#[test]
fn a_plain_path_stays_plain_beside_regular_expressions() {
    let mut api = Api::with_gateway();
    let annotations = json!({"nginx.ingress.kubernetes.io/use-regex": "true"});
    api.0.ingress(
        "it",
        0,
        annotations,
        one_host("a.test", json!([path("Prefix", "/x[0-9]", "web")])),
    );
    api.route(
        "it",
        1,
        json!({"hostnames": ["a.test"], "rules": [
        {"matches": prefix("/a.b"), "backendRefs": to("api")}]}),
    );
    let snapshot = api.build();
    for (path, expected) in [
        ("/x1", "web:80"),
        ("/a.b", "api:80"),
        ("/a.b/c", "api:80"),
        ("/aab", "404"),
        ("/a.bc", "404"),
    ] {
        assert_eq!(route(&snapshot, "a.test", path), expected, "{path}");
    }
}

#[test]
fn routes_follow_their_gateway_and_its_class() {
    let mut api = Api::new();
    let is_served = |api: &mut Api| api.build().routes.host("a.test").is_some();
    api.route(
        "it",
        0,
        json!({"hostnames": ["a.test"], "rules": [{"backendRefs": to("web")}]}),
    );
    assert!(!is_served(&mut api), "no gateway");
    api.gateway("edge", "later", json!([http(json!({}))]));
    assert!(!is_served(&mut api), "no class");
    put!(
        api,
        Classes,
        json!({"metadata": {"name": "later"}, "spec": {"controllerName": "sealane.dev/gateway"}})
    );
    assert!(is_served(&mut api));
    put!(
        api,
        Classes,
        json!({"metadata": {"name": "later"}, "spec": {"controllerName": "example.com/other"}})
    );
    assert!(!is_served(&mut api), "class of another");
    api.gateway("edge", "ours", json!([http(json!({"hostname": "b.test"}))]));
    assert!(!is_served(&mut api), "other host");
    api.gateway("edge", "ours", json!([http(json!({}))]));
    assert!(is_served(&mut api));
    api.route("it", 0, json!({"parentRefs": [{"name": "none"}], "hostnames": ["a.test"], "rules": [{"backendRefs": to("web")}]}));
    assert!(!is_served(&mut api), "moved away");
    api.gateway("edge", "ours", json!([http(json!({"port": 81}))]));
    assert!(!is_served(&mut api), "and stays away");
    api.route(
        "it",
        0,
        json!({"hostnames": ["a.test"], "rules": [{"backendRefs": to("web")}]}),
    );
    assert!(is_served(&mut api));
    api.remove(ApiChange::Gateways(Delta::ListBegin));
    api.remove(ApiChange::Gateways(Delta::ListEnd));
    let snapshot = api.build();
    assert!(snapshot.routes.host("a.test").is_none());
    assert_eq!(messages(&snapshot), [""; 0]);
}

#[test]
fn https_listeners_bring_certificates() {
    let mut api = Api::new();
    let tls = |name: &str| json!({"certificateRefs": [{"name": name}]});
    let listener = |name: &str, hostname: &str, tls: Value| json!({"name": name, "port": 443, "protocol": "HTTPS", "hostname": hostname, "tls": tls});
    api.gateway(
        "edge",
        "ours",
        json!([
        listener("good", "a.test", tls("a")),
        listener("far", "b.test", json!({"certificateRefs": [{"name": "b", "namespace": "else"}]})),
        listener("through", "c.test", json!({"mode": "Passthrough"})),
        {"name": "tcp", "port": 5432, "protocol": "TCP"}]),
    );
    let made = rcgen::generate_simple_self_signed(vec!["a.test".to_owned()]).unwrap();
    let secret = k8s_openapi::api::core::v1::Secret {
        type_: Some("kubernetes.io/tls".into()),
        data: Some(
            [
                (
                    "tls.crt".into(),
                    k8s_openapi::ByteString(made.cert.pem().into()),
                ),
                (
                    "tls.key".into(),
                    k8s_openapi::ByteString(made.signing_key.serialize_pem().into()),
                ),
            ]
            .into(),
        ),
        ..Default::default()
    };
    assert_eq!(
        api.0.compiler.secrets().count(),
        1,
        "only the one that can be used"
    );
    api.0.secret("a", secret);
    api.route(
        "it",
        0,
        json!({"hostnames": ["a.test"], "rules": [{"backendRefs": to("web")}]}),
    );
    let snapshot = api.build();
    let found = snapshot
        .certificates
        .get(&HostMatch::Exact("a.test".into()));
    assert_eq!(found.unwrap().source.to_string(), "Secret shop/a");
    assert_eq!(route(&snapshot, "a.test", "/"), "web:80");
    assert_eq!(messages(&snapshot).len(), 3, "{:?}", messages(&snapshot));
}

#[test]
fn grpc_routes_are_told_that_they_are_not_served() {
    let mut api = Api::with_gateway();
    let route = |gateway: &str| {
        json!({"metadata": {"name": "it", "namespace": "shop"},
        "spec": {"parentRefs": [{"name": gateway}]}})
    };
    put!(api, GrpcRoutes, route("edge"));
    let told = messages(&api.build());
    assert_eq!(told.len(), 1);
    assert!(told[0].starts_with("GRPCRoute shop/it spec:"), "{told:?}");
    put!(api, GrpcRoutes, route("other"));
    assert_eq!(messages(&api.build()), [""; 0]);
}

#[test]
fn only_the_hosts_of_a_changed_route_are_compiled() {
    let mut api = Api::with_gateway();
    for index in 0..200 {
        let host = format!("h{index}.test");
        api.route(
            &format!("r{index}"),
            0,
            json!({"hostnames": [host], "rules": [{"backendRefs": to("web")}]}),
        );
    }
    api.build();
    api.route(
        "r7",
        0,
        json!({"hostnames": ["h7.test"], "rules": [{"backendRefs": to("api")}]}),
    );
    let (snapshot, work) = api.0.build_counted();
    assert_eq!(work.hosts, 1);
    assert_eq!(route(&snapshot, "h7.test", "/"), "api:80");
}
