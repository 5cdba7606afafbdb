//! Certificates of clients (`auth-tls-*`), and TLS to endpoints (`proxy-ssl-*`).

use std::collections::BTreeMap;

use rustls::pki_types::ServerName;

use super::Reader;
use super::redirect;
use crate::compile::store::ObjectKey;
use crate::model::{ClientVerification, ProblemKind, SubjectPattern, Template, TlsVersions};

/// The most certificates between one and its authority that can be asked for. webpki follows six.
const MAX_DEPTH: usize = 6;

/// What is asked of TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::compile) struct TlsPolicy {
    /// Clients show certificates.
    pub(in crate::compile) client: Option<ClientRecord>,
    /// How TLS is spoken with endpoints.
    pub(in crate::compile) upstream: Option<UpstreamRecord>,
    /// TLS connections are to be passed through: the names of the other annotations, which mean
    /// nothing for them.
    pub(in crate::compile) passthrough: Option<Box<[Box<str>]>>,
}

/// TLS to endpoints, as written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::compile) struct UpstreamRecord {
    /// The Secret with certificate and authorities.
    pub(in crate::compile) secret: Option<ObjectKey>,
    pub(in crate::compile) verify: bool,
    /// One if nothing is said.
    pub(in crate::compile) depth: Option<usize>,
    /// The Service's if nothing is said.
    pub(in crate::compile) name: Option<ServerName<'static>>,
    pub(in crate::compile) sends_name: bool,
    pub(in crate::compile) versions: TlsVersions,
}

/// Certificates of clients, as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::compile) struct ClientRecord {
    /// The Secret with the authorities; `None`: what is written cannot be done, so nobody gets in.
    pub(in crate::compile) secret: Option<ObjectKey>,
    pub(in crate::compile) verify: ClientVerification,
    pub(in crate::compile) depth: usize,
    pub(in crate::compile) subject: Option<SubjectPattern>,
    pub(in crate::compile) error_page: Option<Template>,
    pub(in crate::compile) pass_certificate: bool,
}

impl TlsPolicy {
    /// The Secrets that it names.
    pub(in crate::compile) fn secrets(&self) -> impl Iterator<Item = &ObjectKey> {
        let client = self
            .client
            .as_ref()
            .and_then(|client| client.secret.as_ref());
        let upstream = self.upstream.as_ref();
        client
            .into_iter()
            .chain(upstream.and_then(|it| it.secret.as_ref()))
    }
}

/// What was read so far.
pub(super) struct Draft {
    client: ClientRecord,
    has_secret: bool,
    /// An annotation cannot be read, and without it more clients would get in.
    is_broken: bool,
    /// The names that mean nothing without a Secret.
    modifiers: Vec<String>,
    /// Clients without a certificate are to be kept out.
    is_required: bool,
    upstream: UpstreamRecord,
    passes_through: bool,
}

impl Default for Draft {
    fn default() -> Self {
        Self {
            client: ClientRecord {
                secret: None,
                verify: ClientVerification::Required,
                depth: 1,
                subject: None,
                error_page: None,
                pass_certificate: false,
            },
            has_secret: false,
            is_broken: false,
            modifiers: Vec::new(),
            is_required: false,
            upstream: UpstreamRecord::default(),
            passes_through: false,
        }
    }
}

/// The annotation that has TLS connections passed through.
pub(in crate::compile) const PASSTHROUGH: &str = "ssl-passthrough";

/// Whether an annotation is about TLS.
pub(super) fn is(name: &str) -> bool {
    name.starts_with("auth-tls-") || name.starts_with("proxy-ssl-") || name == PASSTHROUGH
}

