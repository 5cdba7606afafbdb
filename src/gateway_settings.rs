//! Flags about the gateway as a whole, which `gateway` and `up` have.

use std::net::IpAddr;

use clap::ValueEnum;
use ipnet::IpNet;
use sealane_config::compile::ObjectKey;
use sealane_config::model::{
    GatewaySettings, ListenerTls, ProxyProtocol, RuleDefaults, TlsVersions, TrustedProxies,
};
use sealane_config::watch::IngressWatch;
use sealane_ingress::Outside;

/// Options as given.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct SettingsOptions {
    /// ConfigMap with settings of the gateway, named as in ingress-nginx; it goes before flags
    #[arg(long, env = "SEALANE_CONFIGMAP", value_name = "NAMESPACE/NAME", value_parser = object)]
    configmap: Option<ObjectKey>,
    /// Service for requests that no rule takes, and for errors that the ConfigMap's custom-http-errors
    /// names
    #[arg(long, env = "SEALANE_DEFAULT_BACKEND_SERVICE", value_name = "NAMESPACE/NAME", value_parser = object)]
    default_backend_service: Option<ObjectKey>,
    /// Where proxies in front of the gateway are, as addresses and CIDRs: what they say about clients
    /// in X-Forwarded-* fields and PROXY headers is believed
    #[arg(long, env = "SEALANE_TRUSTED_PROXIES", value_name = "CIDR,…", value_parser = network,
        value_delimiter = ',')]
    trusted_proxies: Vec<IpNet>,
    /// Networks, besides public addresses, where the services of auth-url may be that are outside of
    /// the cluster, as addresses and CIDRs
    #[arg(long, env = "SEALANE_AUTH_URL_NETWORKS", value_name = "CIDR,…", value_parser = network,
        value_delimiter = ',')]
    auth_url_networks: Vec<IpNet>,
    /// Listeners on which each connection of a trusted proxy begins with a PROXY header
    #[arg(
        long,
        env = "SEALANE_PROXY_PROTOCOL",
        value_enum,
        value_name = "LISTENER,…",
        value_delimiter = ','
    )]
    proxy_protocol: Vec<ListenerName>,
    /// Versions of TLS that the HTTPS listener speaks [default: both]
    #[arg(
        long,
        env = "SEALANE_SSL_PROTOCOLS",
        value_enum,
        value_name = "VERSION,…",
        value_delimiter = ','
    )]
    ssl_protocols: Vec<Version>,
    /// Refuse TLS connections for names that no rule or certificate is for, instead of showing the
    /// default certificate
    #[arg(long, env = "SEALANE_SSL_REJECT_HANDSHAKE")]
    ssl_reject_handshake: bool,
    /// Heed the annotation ssl-passthrough: TLS connections for the host go to the backend as they come
    #[arg(long, env = "SEALANE_ENABLE_SSL_PASSTHROUGH")]
    enable_ssl_passthrough: bool,
    /// Serve HTTP/3, too, on the UDP port with the number of the HTTPS listener's, and tell clients of
    /// HTTPS so (Alt-Svc)
    #[arg(long, env = "SEALANE_HTTP3")]
    http3: bool,
}

/// A listener of the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ListenerName {
    /// The one for plain HTTP
    Http,
    /// The one for HTTPS
    Https,
}

/// A version of TLS, in OpenSSL's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Version {
    /// 1.2
    #[value(name = "TLSv1.2")]
    Tls12,
    /// 1.3
    #[value(name = "TLSv1.3")]
    Tls13,
}

impl SettingsOptions {
    /// What the watches are told: `watch`, with these settings.
    pub(crate) fn apply(&self, watch: IngressWatch) -> IngressWatch {
        let has = |listener| self.proxy_protocol.contains(&listener);
        IngressWatch {
            default_service: self.default_backend_service.clone(),
            config_map: self.configmap.clone(),
            settings: GatewaySettings {
                proxies: TrustedProxies {
                    networks: self.trusted_proxies.clone().into(),
                    forwarded: !self.trusted_proxies.is_empty(),
                    ..TrustedProxies::default()
                },
                proxy_protocol: ProxyProtocol {
                    http: has(ListenerName::Http),
                    https: has(ListenerName::Https),
                },
                tls: ListenerTls {
                    versions: self.tls_versions(),
                    rejects_unknown_names: self.ssl_reject_handshake,
                },
                rules: RuleDefaults {
                    ssl_passthrough: self.enable_ssl_passthrough,
                    ..RuleDefaults::default()
                },
                ..GatewaySettings::default()
            },
            ..watch
        }
    }

    fn tls_versions(&self) -> TlsVersions {
        let has = |version| self.ssl_protocols.contains(&version);
        match (has(Version::Tls12), has(Version::Tls13)) {
            (true, false) => TlsVersions::Only12,
            (false, true) => TlsVersions::Only13,
            (true, true) | (false, false) => TlsVersions::All,
        }
    }

    /// Where trusted proxies are, as the flag says.
    pub(crate) fn trusted_proxies(&self) -> &[IpNet] {
        &self.trusted_proxies
    }

    /// Where services may be asked that are outside of the cluster.
    pub(crate) fn outside(&self) -> Outside {
        Outside::new(&self.auth_url_networks, None)
    }

    /// Whether HTTP/3 is served.
    pub(crate) fn http3(&self) -> bool {
        self.http3
    }

    /// What of the flags makes no sense.
    pub(crate) fn problem(&self) -> Option<String> {
        if self.http3 && self.proxy_protocol.contains(&ListenerName::Https) {
            let problem = "--http3: QUIC has no PROXY headers, which --proxy-protocol wants on the \
                           HTTPS listener; leave one of them out";
            return Some(problem.to_owned());
        }
        if self.http3 && self.tls_versions() == TlsVersions::Only12 {
            let problem = "--http3: QUIC is TLS 1.3 and later, which --ssl-protocols leaves out";
            return Some(problem.to_owned());
        }
        let is_nobodys = !self.proxy_protocol.is_empty()
            && self.trusted_proxies.is_empty()
            && self.configmap.is_none();
        is_nobodys.then(|| {
            "--proxy-protocol: nobody is trusted to send a PROXY header; say with --trusted-proxies \
             where the proxies are"
                .to_owned()
        })
    }
}

/// `NAMESPACE/NAME`.
pub(crate) fn object(text: &str) -> Result<ObjectKey, String> {
    match text.split_once('/') {
        Some((namespace, name))
            if !namespace.is_empty() && !name.is_empty() && !name.contains('/') =>
        {
            Ok(ObjectKey::new(namespace, name))
        }
        _ => Err("give it as NAMESPACE/NAME".to_owned()),
    }
}

/// An address or a CIDR.
fn network(text: &str) -> Result<IpNet, String> {
    let text = text.trim();
    let cidr = text.parse::<IpNet>().map(|net| net.trunc());
    cidr.or_else(|_not_a_cidr| text.parse::<IpAddr>().map(IpNet::from))
        .map_err(|_neither| format!("`{text}` is neither an address nor a CIDR"))
}
