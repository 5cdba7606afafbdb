//! What handshakes are made with: one set of settings for hosts that ask clients for nothing, one for
//! each policy about certificates of clients, for each choice of versions.
//!
//! A policy has ticket keys and a session cache of its own, so that no session is resumed under
//! another policy than the one that it was made under. (Nor under another name: rustls compares it.)

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, NoClientAuth, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{ServerConfig, SupportedProtocolVersion};
use sealane_config::model::{Authorities, ClientVerification, HostMatch, RouteRule, TlsVersions};
use sealane_config::{Reader, Snapshot};

use super::clients::Recorder;
use super::tickets::Tickets;
use super::{TlsError, certificate, certificate_of, normal};

/// What the gateway's settings can say.
const CHOICES: [TlsVersions; 3] = [TlsVersions::All, TlsVersions::Only12, TlsVersions::Only13];

/// The settings of all handshakes. One for all workers, so that a session can be resumed on any of
/// them.
pub struct ServerConfigs {
    certificates: Arc<Certificates>,
    /// For hosts that ask for no certificate, in the order of [`CHOICES`].
    silent: [Arc<ServerConfig>; CHOICES.len()],
    /// For those that do. Looked at for their handshakes only, and so short that it is searched.
    asking: Mutex<Vec<Asking>>,
}

/// Settings that ask for a certificate, for as long as the authorities are in use.
struct Asking {
    authorities: Weak<Authorities>,
    verify: ClientVerification,
    versions: TlsVersions,
    config: Arc<ServerConfig>,
}

impl ServerConfigs {
    /// See [`super::server_config`].
    pub(super) fn new(reader: Reader, fallback: Arc<CertifiedKey>) -> Result<Self, TlsError> {
        let certificates = Arc::new(Certificates { reader, fallback });
        let silent =
            |versions| config(Arc::new(NoClientAuth), versions, &certificates).map(Arc::new);
        let [all, only12, only13] = CHOICES;
        Ok(Self {
            silent: [silent(all)?, silent(only12)?, silent(only13)?],
            certificates,
            asking: Mutex::new(Vec::new()),
        })
    }

    /// The settings for a handshake that begins with this name.
    ///
    /// # Errors
    /// [`TlsError::UnknownName`]; [`TlsError::Rustls`]: there is no randomness for the keys of tickets.
    pub fn choose(&self, server_name: Option<&str>) -> Result<Arc<ServerConfig>, TlsError> {
        self.choose_in(&self.certificates.reader.load(), server_name)
    }

    /// The same for QUIC, which is TLS 1.3 and later; `None` if that is not spoken.
    ///
    /// # Errors
    /// As for [`Self::choose`].
    pub(crate) fn choose_for_quic(
        &self,
        server_name: Option<&str>,
    ) -> Result<Option<Arc<ServerConfig>>, TlsError> {
        let snapshot = self.certificates.reader.load();
        let config = self.choose_in(&snapshot, server_name)?;
        Ok((snapshot.gateway.tls.versions != TlsVersions::Only12).then_some(config))
    }

    fn choose_in(
        &self,
        snapshot: &Snapshot,
        server_name: Option<&str>,
    ) -> Result<Arc<ServerConfig>, TlsError> {
        let name = server_name.map(normal);
        let settings = snapshot.gateway.tls;
        if settings.rejects_unknown_names && !is_known(snapshot, name.as_deref()) {
            return Err(TlsError::UnknownName);
        }
        let host = snapshot.routes.host(name.as_deref().unwrap_or(""));
        let asks = host
            .and_then(|host| host.tls.client.as_ref())
            .and_then(|client| client.asks());
        match asks {
            Some((authorities, verify)) => self.asking(authorities, verify, settings.versions),
            None => Ok(Arc::clone(match settings.versions {
                TlsVersions::All => &self.silent[0],
                TlsVersions::Only12 => &self.silent[1],
                TlsVersions::Only13 => &self.silent[2],
            })),
        }
    }

    /// Some settings that TLS 1.3 is among.
    pub(crate) fn for_version_13(&self) -> Arc<ServerConfig> {
        let [all, ..] = &self.silent;
        Arc::clone(all)
    }

    /// Connections for some host are not ended here.
    pub(super) fn passes_any_through(&self) -> bool {
        self.certificates.reader.load().routes.passthroughs > 0
    }

    /// The rule for whose backend a connection is that asks for this name, if it is not ended here.
    pub(crate) fn passthrough(&self, server_name: Option<&str>) -> Option<Arc<RouteRule>> {
        let snapshot = self.certificates.reader.load();
        let host = snapshot.routes.host(&normal(server_name?))?;
        host.tls.passthrough.clone()
    }

    fn asking(
        &self,
        authorities: &Arc<Authorities>,
        verify: ClientVerification,
        versions: TlsVersions,
    ) -> Result<Arc<ServerConfig>, TlsError> {
        // Nothing that could panic half-way is done under the lock.
        let mut asking = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
        let known = asking.iter().find(|known| {
            (known.verify, known.versions) == (verify, versions)
                && std::ptr::eq(known.authorities.as_ptr(), Arc::as_ptr(authorities))
        });
        if let Some(known) = known {
            return Ok(Arc::clone(&known.config));
        }
        let recorder = Recorder::new(authorities, verify, provider());
        let config = Arc::new(config(Arc::new(recorder), versions, &self.certificates)?);
        asking.retain(|known| known.authorities.strong_count() > 0);
        asking.push(Asking {
            authorities: Arc::downgrade(authorities),
            verify,
            versions,
            config: Arc::clone(&config),
        });
        Ok(config)
    }
}

/// A host of this name has rules or a certificate.
fn is_known(snapshot: &Snapshot, name: Option<&str>) -> bool {
    name.is_some_and(|name| {
        let host = snapshot.routes.host(name);
        host.is_some_and(|host| host.host != HostMatch::Any)
            || certificate_of(&snapshot.certificates, name).is_some()
    })
}

impl fmt::Debug for ServerConfigs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerConfigs").finish_non_exhaustive()
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// What is agreed on (ALPN, RFC 7301). Clients of HTTP/1.0 offer nothing else, and would be refused.
const PROTOCOLS: [&[u8]; 3] = [b"h2", b"http/1.1", b"http/1.0"];

/// Early data stays off: it can be replayed (RFC 8446, 8).
fn config(
    clients: Arc<dyn ClientCertVerifier>,
    versions: TlsVersions,
    certificates: &Arc<Certificates>,
) -> Result<ServerConfig, TlsError> {
    let versions: &[&SupportedProtocolVersion] = match versions {
        TlsVersions::All => &[&TLS13, &TLS12],
        TlsVersions::Only12 => &[&TLS12],
        TlsVersions::Only13 => &[&TLS13],
    };
    let certificates: Arc<dyn ResolvesServerCert> = certificates.clone();
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)?
        .with_client_cert_verifier(clients)
        .with_cert_resolver(certificates);
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    // The strongest suite that both know, whichever the client lists first.
    config.ignore_client_order = true;
    config.ticketer = Arc::new(Tickets::new()?);
    Ok(config)
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
