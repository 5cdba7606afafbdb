//! Sessions that stay with their endpoint, and requests that go where those like them go.

use std::collections::BTreeSet;

use sealane_proxy::testing::{Origin, RawClient, RawResponse};

use crate::canary::Pair;
use crate::manifests::Manifests;
use crate::support::{Edge, on_worker};

mod begun_anew;

const HOST: &str = "shop.test";
const COOKIE: (&str, &str) = ("affinity", "cookie");
const PERSISTENT: (&str, &str) = ("affinity-mode", "persistent");

/// A gateway with one Ingress in front of several endpoints.
pub(crate) struct Crowd {
    pub(crate) edge: Edge,
    pub(crate) origins: Vec<Origin>,
}

impl Crowd {
    pub(crate) async fn new(origins: Vec<Origin>, annotations: &[(&str, &str)]) -> Self {
        let mut crowd = Self {
            edge: Edge::new().await,
            origins,
        };
        crowd.publish(annotations, usize::MAX);
        crowd
    }

    async fn of(count: usize, annotations: &[(&str, &str)]) -> Self {
        let mut origins = Vec::new();
        for _ in 0..count {
            origins.push(Origin::named("web").await);
        }
        Self::new(origins, annotations).await
    }

    /// Serves so many of the endpoints.
    pub(crate) fn publish(&mut self, annotations: &[(&str, &str)], count: usize) {
        let addrs: Vec<_> = self.origins.iter().take(count).map(|it| it.addr).collect();
        let mut manifests = Manifests::new();
        manifests.service_with("web", &addrs);
        manifests.ingress("site", annotations, HOST, &[("Prefix", "/app", "web")]);
        manifests.publish(&mut self.edge);
    }

    /// Asks with the head's further fields, and tells which endpoint got the request.
    pub(crate) async fn ask(&self, target: &str, fields: &str) -> (Option<usize>, RawResponse) {
        let before: Vec<usize> = self.origins.iter().map(Origin::hits).collect();
        let response = Box::pin(ask(&self.edge, target, fields)).await;
        let mut numbered = self.origins.iter().zip(before).enumerate();
        let served = numbered.find(|(_, (origin, before))| origin.hits() > *before);
        (served.map(|(number, _)| number), response)
    }

    /// Begins a session: its cookie, and the endpoint.
    async fn begin(&self) -> (String, usize) {
        let (served, response) = self.ask("/app", "").await;
        (cookie(&response).expect("a cookie"), served.unwrap())
    }

    /// Goes on with a session: the endpoint, and the cookie if there is a new one.
    async fn go_on(&self, cookie: &str) -> (usize, Option<String>) {
        let fields = format!("Cookie: other=1; {cookie}");
        let (served, response) = self.ask("/app", &fields).await;
        assert_eq!(response.status, 200);
        (served.unwrap(), self::cookie(&response))
    }
}

async fn ask(edge: &Edge, target: &str, fields: &str) -> RawResponse {
    let mut client = RawClient::connect(edge.http).await;
    let head = format!("GET {target} HTTP/1.1\nHost: {HOST}\n{fields}");
    let head = head.trim_end().replace('\n', "\r\n");
    client.send(head + "\r\n\r\n").await;
    client.response().await
}

/// Name and value of the cookie that is set.
fn cookie(response: &RawResponse) -> Option<String> {
    let field = response.header("set-cookie");
    let (pair, _) = field.split_once(';')?;
    Some(pair.to_owned())
}

