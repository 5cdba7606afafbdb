//! TLS of the gateway: which certificate, and what is refused.

use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use sealane_config::Reader;
use sealane_config::model::{Certificate, CertificateTable};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// How long a handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// The first byte of a TLS connection: the record type `handshake` (RFC 8446, 5.1).
const HANDSHAKE_RECORD: u8 = 22;

/// How long we listen to a client that spoke plain HTTP, so that it gets to read our answer.
const LINGER: Duration = Duration::from_secs(1);

/// The answer to plain HTTP on the TLS port.
const PLAIN_HTTP: &str = "HTTP/1.1 400 Bad Request\r\n\
    content-type: text/plain; charset=utf-8\r\n\
    content-length: 59\r\n\
    connection: close\r\n\
    server: sealane\r\n\
    sealane-error: tls_required\r\n\r\n\
    400 Bad Request: plain HTTP was sent to a port that is TLS\n";

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The self-signed certificate could not be made.
    #[error("cannot make a self-signed certificate")]
    SelfSigned(#[from] rcgen::Error),
    /// rustls refused the settings or the key.
    #[error("cannot set up TLS")]
    Rustls(#[from] rustls::Error),
}

/// What all workers serve HTTPS with: certificates from the current snapshot, `fallback` where it
/// has none, HTTP/2 before HTTP/1.1, resumption by tickets whose keys live in memory only.
///
/// # Errors
/// [`TlsError::Rustls`].
pub fn server_config(
    reader: Reader,
    fallback: Arc<CertifiedKey>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Certificates { reader, fallback }));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // The strongest suite that both know, whichever the client lists first.
    config.ignore_client_order = true;
    config.ticketer = aws_lc_rs::Ticketer::new()?;
    Ok(Arc::new(config))
}

/// A self-signed certificate for when there is no other, with a DNS name as clients insist on one
/// (ingress I19).
///
/// # Errors
/// [`TlsError`].
pub fn self_signed() -> Result<Arc<CertifiedKey>, TlsError> {
    let names = ["sealane.invalid".to_owned(), "localhost".to_owned()];
    let made = rcgen::generate_simple_self_signed(names)?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let key = aws_lc_rs::sign::any_supported_type(&key)?;
    Ok(Arc::new(CertifiedKey::new(
        vec![made.cert.der().clone()],
        key,
    )))
}

/// Looks certificates up in the current snapshot, so that a rotated one serves the next handshake.
#[derive(Debug)]
struct Certificates {
    reader: Reader,
    fallback: Arc<CertifiedKey>,
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let snapshot = self.reader.load();
        let found = certificate(&snapshot.certificates, hello.server_name());
        Some(found.map_or_else(|| Arc::clone(&self.fallback), |c| Arc::clone(&c.key)))
    }
}

/// The certificate for a server name (SNI): the host's own, or else the default one if there is one.
pub fn certificate<'a>(
    table: &'a CertificateTable,
    server_name: Option<&str>,
) -> Option<&'a Arc<Certificate>> {
    let named = server_name.and_then(|name| {
        let name = name.to_ascii_lowercase();
        table.find(name.strip_suffix('.').unwrap_or(&name))
    });
    named.or(table.default.as_ref())
}

/// A TLS session on an accepted connection; `None` if there was none to be had.
pub(crate) async fn accept(
    acceptor: &TlsAcceptor,
    stream: TcpStream,
) -> Option<TlsStream<TcpStream>> {
    let handshake = async {
        let mut first = [0];
        match stream.peek(&mut first).await {
            Ok(1) if first == [HANDSHAKE_RECORD] => {}
            Ok(1) => {
                refuse_plain_http(stream).await;
                return None;
            }
            Ok(_) | Err(_) => return None,
        }
        match acceptor.accept(stream).await {
            Ok(stream) => Some(stream),
            Err(error) => {
                tracing::debug!(%error, "TLS handshake failed");
                None
            }
        }
    };
    timeout(HANDSHAKE_TIMEOUT, handshake).await.ok().flatten()
}

/// Says what is wrong. Closing with unread bytes would reset the connection under the answer, so
/// the request is read and dropped first.
async fn refuse_plain_http(mut stream: TcpStream) {
    let answer = async {
        stream.write_all(PLAIN_HTTP.as_bytes()).await?;
        stream.shutdown().await?;
        let mut sink = [0; 4096];
        while stream.read(&mut sink).await? > 0 {}
        Ok::<_, std::io::Error>(())
    };
    // Whether the client takes the answer is its own business.
    let _ = timeout(LINGER, answer).await;
}
