//! Annotations that were written to break out of what they are put into.

use sealane_config::ingress_nginx::ANNOTATIONS;
use sealane_proxy::testing::{Origin, RawClient};

use crate::manifests::Manifests;
use crate::support::{Edge, on_worker};

/// Ends of lines, of strings and of blocks, and variables, with what should not follow.
const PAYLOADS: [&str; 8] = [
    "x\r\nX-Evil: 1",
    "x\nX-Evil: 1",
    "x\r\n\r\nHTTP/1.1 200 OK\r\nX-Evil: 1\r\n\r\n",
    "x\0X-Evil: 1",
    "x%0d%0aX-Evil:%201",
    "\";} add_header X-Evil 1; #",
    "x; X-Evil=1, X-Evil: 1",
    "$http_x_evil$arg_evil$cookie_evil",
];

/// What makes annotations about CORS, sessions and passwords hold, unless it is what is tried.
const COMPANIONS: [&[(&str, &str)]; 2] = [
    &[
        ("enable-cors", "true"),
        ("affinity", "cookie"),
        ("auth-type", ""),
    ],
    &[("auth-type", "basic"), ("auth-secret", "users")],
];

const USERS: &str = "a:{PLAIN}b";

/// A client whose own request tries the same in the places that an annotation may refer to.
fn requests(host: &str) -> [String; 2] {
    let get = format!(
        "GET /x?evil=a%0d%0aX-Evil:%201 HTTP/1.1\r\nHost: {host}\r\nOrigin: https://a.test\r\n\
         Authorization: Basic YTpi\r\nCookie: evil=X-Evil\r\n\r\n"
    );
    let preflight = format!(
        "OPTIONS /x HTTP/1.1\r\nHost: {host}\r\nOrigin: https://a.test\r\n\
         Access-Control-Request-Method: PUT\r\n\r\n"
    );
    [get, preflight]
}

#[tokio::test]
async fn ingress_u4_no_annotation_becomes_a_line_of_a_message() {
    on_worker(Box::pin(async {
        let origin = Origin::named("web").await;
        let mut edge = Edge::new().await;
        for annotation in ANNOTATIONS {
            for companions in COMPANIONS {
                let mut manifests = Manifests::compat();
                manifests.service("web", origin.addr);
                for (number, payload) in PAYLOADS.iter().enumerate() {
                    // Alone, and behind a value that is good.
                    for (kind, value) in [
                        ("alone", (*payload).to_owned()),
                        ("behind", format!("{}{payload}", annotation.sample)),
                    ] {
                        let written = written(annotation.name, &value, companions);
                        let (name, host) = (format!("{kind}{number}"), host(kind, number));
                        manifests.ingress(&name, &written, &host, &[("Prefix", "/", "web")]);
                    }
                }
                manifests.secret("users", Some(&[("auth", USERS)]));
                manifests.publish(&mut edge);
                for number in 0..PAYLOADS.len() {
                    for kind in ["alone", "behind"] {
                        for request in requests(&host(kind, number)) {
                            let what = format!("{} {kind} {number}", annotation.name);
                            harmless(&edge, &request, &what).await;
                        }
                    }
                }
            }
        }
        // The backend of all of them.
        let seen = origin.seen();
        assert!(!seen.is_empty());
        for seen in seen {
            assert!(!seen.headers.contains_key("x-evil"), "{seen:?}");
            assert!(seen.target.starts_with('/'), "{seen:?}");
        }
    }))
    .await;
}

fn host(kind: &str, number: usize) -> String {
    format!("{kind}{number}.test")
}

/// The annotation with this value, and those of its companions that are not the same.
fn written<'a>(
    name: &'a str,
    value: &'a str,
    companions: &[(&'a str, &'a str)],
) -> Vec<(&'a str, &'a str)> {
    let others = companions
        .iter()
        .filter(|(companion, value)| *companion != name && !value.is_empty());
    others.copied().chain([(name, value)]).collect()
}

/// Asks, and looks for what nobody should have written.
async fn harmless(edge: &Edge, request: &str, what: &str) {
    let mut client = RawClient::connect(edge.http).await;
    client.send(request).await;
    let Some(answer) = client.try_response(false).await else {
        return;
    };
    for (name, value) in &answer.fields {
        assert!(!name.contains("evil"), "{what}: {answer:?}");
        assert!(!value.chars().any(char::is_control), "{what}: {answer:?}");
    }
    client.finish().await;
    let rest = client.closed().await;
    assert!(rest.is_empty(), "{what}: {answer:?} {rest:?}");
}
