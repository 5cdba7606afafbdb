//! TLS to endpoints.
//!
//! Without a policy the certificate is not verified: Ingress has no field that says who to trust, and
//! the peer is a pod whose address came from the API server. It keeps passive listeners out, no more.
//! A policy says who to trust, and what to show.

use std::cell::{Cell, RefCell};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, SignatureScheme};
use sealane_config::model::{
    Authorities, CertificateUse, EndpointAddr, TlsVersions, Untrusted, UpstreamTls,
};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// How long a handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a policy is remembered that nothing asks for.
const FORGET: Duration = Duration::from_secs(600);

/// Stands for a policy in the key of a pool: no connection is used under another policy than the one
/// that it was made under. Numbers are not used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub(super) struct PolicyId(u64);

/// The TLS of one worker.
pub(super) struct Connectors {
    unverified: Connector,
    /// The policies in use, so few that they are searched.
    policies: RefCell<Vec<Policy>>,
    latest: Cell<PolicyId>,
}

struct Policy {
    id: PolicyId,
    tls: Arc<UpstreamTls>,
    connector: Connector,
    asked: Instant,
}

/// The settings of one policy.
#[derive(Clone)]
struct Connector {
    http1: TlsConnector,
    http2: TlsConnector,
}

impl Connectors {
    pub(super) fn new() -> Self {
        Self {
            unverified: Connector::new(None),
            policies: RefCell::default(),
            latest: Cell::default(),
        }
    }

    /// The number of a policy.
    pub(super) fn policy(&self, tls: Option<&Arc<UpstreamTls>>) -> PolicyId {
        let Some(tls) = tls else {
            return PolicyId::default();
        };
        let mut policies = self.policies.borrow_mut();
        let same = |known: &&mut Policy| Arc::ptr_eq(&known.tls, tls) || known.tls == *tls;
        let now = Instant::now();
        if let Some(known) = policies.iter_mut().find(same) {
            known.asked = now;
            return known.id;
        }
        let id = PolicyId(self.latest.get().0 + 1);
        self.latest.set(id);
        policies.push(Policy {
            id,
            tls: Arc::clone(tls),
            connector: Connector::new(Some(tls)),
            asked: now,
        });
        id
    }

    /// Forgets policies that nothing has asked for in a long time.
    pub(super) fn sweep(&self) {
        let now = Instant::now();
        let mut policies = self.policies.borrow_mut();
        policies.retain(|policy| now.duration_since(policy.asked) < FORGET);
    }

    pub(super) async fn http1(
        &self,
        stream: TcpStream,
        peer: EndpointAddr,
        policy: PolicyId,
    ) -> io::Result<TlsStream<TcpStream>> {
        let (connector, name) = self.of(policy, peer)?;
        handshake(&connector.http1, stream, name).await
    }

    pub(super) async fn http2(
        &self,
        stream: TcpStream,
        peer: EndpointAddr,
        policy: PolicyId,
    ) -> io::Result<TlsStream<TcpStream>> {
        let (connector, name) = self.of(policy, peer)?;
        let stream = handshake(&connector.http2, stream, name).await?;
        if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
            Ok(stream)
        } else {
            Err(io::Error::other("the endpoint does not speak HTTP/2"))
        }
    }

    /// The connector of a policy, and the name that is asked for.
    fn of(&self, id: PolicyId, peer: EndpointAddr) -> io::Result<(Connector, ServerName<'static>)> {
        if id == PolicyId::default() {
            // An address as the server's name sends no SNI, as ingress-nginx does by default.
            let name = ServerName::IpAddress(peer.ip().into());
            return Ok((self.unverified.clone(), name));
        }
        let policies = self.policies.borrow();
        let known = policies.iter().find(|policy| policy.id == id);
        let known = known.ok_or_else(|| io::Error::other("the policy was given up"))?;
        Ok((known.connector.clone(), known.tls.name.clone()))
    }
}

impl Connector {
    fn new(policy: Option<&UpstreamTls>) -> Self {
        let connector = |alpn: &[u8]| {
            let mut config = config(policy);
            config.alpn_protocols = vec![alpn.to_vec()];
            TlsConnector::from(Arc::new(config))
        };
        Self {
            http1: connector(b"http/1.1"),
            http2: connector(b"h2"),
        }
    }
}

fn config(policy: Option<&UpstreamTls>) -> ClientConfig {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let versions: &[&rustls::SupportedProtocolVersion] = match policy.map(|policy| policy.versions)
    {
        None | Some(TlsVersions::All) => &[&rustls::version::TLS13, &rustls::version::TLS12],
        Some(TlsVersions::Only12) => &[&rustls::version::TLS12],
        Some(TlsVersions::Only13) => &[&rustls::version::TLS13],
    };
    let trusted = policy.and_then(|policy| {
        let authorities = Arc::clone(policy.authorities.as_ref()?);
        Some((authorities, policy.depth))
    });
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .expect("the provider has the suites of TLS 1.2 and 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Verifier { provider, trusted }));
    let shown = policy.and_then(|policy| policy.certificate.as_ref());
    let mut config = match shown {
        Some(certificate) => builder.with_client_cert_resolver(shows(&certificate.key)),
        None => builder.with_no_client_auth(),
    };
    if let Some(policy) = policy {
        config.enable_sni = policy.sends_name;
        // A session that is resumed shows no certificate, and a list that has changed since would
        // not be asked.
        config.resumption = Resumption::disabled();
    }
    config
}

fn shows(key: &Arc<CertifiedKey>) -> Arc<dyn ResolvesClientCert> {
    Arc::new(SingleCertAndKey::from(Arc::clone(key)))
}

async fn handshake(
    connector: &TlsConnector,
    stream: TcpStream,
    name: ServerName<'static>,
) -> io::Result<TlsStream<TcpStream>> {
    tokio::time::timeout(HANDSHAKE_TIMEOUT, connector.connect(name, stream))
        .await
        .map_err(|_elapsed| io::Error::new(io::ErrorKind::TimedOut, "no TLS session within 5 s"))?
}

/// Accepts certificates that its authorities vouch for, to so many steps; without authorities any
/// certificate, but only from a peer that holds its key.
#[derive(Debug)]
struct Verifier {
    provider: Arc<CryptoProvider>,
    trusted: Option<(Arc<Authorities>, usize)>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some((authorities, depth)) = &self.trusted else {
            return Ok(ServerCertVerified::assertion());
        };
        let chain: Vec<CertificateDer<'_>> = std::iter::once(end_entity)
            .chain(intermediates)
            .cloned()
            .collect();
        let (usage, name) = (CertificateUse::Server, Some(server_name));
        authorities
            .verify(&chain, usage, *depth, name, now)
            .map(|()| ServerCertVerified::assertion())
            .map_err(|why| rustls::Error::InvalidCertificate(told(why)))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = &self.provider.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}

/// What the endpoint is told, and the log.
fn told(why: Untrusted) -> CertificateError {
    match why {
        Untrusted::UnknownIssuer => CertificateError::UnknownIssuer,
        Untrusted::Expired => CertificateError::Expired,
        Untrusted::NotYetValid => CertificateError::NotValidYet,
        Untrusted::Revoked => CertificateError::Revoked,
        Untrusted::RevocationUnknown => CertificateError::UnknownRevocationStatus,
        Untrusted::WrongUse => CertificateError::InvalidPurpose,
        Untrusted::WrongName => CertificateError::NotValidForName,
        Untrusted::ChainTooLong | Untrusted::NameConstraint | Untrusted::Rejected => {
            CertificateError::ApplicationVerificationFailure
        }
    }
}
