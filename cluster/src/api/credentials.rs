//! Who may talk to the server: a certificate authority, a server certificate, a token, and the
//! kubeconfig that carries them to kubectl.
//!
//! Authority and token live in the data directory, so a kubeconfig stays good over restarts; the
//! server certificate is made anew at each start for the addresses of that start.

use std::fs;
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use rand::Rng;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;

/// Names under which clients reach the server.
const SERVER_NAMES: [&str; 5] = [
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
];

const AUTHORITY_YEARS: i16 = 10;

/// Why credentials could not be made or loaded.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// A file could not be read or written.
    #[error("{path}")]
    File {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
    /// A certificate could not be made from the stored key.
    #[error("cannot make a certificate; the files in the data directory may be damaged")]
    Certificate(#[from] rcgen::Error),
    /// A stored certificate is not PEM.
    #[error("cannot read a certificate; the files in the data directory may be damaged")]
    Pem(#[from] rustls_pki_types::pem::Error),
    /// TLS refuses the certificates.
    #[error("TLS refuses the certificates")]
    Tls(#[from] rustls::Error),
    /// The verifier of client certificates refuses the authority.
    #[error("TLS refuses the certificate authority")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

/// What the server proves itself with and what it accepts.
pub struct Credentials {
    ca_pem: String,
    token: String,
    tls: Arc<rustls::ServerConfig>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").finish_non_exhaustive()
    }
}

impl Credentials {
    /// Loads authority and token from `directory`, makes what is missing, and issues a server
    /// certificate for the usual names, loopback and `addresses`. Files are readable by the owner
    /// only.
    ///
    /// # Errors
    /// See [`CredentialsError`].
    pub fn load_or_create(
        directory: &Path,
        addresses: &[IpAddr],
    ) -> Result<Self, CredentialsError> {
        fs::create_dir_all(directory).map_err(|source| CredentialsError::File {
            path: directory.to_owned(),
            source,
        })?;
        let (ca_pem, authority) = load_authority(directory)?;
        let token_path = directory.join("token");
        let token = match read(&token_path)? {
            Some(token) if !token.trim().is_empty() => token.trim().to_owned(),
            _ => {
                let token = new_token();
                write_private(&token_path, token.as_bytes())?;
                token
            }
        };
        let tls = server_config(&ca_pem, &authority, addresses)?;
        Ok(Self { ca_pem, token, tls })
    }

    /// The authority's certificate, for clients and pods.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// The bearer token, for [`super::ApiOptions::token`].
    pub fn token(&self) -> &str {
        &self.token
    }

    /// TLS for [`super::serve()`].
    pub fn tls(&self) -> Arc<rustls::ServerConfig> {
        Arc::clone(&self.tls)
    }

    /// Writes a kubeconfig with the context `sealane` for the server at `url`, such as
    /// `https://127.0.0.1:6443`.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write_kubeconfig(&self, path: &Path, url: &str) -> Result<(), CredentialsError> {
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{
                "name": "sealane",
                "cluster": {
                    "server": url,
                    "certificate-authority-data": STANDARD.encode(&self.ca_pem),
                },
            }],
            "users": [{"name": "sealane", "user": {"token": self.token}}],
            "contexts": [{"name": "sealane", "context": {"cluster": "sealane", "user": "sealane"}}],
            "current-context": "sealane",
        });
        let text = serde_saphyr::to_string(&config).map_err(|error| CredentialsError::File {
            path: path.to_owned(),
            source: io::Error::other(error),
        })?;
        write_private(path, text.as_bytes())
    }
}

fn load_authority(
    directory: &Path,
) -> Result<(String, Issuer<'static, KeyPair>), CredentialsError> {
    let (certificate_path, key_path) = (directory.join("ca.crt"), directory.join("ca.key"));
    if let (Some(certificate), Some(key)) = (read(&certificate_path)?, read(&key_path)?) {
        let issuer = Issuer::new(authority_params(), KeyPair::from_pem(&key)?);
        return Ok((certificate, issuer));
    }
    let key = KeyPair::generate()?;
    let certificate = authority_params().self_signed(&key)?.pem();
    write_private(&key_path, key.serialize_pem().as_bytes())?;
    write_private(&certificate_path, certificate.as_bytes())?;
    Ok((certificate, Issuer::new(authority_params(), key)))
}

fn params(name: &str) -> CertificateParams {
    let today = Timestamp::now().to_zoned(TimeZone::UTC).date();
    let month = u8::try_from(today.month()).unwrap_or(1);
    let mut params = CertificateParams::default();
    params.not_before = rcgen::date_time_ymd(i32::from(today.year()) - 1, month, 1);
    params.not_after = rcgen::date_time_ymd(i32::from(today.year() + AUTHORITY_YEARS), month, 1);
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn authority_params() -> CertificateParams {
    let mut params = params("sealane-ca");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    params
}

fn server_config(
    ca_pem: &str,
    authority: &Issuer<'static, KeyPair>,
    addresses: &[IpAddr],
) -> Result<Arc<rustls::ServerConfig>, CredentialsError> {
    let mut params = params("sealane-api");
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    for name in SERVER_NAMES {
        params
            .subject_alt_names
            .push(SanType::DnsName(name.try_into()?));
    }
    let loopback = [
        IpAddr::from([127, 0, 0, 1]),
        std::net::Ipv6Addr::LOCALHOST.into(),
    ];
    for address in loopback.iter().chain(addresses) {
        params.subject_alt_names.push(SanType::IpAddress(*address));
    }
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, authority)?;

    let root = CertificateDer::from_pem_slice(ca_pem.as_bytes())?;
    let mut config = verifying_config([root], certificate.der(), &key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// TLS for [`super::kubelet::serve`]: callers show certificates of the cluster's `roots`; the own
/// certificate is signed by itself, which an API server does not look at unless told to.
///
/// # Errors
/// The roots cannot be used.
pub fn kubelet_tls(
    roots: impl IntoIterator<Item = CertificateDer<'static>>,
    address: IpAddr,
) -> Result<Arc<rustls::ServerConfig>, CredentialsError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, "sealane");
    params.subject_alt_names.push(SanType::IpAddress(address));
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    Ok(Arc::new(verifying_config(roots, certificate.der(), &key)?))
}

/// TLS that verifies the client certificates it is shown, and takes clients that show none.
fn verifying_config(
    roots: impl IntoIterator<Item = CertificateDer<'static>>,
    certificate: &CertificateDer<'static>,
    key: &KeyPair,
) -> Result<rustls::ServerConfig, CredentialsError> {
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(root)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let clients =
        WebPkiClientVerifier::builder_with_provider(Arc::new(store), Arc::clone(&provider))
            .allow_unauthenticated()
            .build()?;
    let private = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes())?;
    Ok(rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(clients)
        .with_single_cert(vec![certificate.clone()], private)?)
}

/// 256 random bits.
fn new_token() -> String {
    let random: [u8; 32] = rand::rng().random();
    random.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The content of a file; `None` if there is none.
fn read(path: &Path) -> Result<Option<String>, CredentialsError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(CredentialsError::File {
            path: path.to_owned(),
            source,
        }),
    }
}

/// Writes a file of mode 0600 in one step: readers see the old content or the new.
fn write_private(path: &Path, content: &[u8]) -> Result<(), CredentialsError> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let temporary = PathBuf::from(temporary);
    let written = (|| {
        // A leftover of a crash could have other rights.
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    })();
    written.map_err(|source| CredentialsError::File {
        path: path.to_owned(),
        source,
    })
}
