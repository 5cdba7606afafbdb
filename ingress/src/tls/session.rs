//! What a handshake has shown about a client.

use std::cell::{OnceCell, RefCell};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use rustls::ServerConnection;
use rustls::pki_types::{CertificateDer, UnixTime};
use sealane_config::model::{Authorities, CertificateUse, ClientAuth, Untrusted};

use super::identity::Identity;
use super::normal;

/// For how long a verdict holds: certificates and revocation lists expire under an open connection.
const VERDICT_AGE: Duration = Duration::from_secs(60);

/// What a handshake has shown about a client.
#[derive(Default)]
pub struct Session {
    server_name: Option<Box<str>>,
    chain: Box<[CertificateDer<'static>]>,
    verdict: RefCell<Option<Verdict>>,
    identity: OnceCell<Identity>,
}

struct Verdict {
    authorities: Arc<Authorities>,
    depth: usize,
    at: UnixTime,
    result: Result<(), Untrusted>,
}

/// How a client has identified itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shown {
    /// With no certificate.
    Nothing,
    /// With one that is good.
    Good,
    /// With one that is not.
    Bad(Untrusted),
}

impl Session {
    /// The session of a client that asked for this name and has shown no certificate.
    pub fn anonymous(server_name: &str) -> Self {
        Self {
            server_name: Some(normal(server_name).into()),
            ..Self::default()
        }
    }

    pub(crate) fn of(connection: &ServerConnection) -> Self {
        let chain = connection.peer_certificates().unwrap_or_default();
        Self::shown_by(connection.server_name(), chain.to_vec())
    }

    /// The session of a client that asked for this name and has shown these certificates.
    pub(crate) fn shown_by(server_name: Option<&str>, chain: Vec<CertificateDer<'static>>) -> Self {
        Self {
            server_name: server_name.map(|name| normal(name).into()),
            chain: chain.into(),
            ..Self::default()
        }
    }

    /// The name that the client asked for (SNI): lower case, no dot at its end.
    pub fn server_name(&self) -> Option<&str> {
        self.server_name.as_deref()
    }

    /// How the client has identified itself, as far as `authorities` know.
    pub(crate) fn shown(&self, auth: &ClientAuth, authorities: &Arc<Authorities>) -> Shown {
        if self.chain.is_empty() {
            return Shown::Nothing;
        }
        let (now, depth) = (UnixTime::now(), auth.depth);
        let mut verdict = self.verdict.borrow_mut();
        let known = verdict.as_ref().filter(|known| {
            Arc::ptr_eq(&known.authorities, authorities)
                && known.depth == depth
                && now.as_secs().saturating_sub(known.at.as_secs()) < VERDICT_AGE.as_secs()
        });
        let result = known.map_or_else(
            || authorities.verify(&self.chain, CertificateUse::Client, depth, None, now),
            |known| known.result,
        );
        if known.is_none() {
            *verdict = Some(Verdict {
                authorities: Arc::clone(authorities),
                depth,
                at: now,
                result,
            });
        }
        result.map_or_else(Shown::Bad, |()| Shown::Good)
    }

    /// Who the client's certificate says that it is; empty without one.
    pub(crate) fn identity(&self) -> &Identity {
        let read = || self.chain.first().map(Identity::of).unwrap_or_default();
        self.identity.get_or_init(read)
    }

    /// The client's certificate in PEM format, as a URL would have it.
    pub(crate) fn certificate(&self) -> Option<HeaderValue> {
        self.chain.first().and_then(super::identity::escaped_pem)
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("server_name", &self.server_name)
            .field("certificates", &self.chain.len())
            .finish_non_exhaustive()
    }
}