impl Reader<'_> {
    pub(super) fn tls(&mut self, name: &str, value: &str) {
        if name.starts_with("proxy-ssl-") {
            return self.upstream_tls(name, value);
        }
        if name == PASSTHROUGH {
            self.tls.passes_through = self.switch(name, value, false);
            return;
        }
        if name != "auth-tls-secret" {
            self.tls.modifiers.push(name.to_owned());
        }
        match name {
            "auth-tls-secret" => {
                let secret = secret(self.key, value);
                self.tls.has_secret = true;
                self.tls.client.secret = self.or_close(name, secret);
            }
            "auth-tls-verify-client" => {
                if let Some(verify) = self.or_close(name, verification(value)) {
                    self.tls.client.verify = verify;
                }
                self.tls.is_required = self.tls.client.verify == ClientVerification::Required;
            }
            "auth-tls-verify-depth" => {
                if let Some(depth) = self.or_report(name, depth(value)) {
                    self.tls.client.depth = depth;
                }
            }
            "auth-tls-match-cn" => {
                self.tls.client.subject = self.or_close(name, subject(value));
            }
            "auth-tls-error-page" => {
                self.tls.client.error_page = self.or_report(name, redirect::location(value));
            }
            "auth-tls-pass-certificate-to-upstream" => {
                self.tls.client.pass_certificate = self.switch(name, value, false);
            }
            _ => {
                self.tls.modifiers.pop();
                self.unknown.push(format!("{}{name}", super::PREFIX));
            }
        }
    }

    fn upstream_tls(&mut self, name: &str, value: &str) {
        match name {
            "proxy-ssl-secret" => {
                let secret = secret(self.key, value);
                self.tls.upstream.secret = self.or_refuse(name, secret);
            }
            "proxy-ssl-verify" => match value {
                "on" | "off" => self.tls.upstream.verify = value == "on",
                _ => {
                    let why = format!("`{value}` is neither on nor off");
                    self.or_refuse::<()>(name, Err(why));
                }
            },
            "proxy-ssl-verify-depth" => {
                self.tls.upstream.depth = self.or_report(name, depth(value));
            }
            "proxy-ssl-name" => {
                self.tls.upstream.name = self.or_refuse(name, server_name(value));
            }
            "proxy-ssl-server-name" => match value {
                "on" | "off" => self.tls.upstream.sends_name = value == "on",
                _ => {
                    let why = format!("`{value}` is neither on nor off");
                    self.or_report::<()>(name, Err(why));
                }
            },
            "proxy-ssl-protocols" => {
                if let Some(versions) = self.or_report(name, versions(value)) {
                    self.tls.upstream.versions = versions;
                }
            }
            "proxy-ssl-ciphers" => {
                self.without_effect.push(format!("{}{name}", super::PREFIX));
            }
            _ => self.unknown.push(format!("{}{name}", super::PREFIX)),
        }
    }

    /// The value; with a bad one nobody gets in.
    fn or_close<T>(&mut self, name: &str, read: Result<T, String>) -> Option<T> {
        read.map_err(|why| {
            self.tls.is_broken = true;
            let message = format!("{why}: the host answers 403 until it is mended");
            self.problem(name, ProblemKind::RefusedAnnotation, message);
        })
        .ok()
    }

    /// What the annotations come to.
    pub(super) fn finish_tls(
        &mut self,
        annotations: &BTreeMap<String, String>,
    ) -> Option<Box<TlsPolicy>> {
        let mut draft = std::mem::take(&mut self.tls);
        let upstream = std::mem::take(&mut draft.upstream);
        let upstream = (upstream != UpstreamRecord::default()).then_some(upstream);
        let others = annotations.keys().filter_map(|name| {
            let short = name.strip_prefix(super::PREFIX)?;
            (short != PASSTHROUGH).then(|| short.into())
        });
        let policy = TlsPolicy {
            passthrough: draft.passes_through.then(|| others.collect()),
            client: self.finish_clients(draft),
            upstream,
        };
        (policy != TlsPolicy::default()).then(|| Box::new(policy))
    }

    fn finish_clients(&mut self, draft: Draft) -> Option<ClientRecord> {
        let mut client = draft.client;
        if draft.is_broken {
            client.secret = None;
        } else if !draft.has_secret {
            if draft.is_required {
                let message = "there is no `auth-tls-secret` to verify clients with: the host \
                               answers 403 until there is one";
                let kind = ProblemKind::RefusedAnnotation;
                self.problem("auth-tls-verify-client", kind, message.into());
            } else {
                for name in &draft.modifiers {
                    let message = "without effect, because there is no `auth-tls-secret`";
                    self.problem(name, ProblemKind::BadAnnotation, message.into());
                }
                return None;
            }
        }
        Some(client)
    }
}

/// `NAMESPACE/NAME`, or a name in the namespace of the Ingress. One in another namespace is somebody
/// else's.
fn secret(ingress: &ObjectKey, value: &str) -> Result<ObjectKey, String> {
    let (namespace, name) = match value.split_once('/') {
        Some((namespace, name)) => (namespace, name),
        None => (&*ingress.namespace, value),
    };
    let is_name = |text: &str| {
        let inner =
            |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.');
        (1..=253).contains(&text.len()) && text.bytes().all(inner)
    };
    if !is_name(namespace) || !is_name(name) {
        return Err(format!("`{value}` is not the name of a Secret"));
    }
    if namespace != &*ingress.namespace {
        return Err(format!(
            "Secret {value} is in another namespace than the Ingress"
        ));
    }
    Ok(ObjectKey::new(namespace, name))
}

fn server_name(value: &str) -> Result<ServerName<'static>, String> {
    let name = ServerName::try_from(value.to_owned());
    name.map_err(|_why| format!("`{value}` is neither a host name nor an address"))
}

/// Versions in OpenSSL's names. Those before 1.2 are not spoken.
pub(in crate::compile) fn versions(value: &str) -> Result<TlsVersions, String> {
    let has = |version| value.split_whitespace().any(|named| named == version);
    match (has("TLSv1.2"), has("TLSv1.3")) {
        (true, true) => Ok(TlsVersions::All),
        (true, false) => Ok(TlsVersions::Only12),
        (false, true) => Ok(TlsVersions::Only13),
        (false, false) => Err(format!("`{value}` has neither TLSv1.2 nor TLSv1.3")),
    }
}

fn verification(value: &str) -> Result<ClientVerification, String> {
    Ok(match value {
        "on" => ClientVerification::Required,
        "optional" => ClientVerification::Optional,
        "optional_no_ca" => ClientVerification::OptionalAnyIssuer,
        "off" => ClientVerification::Off,
        _ => {
            return Err(format!(
                "`{value}` is not one of on, optional, optional_no_ca, off"
            ));
        }
    })
}

fn depth(value: &str) -> Result<usize, String> {
    let depth = value.parse().ok().filter(|depth| *depth <= MAX_DEPTH);
    depth.ok_or_else(|| format!("`{value}` is not a number from 0 to {MAX_DEPTH}"))
}

fn subject(value: &str) -> Result<SubjectPattern, String> {
    if !value.starts_with("CN=") {
        return Err(format!("`{value}` does not begin with `CN=`"));
    }
    SubjectPattern::new(value)
        .map_err(|why| format!("`{value}` is not a regular expression: {why}"))
}
