//! Ingresses of our own class and of ingress-nginx's: the table of hosts and paths, and what else
//! differs.

use sealane_ingress::decide;
use sealane_proxy::http::is_default;
use sealane_proxy::testing::{Origin, RawClient, RawResponse};
use serde_json::json;

use crate::manifests::Manifests;
use crate::support::{Edge, on_worker};
use crate::table::{self, Case, End, SERVICES};

/// Both modes.
const MODES: [&str; 2] = ["strict", "compat"];

fn of_mode(mode: &str) -> Manifests {
    if mode == "strict" {
        Manifests::new()
    } else {
        Manifests::compat()
    }
}

async fn ask(edge: &Edge, head: &str) -> RawResponse {
    let mut client = RawClient::connect(edge.http).await;
    client.send(head.replace('\n', "\r\n") + "\r\n\r\n").await;
    client.response().await
}

async fn get(edge: &Edge, host: &str, path: &str) -> RawResponse {
    ask(edge, &format!("GET {path} HTTP/1.1\nHost: {host}")).await
}

/// What the table says in this mode.
fn wanted(case: &Case, mode: &str) -> End<'static> {
    if mode == "strict" {
        case.strict
    } else {
        case.compat
    }
}

#[tokio::test]
async fn ingress_i4_the_table_of_hosts_and_paths_holds_in_both_modes() {
    on_worker(async {
        let (written, cases) = table::read();
        let mut origins = Vec::new();
        for name in SERVICES {
            origins.push((name, Origin::named(name).await));
        }
        for mode in MODES {
            let (mut edge, mut manifests) = (Edge::new().await, of_mode(mode));
            for (name, origin) in &origins {
                manifests.service(name, origin.addr);
            }
            for ingress in &written {
                manifests.object(ingress.object("nginx"));
            }
            manifests.publish(&mut edge);
            for case in &cases {
                let answer = get(&edge, case.host, case.path).await;
                let text = answer.text();
                let end = End::of(answer.status, answer.header("location"), text);
                assert_eq!(end, Some(wanted(case, mode)), "{mode}: {case}");
            }
            // I7: an Ingress without rules takes what nothing else takes, whatever its host.
            let backend = json!({"service": {"name": "two", "port": {"number": 80}}});
            manifests.object(json!({
                "metadata": {"name": "rest", "namespace": "default"},
                "spec": {"ingressClassName": "nginx", "defaultBackend": backend},
            }));
            manifests.publish(&mut edge);
            let nothing = |case: &&Case| wanted(case, mode) == End::Nothing;
            for case in cases.iter().filter(nothing) {
                let answer = get(&edge, case.host, case.path).await;
                assert_eq!(
                    (answer.status, answer.text()),
                    (200, "two"),
                    "{mode}: {case} with a default for all hosts"
                );
            }
        }
    })
    .await;
}

#[tokio::test]
async fn ingress_a1_a_rewrite_to_a_url_sends_the_client_there() {
    on_worker(async {
        for mode in MODES {
            let (mut edge, mut manifests) = (Edge::new().await, of_mode(mode));
            let web = Origin::named("web").await;
            manifests.service("web", web.addr);
            for (name, target) in [
                ("plain", "https://new.test/$2"),
                ("query", "http://new.test/?p=$2"),
                ("bare", "https://new.test/$2?"),
                ("variable", "$scheme://$host/$2"),
            ] {
                let host = format!("{name}.test");
                let paths = [("ImplementationSpecific", "/old(/|$)(.*)", "web")];
                manifests.ingress(name, &[("rewrite-target", target)], &host, &paths);
            }
            let both = [
                ("rewrite-target", "https://new.test/$1"),
                ("permanent-redirect", "https://first.test/"),
            ];
            manifests.ingress(
                "both",
                &both,
                "both.test",
                &[("ImplementationSpecific", "/(.*)", "web")],
            );
            let guarded = [
                ("rewrite-target", "https://new.test/$1"),
                ("denylist-source-range", "127.0.0.0/8"),
            ];
            let paths = [("ImplementationSpecific", "/(.*)", "web")];
            manifests.ingress("guarded", &guarded, "guarded.test", &paths);
            manifests.publish(&mut edge);
            for (host, path, status, location) in [
                ("plain.test", "/old/a/b", 302, "https://new.test/a/b"),
                ("plain.test", "/OLD/a?x=y", 302, "https://new.test/a?x=y"),
                ("plain.test", "/old", 302, "https://new.test/"),
                ("plain.test", "/new", 404, ""),
                ("query.test", "/old/a?x=y", 302, "http://new.test/?p=a&x=y"),
                ("bare.test", "/old/a?x=y", 302, "https://new.test/a"),
                ("variable.test", "/old/a", 503, ""),
                // As in nginx the first of two redirects counts, and redirects come before lists.
                ("both.test", "/a", 301, "https://first.test/"),
                ("guarded.test", "/a", 302, "https://new.test/a"),
            ] {
                let answer = get(&edge, host, path).await;
                assert_eq!(
                    (answer.status, answer.header("location")),
                    (status, location),
                    "{mode}: {host}{path}"
                );
            }
            assert_eq!(web.hits(), 0, "{mode}");
        }
    })
    .await;
}

