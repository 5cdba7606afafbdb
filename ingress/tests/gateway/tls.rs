//! HTTPS: certificates, protocols, and clients that speak something else.

use std::io;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, DigitallySignedStruct, HandshakeKind, SignatureScheme};
use sealane_config::model::{BackendProtocol, Certificate, ObjectRef};
use sealane_proxy::testing::{Origin, RawClient};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use x509_parser::extensions::GeneralName;

use crate::certificates;
use crate::support::{Edge, on_worker, prefix};

/// Accepts and remembers every certificate.
#[derive(Debug, Default)]
struct Remember(Mutex<Vec<CertificateDer<'static>>>);

impl ServerCertVerifier for Remember {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.0.lock().unwrap().push(end_entity.clone().into_owned());
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        aws_lc_rs::default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// A client that takes any certificate.
pub(crate) struct Client {
    connector: TlsConnector,
    seen: Arc<Remember>,
}

impl Client {
    pub(crate) fn new(alpn: &[&str]) -> Self {
        let seen = Arc::new(Remember::default());
        let verifier: Arc<dyn ServerCertVerifier> = seen.clone();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
        Self {
            connector: TlsConnector::from(Arc::new(config)),
            seen,
        }
    }

    pub(crate) async fn connect(&self, edge: &Edge, name: &str) -> Box<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(edge.https).await.unwrap();
        self.over(stream, name).await.unwrap()
    }

    /// A session on a connection.
    pub(crate) async fn over(
        &self,
        stream: TcpStream,
        name: &str,
    ) -> io::Result<Box<TlsStream<TcpStream>>> {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let connecting = Box::pin(self.connector.connect(name, stream));
        connecting.await.map(Box::new)
    }

    /// The certificate that this name gets.
    pub(crate) async fn certificate(&self, edge: &Edge, name: &str) -> CertificateDer<'static> {
        self.connect(edge, name).await;
        self.seen.0.lock().unwrap().pop().unwrap()
    }
}

pub(crate) fn certificate(name: &str) -> Arc<Certificate> {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let key = aws_lc_rs::sign::any_supported_type(&key).unwrap();
    Arc::new(Certificate {
        source: ObjectRef {
            kind: "Secret",
            namespace: Arc::from("default"),
            name: Arc::from(name),
        },
        key: Arc::new(CertifiedKey::new(vec![made.cert.der().clone()], key)),
        not_after: i64::MAX,
    })
}

pub(crate) fn der(certificate: &CertifiedKey) -> &CertificateDer<'static> {
    &certificate.cert[0]
}

#[tokio::test]
async fn ingress_i17_the_certificate_follows_the_name() {
    on_worker(async {
        let mut edge = Edge::new().await;
        let client = Client::new(&[]);
        let fallback = der(&edge.fallback).clone();
        assert_eq!(
            client.certificate(&edge, "a.test").await,
            fallback,
            "none configured"
        );
        let (exact, wild, default) = (
            certificate("a.foo.test"),
            certificate("*.foo.test"),
            certificate("default.test"),
        );
        let table = &mut edge.world.snapshot.certificates;
        table
            .exact
            .insert_mut(Arc::from("a.foo.test"), Arc::clone(&exact));
        table
            .wildcard
            .insert_mut(Arc::from("foo.test"), Arc::clone(&wild));
        edge.world.publish();
        for (name, expected) in [
            ("a.foo.test", der(&exact.key)),
            ("A.Foo.test", der(&exact.key)),
            ("b.foo.test", der(&wild.key)),
            ("c.b.foo.test", &fallback),
            ("foo.test", &fallback),
            ("127.0.0.1", &fallback),
        ] {
            assert_eq!(client.certificate(&edge, name).await, *expected, "{name}");
        }
        edge.world.snapshot.certificates.default = Some(Arc::clone(&default));
        edge.world.publish();
        assert_eq!(
            client.certificate(&edge, "foo.test").await,
            *der(&default.key)
        );
    })
    .await;
}

#[tokio::test]
async fn ingress_i19_the_self_signed_certificate_has_a_dns_name() {
    on_worker(async {
        let edge = Edge::new().await;
        let (_, parsed) = x509_parser::parse_x509_certificate(der(&edge.fallback)).unwrap();
        let names = parsed.subject_alternative_name().unwrap().unwrap();
        let names = &names.value.general_names;
        let is_dns = |name: &GeneralName<'_>| matches!(name, GeneralName::DNSName(_));
        assert!(names.iter().any(is_dns), "{names:?}");
    })
    .await;
}

#[tokio::test]
async fn ingress_i20_a_rotated_certificate_serves_the_next_handshake() {
    on_worker(async {
        let web = Origin::named("web").await;
        let mut edge = Edge::new().await;
        edge.service("web", &[web.addr]);
        edge.host("", true, vec![prefix("/", "web")]);
        // A client without tickets: a resumed session shows no certificate.
        for _ in 0..3 {
            let new = certificate("a.test");
            let table = &mut edge.world.snapshot.certificates;
            table
                .exact
                .insert_mut(Arc::from("a.test"), Arc::clone(&new));
            edge.world.publish();
            let client = Client::new(&[]);
            assert_eq!(client.certificate(&edge, "a.test").await, *der(&new.key));
        }
    })
    .await;
}

