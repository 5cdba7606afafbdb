//! Settings of the gateway as a whole: from flags, and from the ConfigMap that it is given.

use std::net::IpAddr;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use ipnet::IpNet;

use super::{AccessList, ErrorStatuses, HttpOverrides, Mode, TlsVersions};

/// Settings of the gateway as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewaySettings {
    /// Whom to believe about where requests come from.
    pub proxies: TrustedProxies,
    /// Listeners on which trusted proxies begin connections with a PROXY header.
    pub proxy_protocol: ProxyProtocol,
    /// Handshakes of the listener for HTTPS.
    pub tls: ListenerTls,
    /// Status of a redirect from plain HTTP to HTTPS, 300 to 308.
    pub redirect_status: u16,
    /// `Strict-Transport-Security` of answers over HTTPS, for hosts that have a certificate.
    pub hsts: HstsByMode,
    /// Status of answers to clients that send too many requests, 400 to 599.
    pub rate_limit_status: u16,
    /// Status of answers to clients that have too many requests in flight, 400 to 599.
    pub connection_limit_status: u16,
    /// Paths that need no authentication, those below them included.
    pub no_auth_paths: Box<[Box<str>]>,
    /// What holds for rules whose object says nothing else.
    pub rules: RuleDefaults,
    /// How long requests in flight may take when the process ends, if the ConfigMap says so.
    pub grace: Option<Duration>,
}

impl Default for GatewaySettings {
    fn default() -> Self {
        Self {
            proxies: TrustedProxies::default(),
            proxy_protocol: ProxyProtocol::default(),
            tls: ListenerTls::default(),
            redirect_status: 308,
            hsts: HstsByMode::default(),
            rate_limit_status: 503,
            connection_limit_status: 503,
            no_auth_paths: Box::new(["/.well-known/acme-challenge".into()]),
            rules: RuleDefaults::default(),
            grace: None,
        }
    }
}

/// `Strict-Transport-Security`, by whose habits hold; `None`: not sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HstsByMode {
    /// For rules of [`Mode::Strict`].
    pub strict: Option<HeaderValue>,
    /// For rules of [`Mode::Compat`].
    pub compat: Option<HeaderValue>,
}

impl HstsByMode {
    /// For a rule of this mode.
    pub fn of(&self, mode: Mode) -> Option<&HeaderValue> {
        match mode {
            Mode::Strict => self.strict.as_ref(),
            Mode::Compat => self.compat.as_ref(),
        }
    }
}

/// That of ingress-nginx where its habits hold.
impl Default for HstsByMode {
    fn default() -> Self {
        let theirs = HeaderValue::from_static("max-age=31536000; includeSubDomains");
        Self {
            strict: None,
            compat: Some(theirs),
        }
    }
}

/// Whom to believe about where requests come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustedProxies {
    /// Where trusted proxies are.
    pub networks: Box<[IpNet]>,
    /// Their `X-Forwarded-*` fields are believed.
    pub forwarded: bool,
    /// The field with the list of addresses.
    pub forwarded_for: HeaderName,
    /// Backends get `Forwarded` (RFC 7239), too.
    pub standard: bool,
    /// Backends get the list that a trusted proxy sent, with the proxy's own address behind it,
    /// instead of the client's address alone.
    pub appends: bool,
}

/// Nobody is trusted.
impl Default for TrustedProxies {
    fn default() -> Self {
        Self {
            networks: Box::default(),
            forwarded: false,
            forwarded_for: HeaderName::from_static("x-forwarded-for"),
            standard: false,
            appends: true,
        }
    }
}

impl TrustedProxies {
    /// A trusted proxy has this address.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.networks.iter().any(|net| net.contains(&address))
    }

    /// What a request from this address says about its origin is believed.
    pub fn believes(&self, address: IpAddr) -> bool {
        self.forwarded && self.contains(address)
    }
}

/// Listeners on which trusted proxies begin connections with a PROXY header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProxyProtocol {
    /// That for plain HTTP.
    pub http: bool,
    /// That for HTTPS.
    pub https: bool,
}

/// Handshakes of a listener for HTTPS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListenerTls {
    /// What is spoken.
    pub versions: TlsVersions,
    /// Clients that ask for no host that has rules or a certificate are refused; otherwise they get
    /// the default certificate.
    pub rejects_unknown_names: bool,
}

/// What holds for rules whose object says nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleDefaults {
    /// Redirect plain HTTP to HTTPS if the host has a certificate; for Ingresses.
    pub ssl_redirect: bool,
    /// Redirect plain HTTP to HTTPS always; for Ingresses.
    pub force_ssl_redirect: bool,
    /// Who may come in.
    pub access: AccessList,
    /// Who may not, whatever the object says.
    pub blocked: Box<[IpNet]>,
    /// What holds instead of a Service's own policy.
    pub overrides: HttpOverrides,
    /// Errors that the default Service answers.
    pub errors: ErrorStatuses,
    /// Fields that objects may have written into answers.
    pub allowed_headers: Box<[HeaderName]>,
    /// Objects may refer to Secrets and ConfigMaps of other namespaces.
    pub cross_namespace: bool,
    /// Hosts may have TLS connections passed through; for Ingresses.
    pub ssl_passthrough: bool,
    /// Why no rule is served: a setting of the whole gateway that must not be ignored.
    pub refused: Option<&'static str>,
}

impl Default for RuleDefaults {
    fn default() -> Self {
        Self {
            ssl_redirect: true,
            force_ssl_redirect: false,
            access: AccessList::default(),
            blocked: Box::default(),
            overrides: HttpOverrides::default(),
            errors: ErrorStatuses::default(),
            allowed_headers: Box::default(),
            cross_namespace: false,
            ssl_passthrough: false,
            refused: None,
        }
    }
}
