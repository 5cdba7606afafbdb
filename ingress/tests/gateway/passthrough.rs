//! TLS connections that the gateway does not end: `ssl-passthrough`, and whom backends are told of.

mod backend;

use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConnection;
use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use sealane_config::model::{GatewaySettings, ProxyProtocol};
use sealane_proxy::testing::{Origin, RawClient};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::certificates::{Authority, Client, Identity};
use crate::handshakes::pass;
use crate::hello::{Trickle, answer, hello};
use crate::manifests::Manifests;
use crate::proxies::{STRANGER, TRUSTED, trusting};
use crate::support::{Edge, on_worker};
use backend::Backend;

const HOST: &str = "pass.test";
const ON: (&str, &str) = ("ssl-passthrough", "true");

fn enabled() -> GatewaySettings {
    let mut settings = GatewaySettings::default();
    settings.rules.ssl_passthrough = true;
    settings
}

/// A gateway with a host whose TLS connections are passed through, and one that is served as usual.
struct Site {
    edge: Edge,
    web: Origin,
    backend: Backend,
    manifests: Manifests,
    /// A client that the backend knows.
    known: Identity,
}

impl Site {
    async fn new(settings: GatewaySettings) -> Self {
        let clients = Authority::new("Clients");
        let (edge, web) = (Edge::new().await, Origin::named("web").await);
        let mut site = Self {
            edge,
            web,
            backend: Backend::start(&clients).await,
            manifests: Manifests::with(|options| options.settings = settings),
            known: clients.vouch("shop"),
        };
        let manifests = &mut site.manifests;
        manifests.service("web", site.web.addr);
        manifests.service("pass", site.backend.addr);
        let paths = [("Prefix", "/", "pass"), ("Prefix", "/other", "web")];
        manifests.ingress("pass", &[ON], HOST, &paths);
        manifests.ingress("wild", &[ON], "*.pass.test", &[("Prefix", "/", "pass")]);
        manifests.ingress("web", &[], "web.test", &[("Prefix", "/", "web")]);
        manifests.ingress("any", &[], "", &[("Prefix", "/", "web")]);
        manifests.publish(&mut site.edge);
        site
    }

    /// A session for a name, over a connection of which nothing was read.
    async fn over(&self, stream: TcpStream, name: &str) -> Box<TlsStream<TcpStream>> {
        let config = Client::new(Some(&self.known)).config;
        let connector = TlsConnector::from(Arc::new(config));
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let session = Box::pin(connector.connect(name, stream)).await;
        Box::new(session.unwrap())
    }
}

/// A hello of this many KiB and a few bytes.
fn long_hello(name: &str, kibibytes: usize) -> Vec<u8> {
    let mut config = Client::new(None).config;
    config.alpn_protocols = vec![vec![b'x'; 127]; 8 * kibibytes];
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut bytes = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut bytes).unwrap();
    }
    bytes
}