#[tokio::test]
async fn ingress_t6_http2_and_http1_are_negotiated_and_sessions_resumed() {
    on_worker(async {
        let web = Origin::named("web").await;
        let mut edge = Edge::new().await;
        edge.service("web", &[web.addr]);
        edge.host("a.test", true, vec![prefix("/", "web")]);
        let old = Client::new(&["http/1.1"]);
        for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
            let mut stream = old.connect(&edge, "a.test").await;
            let request = b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";
            stream.write_all(request).await.unwrap();
            let mut response = String::new();
            stream.read_to_string(&mut response).await.unwrap();
            assert!(response.ends_with("web"), "{response}");
            let kind_seen = stream.get_ref().1.handshake_kind().unwrap();
            let both_full = [kind, kind_seen].iter().all(|k| {
                matches!(
                    k,
                    HandshakeKind::Full | HandshakeKind::FullWithHelloRetryRequest
                )
            });
            assert!(both_full || kind == kind_seen, "{kind:?} {kind_seen:?}");
        }
        let new = Client::new(&["h2", "http/1.1"]);
        let stream = new.connect(&edge, "a.test").await;
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let executor = hyper_util::rt::TokioExecutor::new();
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(executor, TokioIo::new(stream))
                .await
                .unwrap();
        let connection = tokio::spawn(connection);
        let request = Request::get("https://a.test/x")
            .body(Empty::<Bytes>::new())
            .unwrap();
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(
            response.into_body().collect().await.unwrap().to_bytes(),
            "web"
        );
        assert_eq!(web.seen()[2].header("x-forwarded-proto"), "https");
        // Draining ends an HTTP/2 connection with GOAWAY.
        edge.shutdown.cancel();
        connection.await.unwrap().unwrap();
    })
    .await;
}

#[tokio::test]
async fn ingress_t6_plain_http_on_the_tls_port_is_a_400() {
    on_worker(async {
        let edge = Edge::new().await;
        let mut client = RawClient::connect(edge.https).await;
        let response = client.get("a.test", "/").await;
        assert_eq!(
            (response.status, response.header("sealane-error")),
            (400, "tls_required")
        );
        assert!(client.closed().await.is_empty());
    })
    .await;
}

#[tokio::test]
async fn ingress_a5_a_backend_that_speaks_tls_is_spoken_to_in_tls() {
    on_worker(async {
        // In front of an ordinary origin, what ends TLS; its certificate is nobody's.
        let web = Origin::named("web").await;
        let key = Arc::clone(&certificate("pod.test").key);
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tls_addr = listener.local_addr().unwrap();
        let plain_addr = web.addr;
        let relay = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let mut secure = acceptor.accept(stream).await.unwrap();
                    let mut plain = TcpStream::connect(plain_addr).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut secure, &mut plain).await;
                });
            }
        });
        let mut edge = Edge::new().await;
        edge.service("web", &[tls_addr]);
        let mut client = edge.client().await;
        for (protocol, version) in [
            (BackendProtocol::Https, http::Version::HTTP_11),
            (BackendProtocol::Grpcs, http::Version::HTTP_2),
        ] {
            let mut rule = prefix("/", "web");
            rule.filters.backend_protocol = protocol;
            edge.host("", false, vec![rule]);
            assert_eq!(
                client.get("a.test", "/").await.text(),
                "web",
                "{protocol:?}"
            );
            assert_eq!(web.seen().last().unwrap().version, version);
        }
        // As the client came.
        let mut rule = prefix("/", "web");
        rule.filters.backend_protocol = BackendProtocol::Auto;
        edge.host("", false, vec![rule]);
        for (endpoint, over_http, over_https) in [(plain_addr, 200, 502), (tls_addr, 502, 200)] {
            edge.service("web", &[endpoint]);
            let mut client = edge.client().await;
            assert_eq!(client.get("a.test", "/").await.status, over_http);
            let client = certificates::Client::new(None);
            let answer = client.get(&edge, "a.test", "a.test").await;
            assert_eq!(answer.status, over_https);
        }
        relay.abort();
    })
    .await;
}

#[tokio::test]
async fn reliability_b9_http2_does_not_reuse_a_connection_across_certificates() {
    on_worker(async {
        let web = Origin::named("web").await;
        let mut edge = Edge::new().await;
        edge.service("web", &[web.addr]);
        edge.host("", true, vec![prefix("/", "web")]);
        let shared = certificate("a.test");
        let table = &mut edge.world.snapshot.certificates;
        for (name, certificate) in [
            ("a.test", Arc::clone(&shared)),
            ("b.test", shared),
            ("c.test", certificate("c.test")),
        ] {
            table.exact.insert_mut(Arc::from(name), certificate);
        }
        edge.world.publish();
        let client = certificates::Client::new(None);
        for (name, hosts, statuses) in [
            (
                "a.test",
                &["a.test", "b.test", "c.test", "none.test"][..],
                &[200, 200, 421, 200][..],
            ),
            ("c.test", &["c.test", "a.test"], &[200, 421]),
            ("none.test", &["a.test"], &[200]),
        ] {
            let answers = client.get_http2(&edge, name, hosts).await;
            let got: Vec<u16> = answers
                .iter()
                .map(|answer| answer.status().as_u16())
                .collect();
            assert_eq!(got, statuses, "{name}");
        }
        // Over HTTP/1.1 clients do not do that by themselves; SNI picks the certificate, Host the route.
        assert_eq!(client.get(&edge, "a.test", "c.test").await.status, 200);
    })
    .await;
}
