//! What is changed of answers, and what is written down about them.

use std::io::{self, Write};
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use sealane_proxy::access::{AccessLog, Format};
use sealane_proxy::http::{EngineOptions, ServerOptions};
use sealane_proxy::testing::{Origin, full};

use crate::annotations::{ALL, HOST, Site};
use crate::manifests::Manifests;
use crate::support::{Edge, on_worker};

#[tokio::test]
async fn ingress_a17_answers_name_places_as_clients_see_them() {
    on_worker(Box::pin(async {
        let mut site = Site::new(&[], ALL).await;
        site.origin = Origin::start(|_| {
            let mut response = http::Response::new(full("moved"));
            for (name, value) in [
                ("location", "http://inner.test/one/a?b"),
                ("refresh", "5; URL=http://inner.test/one/a"),
                ("set-cookie", "a=b; Path=/one/a; Domain=inner.test"),
                ("set-cookie", "c=d; path=/"),
                ("x-other", "http://inner.test/one/a"),
            ] {
                let headers = response.headers_mut();
                headers.append(name, value.parse().unwrap());
            }
            response
        })
        .await;
        let as_said = [
            "http://inner.test/one/a?b",
            "5; URL=http://inner.test/one/a",
            "a=b; Path=/one/a; Domain=inner.test",
        ];
        let redirect = |from, to| [("proxy-redirect-from", from), ("proxy-redirect-to", to)];
        let cookies = |domain, path| [("proxy-cookie-domain", domain), ("proxy-cookie-path", path)];
        for (annotations, expected) in [
            (
                redirect("http://inner.test/one/", "$scheme://$host/"),
                [
                    "http://shop.test/a?b",
                    "5; URL=http://shop.test/a",
                    as_said[2],
                ],
            ),
            (redirect("http://inner.test/one/", "off"), as_said),
            (redirect("http://inner.test/two/", "/"), as_said),
            // A bad one changes nothing.
            (redirect("~^http://inner", "/"), as_said),
            (
                cookies("inner.test shop.test", "/one/ /"),
                [as_said[0], as_said[1], "a=b; Path=/a; Domain=shop.test"],
            ),
            (
                cookies("off", r#"/one/ "/; Secure; Max-Age=""#),
                [
                    as_said[0],
                    as_said[1],
                    "a=b; Path=/; Secure; Max-Age=a; Domain=inner.test",
                ],
            ),
            (cookies("inner.test $host", "~^/(.*) /$1"), as_said),
        ] {
            site.annotate(&annotations, ALL);
            let response = site.get("/").await;
            let got = ["location", "refresh", "set-cookie"].map(|name| response.header(name));
            assert_eq!(got, expected, "{annotations:?}");
            assert_eq!(response.header("x-other"), "http://inner.test/one/a");
            let cookies = response
                .fields
                .iter()
                .filter(|(name, _)| name == "set-cookie");
            let second = cookies.map(|(_, value)| value.as_str()).nth(1);
            assert_eq!(second, Some("c=d; path=/"), "{annotations:?}");
        }
    }))
    .await;
}

/// A log that goes to a channel.
pub(crate) struct Sink(pub(crate) Sender<Vec<u8>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.0.send(bytes.to_vec());
        sent.map_err(|_gone| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn ingress_a17_a_route_may_be_left_out_of_the_access_log() {
    on_worker(Box::pin(async {
        let (sender, written) = channel();
        let engine = EngineOptions {
            access_log: Some(AccessLog::start(Format::Nginx, Sink(sender)).unwrap()),
            ..EngineOptions::default()
        };
        let origin = Origin::named("web").await;
        let mut edge = Edge::with(ServerOptions::default(), engine).await;
        let mut manifests = Manifests::new();
        manifests.service("web", origin.addr);
        for (name, path, log) in [("quiet", "/quiet", "false"), ("loud", "/", "true")] {
            let annotations = [("enable-access-log", log)];
            manifests.ingress(name, &annotations, HOST, &[("Prefix", path, "web")]);
        }
        manifests.publish(&mut edge);
        let mut client = edge.client().await;
        for path in ["/quiet", "/loud"] {
            assert_eq!(client.get(HOST, path).await.status, 200, "{path}");
        }
        let text = written.recv_timeout(Duration::from_secs(20)).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert_eq!(text.matches('\n').count(), 1, "{text}");
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        let id = origin.seen()[1].header("x-request-id").to_owned();
        let upstream = origin.addr.to_string();
        for (name, value) in [
            ("request_uri", "/loud"),
            ("remote_addr", "127.0.0.1"),
            ("namespace", "default"),
            ("ingress_name", "loud"),
            ("service_name", "web"),
            ("proxy_upstream_name", "default-web-80"),
            ("upstream_addr", &upstream),
            // The one that the backend got, which the client did not send.
            ("request_id", &id),
        ] {
            assert_eq!(line[name], value, "{name}: {text}");
        }
        assert_eq!((&line["status"], id.len()), (&200.into(), 32), "{text}");
    }))
    .await;
}
