//! Passwords, and what of several demands is enough, over real sockets.

use sealane_proxy::testing::{Origin, RawClient, RawResponse, status};

use crate::annotations::HOST;
use crate::manifests::Manifests;
use crate::support::{Edge, on_worker};

/// `opensesame` for alice by bcrypt, for bob by MD5-crypt, for dave, erin and frank by SHA; `pass:word`
/// for carol as it stands.
pub(crate) const USERS: &str = "alice:$2y$05$abcdefghijklmnopqrstuuQbLfdQZSxZ9gjhA5V9o8Tyc6aQRO0Qi\n\
                     bob:$apr1$saltsalt$7cqxt8VIjABxqw00CdZLl.\ncarol:{PLAIN}pass:word\n\
                     dave:{SHA}F2GPAaOiG5EcklvLUlodIavTBnM=\n\
                     erin:{SSHA}br3Pzk4F4oUXBWHR6BjmkFbB3PZzYWx0c2FsdA==\n\
                     frank:$6$saltsalt$/dpv42BvGInVKxDULxBMfXE6CN.oHtXdmTeHWMcv5rsd81TjdKcroane5LphAqgVenp/4K1qV/7eYEdl4XS9O/";
const BASIC: [(&str, &str); 2] = [("auth-type", "basic"), ("auth-secret", "users")];

/// Base64 of `USER:PASSWORD`.
const ALICE: &str = "YWxpY2U6b3BlbnNlc2FtZQ==";
const BOB: &str = "Ym9iOm9wZW5zZXNhbWU=";
const ALICE_WRONG: &str = "YWxpY2U6d3Jvbmc=";
const NOBODY: &str = "bm9ib2R5Om9wZW5zZXNhbWU=";

struct Site {
    edge: Edge,
    web: Origin,
    /// Answers with the status that is its path.
    judge: Origin,
    manifests: Manifests,
}

impl Site {
    async fn new() -> Self {
        let judge = Origin::start(|seen| {
            let code = seen.target.trim_start_matches('/').parse().unwrap();
            status(code)
        })
        .await;
        let web = Origin::named("web").await;
        let mut manifests = Manifests::new();
        manifests.service("web", web.addr);
        manifests.service("judge", judge.addr);
        Self {
            edge: Edge::new().await,
            web,
            judge,
            manifests,
        }
    }

    fn annotate(&mut self, annotations: &[(&str, &str)]) {
        let paths = [("Prefix", "/", "web")];
        self.manifests.ingress("site", annotations, HOST, &paths);
        self.publish();
    }

    fn users(&mut self, file: Option<&str>) {
        let data = file.map(|file| [("auth", file)]);
        let data = data.as_ref().map(|data| &data[..]);
        self.manifests.secret("users", data);
        self.publish();
    }

    fn publish(&mut self) {
        self.manifests.publish(&mut self.edge);
    }

    /// Asks with these credentials, if any.
    async fn ask(&self, credentials: &str) -> RawResponse {
        let field = match credentials {
            "" => String::new(),
            other => format!("Authorization: Basic {other}\r\n"),
        };
        let mut client = RawClient::connect(self.edge.http).await;
        let head = format!("GET /x HTTP/1.1\r\nHost: {HOST}\r\n{field}\r\n");
        client.send(head).await;
        client.response().await
    }

    async fn outcome(&self, credentials: &str) -> (u16, String) {
        let response = self.ask(credentials).await;
        (response.status, response.header("sealane-error").to_owned())
    }
}

