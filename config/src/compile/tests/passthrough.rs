//! TLS connections that are passed through: which, where to, and what is said about the rest.

use serde_json::{Value, json};

use super::world::{World, host, ingress, one_host, path};
use crate::Snapshot;
use crate::model::{BackendProtocol, ProblemKind};

const ON: &str = "nginx.ingress.kubernetes.io/ssl-passthrough";
const REGEX: &str = "nginx.ingress.kubernetes.io/use-regex";
const PROTOCOL: &str = "nginx.ingress.kubernetes.io/backend-protocol";
const ALLOWED: &str = "nginx.ingress.kubernetes.io/whitelist-source-range";
const HOST: &str = "pass.test";

fn world(enabled: bool) -> World {
    let mut world = World::with(|options| options.settings.rules.ssl_passthrough = enabled);
    world.simple_service("a");
    world.simple_service("b");
    world
}

/// A name, whether the flag is given, host, annotations, paths, the Service that gets connections, and
/// what is said.
type Case<'a> = (
    &'a str,
    bool,
    &'a str,
    Value,
    Value,
    Option<&'a str>,
    &'a str,
);

/// Where TLS connections for a host are passed to, and what is said about the annotation.
fn passed(snapshot: &Snapshot, name: &str) -> (Option<String>, Vec<String>) {
    let rule = host(snapshot, name).tls.passthrough.as_ref();
    let service = rule.map(|rule| rule.backends[0].backend.service.name.to_string());
    let of_it = |problem: &&crate::model::Problem| problem.field.contains("ssl-passthrough");
    let problems = snapshot.problems.iter().filter(of_it);
    (
        service,
        problems.map(|problem| problem.message.clone()).collect(),
    )
}

#[test]
fn ingress_a17_ssl_passthrough_is_for_the_service_of_the_root() {
    let on = || json!({ON: "true"});
    let root = |service| path("Prefix", "/", service);
    let other = path("Prefix", "/other", "b");
    let cases: [Case<'_>; 10] = [
        ("on", true, HOST, on(), json!([root("a")]), Some("a"), ""),
        (
            "off",
            true,
            HOST,
            json!({ON: "false"}),
            json!([root("a")]),
            None,
            "",
        ),
        (
            "bad",
            true,
            HOST,
            json!({ON: "yes"}),
            json!([root("a")]),
            None,
            "neither true nor false",
        ),
        (
            "no flag",
            false,
            HOST,
            on(),
            json!([root("a")]),
            None,
            "without --enable-ssl-passthrough",
        ),
        (
            "wildcard",
            true,
            "*.pass.test",
            on(),
            json!([root("b")]),
            Some("b"),
            "",
        ),
        (
            "no host",
            true,
            "",
            on(),
            json!([root("a")]),
            None,
            "rules without a host",
        ),
        (
            "no root",
            true,
            HOST,
            on(),
            json!([other.clone()]),
            None,
            "no rule for the path /",
        ),
        (
            "other paths",
            true,
            HOST,
            on(),
            json!([other.clone(), root("a")]),
            Some("a"),
            "without effect for them: 1 rule for another path",
        ),
        (
            "others that mean nothing",
            true,
            HOST,
            json!({ON: "true", ALLOWED: "10.0.0.0/8"}),
            json!([root("a")]),
            Some("a"),
            "without effect for them: whitelist-source-range",
        ),
        (
            "regular expressions",
            true,
            HOST,
            json!({ON: "true", REGEX: "true"}),
            json!([other, root("a")]),
            Some("a"),
            "1 rule for another path; use-regex",
        ),
    ];
    for (name, enabled, host_name, annotations, paths, service, message) in cases {
        let mut world = world(enabled);
        world.ingress("it", 0, annotations, one_host(host_name, paths));
        let snapshot = world.build();
        let asked = host_name.replace('*', "x");
        let (to, messages) = passed(&snapshot, &asked);
        assert_eq!(to.as_deref(), service, "{name}");
        assert_eq!(
            messages.len(),
            usize::from(!message.is_empty()),
            "{name}: {messages:?}"
        );
        let is_told = messages.iter().all(|told| told.contains(message));
        assert!(is_told, "{name}: {messages:?}");
        let count = usize::from(service.is_some());
        assert_eq!(snapshot.routes.passthroughs, count, "{name}");
    }
}

#[test]
fn ingress_a17_ssl_passthrough_of_one_ingress_is_for_the_host() {
    let mut world = world(true);
    let grpc = json!({PROTOCOL: "GRPC"});
    world.ingress(
        "root",
        0,
        grpc,
        one_host(HOST, json!([path("Prefix", "/", "a")])),
    );
    let asking = one_host(
        HOST,
        json!([path("Prefix", "/", "b"), path("Exact", "/x", "b")]),
    );
    world.ingress("asking", 1, json!({ON: "true"}), asking);
    let snapshot = world.build();
    assert_eq!(passed(&snapshot, HOST).0.as_deref(), Some("a"));
    let routes = host(&snapshot, HOST);
    let protocols: Vec<BackendProtocol> = routes
        .rules
        .iter()
        .map(|rule| rule.filters.backend_protocol)
        .collect();
    assert_eq!(protocols, [BackendProtocol::Http, BackendProtocol::Grpcs]);
    let kinds = snapshot.problems.iter().map(|problem| problem.kind);
    let wanted = [ProblemKind::Conflict, ProblemKind::UnknownAnnotation];
    assert!(
        kinds.clone().all(|kind| wanted.contains(&kind)),
        "{:?}",
        snapshot.problems
    );
    let mut other = ingress(
        "other",
        2,
        json!({ON: "true"}),
        one_host("x.test", json!([])),
    );
    other["metadata"]["namespace"] = json!("elsewhere");
    other["spec"]["ingressClassName"] = json!("ours");
    for host_name in [HOST, "plain.test"] {
        let paths = json!([path("Prefix", "/elsewhere", "b")]);
        other["spec"]["rules"] = one_host(host_name, paths)["rules"].clone();
        world.ingress_object(other.clone());
        let rules = one_host("plain.test", json!([path("Prefix", "/", "a")]));
        world.ingress("plain", 0, json!({}), rules);
        let (to, messages) = passed(&world.build(), host_name);
        assert_eq!(to.is_some(), host_name == HOST, "{host_name}");
        let is_told = |message: &String| message.contains("another namespace's");
        assert!(messages.iter().any(is_told), "{host_name}: {messages:?}");
    }
    world.delete_ingress("asking");
    let snapshot = world.build();
    assert_eq!(
        (passed(&snapshot, HOST).0, snapshot.routes.passthroughs),
        (None, 0)
    );
}
