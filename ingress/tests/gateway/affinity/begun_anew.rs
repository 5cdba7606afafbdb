//! Sessions whose cookie says nothing any more, and attributes that depend on the request.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::tls;

#[tokio::test]
async fn ingress_a11_a_session_begins_anew_at_another_service_and_in_another_mode() {
    on_worker(async {
        let origins = [Origin::named("one").await, Origin::named("two").await];
        let mut edge = Edge::new().await;
        let publish = |edge: &mut Edge, service: &str, annotations: &[(&str, &str)]| {
            let mut manifests = Manifests::new();
            manifests.service("one", origins[0].addr);
            manifests.service("two", origins[1].addr);
            manifests.ingress("site", annotations, HOST, &[("Prefix", "/", service)]);
            manifests.publish(edge);
        };
        publish(&mut edge, "one", &[COOKIE]);
        let mut last = cookie(&ask(&edge, "/", "").await).expect("a cookie");
        for (what, service, annotations) in [
            ("another Service", "two", &[COOKIE][..]),
            ("another mode", "two", &[COOKIE, PERSISTENT]),
            ("another Service", "one", &[COOKIE, PERSISTENT]),
        ] {
            publish(&mut edge, service, annotations);
            let next = cookie(&ask(&edge, "/", &format!("Cookie: {last}")).await);
            let next = next.unwrap_or_else(|| panic!("{what} is told to the client"));
            assert_ne!(next, last, "{what}");
            let again = ask(&edge, "/", &format!("Cookie: {next}")).await;
            assert_eq!((again.text(), cookie(&again)), (service, None), "{what}");
            last = next;
        }
    })
    .await;
}

#[tokio::test]
async fn ingress_a11_a_cookie_is_for_tls_if_it_came_over_tls() {
    on_worker(async {
        let crowd = Crowd::of(1, &[COOKIE]).await;
        let (_, plain) = crowd.ask("/app", "").await;
        assert!(!plain.header("set-cookie").contains("; Secure"));
        let client = tls::Client::new(&[]);
        let mut session = client.connect(&crowd.edge, HOST).await;
        let head = format!("GET /app HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n");
        session.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        session.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert!(answer.contains("; Secure; HttpOnly\r\n"), "{answer}");
    })
    .await;
}
