//! TLS of the gateway: which certificate, and what is refused.

mod clients;
mod configs;
mod hello;
mod identity;
mod session;
mod tickets;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::Acceptor;
use rustls::sign::CertifiedKey;
use sealane_config::Reader;
use sealane_config::model::{Certificate, CertificateTable, RouteRule};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{LazyConfigAcceptor, StartHandshake};

pub use configs::ServerConfigs;
use hello::Remembered;
pub use session::Session;
pub(crate) use session::Shown;

/// How long a handshake may take.
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

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

/// The alert `unrecognized_name`, fatal (RFC 6066, 3), as a record.
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The self-signed certificate could not be made.
    #[error("cannot make a self-signed certificate")]
    SelfSigned(#[from] rcgen::Error),
    /// rustls refused the settings or the key.
    #[error("cannot set up TLS")]
    Rustls(#[from] rustls::Error),
    /// The client asked for a host that is not served, and those are refused.
    #[error("the client asked for a name that nothing is served under")]
    UnknownName,
}

/// What all workers serve HTTPS with: certificates from the current snapshot, `fallback` where it
/// has none, TLS 1.3 and 1.2 unless its settings say otherwise, HTTP/2 before HTTP/1.1, resumption by
/// tickets whose keys live in memory only, change every six hours and are forgotten after twelve.
///
/// # Errors
/// [`TlsError::Rustls`].
pub fn server_config(
    reader: Reader,
    fallback: Arc<CertifiedKey>,
) -> Result<Arc<ServerConfigs>, TlsError> {
    ServerConfigs::new(reader, fallback).map(Arc::new)
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

/// The certificate for a server name (SNI): the host's own, or else the default one if there is one.
pub fn certificate<'a>(
    table: &'a CertificateTable,
    server_name: Option<&str>,
) -> Option<&'a Arc<Certificate>> {
    let named = server_name.and_then(|name| certificate_of(table, &normal(name)));
    named.or(table.default.as_ref())
}

/// The certificate of a host, as from [`normal`], if it has its own.
pub(crate) fn certificate_of<'a>(
    table: &'a CertificateTable,
    name: &str,
) -> Option<&'a Arc<Certificate>> {
    table.find(name)
}

/// A server name as tables have it: lower case, no dot at its end.
fn normal(name: &str) -> String {
    let name = name.strip_suffix('.').unwrap_or(name);
    name.to_ascii_lowercase()
}

/// What becomes of a connection that begins like TLS.
pub(crate) enum Accepted {
    /// There is a session. Boxed, because it is large.
    Session(Box<TlsStream<TcpStream>>),
    /// It is for a backend of a rule, with what was read of it already.
    Passthrough(TcpStream, Vec<u8>, Arc<RouteRule>),
}

/// A TLS session on an accepted connection, or where else it goes; `None` if it came to nothing.
pub(crate) async fn accept(configs: &ServerConfigs, stream: TcpStream) -> Option<Accepted> {
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
        match shake(configs, stream).await {
            Ok(accepted) => Some(accepted),
            Err(error) => {
                tracing::debug!(%error, "TLS handshake failed");
                None
            }
        }
    };
    timeout(HANDSHAKE_TIMEOUT, handshake).await.ok().flatten()
}

async fn shake(configs: &ServerConfigs, stream: TcpStream) -> io::Result<Accepted> {
    if !configs.passes_any_through() {
        let start = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
        return finish(configs, start).await;
    }
    let stream = Remembered::new(stream);
    let start = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
    let rule = configs.passthrough(start.client_hello().server_name());
    let (stream, hello) = start.io.into_parts();
    match rule {
        Some(rule) => Ok(Accepted::Passthrough(stream, hello, rule)),
        None => finish(configs, StartHandshake::from_parts(start.accepted, stream)).await,
    }
}

/// The rest of a handshake whose first message is there.
async fn finish(configs: &ServerConfigs, start: StartHandshake<TcpStream>) -> io::Result<Accepted> {
    let config = configs.choose(start.client_hello().server_name());
    if let Err(TlsError::UnknownName) = &config {
        let mut stream = start.io;
        stream.write_all(&UNRECOGNIZED_NAME).await?;
        stream.shutdown().await?;
        return Err(io::Error::other(TlsError::UnknownName));
    }
    let session = start.into_stream(config.map_err(io::Error::other)?).await?;
    Ok(Accepted::Session(Box::new(session)))
}

/// Says what is wrong. Closing with unread bytes would reset the connection under the answer, so
/// the request is read and dropped first.
async fn refuse_plain_http(mut stream: TcpStream) {
    let answer = async {
        stream.write_all(PLAIN_HTTP.as_bytes()).await?;
        stream.shutdown().await?;
        let mut sink = [0; 4096];
        while stream.read(&mut sink).await? > 0 {}
        Ok::<_, io::Error>(())
    };
    // Whether the client takes the answer is its own business.
    let _ = timeout(LINGER, answer).await;
}
