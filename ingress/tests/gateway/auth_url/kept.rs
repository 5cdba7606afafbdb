//! Answers of the service that hold for a while.

use super::*;

#[tokio::test]
async fn ingress_a8_answers_are_kept_for_requests_that_are_alike() {
    on_worker(async {
        let mut site = Site::new(&[("x-user", "alice")]).await;
        let key = ("auth-cache-key", "$cookie_sid$http_authorization");
        let fields = ("auth-response-headers", "X-User");
        site.annotate(&[ASK, key, fields]);
        let cases = [
            ("sid=1", 200, 200, 1),
            ("sid=1", 200, 200, 1),
            // What was said holds, whatever would be said now.
            ("other=2; sid=1", 403, 200, 1),
            ("sid=2", 403, 403, 2),
            // 403 is not among the statuses that are kept by default.
            ("sid=2", 403, 403, 3),
            ("sid=3", 401, 401, 4),
            ("sid=3", 200, 401, 4),
            ("asid=1", 200, 200, 5),
        ];
        for (cookie, says, expected, asked) in cases {
            site.says.store(says, Relaxed);
            let head = format!("GET / HTTP/1.1\nCookie: {cookie}\nX-User: evil");
            let response = site.ask(&head, "").await;
            let found = (response.status, site.judge.hits());
            assert_eq!(found, (expected, asked), "{cookie}");
        }
        for seen in site.web.seen() {
            assert_eq!(seen.header("x-user"), "alice");
        }
        // Another question is asked anew.
        let other = ("auth-url", "http://judge.default.svc.cluster.local/other");
        site.annotate(&[other, key]);
        site.ask("GET / HTTP/1.1\nCookie: sid=1", "").await;
        assert_eq!(site.judge.hits(), 6);
    })
    .await;
}

#[tokio::test]
async fn ingress_a8_an_answer_that_sets_cookies_is_asked_for_each_time() {
    on_worker(async {
        let mut site = Site::new(&[("set-cookie", "session=secret")]).await;
        site.annotate(&[ASK, ("auth-cache-key", "$host")]);
        for asked in 1..=3 {
            assert_eq!(site.get().await.header("set-cookie"), "session=secret");
            assert_eq!(site.judge.hits(), asked);
        }
    })
    .await;
}

#[tokio::test]
async fn ingress_a8_an_answer_is_kept_for_one_host_and_one_key() {
    on_worker(async {
        let mut site = Site::new(&[]).await;
        let key = ("auth-cache-key", "$cookie_a$cookie_b");
        let paths = [("Prefix", "/", "web")];
        site.manifests
            .ingress("site", &[ASK, key], "*.shop.test", &paths);
        site.manifests.publish(&mut site.edge);
        for (host, cookie, asked) in [
            ("one.shop.test", "a=1; b=23", 1),
            ("one.shop.test", "b=23; a=1", 1),
            // The same letters, and another key.
            ("one.shop.test", "a=12; b=3", 2),
            // The same rule, for which the service may say something else at this host.
            ("two.shop.test", "a=1; b=23", 3),
            ("two.shop.test", "a=1; b=23", 3),
            ("one.shop.test", "a=1; b=23", 3),
        ] {
            let mut client = RawClient::connect(site.edge.http).await;
            let head = format!("GET / HTTP/1.1\r\nHost: {host}\r\nCookie: {cookie}\r\n\r\n");
            client.send(head).await;
            assert_eq!(client.response().await.status, 200, "{host} {cookie}");
            assert_eq!(site.judge.hits(), asked, "{host} {cookie}");
        }
    })
    .await;
}

#[tokio::test]
async fn ingress_a8_an_answer_is_kept_for_its_time_and_no_longer() {
    on_worker(async {
        let mut site = Site::new(&[]).await;
        let key = ("auth-cache-key", "$host");
        site.annotate(&[ASK, key, ("auth-cache-duration", "200 1s, 401 1h")]);
        assert_eq!(site.get().await.status, 200);
        site.says.store(401, Relaxed);
        let refused = async {
            while site.get().await.status != 401 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let refused = tokio::time::timeout(Duration::from_secs(60), refused).await;
        refused.expect("what was said is over after a second");
        site.says.store(200, Relaxed);
        let asked = site.judge.hits();
        assert_eq!(site.get().await.status, 401);
        assert_eq!(site.judge.hits(), asked, "and this holds for an hour");
    })
    .await;
}