async fn ask(mut stream: Box<TlsStream<TcpStream>>) -> String {
    let request = b"GET / HTTP/1.1\r\nHost: pass.test\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

#[tokio::test]
async fn ingress_a17_ssl_passthrough_goes_by_the_name_and_the_backend_ends_tls() {
    on_worker(async {
        let site = Site::new(enabled()).await;
        for versions in [&[&TLS13][..], &[&TLS12]] {
            for (name, passes) in [
                (HOST, true),
                ("PASS.test", true),
                ("a.pass.test", true),
                ("b.a.pass.test", false),
                ("web.test", false),
                ("other.test", false),
                // No name at all.
                ("127.0.0.1", false),
            ] {
                let before = site.backend.connections();
                for (identity, who) in [(Some(&site.known), "somebody known"), (None, "nobody")] {
                    let client = Client::of_versions(identity, versions);
                    let mut stream = client.connect(&site.edge, name, b"http/1.1").await.unwrap();
                    let shown = stream.get_ref().1.peer_certificates().unwrap()[0].clone();
                    let host = if passes { HOST } else { "web.test" };
                    let request =
                        format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
                    stream.write_all(request.as_bytes()).await.unwrap();
                    let mut text = String::new();
                    stream.read_to_string(&mut text).await.unwrap();
                    assert!(text.starts_with("HTTP/1.1 200 "), "{name}: {text}");
                    let (certificate, answer) = match passes {
                        true => (&site.backend.certificate, who),
                        false => (&site.edge.fallback.cert[0], "web"),
                    };
                    assert_eq!(shown, *certificate, "{name}");
                    assert!(text.ends_with(answer), "{name}: {text}");
                }
                let connections = site.backend.connections() - before;
                assert_eq!(connections, if passes { 2 } else { 0 }, "{name}");
            }
        }
        assert!(
            site.backend
                .announced
                .lock()
                .unwrap()
                .iter()
                .all(Option::is_none)
        );
    })
    .await;
}

#[tokio::test]
async fn ingress_a17_ssl_passthrough_of_a_hello_in_pieces_and_of_garbage() {
    on_worker(async {
        let site = Site::new(enabled()).await;
        for (name, wanted) in [(HOST, "nobody"), ("web.test", "web")] {
            let mut config = Client::new(None).config;
            // The smallest that there is.
            config.max_fragment_size = Some(32);
            let stream = TcpStream::connect(site.edge.https).await.unwrap();
            stream.set_nodelay(true).unwrap();
            let connector = TlsConnector::from(Arc::new(config));
            let server = ServerName::try_from(name).unwrap();
            let stream = Box::pin(connector.connect(server, Trickle(stream))).await;
            let mut stream = stream.unwrap();
            let request = format!("GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            stream.flush().await.unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).await.unwrap();
            assert!(text.ends_with(wanted), "{name}: {text}");
        }
        let (connections, hits) = (site.backend.connections(), site.web.hits());
        let good = hello(HOST, &[&TLS12, &TLS13]);
        // One message of 64 KiB in four records; its name comes last, if ever.
        let mut endless = vec![22, 3, 1, 0x40, 0, 1, 1, 0, 0];
        endless.resize(5 + 0x4000, 0);
        let more = [&[22, 3, 1, 0x40, 0][..], &[0; 0x4000]].concat();
        endless.extend(more.repeat(3));
        for (what, bytes) in [
            ("half a hello", good[..good.len() / 2].to_vec()),
            ("a record header", good[..5].to_vec()),
            ("zeroes", [&[22][..], &[0; 600]].concat()),
            ("ones", [&[22][..], &[255; 600]].concat()),
            ("a hello that is too long", endless),
            (
                "plain HTTP",
                b"GET / HTTP/1.1\r\nHost: pass.test\r\n\r\n".to_vec(),
            ),
        ] {
            let answer = answer(&site.edge, &bytes).await;
            let is_refused = answer.is_empty() || matches!(answer[0], 21 | b'H');
            assert!(is_refused, "{what}: {answer:?}");
        }
        assert_eq!(
            (site.backend.connections(), site.web.hits()),
            (connections, hits)
        );
        for (kibibytes, passes) in [(8, 1), (24, 0)] {
            let before = site.backend.connections();
            answer(&site.edge, &long_hello(HOST, kibibytes)).await;
            let connections = site.backend.connections() - before;
            assert_eq!(connections, passes, "a hello of {kibibytes} KiB");
        }
        let stream = TcpStream::connect(site.edge.https).await.unwrap();
        assert!(ask(site.over(stream, HOST).await).await.ends_with("known"));
    })
    .await;
}

#[tokio::test]
async fn ingress_a17_ssl_passthrough_waits_ten_seconds_for_a_hello() {
    on_worker(async {
        let site = Site::new(enabled()).await;
        let half = &hello(HOST, &[&TLS13])[..40];
        let mut stream = TcpStream::connect(site.edge.https).await.unwrap();
        stream.write_all(half).await.unwrap();
        // Once somebody who came later was served, the gateway has read it.
        let later = TcpStream::connect(site.edge.https).await.unwrap();
        ask(site.over(later, HOST).await).await;
        pass(Duration::from_secs(9)).await;
        let mut byte = [0];
        let silent = timeout(Duration::from_millis(200), stream.read(&mut byte)).await;
        assert!(silent.is_err(), "it may still come: {silent:?}");
        pass(Duration::from_secs(2)).await;
        let end = timeout(Duration::from_secs(20), stream.read(&mut byte)).await;
        assert!(matches!(end, Ok(Ok(0) | Err(_))), "{end:?}");
    })
    .await;
}

#[tokio::test]
async fn ingress_a17_ssl_passthrough_leaves_plain_http_to_the_rules_and_nothing_else() {
    on_worker(async {
        let mut site = Site::new(enabled()).await;
        // Over plain HTTP, rules hold; the backend is spoken to in TLS.
        let mut client = site.edge.client().await;
        let answer = client.get(HOST, "/").await;
        assert_eq!((answer.status, answer.text()), (200, "nobody"));
        let answer = site.edge.client().await.get(HOST, "/other").await;
        assert_eq!((answer.status, answer.text()), (200, "web"));
        // A connection that we end is for another host.
        let hits = site.web.hits();
        for (name, host, status) in [
            ("web.test", HOST, 421),
            ("web.test", "a.pass.test", 421),
            ("web.test", "web.test", 200),
        ] {
            let answer = Client::new(None).get(&site.edge, name, host).await;
            assert_eq!(answer.status, status, "{host}");
        }
        assert_eq!(site.web.hits(), hits + 1);
        let tls = json!([{"hosts": [HOST]}]);
        let backend = json!({"service": {"name": "pass", "port": {"number": 80}}});
        let path = json!({"pathType": "Prefix", "path": "/", "backend": backend});
        site.manifests.object(json!({
            "metadata": {"namespace": "default", "name": "pass",
                "annotations": {"nginx.ingress.kubernetes.io/ssl-passthrough": "true"}},
            "spec": {"ingressClassName": "nginx", "tls": tls,
                "rules": [{"host": HOST, "http": {"paths": [path]}}]},
        }));
        site.manifests.publish(&mut site.edge);
        let answer = site.edge.client().await.get(HOST, "/").await;
        assert_eq!(
            answer.status, 308,
            "with an entry of spec.tls it is redirected"
        );
        // Nobody is there: the connection is reset, and no certificate of ours is shown.
        site.manifests.service_with("pass", &[]);
        site.manifests
            .ingress("pass", &[ON], HOST, &[("Prefix", "/", "none")]);
        site.manifests.publish(&mut site.edge);
        assert!(
            Client::new(None)
                .connect(&site.edge, HOST, b"h2")
                .await
                .is_err()
        );
        // Without the annotation it is served as usual again.
        site.manifests
            .ingress("pass", &[], HOST, &[("Prefix", "/", "web")]);
        site.manifests.publish(&mut site.edge);
        let answer = Client::new(None).get(&site.edge, HOST, HOST).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
    })
    .await;
}

#[tokio::test]
async fn ingress_a17_ssl_passthrough_is_off_without_its_flag() {
    on_worker(async {
        let site = Site::new(GatewaySettings::default()).await;
        let stream = Client::new(None)
            .connect(&site.edge, HOST, b"http/1.1")
            .await;
        let stream = stream.unwrap();
        let shown = &stream.get_ref().1.peer_certificates().unwrap()[0];
        assert_eq!(*shown, site.edge.fallback.cert[0]);
        assert_eq!(site.backend.connections(), 0);
    })
    .await;
}

#[tokio::test]
async fn ingress_t7_a_connection_that_is_passed_through_can_end_by_halves_and_does_not_idle_forever()
 {
    on_worker(async {
        let site = Site::new(enabled()).await;
        let stream = TcpStream::connect(site.edge.https).await.unwrap();
        let mut late = site.over(stream, HOST).await;
        let request = b"GET /late HTTP/1.1\r\nHost: pass.test\r\n\r\n";
        late.write_all(request).await.unwrap();
        late.shutdown().await.unwrap();
        let mut text = String::new();
        late.read_to_string(&mut text).await.unwrap();
        assert!(text.ends_with("somebody known"), "{text}");
        // With TLS 1.2 nothing is under way any more once the handshake is done.
        let idle = Client::of_versions(None, &[&TLS12]);
        let idle = idle.connect(&site.edge, HOST, b"http/1.1").await;
        let mut idle = idle.unwrap();
        pass(Duration::from_secs(3_000)).await;
        let mut byte = [0];
        let silent = timeout(Duration::from_millis(200), idle.read(&mut byte)).await;
        assert!(silent.is_err(), "nothing has ended: {silent:?}");
        pass(Duration::from_secs(700)).await;
        let end = timeout(Duration::from_secs(60), idle.read(&mut byte)).await;
        assert!(
            end.is_ok_and(|read| read.is_err()),
            "an hour is over: it is reset"
        );
    })
    .await;
}

#[tokio::test]
async fn ingress_t7_backends_that_want_it_are_told_who_the_client_is() {
    on_worker(async {
        let settings = GatewaySettings {
            proxy_protocol: ProxyProtocol {
                http: false,
                https: true,
            },
            proxies: trusting().proxies,
            ..enabled()
        };
        let mut site = Site::new(settings).await;
        let https = site.edge.https;
        let v6 = "PROXY TCP6 2001:db8::7 2001:db8::1 12345 8443\r\n";
        let mut connections = 0;
        for wants in [false, true] {
            let annotations = match wants {
                true => json!({"sealane.dev/send-proxy-protocol": "on"}),
                false => json!({}),
            };
            site.manifests.annotated_service("pass", annotations);
            site.manifests.publish(&mut site.edge);
            for (source, begin, told) in [
                (
                    TRUSTED,
                    "PROXY TCP4 192.0.2.7 198.51.100.1 12345 443\r\n",
                    Some(("192.0.2.7:12345", "198.51.100.1:443")),
                ),
                (
                    TRUSTED,
                    v6,
                    Some(("[2001:db8::7]:12345", "[2001:db8::1]:8443")),
                ),
                (TRUSTED, "PROXY UNKNOWN\r\n", None),
                (STRANGER, "", None),
            ] {
                let mut stream = RawClient::connect_from(source, https).await.into_stream();
                let own = stream.local_addr().unwrap();
                stream.write_all(begin.as_bytes()).await.unwrap();
                let answer = ask(site.over(stream, HOST).await).await;
                assert!(answer.ends_with("somebody known"), "{begin:?}: {answer}");
                let told = told.map_or((own, https), |(client, to)| {
                    (client.parse().unwrap(), to.parse().unwrap())
                });
                let seen = site.backend.announced.lock().unwrap();
                connections += 1;
                assert_eq!(seen.len(), connections);
                assert_eq!(seen.last(), Some(&wants.then_some(told)), "{begin:?}");
            }
        }
    })
    .await;
}
