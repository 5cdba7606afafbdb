//! The annotations of an Ingress, `nginx.ingress.kubernetes.io/…`.
//!
//! What is not supported is reported, never ignored in silence. Where ignoring it would open what
//! its author meant to close (snippets of foreign configuration, access lists, authentication), the
//! Ingress is not served at all: its paths answer 503.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::store::ObjectKey;
use crate::model::{BackendProtocol, Problem, ProblemKind};

const PREFIX: &str = "nginx.ingress.kubernetes.io/";

/// Text pasted into a foreign configuration: what it does cannot be known.
const SNIPPETS: [&str; 6] = [
    "auth-snippet",
    "configuration-snippet",
    "http-snippet",
    "modsecurity-snippet",
    "server-snippet",
    "stream-snippet",
];

/// Annotations that restrict who may come in.
const ACCESS: [&str; 9] = [
    "allowlist-source-range",
    "auth-secret",
    "auth-tls-secret",
    "auth-tls-verify-client",
    "auth-type",
    "auth-url",
    "denylist-source-range",
    "enable-modsecurity",
    "whitelist-source-range",
];

/// What the annotations of an Ingress say, for all of its paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Policy {
    /// Some path is a regular expression, so all paths of the host are.
    pub(super) regex: bool,
    pub(super) rewrite: Option<Arc<str>>,
    pub(super) ssl_redirect: bool,
    pub(super) force_ssl_redirect: bool,
    pub(super) backend_protocol: BackendProtocol,
    /// A canary shares host and path with another Ingress; as long as it cannot get its share, it
    /// gets nothing.
    pub(super) canary: bool,
    /// Why none of the paths is served.
    pub(super) refused: Option<&'static str>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            regex: false,
            rewrite: None,
            ssl_redirect: true,
            force_ssl_redirect: false,
            backend_protocol: BackendProtocol::Http,
            canary: false,
            refused: None,
        }
    }
}

impl Policy {
    /// Reads the annotations and appends what is wrong with them to `problems`.
    pub(super) fn read(
        key: &ObjectKey,
        annotations: &BTreeMap<String, String>,
        problems: &mut Vec<Problem>,
    ) -> Self {
        let mut reader = Reader {
            key,
            problems,
            policy: Self::default(),
            unknown: Vec::new(),
        };
        for (name, value) in annotations {
            if let Some(short) = name.strip_prefix(PREFIX) {
                reader.one(short, value.trim());
            }
        }
        reader.report_unknown();
        reader.policy
    }
}

struct Reader<'a> {
    key: &'a ObjectKey,
    problems: &'a mut Vec<Problem>,
    policy: Policy,
    unknown: Vec<String>,
}

impl Reader<'_> {
    fn one(&mut self, name: &str, value: &str) {
        match name {
            "rewrite-target" => self.rewrite(value),
            "use-regex" => self.policy.regex |= self.switch(name, value, false),
            "ssl-redirect" => self.policy.ssl_redirect = self.switch(name, value, true),
            "force-ssl-redirect" => {
                self.policy.force_ssl_redirect = self.switch(name, value, false)
            }
            "backend-protocol" => self.backend_protocol(value),
            "canary" => {
                if self.switch(name, value, false) {
                    self.policy.canary = true;
                    let message = "canaries are not supported: the Ingress gets no traffic";
                    self.problem(name, ProblemKind::RefusedAnnotation, message.into());
                }
            }
            _ if SNIPPETS.contains(&name) => {
                self.policy.refused = Some("snippet annotation");
                let message = "snippets of configuration are refused, because what they would do \
                               cannot be known: the Ingress answers 503 until it is removed";
                self.problem(name, ProblemKind::RefusedAnnotation, message.into());
            }
            _ if ACCESS.contains(&name) => {
                self.policy.refused = Some("unsupported access control");
                let message = "this restriction of access is not supported: the Ingress answers \
                               503 rather than let everyone in";
                self.problem(name, ProblemKind::RefusedAnnotation, message.into());
            }
            _ => self.unknown.push(format!("{PREFIX}{name}")),
        }
    }

    fn rewrite(&mut self, target: &str) {
        if target.is_empty() {
            return;
        }
        self.policy.regex = true;
        if target.starts_with("http://") || target.starts_with("https://") {
            self.policy.refused = Some("unsupported rewrite target");
            let message = "a rewrite to a whole URL (a redirect) is not supported";
            self.problem(
                "rewrite-target",
                ProblemKind::RefusedAnnotation,
                message.into(),
            );
        } else {
            self.policy.rewrite = Some(target.into());
        }
    }

    fn backend_protocol(&mut self, value: &str) {
        self.policy.backend_protocol = match value.to_ascii_uppercase().as_str() {
            "HTTP" => BackendProtocol::Http,
            "HTTPS" => BackendProtocol::Https,
            "GRPC" => BackendProtocol::Grpc,
            "GRPCS" => BackendProtocol::Grpcs,
            "FCGI" => {
                self.policy.refused = Some("unsupported backend protocol");
                let message = "FastCGI backends are not supported";
                self.problem(
                    "backend-protocol",
                    ProblemKind::RefusedAnnotation,
                    message.into(),
                );
                BackendProtocol::Http
            }
            _ => {
                let message =
                    format!("`{value}` is not one of HTTP, HTTPS, GRPC, GRPCS; HTTP is used");
                self.problem("backend-protocol", ProblemKind::BadAnnotation, message);
                BackendProtocol::Http
            }
        };
    }

    /// A truth value in the spellings that ingress-nginx takes.
    fn switch(&mut self, name: &str, value: &str, default: bool) -> bool {
        match value {
            "1" | "t" | "T" | "true" | "True" | "TRUE" => true,
            "0" | "f" | "F" | "false" | "False" | "FALSE" => false,
            _ => {
                let message = format!("`{value}` is neither true nor false; {default} is used");
                self.problem(name, ProblemKind::BadAnnotation, message);
                default
            }
        }
    }

    fn problem(&mut self, name: &str, kind: ProblemKind, message: String) {
        self.problems.push(Problem {
            object: self.key.of_kind("Ingress"),
            field: format!("metadata.annotations[{PREFIX}{name}]"),
            kind,
            message,
        });
    }

    fn report_unknown(&mut self) {
        if self.unknown.is_empty() {
            return;
        }
        self.problems.push(Problem {
            object: self.key.of_kind("Ingress"),
            field: "metadata.annotations".into(),
            kind: ProblemKind::UnknownAnnotation,
            message: format!(
                "not supported and without effect: {}",
                self.unknown.join(", ")
            ),
        });
    }
}