#[tokio::test]
async fn ingress_a11_a_session_stays_with_its_endpoint_on_every_replica() {
    on_worker(async {
        for annotations in [&[COOKIE][..], &[COOKIE, PERSISTENT]] {
            let crowd = Crowd::of(3, annotations).await;
            let mut used = BTreeSet::new();
            for _ in 0..30 {
                let (cookie, at) = crowd.begin().await;
                assert!(cookie.starts_with("INGRESSCOOKIE="), "{cookie}");
                let address = crowd.origins[at].addr;
                for shown in [address.ip().to_string(), "7f000001".to_owned()] {
                    assert!(!cookie.contains(&shown), "{cookie} shows {address}");
                }
                assert_eq!(crowd.go_on(&cookie).await, (at, None), "{annotations:?}");
                used.insert(at);
            }
            assert_eq!(used.len(), 3, "{annotations:?}");

            let (cookie, at) = crowd.begin().await;
            let replica = Crowd::new(crowd.origins, annotations).await;
            assert_eq!(replica.go_on(&cookie).await, (at, None), "{annotations:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn ingress_a11_a_cookie_has_the_attributes_that_are_asked_for() {
    on_worker(async {
        let mut crowd = Crowd::of(1, &[]).await;
        let (_, response) = crowd.ask("/app", "").await;
        assert_eq!(response.header("set-cookie"), "", "no affinity, no cookie");
        let none = ("session-cookie-samesite", "None");
        let conditional = ("session-cookie-conditional-samesite-none", "true");
        let old = "User-Agent: Mozilla/5.0 Chrome/60.0.1 Safari/537.36";
        for (annotations, fields, want) in [
            (&[][..], "", "INGRESSCOOKIE=*; Path=/app; HttpOnly"),
            (
                &[
                    ("session-cookie-name", "route"),
                    ("session-cookie-path", "/"),
                ],
                "",
                "route=*; Path=/; HttpOnly",
            ),
            (
                &[
                    ("session-cookie-domain", ".shop.test"),
                    ("session-cookie-max-age", "60"),
                    ("session-cookie-samesite", "strict"),
                    ("session-cookie-secure", "true"),
                ],
                "",
                "INGRESSCOOKIE=*; Path=/app; Domain=.shop.test; Max-Age=60; SameSite=Strict; Secure; HttpOnly",
            ),
            (&[none], old, "INGRESSCOOKIE=*; Path=/app; SameSite=None; HttpOnly"),
            (&[none, conditional], old, "INGRESSCOOKIE=*; Path=/app; HttpOnly"),
            (
                &[none, conditional],
                "User-Agent: curl/8",
                "INGRESSCOOKIE=*; Path=/app; SameSite=None; HttpOnly",
            ),
            // What cannot be an attribute is none.
            (
                &[
                    ("session-cookie-name", "a b"),
                    ("session-cookie-path", "/; Domain=evil.test"),
                    ("session-cookie-max-age", "-1"),
                ],
                "",
                "INGRESSCOOKIE=*; Path=/app; HttpOnly",
            ),
        ] {
            crowd.publish(&[&[COOKIE], annotations].concat(), 1);
            let (_, response) = crowd.ask("/app", fields).await;
            let set = response.header("set-cookie");
            let (name, rest) = set.split_once('=').unwrap();
            let (_, attributes) = rest.split_once(';').unwrap();
            assert_eq!(format!("{name}=*;{attributes}"), want, "{annotations:?}");
        }
        let expires = ("session-cookie-expires", "3600");
        crowd.publish(&[COOKIE, expires], 1);
        let (_, response) = crowd.ask("/app", "").await;
        let set = response.header("set-cookie");
        let (_, rest) = set.split_once("Expires=").unwrap();
        let at = httpdate::parse_http_date(rest.split(';').next().unwrap()).unwrap();
        let left = at.duration_since(std::time::SystemTime::now()).unwrap();
        assert!((3500..=3600).contains(&left.as_secs()), "{left:?}");
    })
    .await;
}

#[tokio::test]
async fn ingress_a11_more_endpoints_take_over_balanced_sessions_and_no_others() {
    on_worker(async {
        for (annotations, moves) in [(&[COOKIE][..], true), (&[COOKIE, PERSISTENT], false)] {
            let mut crowd = Crowd::of(4, annotations).await;
            crowd.publish(annotations, 2);
            let mut sessions = Vec::new();
            for _ in 0..40 {
                sessions.push(crowd.begin().await);
            }
            crowd.publish(annotations, 4);
            let mut moved = 0;
            for (cookie, before) in &sessions {
                let (now, new) = crowd.go_on(cookie).await;
                assert_eq!(new, None);
                if now != *before {
                    moved += 1;
                    assert!(now >= 2, "to an endpoint that is new");
                }
            }
            // Half of forty, unless sessions do not move.
            let expected = if moves { 6..=34 } else { 0..=0 };
            assert!(expected.contains(&moved), "{annotations:?}: {moved}");
        }
    })
    .await;
}

#[tokio::test]
async fn ingress_a11_a_session_changes_for_good_only_if_it_is_told_to() {
    on_worker(async {
        let change = ("session-cookie-change-on-failure", "true");
        for (mode, changes) in [
            (&[COOKIE][..], false),
            (&[COOKIE, change], true),
            (&[COOKIE, PERSISTENT], false),
            (&[COOKIE, PERSISTENT, change], true),
        ] {
            let mut crowd = Crowd::of(3, mode).await;
            let (cookie, at) = crowd.begin().await;
            let gone = crowd.origins.remove(at);
            let addr = gone.addr;
            gone.kill().await;
            // A request that cannot be connected goes elsewhere.
            let (_, new) = crowd.go_on(&cookie).await;
            assert_eq!(new.is_some(), changes, "{mode:?}");
            if let Some(new) = new {
                let (there, again) = crowd.go_on(&new).await;
                assert_eq!(again, None, "{mode:?}");
                for _ in 0..5 {
                    assert_eq!(crowd.go_on(&new).await, (there, None), "{mode:?} {addr}");
                }
            }
        }
    })
    .await;
}

/// ingress-nginx #3717, #8246.
#[tokio::test]
async fn ingress_u12_a_session_stays_on_its_side_of_a_canary() {
    on_worker(async {
        let mut pair = Pair::new().await;
        let header = ("canary-by-header", "X-Canary");
        for mode in [&[COOKIE][..], &[COOKIE, PERSISTENT]] {
            for (weight, other) in [("0", "100"), ("100", "0")] {
                let is_canary = weight == "100";
                pair.annotate(mode, &[header, ("canary-weight", weight)]);
                let response = Box::pin(pair.ask("")).await;
                let session = format!("Cookie: {}", cookie(&response).expect("a cookie"));
                pair.annotate(mode, &[header, ("canary-weight", other)]);
                for fields in ["", "X-Canary: always", "X-Canary: never"] {
                    let fields = format!("{session}\n{fields}");
                    let case = format!("{mode:?} {weight} {fields}");
                    assert_eq!(pair.takes(&fields).await, is_canary, "{case}");
                }
                // Without a session everything is as ever.
                assert_eq!(pair.takes("").await, !is_canary);

                let legacy = ("affinity-canary-behavior", "legacy");
                pair.annotate(mode, &[header, legacy, ("canary-weight", other)]);
                for (fields, taken) in [
                    ("", !is_canary),
                    ("X-Canary: always", true),
                    ("X-Canary: never", false),
                ] {
                    let fields = format!("{session}\n{fields}");
                    assert_eq!(pair.takes(&fields).await, taken, "legacy {mode:?} {fields}");
                }
            }
        }
    })
    .await;
}

#[tokio::test]
async fn ingress_u12_a_session_of_a_canary_that_is_gone_begins_anew() {
    on_worker(async {
        let mut pair = Pair::new().await;
        let all = ("canary-weight", "100");
        pair.annotate(&[COOKIE], &[all]);
        let response = Box::pin(pair.ask("")).await;
        let session = format!("Cookie: {}", cookie(&response).expect("a cookie"));
        let mut manifests = Manifests::new();
        manifests.service("main", pair.main.addr);
        manifests.ingress("main", &[COOKIE], HOST, &[("Prefix", "/", "main")]);
        manifests.publish(&mut pair.edge);
        let response = Box::pin(pair.ask(&session)).await;
        assert_eq!(response.status, 200);
        let new = format!("Cookie: {}", cookie(&response).expect("a new cookie"));
        let response = Box::pin(pair.ask(&new)).await;
        assert_eq!((cookie(&response), pair.hits()), (None, (2, 1)));
    })
    .await;
}

#[tokio::test]
async fn ingress_a17_requests_with_the_same_text_go_to_the_same_endpoint() {
    on_worker(async {
        for (by, target, fields) in [
            ("$arg_user", "/app?user=N", ""),
            ("$request_uri", "/app/N", ""),
            ("$uri$is", "", ""),
            ("$http_x_user", "/app", "X-User: N"),
            ("$cookie_user", "/app", "Cookie: user=N"),
            ("$host-${uri}", "/app/N", ""),
        ] {
            let annotations = [("upstream-hash-by", by)];
            let crowd = Crowd::of(3, &annotations).await;
            if target.is_empty() {
                // What is not known is not hashed.
                assert_eq!(crowd.ask("/app", "").await.1.status, 200, "{by}");
                continue;
            }
            let mut used = BTreeSet::new();
            let mut places = Vec::new();
            for user in 0..20 {
                let user = user.to_string();
                let (target, fields) = (target.replace('N', &user), fields.replace('N', &user));
                let (first, _) = crowd.ask(&target, &fields).await;
                let (second, _) = crowd.ask(&target, &fields).await;
                assert_eq!(first, second, "{by} {user}");
                used.insert(first);
                places.push((target, fields, first));
            }
            assert_eq!(used.len(), 3, "{by}");
            let replica = Crowd::new(crowd.origins, &annotations).await;
            for (target, fields, at) in places {
                assert_eq!(replica.ask(&target, &fields).await.0, at, "{by} {target}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn ingress_a17_requests_without_the_text_are_balanced() {
    on_worker(async {
        let crowd = Crowd::of(3, &[("upstream-hash-by", "$http_x_user")]).await;
        let mut used = BTreeSet::new();
        for _ in 0..40 {
            used.insert(crowd.ask("/app", "").await.0);
        }
        assert_eq!(used.len(), 3);
    })
    .await;
}

#[tokio::test]
async fn ingress_a17_only_what_is_named_is_hashed() {
    on_worker(async {
        for (by, target) in [
            ("$arg_user", "/app?other=N&user=7"),
            ("$arg_user", "/app?user=7&other=N"),
            ("$uri", "/app/x?other=N"),
            ("$host", "/app/N"),
        ] {
            let crowd = Crowd::of(3, &[("upstream-hash-by", by)]).await;
            let mut used = BTreeSet::new();
            for other in 0..20 {
                let target = target.replace('N', &other.to_string());
                used.insert(crowd.ask(&target, "").await.0);
            }
            assert_eq!(used.len(), 1, "{by} {target}");
        }
    })
    .await;
}

#[tokio::test]
async fn ingress_a17_round_robin_takes_turns() {
    on_worker(async {
        let crowd = Crowd::of(3, &[("load-balance", "round_robin")]).await;
        for _ in 0..30 {
            crowd.ask("/app", "").await;
        }
        let hits: Vec<usize> = crowd.origins.iter().map(Origin::hits).collect();
        assert_eq!(hits, [10, 10, 10]);
    })
    .await;
}