#[tokio::test]
async fn ingress_a9_a_password_is_asked_for_and_not_passed_on() {
    on_worker(async {
        let mut site = Site::new().await;
        site.annotate(&[BASIC[0], BASIC[1], ("auth-realm", "Back \"office\"")]);
        site.users(Some(USERS));
        let mut let_in = 0;
        for (credentials, expected) in [
            ("", 401),
            (ALICE, 200),
            (ALICE, 200),
            (ALICE_WRONG, 401),
            (BOB, 200),
            (NOBODY, 401),
            ("not base64", 401),
        ] {
            let response = site.ask(credentials).await;
            assert_eq!(response.status, expected, "{credentials}");
            let challenge = response.header("www-authenticate");
            if expected == 401 {
                assert_eq!(challenge, r#"Basic realm="Back \"office\"""#);
                assert_eq!(response.header("sealane-error"), "unauthorized");
            } else {
                assert_eq!(challenge, "");
                let_in += 1;
            }
        }
        let seen = site.web.seen();
        assert_eq!(seen.len(), let_in);
        for seen in seen {
            assert_eq!(seen.header("authorization"), "");
        }
        // Without authentication the field is the backend's.
        site.annotate(&[]);
        assert_eq!(site.ask(ALICE).await.status, 200);
        let last = site.web.seen().pop().unwrap();
        assert_eq!(last.header("authorization"), format!("Basic {ALICE}"));
    })
    .await;
}

#[tokio::test]
async fn ingress_a9_a_password_that_was_right_is_not_remembered_for_others() {
    /// `alice:swordfish`, `bob:swordfish`.
    const ALICE_AS_BOB: &str = "YWxpY2U6c3dvcmRmaXNo";
    const BOB_RIGHT: &str = "Ym9iOnN3b3JkZmlzaA==";
    on_worker(async {
        let mut site = Site::new().await;
        site.annotate(&BASIC);
        // Of one kind and length.
        let alice = "alice:$5$saltsalt$jbxAgW5X5LNk4yh.NmUXL1XLS9OoRHueeuIinWYHZ9D";
        let bob = "bob:$5$saltsalt$daAhTF6GHYZ.SNpCbCUBgMUeouPxKWlT5eTP3TzH249";
        site.users(Some(&format!("{alice}\n{bob}")));
        for (credentials, expected) in [
            (ALICE, 200),
            (BOB, 401),
            (BOB_RIGHT, 200),
            (ALICE_AS_BOB, 401),
            (ALICE, 200),
            (BOB_RIGHT, 200),
        ] {
            assert_eq!(
                site.ask(credentials).await.status,
                expected,
                "{credentials}"
            );
        }
    })
    .await;
}

#[tokio::test]
async fn ingress_a9_a_secret_that_changes_or_goes_is_in_force_at_once() {
    on_worker(async {
        let mut site = Site::new().await;
        site.annotate(&BASIC);
        let closed = || (503, "invalid_route".to_owned());
        let wrong = || (401, "unauthorized".to_owned());
        let open = || (200, String::new());
        assert_eq!(site.outcome(ALICE).await, closed(), "not known yet");
        site.users(Some(USERS));
        assert_eq!(site.outcome(ALICE).await, open());
        site.users(Some("bob:{SHA}F2GPAaOiG5EcklvLUlodIavTBnM="));
        assert_eq!(site.outcome(ALICE).await, wrong(), "what was right is not");
        assert_eq!(site.outcome(BOB).await, open());
        site.users(Some("nonsense"));
        assert_eq!(site.outcome(BOB).await, closed());
        site.users(None);
        assert_eq!(site.outcome(BOB).await, closed());
        site.annotate(&[BASIC[0], ("auth-secret", "other/users")]);
        assert_eq!(site.outcome(BOB).await, closed());
    })
    .await;
}

#[tokio::test]
async fn ingress_a9_grpc_and_preflights_are_answered_in_their_own_terms() {
    on_worker(async {
        let mut site = Site::new().await;
        site.annotate(&[BASIC[0], BASIC[1], ("enable-cors", "true")]);
        site.users(Some(USERS));
        let ask = async |head: &str| {
            let mut client = RawClient::connect(site.edge.http).await;
            client.send(format!("{head}\r\nHost: {HOST}\r\n\r\n")).await;
            client.response().await
        };
        let call =
            ask("POST / HTTP/1.1\r\nContent-Type: application/grpc\r\nContent-Length: 0").await;
        assert_eq!((call.status, call.header("grpc-status")), (200, "16"));
        let preflight = ask("OPTIONS / HTTP/1.1\r\nOrigin: https://a.test").await;
        assert_eq!(preflight.status, 204);
        let refused = ask("GET / HTTP/1.1\r\nOrigin: https://a.test").await;
        let allowed = refused.header("access-control-allow-origin");
        assert_eq!((refused.status, allowed), (401, "*"));
        assert_eq!(site.web.hits(), 0);
    })
    .await;
}

#[tokio::test]
async fn ingress_a9_limits_come_first_then_addresses_then_passwords_then_the_service() {
    on_worker(Box::pin(async {
        let judge = |code| format!("http://judge.default.svc.cluster.local/{code}");
        let (no, yes) = (judge(403), judge(200));
        let ask = ("auth-url", no.as_str());
        let deny = ("denylist-source-range", "127.0.0.1");
        let once = ("limit-rpm", "1");
        let burst = ("limit-burst-multiplier", "1");
        for (annotations, credentials, expected, asked) in [
            (
                vec![ask, BASIC[0], BASIC[1], deny],
                ALICE,
                (403, "access_denied"),
                0,
            ),
            (
                vec![ask, BASIC[0], BASIC[1]],
                NOBODY,
                (401, "unauthorized"),
                0,
            ),
            (
                vec![ask, BASIC[0], BASIC[1]],
                ALICE,
                (403, "access_denied"),
                1,
            ),
            (
                vec![("auth-url", &yes), BASIC[0], BASIC[1]],
                ALICE,
                (200, ""),
                1,
            ),
            (
                vec![("auth-url", &yes), BASIC[0], BASIC[1]],
                "",
                (401, "unauthorized"),
                0,
            ),
        ] {
            let mut site = Site::new().await;
            site.annotate(&annotations);
            site.users(Some(USERS));
            let (status, error) = site.outcome(credentials).await;
            assert_eq!((status, &*error), expected, "{annotations:?}");
            assert_eq!(site.judge.hits(), asked, "{annotations:?}");
        }
        let mut site = Site::new().await;
        site.annotate(&[BASIC[0], BASIC[1], once, burst]);
        site.users(Some(USERS));
        for expected in [401, 401, 503] {
            assert_eq!(site.outcome("").await.0, expected);
        }
    }))
    .await;
}

#[tokio::test]
async fn ingress_a17_satisfy_any_takes_an_address_or_a_password_or_a_service() {
    on_worker(Box::pin(async {
        let judge = |code| format!("http://judge.default.svc.cluster.local/{code}");
        let (yes, no, unknown, broken) = (judge(204), judge(403), judge(401), judge(500));
        let any = ("satisfy", "any");
        let allow = ("whitelist-source-range", "127.0.0.0/8");
        let other = ("whitelist-source-range", "192.0.2.0/24");
        let deny = ("denylist-source-range", "127.0.0.1");
        fn url(url: &str) -> (&str, &str) {
            ("auth-url", url)
        }
        for (annotations, credentials, expected) in [
            (vec![any, allow, BASIC[0], BASIC[1]], "", 200),
            (vec![any, other, BASIC[0], BASIC[1]], "", 401),
            (vec![any, other, BASIC[0], BASIC[1]], ALICE, 200),
            (vec![any, deny, BASIC[0], BASIC[1]], ALICE, 200),
            (vec![any, deny, BASIC[0], BASIC[1]], NOBODY, 401),
            // Not being on the list of those who may not is no merit.
            (vec![any, BASIC[0], BASIC[1]], "", 401),
            (vec![any, url(&no), BASIC[0], BASIC[1]], ALICE, 200),
            (vec![any, url(&yes), BASIC[0], BASIC[1]], "", 200),
            (vec![any, url(&no), BASIC[0], BASIC[1]], "", 401),
            (vec![any, url(&no), other], "", 403),
            (vec![any, url(&unknown), other], "", 401),
            (vec![any, url(&broken), other], "", 500),
            (vec![any, url(&broken), allow], "", 200),
            (vec![url(&yes), other], "", 403),
            (vec![allow, BASIC[0], BASIC[1]], "", 401),
        ] {
            let mut site = Site::new().await;
            site.annotate(&annotations);
            site.users(Some(USERS));
            let (status, _) = site.outcome(credentials).await;
            assert_eq!(status, expected, "{annotations:?} {credentials}");
            assert_eq!(site.web.hits(), usize::from(expected == 200));
            for seen in site.web.seen() {
                let stays = !annotations.contains(&BASIC[0]);
                assert_eq!(
                    seen.headers.contains_key("authorization"),
                    stays && !credentials.is_empty()
                );
            }
        }
    }))
    .await;
}
