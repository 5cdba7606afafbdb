//! A server on listeners of every kind, with a certificate that its clients trust.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;
use hickory_proto::op::{Message, Query};
use hickory_proto::rr::{Name as TheirName, RecordType};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ClientConfig, RootCertStore};
use sealane_config::snapshot;
use sealane_config::sockets::HostSockets;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::task::{JoinHandle, LocalSet, spawn_local};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::config::{DnsConfig, Listener, Scheme, ServerKey, ServerTls};
use crate::limit::ConnectionLimits;
use crate::settings::DnsSettings;
use crate::testing::World;
use crate::tls::TlsIdentity;
use crate::{DnsServer, Name, bind_udp};

/// How long a test waits for what has to come.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);

/// A name that the server answers with one address.
pub(crate) const NAME: &str = "svc1.testns.svc.cluster.local.";

pub(crate) fn local<'a, F: Future + 'a>(test: F) -> LocalBoxFuture<'a, F::Output> {
    async { LocalSet::new().run_until(test).await }.boxed_local()
}

/// A certificate for `localhost` and its key, in files that can be replaced.
pub(crate) struct Certificate {
    dir: TempDir,
    pub(crate) der: CertificateDer<'static>,
    key: Vec<u8>,
}

impl Certificate {
    pub(crate) fn new() -> Self {
        let mut certificate = Self {
            dir: tempfile::tempdir().unwrap(),
            der: Vec::new().into(),
            key: Vec::new(),
        };
        certificate.replace();
        certificate
    }

    /// Writes another one.
    pub(crate) fn replace(&mut self) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let write = |file: &str, text: String| std::fs::write(self.path(file), text).unwrap();
        write("tls.crt", made.cert.pem());
        write("tls.key", made.signing_key.serialize_pem());
        self.key = made.signing_key.serialize_der();
        self.der = made.cert.der().clone();
    }

    pub(crate) fn path(&self, file: &str) -> std::path::PathBuf {
        self.dir.path().join(file)
    }

    pub(crate) fn files(&self) -> ServerTls {
        ServerTls {
            certificate: self.path("tls.crt"),
            key: self.path("tls.key"),
            client_ca: None,
        }
    }

    /// Settings of a client that trusts this certificate only.
    pub(crate) fn client(&self, protocol: &str) -> ClientConfig {
        let (builder, _) = self.builder(rustls::ALL_VERSIONS);
        with_protocol(builder.with_no_client_auth(), protocol)
    }

    /// The same for one version of TLS.
    pub(crate) fn client_of_version(
        &self,
        version: &'static rustls::SupportedProtocolVersion,
    ) -> ClientConfig {
        let (builder, _) = self.builder(&[version]);
        with_protocol(builder.with_no_client_auth(), "dot")
    }

    /// The same with a certificate of its own, this very one.
    pub(crate) fn client_with_certificate(&self, protocol: &str) -> ClientConfig {
        let (builder, key) = self.builder(rustls::ALL_VERSIONS);
        let chain = vec![self.der.clone()];
        with_protocol(builder.with_client_auth_cert(chain, key).unwrap(), protocol)
    }

    fn builder(
        &self,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> (
        rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>,
        PrivateKeyDer<'static>,
    ) {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        let key = PrivatePkcs8KeyDer::from(self.key.clone()).into();
        (builder, key)
    }
}

fn with_protocol(mut config: ClientConfig, protocol: &str) -> ClientConfig {
    if !protocol.is_empty() {
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    }
    config
}

/// A server on all kinds of listeners.
pub(crate) struct Secure {
    pub(crate) tcp: SocketAddr,
    pub(crate) tls: SocketAddr,
    pub(crate) https: SocketAddr,
    pub(crate) quic: SocketAddr,
    pub(crate) identity: TlsIdentity,
    pub(crate) limits: ConnectionLimits,
    shutdown: CancellationToken,
    tasks: Vec<JoinHandle<io::Result<()>>>,
}

