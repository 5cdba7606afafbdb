//! TLS connections that are not ended here but go to a backend as they come (ingress-nginx
//! `ssl-passthrough`).
//!
//! One Ingress of a host that says so settles it for the host, if it is in the namespace of the rule for
//! `/`: who has a younger rule for a host is not to take the access lists of others away. Nothing else
//! that is said of the host means anything for such a connection, which is reported. Over plain HTTP the
//! host's rules hold as ever, and the backend is spoken to in TLS, as by ingress-nginx.

use std::sync::Arc;

use super::annotations::{PASSTHROUGH, PREFIX};
use super::host_routes::{HostCompiler, Source};
use crate::model::{BackendProtocol, HostMatch, HostRoutes, Problem, ProblemKind, RouteRule};

const NO_FLAG: &str = "without effect, because the gateway runs without --enable-ssl-passthrough";
const NO_HOST: &str = "without effect for rules without a host: connections are told apart by the name \
                       that clients ask for";
const NO_ROOT: &str = "without effect, because the host has no rule for the path /, whose Service would \
                       get the connections";
const OF_OTHERS: &str = "without effect, because the rule for / of the host is another namespace's";

impl HostCompiler<'_> {
    /// Has TLS connections for a host passed through, if one of the objects with its rules says so.
    pub(super) fn pass_through(
        &self,
        routes: &mut HostRoutes,
        sources: &[&Source<'_>],
        problems: &mut Vec<Problem>,
    ) {
        let asking = sources.iter().filter_map(|(key, record)| {
            let tls = record.policy.tls.as_ref()?;
            Some((key.object(), tls.passthrough.as_ref()?))
        });
        let mut asking = asking.peekable();
        if asking.peek().is_none() {
            return;
        }
        let root = self.root(routes, sources);
        let mut is_heeded = false;
        for (object, others) in asking {
            let message = match &root {
                Err(why) => Some((*why).to_owned()),
                Ok(root) if root.source.namespace != object.namespace => Some(OF_OTHERS.to_owned()),
                Ok(_) => {
                    is_heeded = true;
                    ignored(routes.rules.len() - 1, others)
                }
            };
            problems.extend(message.map(|message| Problem {
                object,
                field: format!("metadata.annotations[{PREFIX}{PASSTHROUGH}]"),
                kind: ProblemKind::UnknownAnnotation,
                message,
            }));
        }
        if let Ok(root) = root
            && is_heeded
        {
            let mut rule = (*root).clone();
            rule.filters.backend_protocol = match rule.filters.backend_protocol {
                BackendProtocol::Http | BackendProtocol::Https | BackendProtocol::Auto => {
                    BackendProtocol::Https
                }
                BackendProtocol::Grpc | BackendProtocol::Grpcs => BackendProtocol::Grpcs,
            };
            let rule = Arc::new(rule);
            for place in &mut routes.rules {
                if Arc::ptr_eq(place, &root) {
                    *place = Arc::clone(&rule);
                }
            }
            routes.tls.passthrough = Some(rule);
        }
    }

    /// The oldest rule for `/` of a host whose connections can be passed through, or why they cannot.
    fn root(
        &self,
        routes: &HostRoutes,
        sources: &[&Source<'_>],
    ) -> Result<Arc<RouteRule>, &'static str> {
        if !self.defaults.ssl_passthrough {
            return Err(NO_FLAG);
        }
        if routes.host == HostMatch::Any {
            return Err(NO_HOST);
        }
        let found = sources.iter().find_map(|(key, record)| {
            let rules = record.rules.iter().filter(|rule| rule.host == routes.host);
            let mut paths = rules.flat_map(|rule| rule.paths.iter().map(move |path| (rule, path)));
            let (rule, path) = paths.find(|(_, path)| matches!(&*path.path, "/" | ""))?;
            let (object, field) = (key.object(), record.path_field(rule, path));
            let mut compiled = routes.rules.iter();
            compiled.find(|rule| rule.source == object && *rule.field == *field)
        });
        found.cloned().ok_or(NO_ROOT)
    }
}

/// What means nothing for connections that are passed through.
fn ignored(rules: usize, annotations: &[Box<str>]) -> Option<String> {
    let mut parts = Vec::new();
    match rules {
        0 => {}
        1 => parts.push("1 rule for another path".to_owned()),
        more => parts.push(format!("{more} rules for other paths")),
    }
    if !annotations.is_empty() {
        parts.push(annotations.join(", "));
    }
    let all = parts.join("; ");
    (!parts.is_empty()).then(|| {
        format!("TLS connections go to the backend as they come; without effect for them: {all}")
    })
}
