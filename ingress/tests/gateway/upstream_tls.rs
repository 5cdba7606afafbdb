//! TLS to backends: whom the gateway believes, and what it shows.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use rcgen::{CertificateParams, SanType};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ProtocolVersion, RootCertStore, ServerConfig};
use sealane_proxy::testing::{Origin, RawClient};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::certificates::{Authority, Identity, expired};
use crate::manifests::Manifests;
use crate::support::{Edge, on_worker};

const HOST: &str = "shop.test";
const SECRET: (&str, &str) = ("proxy-ssl-secret", "default/upstream");
const VERIFY: (&str, &str) = ("proxy-ssl-verify", "on");
const HTTPS: (&str, &str) = ("backend-protocol", "HTTPS");

/// What a backend saw of a connection: the name that it was asked for, whether a certificate was
/// shown, the version.
pub(crate) type Session = (Option<String>, bool, ProtocolVersion);

/// What ends TLS in front of an ordinary origin.
pub(crate) struct Backend {
    pub(crate) addr: SocketAddr,
    pub(crate) sessions: Arc<Mutex<Vec<Session>>>,
    task: JoinHandle<()>,
}

impl Backend {
    /// Shows `identity`, and asks for certificates that `clients` vouches for.
    pub(crate) async fn new(origin: SocketAddr, identity: &Identity, clients: &Authority) -> Self {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        let root = CertificateDer::from_pem_slice(clients.pem.as_bytes()).unwrap();
        roots.add(root).unwrap();
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                .allow_unauthenticated()
                .build()
                .unwrap();
        let chain = CertificateDer::pem_slice_iter(identity.pem.as_bytes());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(
                chain.collect::<Result<_, _>>().unwrap(),
                PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap(),
            )
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let sessions = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&sessions);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, seen) = (acceptor.clone(), Arc::clone(&seen));
                tokio::spawn(async move {
                    // A gateway that does not believe us ends it here.
                    let Ok(mut secure) = acceptor.accept(stream).await else {
                        return;
                    };
                    let session = secure.get_ref().1;
                    let shown = session.peer_certificates().is_some();
                    let name = session.server_name().map(str::to_owned);
                    let version = session.protocol_version().unwrap();
                    seen.lock().unwrap().push((name, shown, version));
                    let mut plain = TcpStream::connect(origin).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut secure, &mut plain).await;
                });
            }
        });
        Self {
            addr,
            sessions,
            task,
        }
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A gateway in front of one TLS backend.
struct Site {
    edge: Edge,
    manifests: Manifests,
    backend: Backend,
    _origin: Origin,
}

impl Site {
    async fn new(identity: &Identity, clients: &Authority) -> Self {
        let (edge, origin) = (Edge::new().await, Origin::named("web").await);
        let backend = Backend::new(origin.addr, identity, clients).await;
        let mut manifests = Manifests::new();
        manifests.service("web", backend.addr);
        Self {
            edge,
            manifests,
            backend,
            _origin: origin,
        }
    }

    async fn get(&mut self, annotations: &[(&str, &str)], data: &[(&str, &str)]) -> u16 {
        let all = [("Prefix", "/", "web")];
        self.manifests.ingress("shop", annotations, HOST, &all);
        self.manifests.secret("upstream", Some(data));
        self.manifests.publish(&mut self.edge);
        let mut client = RawClient::connect(self.edge.http).await;
        client.get(HOST, "/").await.status
    }

    fn sessions(&self) -> Vec<Session> {
        self.backend.sessions.lock().unwrap().clone()
    }
}

pub(crate) fn named(name: &str) -> impl FnOnce(&mut CertificateParams) {
    let name = SanType::DnsName(name.try_into().unwrap());
    move |params| params.subject_alt_names = vec![name]
}