impl Secure {
    /// Starts it; all names but the cluster's are asked at `upstream`.
    pub(crate) fn start(
        files: ServerTls,
        upstream: Option<SocketAddr>,
        limits: ConnectionLimits,
    ) -> Self {
        let world = World::new().cluster_ip("svc1", &["10.0.0.1"], &["http/tcp/80"]);
        let (mut publisher, reader) = snapshot::channel();
        publisher.publish(world.build());
        let config = DnsConfig::cluster(DnsSettings::default(), upstream.into_iter().collect());
        let mut block = (*config.blocks[0]).clone();
        for scheme in [Scheme::Tls, Scheme::Https, Scheme::Quic] {
            block.keys.push(ServerKey {
                scheme,
                zone: Name::root(),
                port: scheme.port(),
            });
        }
        let config = DnsConfig {
            blocks: vec![Arc::new(block)],
            ..config
        };
        let server = DnsServer::new(reader, HostSockets::here(), &config);
        let identity = TlsIdentity::load(files).unwrap();
        let shutdown = CancellationToken::new();
        let listeners = [(); 3].map(|()| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
        let socket = bind_udp("127.0.0.1:0".parse().unwrap()).unwrap();
        let [tcp, tls, https] = [0, 1, 2].map(|at| listeners[at].local_addr().unwrap());
        let quic = socket.local_addr().unwrap();
        let [by_tcp, by_tls, by_https] = listeners;
        let listener = |scheme: Scheme| Listener {
            scheme,
            port: scheme.port(),
            addr: None,
        };
        let common = || (server.clone(), limits.clone(), shutdown.clone());
        let mut tasks = Vec::new();
        let (server_, limits_, end) = common();
        tasks.push(spawn_local(async move {
            let at = listener(Scheme::Dns);
            server_.serve_tcp(at, by_tcp, limits_, end).await
        }));
        let ((server_, limits_, end), id) = (common(), identity.clone());
        tasks.push(spawn_local(async move {
            let at = listener(Scheme::Tls);
            server_.serve_tls(at, by_tls, id, limits_, end).await
        }));
        let ((server_, limits_, end), id) = (common(), identity.clone());
        tasks.push(spawn_local(async move {
            let at = listener(Scheme::Https);
            server_.serve_https(at, by_https, id, limits_, end).await
        }));
        let ((server_, limits_, end), id) = (common(), identity.clone());
        tasks.push(spawn_local(async move {
            let at = listener(Scheme::Quic);
            server_.serve_quic(at, socket, id, limits_, end).await
        }));
        Self {
            tcp,
            tls,
            https,
            quic,
            identity,
            limits,
            shutdown,
            tasks,
        }
    }

    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        for task in self.tasks {
            timeout(DEADLINE, task).await.unwrap().unwrap().unwrap();
        }
    }
}

/// A TLS session.
pub(crate) async fn connect(
    addr: SocketAddr,
    config: ClientConfig,
) -> io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(addr).await?;
    let name = "localhost".try_into().unwrap();
    let connected = TlsConnector::from(Arc::new(config)).connect(name, stream);
    timeout(DEADLINE, connected).await.unwrap()
}

pub(crate) fn query(name: &str, id: u16) -> Vec<u8> {
    let mut message = Message::query();
    message.metadata.id = id;
    message.metadata.recursion_desired = true;
    let name = TheirName::from_ascii(name).unwrap();
    message.add_query(Query::query(name, RecordType::A));
    message.to_vec().unwrap()
}

pub(crate) fn framed(message: &[u8]) -> Vec<u8> {
    let length = (message.len() as u16).to_be_bytes();
    [&length[..], message].concat()
}

/// What a program that asks prints, or `None`, said aloud, if there is no such program.
pub(crate) async fn output_of(program: &str, args: &[&str]) -> Option<String> {
    if !Path::new("/usr/bin").join(program).exists() {
        let required = std::env::var("SEALANE_TEST_REQUIRE").as_deref() == Ok("all");
        assert!(!required, "{program} is not installed");
        eprintln!("skipped: {program} is not installed");
        return None;
    }
    let output = tokio::process::Command::new(program).args(args).output();
    let output = timeout(DEADLINE, output).await.unwrap().unwrap();
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}
