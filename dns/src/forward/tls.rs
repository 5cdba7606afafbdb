//! TLS towards upstreams.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::UpstreamTls;

/// Protocols of RFC 7858 and RFC 8484, as agreed on in the handshake (ALPN).
const DOT: &[u8] = b"dot";
const HTTP2: &[u8] = b"h2";

/// Why TLS towards upstreams cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be used.
    #[error("{} cannot be used", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: pem::Error,
    },
    /// A file with authorities holds none.
    #[error("{} holds no certificate", .0.display())]
    NoCertificate(PathBuf),
    /// The system's authorities cannot be read.
    #[error("the authorities of the system cannot be read; name a file with `tls CA`")]
    NoSystemRoots,
    /// Certificates or key are no good.
    #[error("the certificates of `tls` cannot be used")]
    Rejected(#[from] rustls::Error),
}

/// Client settings for DoT and for DoH. Sessions are resumed by all workers.
#[derive(Clone, Debug)]
pub(super) struct Tls {
    pub(super) dot: Arc<ClientConfig>,
    pub(super) https: Arc<ClientConfig>,
}

impl Tls {
    pub(super) fn load(settings: &UpstreamTls) -> Result<Self, TlsError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots(settings.ca.as_deref())?);
        let mut dot = match &settings.identity {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => {
                let key = PrivateKeyDer::from_pem_file(key).map_err(|source| TlsError::File {
                    path: key.clone(),
                    source,
                })?;
                builder.with_client_auth_cert(certificates(chain)?, key)?
            }
        };
        dot.alpn_protocols = vec![DOT.to_vec()];
        let mut https = dot.clone();
        https.alpn_protocols = vec![HTTP2.to_vec()];
        Ok(Self {
            dot: dot.into(),
            https: https.into(),
        })
    }
}

fn roots(ca: Option<&Path>) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    if let Some(ca) = ca {
        for certificate in certificates(ca)? {
            store.add(certificate)?;
        }
        return Ok(store);
    }
    let native = rustls_native_certs::load_native_certs();
    // A few of a system's certificates are commonly too old to be understood.
    let (added, _ignored) = store.add_parsable_certificates(native.certs);
    match added {
        0 => Err(TlsError::NoSystemRoots),
        _ => Ok(store),
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = || {
        let certificates = CertificateDer::pem_file_iter(path)?;
        certificates.collect::<Result<Vec<_>, pem::Error>>()
    };
    let certificates = read().map_err(|source| TlsError::File {
        path: path.to_owned(),
        source,
    })?;
    match certificates.is_empty() {
        true => Err(TlsError::NoCertificate(path.to_owned())),
        false => Ok(certificates),
    }
}

/// A failed handshake as an error of the connection.
pub(super) fn broken(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::other(error)
}
