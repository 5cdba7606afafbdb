//! Certificates of encrypted listeners, and DNS over TLS (RFC 7858).
//!
//! A certificate is read from files, which are looked at again every ten seconds by
//! [`TlsIdentity::keep_current`]: cert-manager and the kubelet replace them under a running server.
//! New files serve the next handshake, and connections that are open go on. Files that cannot be
//! used change nothing: the last ones that could go on serving, and the log says why.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use quinn::crypto::rustls::{NoInitialCipherSuite, QuicServerConfig};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::config::ServerTls;
use crate::limit::{ConnectionLimits, HANDSHAKE};
use crate::server::Front;
use crate::tcp::{self, connection};

/// How often files are looked at.
const LOOK: Duration = Duration::from_secs(10);
/// Largest file that is read.
const MAX_FILE: u64 = 1 << 20;

/// Why a certificate cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file with certificates has none.
    #[error("{0} holds no certificate in PEM format")]
    NoCertificate(PathBuf),
    /// A file with a key has none.
    #[error("{0} holds no private key in PEM format")]
    NoKey(PathBuf),
    /// The key cannot be used, is of another certificate, or a setting of TLS was refused.
    #[error("cannot serve the certificate {path}")]
    Refused {
        /// The certificate's file.
        path: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// The authorities for client certificates cannot be used.
    #[error("cannot check clients against {path}")]
    ClientAuthorities {
        /// Their file.
        path: PathBuf,
        /// Why.
        source: VerifierBuilderError,
    },
    /// The cryptography of QUIC is not there.
    #[error(transparent)]
    Quic(#[from] NoInitialCipherSuite),
}

/// The certificate of TLS, HTTPS and QUIC listeners. Clones share it: replacing it replaces it on
/// every worker.
#[derive(Clone, Debug)]
pub struct TlsIdentity {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    files: ServerTls,
    current: ArcSwap<Current>,
}

/// What handshakes are made with.
pub(crate) struct Current {
    /// Tells contents of the files apart.
    digest: u64,
    pub(crate) dot: Arc<ServerConfig>,
    pub(crate) https: Arc<ServerConfig>,
    pub(crate) quic: Arc<QuicServerConfig>,
}

impl std::fmt::Debug for Current {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Current").finish_non_exhaustive()
    }
}

impl TlsIdentity {
    /// Reads the files.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn load(files: ServerTls) -> Result<Self, TlsError> {
        let contents = Contents::read(&files)?;
        let current = ArcSwap::from_pointee(contents.build(&files)?);
        Ok(Self {
            shared: Arc::new(Shared { files, current }),
        })
    }

    /// Reads the files again, and serves what they hold if it is new. Whether it was.
    ///
    /// # Errors
    /// [`TlsError`]; what was served before still is.
    pub fn reload(&self) -> Result<bool, TlsError> {
        let Shared { files, current } = &*self.shared;
        let contents = Contents::read(files)?;
        if contents.digest() == current.load().digest {
            return Ok(false);
        }
        current.store(Arc::new(contents.build(files)?));
        Ok(true)
    }

    /// Reads the files again and again until `shutdown`, in a thread for blocking work. To be run
    /// once, whatever the number of workers.
    pub async fn keep_current(self, shutdown: CancellationToken) {
        let path = self.shared.files.certificate.display().to_string();
        let mut complaint = String::new();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = sleep(LOOK) => {}
            }
            let identity = self.clone();
            let Ok(result) = tokio::task::spawn_blocking(move || identity.reload()).await else {
                continue;
            };
            match result {
                Ok(is_new) => {
                    complaint.clear();
                    if is_new {
                        tracing::info!(certificate = path, "serves the new certificate");
                    }
                }
                Err(error) => {
                    let text = with_causes(&error);
                    if text != complaint {
                        tracing::error!(error = text, "goes on with the old certificate");
                        complaint = text;
                    }
                }
            }
        }
    }

    pub(crate) fn current(&self) -> Arc<Current> {
        self.shared.current.load_full()
    }
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// What the files hold.
struct Contents {
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

impl Contents {
    fn read(files: &ServerTls) -> Result<Self, TlsError> {
        Ok(Self {
            certificate: read(&files.certificate)?,
            key: read(&files.key)?,
            client_ca: files.client_ca.as_deref().map(read).transpose()?,
        })
    }

    fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (&self.certificate, &self.key, &self.client_ca).hash(&mut hasher);
        hasher.finish()
    }

    fn build(&self, files: &ServerTls) -> Result<Current, TlsError> {
        let new_and_old = rustls::ALL_VERSIONS;
        let new = &[&rustls::version::TLS13];
        let quic = self.config(files, new, &[b"doq"])?;
        Ok(Current {
            digest: self.digest(),
            dot: Arc::new(self.config(files, new_and_old, &[b"dot"])?),
            https: Arc::new(self.config(files, new_and_old, &[b"h2", b"http/1.1"])?),
            quic: Arc::new(QuicServerConfig::try_from(quic)?),
        })
    }

    fn config(
        &self,
        files: &ServerTls,
        versions: &[&'static SupportedProtocolVersion],
        protocols: &[&[u8]],
    ) -> Result<ServerConfig, TlsError> {
        let refused = |source| TlsError::Refused {
            path: files.certificate.clone(),
            source,
        };
        let chain = certificates(&self.certificate, &files.certificate)?;
        let key = PrivateKeyDer::from_pem_slice(&self.key)
            .map_err(|_pem| TlsError::NoKey(files.key.clone()))?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions)
            .map_err(refused)?;
        let builder = match (&self.client_ca, &files.client_ca) {
            (Some(pem), Some(path)) => {
                let roots = certificates(pem, path)?;
                builder.with_client_cert_verifier(client_verifier(roots, path, provider)?)
            }
            _ => builder.with_no_client_auth(),
        };
        let mut config = builder.with_single_cert(chain, key).map_err(refused)?;
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        config.ticketer = aws_lc_rs::Ticketer::new().map_err(refused)?;
        Ok(config)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    use io::Read as _;
    let read = || {
        let mut contents = Vec::new();
        let file = std::fs::File::open(path)?;
        file.take(MAX_FILE).read_to_end(&mut contents)?;
        Ok(contents)
    };
    read().map_err(|source| TlsError::Read {
        path: path.to_owned(),
        source,
    })
}

fn certificates(pem: &[u8], path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(TlsError::NoCertificate(path.to_owned())),
    }
}

fn client_verifier(
    authorities: Vec<CertificateDer<'static>>,
    path: &Path,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, TlsError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(authorities);
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .map_err(|source| TlsError::ClientAuthorities {
            path: path.to_owned(),
            source,
        })
}

/// A TLS session on an accepted connection; `None` if there was none to be had in time.
pub(crate) async fn handshake<S: AsyncRead + AsyncWrite + Unpin>(
    config: Arc<ServerConfig>,
    stream: S,
) -> Option<TlsStream<S>> {
    match timeout(HANDSHAKE, TlsAcceptor::from(config).accept(stream)).await {
        Ok(Ok(stream)) => Some(stream),
        Ok(Err(error)) => {
            tracing::debug!(%error, "TLS handshake failed");
            None
        }
        Err(_late) => None,
    }
}

/// Serves DNS over TLS: like TCP, within a session.
pub(crate) async fn serve(
    server: Front,
    listener: std::net::TcpListener,
    identity: TlsIdentity,
    limits: ConnectionLimits,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let handle = |stream, client| {
        let (server, limits, shutdown) = (server.clone(), limits.clone(), shutdown.clone());
        let config = Arc::clone(&identity.current().dot);
        async move {
            let Some(stream) = handshake(config, stream).await else {
                return;
            };
            let (read, write) = tokio::io::split(stream);
            connection::serve(&server, read, write, client, &limits, shutdown).await;
        }
    };
    tcp::accept(listener, &limits, &shutdown, handle).await
}

#[cfg(test)]
mod tests;