#[tokio::test]
async fn ingress_i6_a_request_without_a_host_goes_to_rules_without_one() {
    on_worker(async {
        for mode in MODES {
            let (mut edge, mut manifests) = (Edge::new().await, of_mode(mode));
            let web = Origin::named("web").await;
            manifests.service("web", web.addr);
            manifests.ingress("any", &[], "", &[("Prefix", "/", "web")]);
            manifests.publish(&mut edge);
            for head in ["GET / HTTP/1.1\nHost: ", "GET / HTTP/1.0"] {
                assert_eq!(ask(&edge, head).await.text(), "web", "{mode}: {head}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn ingress_t11_names_with_an_underscore_reach_no_backend_of_ingress_nginx() {
    on_worker(async {
        for mode in MODES {
            let (mut edge, mut manifests) = (Edge::new().await, of_mode(mode));
            let web = Origin::named("web").await;
            manifests.service("web", web.addr);
            manifests.ingress("any", &[], "a.test", &[("Prefix", "/", "web")]);
            manifests.publish(&mut edge);
            ask(
                &edge,
                "GET / HTTP/1.1\nHost: a.test\nx_user: mallory\nX-User: alice",
            )
            .await;
            let seen = web.seen().remove(0);
            let passed = if mode == "strict" { "mallory" } else { "" };
            assert_eq!(
                (seen.header("x-user"), seen.header("x_user")),
                ("alice", passed),
                "{mode}"
            );
        }
    })
    .await;
}

#[tokio::test]
async fn ingress_t12_repeated_slashes_are_merged_to_match_and_forwarded_as_they_are() {
    on_worker(async {
        for mode in MODES {
            let (mut edge, mut manifests) = (Edge::new().await, of_mode(mode));
            let web = Origin::named("web").await;
            manifests.service("web", web.addr);
            manifests.ingress("a", &[], "a.test", &[("Prefix", "/foo/bar", "web")]);
            let rewrite = [("rewrite-target", "/new/$1")];
            let paths = [("ImplementationSpecific", "/old/(.*)", "web")];
            manifests.ingress("b", &rewrite, "b.test", &paths);
            manifests.publish(&mut edge);
            for (host, path, got) in [
                ("a.test", "//foo///bar//x", "//foo///bar//x"),
                ("a.test", "/x/..//foo/./bar", "//foo/bar"),
                ("b.test", "//old//x//y", "/new/x/y"),
            ] {
                assert_eq!(get(&edge, host, path).await.status, 200, "{mode}: {path}");
                let seen = web.seen().pop().unwrap();
                assert_eq!(seen.target, got, "{mode}: {path}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn ingress_a3_a_body_of_ingress_nginx_ends_at_a_mebibyte_unless_it_says_otherwise() {
    const MEBIBYTE: usize = 1024 * 1024;
    on_worker(async {
        for mode in MODES {
            let (mut edge, mut manifests) = (Edge::new().await, of_mode(mode));
            let web = Origin::named("web").await;
            manifests.service("web", web.addr);
            manifests.ingress("a", &[], "a.test", &[("Prefix", "/", "web")]);
            let off = [("proxy-body-size", "0")];
            manifests.ingress("b", &off, "b.test", &[("Prefix", "/", "web")]);
            manifests.publish(&mut edge);
            for (host, length, compat) in [
                ("a.test", MEBIBYTE, 200),
                ("a.test", MEBIBYTE + 1, 413),
                ("b.test", MEBIBYTE + 1, 200),
            ] {
                let head =
                    format!("POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n\r\n");
                let mut client = RawClient::connect(edge.http).await;
                client.send(head).await;
                if mode == "strict" || compat == 200 {
                    client.send(vec![b'x'; length]).await;
                }
                let status = if mode == "strict" { 200 } else { compat };
                assert_eq!(
                    client.response().await.status,
                    status,
                    "{mode}: {host} {length}"
                );
            }
        }
    })
    .await;
}

#[tokio::test]
async fn ingress_i4_the_habits_of_ingress_nginx_keep_plain_requests_on_the_relay() {
    on_worker(async {
        for mode in MODES {
            let (mut edge, mut manifests) = (Edge::new().await, of_mode(mode));
            let web = Origin::named("web").await;
            manifests.service("web", web.addr);
            manifests.ingress("a", &[], "a.test", &[("Prefix", "/", "web")]);
            manifests.publish(&mut edge);
            let snapshot = &edge.world.snapshot;
            let rule = &snapshot.routes.host("a.test").unwrap().rules[0];
            assert!(rule.filters.policy.is_none(), "{mode}");
            let target = decide::target(snapshot, rule, &rule.backends[0], false).unwrap();
            assert!(is_default(&target), "{mode}");
            let (limits, timeouts) = (&target.policy().limits, &target.policy().timeouts);
            let shown = [timeouts.connect, timeouts.response, timeouts.idle].map(|t| t.as_secs());
            let (bytes, seconds) = match mode {
                "strict" => (0, [1, 60, 3600]),
                _ => (1024 * 1024, [5, 60, 60]),
            };
            assert_eq!((limits.body_bytes, shown), (bytes, seconds), "{mode}");
        }
    })
    .await;
}
