//! DNS over TLS and over HTTPS, with a certificate made for the test.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::spawn_local;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::config::UpstreamTls;

/// An authority in a file, and a server's certificate for `dns.test`.
struct Certificates {
    dir: PathBuf,
    server: Arc<rustls::ServerConfig>,
}

impl Certificates {
    fn new(name: &str, alpn: &[u8]) -> Self {
        let dir = std::env::temp_dir().join(format!("sealane-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let made = rcgen::generate_simple_self_signed(["dns.test".to_owned()]).unwrap();
        std::fs::write(dir.join("ca.pem"), made.cert.pem()).unwrap();
        let key = rustls_pki_types::PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut server = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key.into())
            .unwrap();
        server.alpn_protocols = vec![alpn.to_vec()];
        Self {
            dir,
            server: Arc::new(server),
        }
    }

    fn trusted(&self, server_name: Option<&str>) -> UpstreamTls {
        UpstreamTls {
            identity: None,
            ca: Some(self.dir.join("ca.pem")),
            server_name: server_name.map(str::to_owned),
        }
    }
}

impl Drop for Certificates {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// A server that answers with 10.1.2.3, and the number of its connections.
async fn over_tls(server: &Certificates) -> (SocketAddr, Rc<Cell<usize>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let acceptor = TlsAcceptor::from(Arc::clone(&server.server));
    let connections = Rc::new(Cell::new(0));
    let count = Rc::clone(&connections);
    spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, count) = (acceptor.clone(), Rc::clone(&count));
            spawn_local(async move {
                // A client that does not trust us is gone.
                let Ok(mut stream) = acceptor.accept(stream).await else {
                    return;
                };
                count.set(count.get() + 1);
                while let Ok(length) = stream.read_u16().await {
                    let mut query = vec![0; length.into()];
                    stream.read_exact(&mut query).await.unwrap();
                    let query = Message::from_vec(&query).unwrap();
                    let reply = address(&query, 3).to_vec().unwrap();
                    stream.write_u16(reply.len() as u16).await.unwrap();
                    stream.write_all(&reply).await.unwrap();
                    stream.flush().await.unwrap();
                }
            });
        }
    });
    (addr, connections)
}

async fn https_answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, hyper::Error> {
    assert_eq!(request.method(), "POST");
    assert_eq!(request.uri().path(), "/dns-query");
    assert_eq!(request.headers()["content-type"], "application/dns-message");
    let query = request.into_body().collect().await?.to_bytes();
    let query = Message::from_vec(&query).unwrap();
    assert_eq!(query.metadata.id, 0);
    let name = query.queries[0].name.to_string();
    let mut response = Response::new(Full::from(address(&query, 3).to_vec().unwrap()));
    let media_type = match name.as_str() {
        "page.test." => "text/html",
        _ => "application/dns-message",
    };
    let headers = response.headers_mut();
    headers.insert("content-type", media_type.parse().unwrap());
    Ok(response)
}

