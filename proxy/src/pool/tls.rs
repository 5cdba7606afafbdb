//! TLS to endpoints, for backends that speak nothing else.
//!
//! The certificate is not verified: Ingress has no field that says who to trust, and the peer is a
//! pod whose address came from the API server. It keeps passive listeners out, no more.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use sealane_config::model::EndpointAddr;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// How long a handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) struct Connectors {
    http1: TlsConnector,
    http2: TlsConnector,
}

impl Connectors {
    pub(super) fn new() -> Self {
        Self {
            http1: connector(b"http/1.1"),
            http2: connector(b"h2"),
        }
    }

    pub(super) async fn http1(
        &self,
        stream: TcpStream,
        peer: EndpointAddr,
    ) -> io::Result<TlsStream<TcpStream>> {
        handshake(&self.http1, stream, peer).await
    }

    pub(super) async fn http2(
        &self,
        stream: TcpStream,
        peer: EndpointAddr,
    ) -> io::Result<TlsStream<TcpStream>> {
        let stream = handshake(&self.http2, stream, peer).await?;
        if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
            Ok(stream)
        } else {
            Err(io::Error::other("the endpoint does not speak HTTP/2"))
        }
    }
}

fn connector(alpn: &[u8]) -> TlsConnector {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("the provider has the suites of TLS 1.2 and 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Unverified(provider)))
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    TlsConnector::from(Arc::new(config))
}

async fn handshake(
    connector: &TlsConnector,
    stream: TcpStream,
    peer: EndpointAddr,
) -> io::Result<TlsStream<TcpStream>> {
    // An address as the server's name sends no SNI, as ingress-nginx does by default.
    let name = ServerName::IpAddress(peer.0.ip().into());
    tokio::time::timeout(HANDSHAKE_TIMEOUT, connector.connect(name, stream))
        .await
        .map_err(|_elapsed| io::Error::new(io::ErrorKind::TimedOut, "no TLS session within 5 s"))?
}

/// Accepts any certificate, but only from a peer that holds its key.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
