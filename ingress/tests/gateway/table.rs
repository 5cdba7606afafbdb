//! The table of hosts and paths (`tests/data/hosts-and-paths.txt`).

use std::fmt;

use serde_json::{Value, json};

/// An Ingress.
pub(crate) struct Written {
    pub(crate) name: &'static str,
    default: Option<&'static str>,
    /// Host, path type, path, backend.
    rules: Vec<[&'static str; 4]>,
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End<'a> {
    /// This backend takes it.
    Backend(&'a str),
    /// The client is sent there with 301.
    Moved(&'a str),
    /// Nothing takes it: 404.
    Nothing,
    /// Its rule is refused: 503.
    Refused,
}

/// A request, and what becomes of it.
#[derive(Clone, Copy)]
pub(crate) struct Case {
    pub(crate) host: &'static str,
    pub(crate) path: &'static str,
    pub(crate) strict: End<'static>,
    pub(crate) compat: End<'static>,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.host, self.path)
    }
}

/// Names of the Services that the table has.
pub(crate) const SERVICES: [&str; 4] = ["one", "two", "three", "four"];

/// The Ingresses and the requests.
pub(crate) fn read() -> (Vec<Written>, Vec<Case>) {
    let (mut written, mut cases): (Vec<Written>, Vec<Case>) = (Vec::new(), Vec::new());
    for line in include_str!("../data/hosts-and-paths.txt").lines() {
        let words: Vec<&'static str> = line.split_whitespace().collect();
        match (words.as_slice(), written.last_mut()) {
            ([], _) => {}
            ([first, ..], _) if first.starts_with('#') => {}
            (["ask", host, path, strict, compat @ ..], _) => {
                let strict = End::read(strict);
                let compat = compat.first().map_or(strict, |end| End::read(end));
                cases.push(Case {
                    host,
                    path,
                    strict,
                    compat,
                });
            }
            (["default", backend], Some(ingress)) => ingress.default = Some(backend),
            ([host, kind, path, backend], Some(ingress)) => {
                ingress.rules.push([host, kind, path, backend]);
            }
            ([name], _) if name.starts_with('[') => written.push(Written {
                name: name.trim_matches(['[', ']']),
                default: None,
                rules: Vec::new(),
            }),
            _ => panic!("not a line of the table: {line}"),
        }
    }
    (written, cases)
}

impl End<'static> {
    fn read(text: &'static str) -> Self {
        match text {
            "-" => Self::Nothing,
            "!" => Self::Refused,
            _ => match text.strip_prefix('>') {
                Some(location) => Self::Moved(location),
                None => Self::Backend(text),
            },
        }
    }
}

impl<'a> End<'a> {
    /// What an answer says; `None`: something that the table does not know.
    pub(crate) fn of(status: u16, location: &'a str, backend: &'a str) -> Option<Self> {
        Some(match status {
            200 => Self::Backend(backend),
            301 => Self::Moved(location),
            404 => Self::Nothing,
            503 => Self::Refused,
            _ => return None,
        })
    }
}

impl Written {
    /// The object, of this class.
    pub(crate) fn object(&self, class: &str) -> Value {
        let backend = |name: &str| json!({"service": {"name": name, "port": {"number": 80}}});
        let rule = |[host, kind, path, name]: &[&str; 4]| {
            let kind = match *kind {
                "E" => "Exact",
                "P" => "Prefix",
                _ => "ImplementationSpecific",
            };
            let paths = json!([{"pathType": kind, "path": path, "backend": backend(name)}]);
            let mut rule = json!({"http": {"paths": paths}});
            if *host != "*" {
                rule["host"] = (*host).into();
            }
            rule
        };
        let rules: Vec<Value> = self.rules.iter().map(rule).collect();
        let mut spec = json!({"ingressClassName": class, "rules": rules});
        if let Some(name) = self.default {
            spec["defaultBackend"] = backend(name);
        }
        json!({
            "apiVersion": "networking.k8s.io/v1",
            "kind": "Ingress",
            "metadata": {"name": self.name, "namespace": "default"},
            "spec": spec,
        })
    }
}