/// A server over HTTP/2 that ends connections after so many requests.
async fn over_https(server: &Certificates) -> (SocketAddr, Rc<Cell<usize>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let acceptor = TlsAcceptor::from(Arc::clone(&server.server));
    let connections = Rc::new(Cell::new(0));
    let count = Rc::clone(&connections);
    spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            count.set(count.get() + 1);
            let stream = acceptor.accept(stream).await.unwrap();
            tokio::spawn(async move {
                let executor = hyper_util::rt::TokioExecutor::new();
                let builder = hyper::server::conn::http2::Builder::new(executor);
                let service = service_fn(https_answer);
                let _ = builder
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    (addr, connections)
}

fn encrypted(upstream: To, tls: UpstreamTls) -> Tested {
    Tested::new(ForwardSettings {
        tls,
        ..ForwardSettings::to(vec![upstream])
    })
}

#[tokio::test]
async fn dns_forward_tls_upstreams_share_a_connection() {
    local(async {
        let server = Certificates::new("dot", b"dot");
        let (addr, connections) = over_tls(&server).await;
        for (name, upstream, tls, trusted) in [
            ("tls_servername", To::Tls(addr, None), server.trusted(Some("dns.test")), true),
            ("ip%name", To::Tls(addr, Some("dns.test".into())), server.trusted(None), true),
            ("its own name first", To::Tls(addr, Some("dns.test".into())), server.trusted(Some("x.test")), true),
            ("by address", To::Tls(addr, None), server.trusted(None), false),
            ("wrong name", To::Tls(addr, Some("x.test".into())), server.trusted(None), false),
        ] {
            let tested = encrypted(upstream, tls);
            connections.set(0);
            let names: Vec<String> = (0..10).map(|n| format!("n{n}.test")).collect();
            let answers = names.iter().map(|name| tested.ask(name));
            for answer in futures_util::future::join_all(answers).await {
                match trusted {
                    true => assert_eq!(answer.unwrap().answers.len(), 1, "{name}"),
                    false => assert_eq!(answer, Err(ForwardError::Network), "{name}"),
                }
            }
            assert!(connections.get() <= 1, "{name}");
            if trusted {
                let misses = format!("coredns_proxy_conn_cache_misses_total{{proxy_name=\"forward\",to=\"{addr}\",proto=\"tcp-tls\"}}");
                assert_eq!(tested.metric(&misses), 10.0, "all came before it was open");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn dns_forward_https_upstreams_are_asked_by_post() {
    local(async {
        let server = Certificates::new("doh", b"h2");
        let (addr, connections) = over_https(&server).await;
        let url = format!("https://dns.test:{}/dns-query", addr.port());
        let tested = encrypted(To::Https(addr, url), server.trusted(None));
        assert_eq!(shown(&tested.ask("web.test").await.unwrap()), WEB);
        let names: Vec<String> = (0..50).map(|n| format!("n{n}.test")).collect();
        let answers = names.iter().map(|name| tested.ask(name));
        for answer in futures_util::future::join_all(answers).await {
            assert_eq!(answer.unwrap().answers.len(), 1);
        }
        assert_eq!(connections.get(), 1);
        let page = tested.ask("page.test").await;
        assert_eq!(page, Err(ForwardError::BadReply));
    })
    .await;
}

#[tokio::test]
async fn dns_forward_https_connections_that_expired_are_replaced() {
    local(async {
        let server = Certificates::new("doh-expire", b"h2");
        let (addr, connections) = over_https(&server).await;
        let url = format!("https://dns.test:{}/dns-query", addr.port());
        let short = Duration::from_millis(100);
        let tested = Tested::new(ForwardSettings {
            tls: server.trusted(None),
            expire: short,
            read_timeout: short * 5,
            ..ForwardSettings::to(vec![To::Https(addr, url)])
        });
        tested.ask("web.test").await.unwrap();
        tokio::time::sleep(short * 2).await;
        tested.ask("web.test").await.unwrap();
        assert_eq!(connections.get(), 1, "a try may take longer than that");
        tokio::time::sleep(short * 8).await;
        tested.ask("web.test").await.unwrap();
        assert_eq!(connections.get(), 2);
    })
    .await;
}

#[test]
fn dns_forward_bad_tls_settings_are_refused() {
    let addr = "127.0.0.1:853".parse().unwrap();
    let server = Certificates::new("tls-settings", b"dot");
    let none = server.dir.join("none.pem");
    std::fs::write(&none, "nothing here\n").unwrap();
    let with_ca = |ca: &Path| UpstreamTls {
        ca: Some(ca.to_owned()),
        ..UpstreamTls::default()
    };
    let good = server.trusted(None);
    for (upstream, tls, expected) in [
        (
            To::Tls(addr, None),
            with_ca(Path::new("/nowhere/ca.pem")),
            "TLS towards upstreams",
        ),
        (To::Tls(addr, None), with_ca(&none), "TLS towards upstreams"),
        (
            To::Tls(addr, Some("a b".into())),
            good.clone(),
            "\"a b\" is not a name that a certificate can have",
        ),
        (
            To::Https(addr, "http://dns.test/".into()),
            good.clone(),
            "\"http://dns.test/\" is not an https URL",
        ),
        (
            To::Https(addr, "/dns-query".into()),
            good,
            "\"/dns-query\" is not an https URL",
        ),
    ] {
        let settings = Arc::new(ForwardSettings {
            tls,
            ..ForwardSettings::to(vec![upstream])
        });
        let error = ForwardPlan::load(settings, &[], Metrics::default()).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
}