#[tokio::test]
async fn ingress_a17_a_backend_is_verified_or_not_spoken_to() {
    on_worker(async {
        let (ours, other) = (Authority::new("Ours"), Authority::new("Other"));
        let (second, third) = (ours.below("Second"), ours.below("Second").below("Third"));
        let good = ours.vouch_as("pod", named("web.default.svc"));
        let old = ours.vouch_as("pod", |params| {
            named("web.default.svc")(params);
            expired(params);
        });
        let (deep, deeper) = (
            second.vouch_as("pod", named("web.default.svc")),
            third.vouch_as("pod", named("web.default.svc")),
        );
        let alias = ours.vouch_as("pod", named("alias.test"));
        let name = ("proxy-ssl-name", "alias.test");
        let depth = |depth| ("proxy-ssl-verify-depth", depth);
        let (trust, distrust) = ([("ca.crt", &*ours.pem)], [("ca.crt", &*other.pem)]);
        for (what, identity, annotations, data, status) in [
            ("not verified", &alias, &[HTTPS][..], &trust, 200),
            ("verified", &good, &[HTTPS, SECRET, VERIFY], &trust, 200),
            (
                "another authority",
                &good,
                &[HTTPS, SECRET, VERIFY],
                &distrust,
                502,
            ),
            ("expired", &old, &[HTTPS, SECRET, VERIFY], &trust, 502),
            ("one between", &deep, &[HTTPS, SECRET, VERIFY], &trust, 200),
            (
                "too deep",
                &deep,
                &[HTTPS, SECRET, VERIFY, depth("0")],
                &trust,
                502,
            ),
            (
                "far too deep",
                &deeper,
                &[HTTPS, SECRET, VERIFY],
                &trust,
                502,
            ),
            (
                "another name",
                &alias,
                &[HTTPS, SECRET, VERIFY],
                &trust,
                502,
            ),
            (
                "that name",
                &alias,
                &[HTTPS, SECRET, VERIFY, name],
                &trust,
                200,
            ),
            ("verified by nobody", &good, &[HTTPS, VERIFY], &trust, 503),
            (
                "bad switch",
                &good,
                &[HTTPS, SECRET, ("proxy-ssl-verify", "yes")],
                &trust,
                503,
            ),
            (
                "garbage",
                &good,
                &[HTTPS, SECRET, VERIFY],
                &[("ca.crt", "x")],
                503,
            ),
            (
                "no authority",
                &good,
                &[HTTPS, SECRET, VERIFY],
                &[("ca.crt", "")],
                503,
            ),
            (
                "no key",
                &good,
                &[HTTPS, SECRET],
                &[("tls.crt", &*good.pem)],
                503,
            ),
            (
                "a Secret that is not there",
                &good,
                &[HTTPS, ("proxy-ssl-secret", "default/none"), VERIFY],
                &trust,
                503,
            ),
            (
                "a Secret of somebody else",
                &good,
                &[HTTPS, ("proxy-ssl-secret", "other/upstream"), VERIFY],
                &trust,
                503,
            ),
        ] {
            let mut site = Site::new(identity, &ours).await;
            assert_eq!(site.get(annotations, data).await, status, "{what}");
            assert_eq!(site.sessions().is_empty(), status != 200, "{what}");
        }
    })
    .await;
}

#[tokio::test]
async fn ingress_a17_a_backend_gets_the_certificate_name_and_version_that_are_asked_for() {
    on_worker(async {
        let ours = Authority::new("Ours");
        let server = ours.vouch_as("pod", named("web.default.svc"));
        let client = ours.vouch("gateway");
        let shown = [("tls.crt", &*client.pem), ("tls.key", &*client.key)];
        let (v12, v13) = (ProtocolVersion::TLSv1_2, ProtocolVersion::TLSv1_3);
        let sends = ("proxy-ssl-server-name", "on");
        let versions = |versions| ("proxy-ssl-protocols", versions);
        for (annotations, want) in [
            (&[HTTPS][..], (None, false, v13)),
            (&[HTTPS, SECRET], (None, true, v13)),
            (
                &[HTTPS, sends],
                (Some("web.default.svc".to_owned()), false, v13),
            ),
            (
                &[HTTPS, SECRET, sends, ("proxy-ssl-name", "alias.test")],
                (Some("alias.test".to_owned()), true, v13),
            ),
            (&[HTTPS, SECRET, versions("TLSv1.2")], (None, true, v12)),
            (
                &[HTTPS, SECRET, versions("TLSv1.1 TLSv1.3")],
                (None, true, v13),
            ),
        ] {
            let mut site = Site::new(&server, &ours).await;
            assert_eq!(site.get(annotations, &shown).await, 200, "{annotations:?}");
            assert_eq!(site.sessions(), [want], "{annotations:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn ingress_a17_connections_are_not_shared_between_policies() {
    on_worker(async {
        let (ours, other) = (Authority::new("Ours"), Authority::new("Other"));
        let server = ours.vouch_as("pod", named("web.default.svc"));
        let trust = [("ca.crt", &*ours.pem)];
        let mut site = Site::new(&server, &ours).await;
        for (annotations, data, status, connections) in [
            (&[HTTPS][..], &trust, 200, 1),
            (&[HTTPS], &trust, 200, 1),
            // A connection that was not verified is none for who verifies.
            (&[HTTPS, SECRET, VERIFY], &[("ca.crt", &*other.pem)], 502, 1),
            (&[HTTPS, SECRET, VERIFY], &trust, 200, 2),
            // Nor is one that another authority vouched for.
            (&[HTTPS, SECRET, VERIFY], &[("ca.crt", &*other.pem)], 502, 2),
            (&[HTTPS], &trust, 200, 2),
        ] {
            let got = site.get(annotations, data).await;
            assert_eq!((got, site.sessions().len()), (status, connections));
        }
    })
    .await;
}
