//! Certificates of clients (`auth-tls-*`).

use super::Reader;
use super::redirect;
use crate::compile::store::ObjectKey;
use crate::model::{ClientVerification, ProblemKind, SubjectPattern, Template};

/// The most certificates between one and its authority that can be asked for. webpki follows six.
const MAX_DEPTH: usize = 6;

/// What is asked of TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::compile) struct TlsPolicy {
    /// Clients show certificates.
    pub(in crate::compile) client: Option<ClientRecord>,
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
        self.client
            .iter()
            .filter_map(|client| client.secret.as_ref())
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
        }
    }
}

/// Whether an annotation is about TLS.
pub(super) fn is(name: &str) -> bool {
    name.starts_with("auth-tls-")
}

impl Reader<'_> {
    pub(super) fn tls(&mut self, name: &str, value: &str) {
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
    pub(super) fn finish_tls(&mut self) -> TlsPolicy {
        let draft = std::mem::take(&mut self.tls);
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
                return TlsPolicy::default();
            }
        }
        TlsPolicy {
            client: Some(client),
        }
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
