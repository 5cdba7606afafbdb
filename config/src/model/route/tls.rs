//! What a host asks of TLS besides its certificate.

use std::sync::Arc;

use rustls::pki_types::ServerName;

use super::{RouteRule, Template};
use crate::model::{Authorities, Certificate, ObjectRef};

/// What a host asks of TLS.
#[derive(Clone, Debug, Default)]
pub struct HostTls {
    /// Clients show certificates.
    pub client: Option<Arc<ClientAuth>>,
    /// TLS connections for this host are not ended here: as they come, they go to a backend of this
    /// rule, the host's for `/` (ingress-nginx `ssl-passthrough`).
    pub passthrough: Option<Arc<RouteRule>>,
}

/// Certificates of clients (ingress-nginx `auth-tls-*`).
#[derive(Clone, Debug)]
pub struct ClientAuth {
    /// The object that asks for it.
    pub source: ObjectRef,
    /// Who may vouch for clients. `None`: there is nobody to ask, so nobody gets in.
    pub authorities: Option<Arc<Authorities>>,
    /// Who gets in.
    pub verify: ClientVerification,
    /// Most certificates between a client's and an authority's.
    pub depth: usize,
    /// What the certificate's subject has to contain.
    pub subject: Option<SubjectPattern>,
    /// Where clients without a good certificate are sent.
    pub error_page: Option<Template>,
    /// The backend gets the certificate.
    pub pass_certificate: bool,
}

/// Which clients get in (nginx `ssl_verify_client`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum ClientVerification {
    /// Those with a good certificate.
    #[default]
    Required,
    /// Those, and those without any.
    Optional,
    /// Those whose certificate is good but for who vouches for it, and those without any.
    OptionalAnyIssuer,
    /// Everybody; no certificate is asked for.
    Off,
}

impl ClientAuth {
    /// What a handshake depends on: who is asked for, and by whom. `None`: nobody is asked.
    pub fn asks(&self) -> Option<(&Arc<Authorities>, ClientVerification)> {
        let authorities = self.authorities.as_ref()?;
        (self.verify != ClientVerification::Off).then_some((authorities, self.verify))
    }
}

/// TLS to endpoints (ingress-nginx `proxy-ssl-*`). Policies are equal if they come from the same
/// versions of their Secrets.
#[derive(Clone, Debug)]
pub struct UpstreamTls {
    /// What is shown to endpoints that ask.
    pub certificate: Option<Arc<Certificate>>,
    /// Who has to vouch for endpoints. `None`: they are not verified.
    pub authorities: Option<Arc<Authorities>>,
    /// Most certificates between an endpoint's and an authority's.
    pub depth: usize,
    /// The name that an endpoint's certificate has to be for.
    pub name: ServerName<'static>,
    /// Endpoints are told the name (SNI).
    pub sends_name: bool,
    /// What is spoken.
    pub versions: TlsVersions,
}

impl PartialEq for UpstreamTls {
    fn eq(&self, other: &Self) -> bool {
        let of = |certificate: &Option<Arc<Certificate>>| certificate.as_ref().map(Arc::as_ptr);
        let by = |authorities: &Option<Arc<Authorities>>| authorities.as_ref().map(Arc::as_ptr);
        of(&self.certificate) == of(&other.certificate)
            && by(&self.authorities) == by(&other.authorities)
            && (self.depth, &self.name) == (other.depth, &other.name)
            && (self.sends_name, self.versions) == (other.sends_name, other.versions)
    }
}

impl Eq for UpstreamTls {}

/// Versions of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum TlsVersions {
    /// 1.2 and 1.3.
    #[default]
    All,
    /// 1.2.
    Only12,
    /// 1.3.
    Only13,
}

/// A regular expression for the subject of a certificate, in the form of RFC 2253: found anywhere in
/// it, as nginx does.
#[derive(Clone, Debug)]
pub struct SubjectPattern(Arc<fancy_regex::Regex>);

impl SubjectPattern {
    /// Steps that a match may take.
    const STEP_LIMIT: usize = 10_000;
    /// Compiled size, bytes.
    const SIZE_LIMIT: usize = 1 << 20;

    /// A pattern.
    ///
    /// # Errors
    /// Why it is no regular expression.
    pub fn new(text: &str) -> Result<Self, String> {
        let regex = fancy_regex::RegexBuilder::new(text)
            .backtrack_limit(Self::STEP_LIMIT)
            .delegate_size_limit(Self::SIZE_LIMIT)
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Self(Arc::new(regex)))
    }

    /// Whether it is found. One that takes too many steps is not.
    pub fn is_in(&self, subject: &str) -> bool {
        self.0.is_match(subject).unwrap_or(false)
    }
}

impl PartialEq for SubjectPattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Eq for SubjectPattern {}
