//! Hosts that no rule has, and that are served because of another: aliases, and `www.X` beside `X`.
//!
//! A host with rules of its own goes before them, whichever object is older. Aliases of a host come
//! from the oldest Ingress that gives it some, as what there can be only one of does.

use std::sync::Arc;

use super::annotations::FurtherNames;
use super::host_certificate::CertificateChoice;
use super::host_routes::{CompiledHost, HostCompiler, Source};
use super::ingress::IngressRecord;
use super::rank::SourceKey;
use crate::model::{
    Filters, HostMatch, HostRoutes, HostTls, Part, PathMatch, Problem, ProblemKind, Redirect,
    RoutePolicy, RouteRule, Template,
};

const ALIAS: &str = "metadata.annotations[nginx.ingress.kubernetes.io/server-alias]";
const WWW: &str = "metadata.annotations[nginx.ingress.kubernetes.io/from-to-www-redirect]";

impl IngressRecord {
    /// The names that it asks for besides `host`, if that is one of its own.
    pub(super) fn names_beside(&self, host: &HostMatch) -> Vec<HostMatch> {
        let names = self.policy.names.as_deref();
        let Some(names) = names.filter(|_| self.has_rule_for(host)) else {
            return Vec::new();
        };
        let www = names.www.then(|| counterpart(host)).flatten();
        names.aliases.iter().cloned().chain(www).collect()
    }

    /// All names that it asks for besides those of its rules; with repetitions.
    pub(super) fn further_names(&self) -> Vec<HostMatch> {
        let Some(names) = self.policy.names.as_deref() else {
            return Vec::new();
        };
        let hosts = self.rules.iter().map(|rule| &rule.host);
        let www = hosts.filter(|_| names.www).filter_map(counterpart);
        names.aliases.iter().cloned().chain(www).collect()
    }

    /// It has a rule for this host, and is no canary, which takes part in another's.
    pub(super) fn has_rule_for(&self, host: &HostMatch) -> bool {
        self.policy.canary.is_none() && self.rules.iter().any(|rule| rule.host == *host)
    }
}

/// `www.X` of `X`, and `X` of `www.X`.
fn counterpart(host: &HostMatch) -> Option<HostMatch> {
    let HostMatch::Exact(name) = host else {
        return None;
    };
    Some(HostMatch::Exact(match name.strip_prefix("www.") {
        Some(bare) => bare.into(),
        None => format!("www.{name}").into(),
    }))
}

/// What a name without rules of its own is served as.
pub(super) enum Further<'a> {
    /// As this host is.
    Alias(&'a HostMatch),
    /// Its requests are sent to this host.
    Www(&'a SourceKey, &'a IngressRecord, &'a HostMatch),
}

impl<'a> Further<'a> {
    /// The host that it comes from.
    pub(super) fn host(&self) -> &'a HostMatch {
        match self {
            Self::Alias(host) | Self::Www(_, _, host) => host,
        }
    }
}

impl HostCompiler<'_> {
    /// What `name`, which no rule has, is to be, by the objects that name it; `of` has those of
    /// another host.
    pub(super) fn further<'a, 's>(
        &self,
        name: &HostMatch,
        naming: &'a [Source<'s>],
        of: impl Fn(&HostMatch) -> Vec<Source<'s>>,
        problems: &mut Vec<Problem>,
    ) -> Option<Further<'a>> {
        let mut found = None;
        for (key, record) in naming {
            let Some(names) = &record.policy.names else {
                continue;
            };
            if !names.aliases.contains(name) {
                continue;
            }
            for rule in &record.rules {
                let gives = |names: &FurtherNames| !names.aliases.is_empty();
                let of_host = of(&rule.host);
                let giver = of_host.iter().find(|(_, other)| {
                    let names = other.policy.names.as_deref();
                    other.has_rule_for(&rule.host) && names.is_some_and(gives)
                });
                let message = match (giver, &found) {
                    (Some((giver, _)), _) if giver != key => format!(
                        "{giver}, which is older, says which aliases {} has",
                        rule.host
                    ),
                    (_, None) => {
                        found = Some(Further::Alias(&rule.host));
                        continue;
                    }
                    (_, Some(first)) if first.host() != &rule.host => {
                        format!("{name} is an alias of {} already", first.host())
                    }
                    _ => continue,
                };
                problems.push(conflict(key, ALIAS, message));
            }
        }
        if found.is_some() {
            return found;
        }
        naming.iter().find_map(|(key, record)| {
            record.policy.names.as_ref().filter(|names| names.www)?;
            let hosts = record.rules.iter().map(|rule| &rule.host);
            let host = hosts
                .into_iter()
                .find(|host| counterpart(host).as_ref() == Some(name))?;
            Some(Further::Www(key, record, host))
        })
    }

    /// Reports those that would have a host, which has rules, for a name of another.
    pub(super) fn not_further(
        &self,
        host: &HostMatch,
        naming: &[Source<'_>],
        problems: &mut Vec<Problem>,
    ) {
        for (key, record) in naming {
            let Some(names) = &record.policy.names else {
                continue;
            };
            let is_redirected = names.www
                && record
                    .rules
                    .iter()
                    .any(|rule| counterpart(&rule.host).as_ref() == Some(host));
            let message = format!("{host} has rules of its own, which it is served by");
            if names.aliases.contains(host) && !record.has_rule_for(host) {
                problems.push(conflict(key, ALIAS, message));
            } else if is_redirected {
                problems.push(conflict(key, WWW, message));
            }
        }
    }

    /// Such a name, compiled: `routes` are those of the host that it comes from, `naming` and `owners`
    /// the objects that name it and those that have the host.
    pub(super) fn further_host(
        &self,
        name: &HostMatch,
        further: &Further<'_>,
        routes: &HostRoutes,
        (naming, owners): (&[Source<'_>], &[Source<'_>]),
        mut problems: Vec<Problem>,
    ) -> CompiledHost {
        let (certificate, is_tls) = self.further_certificate(name, naming, owners, &mut problems);
        let routes = match further {
            Further::Alias(_) => HostRoutes {
                host: name.clone(),
                has_certificate: is_tls,
                ..routes.clone()
            },
            Further::Www(key, record, to) => HostRoutes {
                host: name.clone(),
                rules: vec![Arc::new(self.redirecting_rule(key, record, to))],
                fallback: None,
                has_certificate: is_tls,
                tls: HostTls::default(),
            },
        };
        CompiledHost {
            routes: Some(routes),
            certificate,
            problems,
        }
    }

    /// As for any host if an entry of `spec.tls` names it; else one of the host's, if it is good for
    /// this name, too.
    fn further_certificate(
        &self,
        name: &HostMatch,
        naming: &[Source<'_>],
        owners: &[Source<'_>],
        problems: &mut Vec<Problem>,
    ) -> (CertificateChoice, bool) {
        let names_it = |(_, record): &&Source<'_>| {
            let mut hosts = record.tls.iter().flat_map(|tls| &tls.hosts);
            record.policy.canary.is_none() && hosts.any(|host| host == name)
        };
        let named: Vec<&Source<'_>> = naming.iter().filter(names_it).collect();
        if !named.is_empty() {
            return self.certificate(name, &named, problems);
        }
        let main = owners.iter().filter(|(_, it)| it.policy.canary.is_none());
        let good = main.into_iter().find_map(|(key, record)| {
            record.tls.iter().find_map(|tls| {
                let state = self.secrets.get(&key.sibling(tls.secret.as_ref()?))?;
                let good = state.good.as_ref().filter(|loaded| loaded.covers(name))?;
                Some(Arc::clone(&good.certificate))
            })
        });
        match good {
            Some(certificate) => (CertificateChoice::Use(certificate), true),
            None => (CertificateChoice::None, false),
        }
    }

    fn redirecting_rule(
        &self,
        key: &SourceKey,
        record: &IngressRecord,
        to: &HostMatch,
    ) -> RouteRule {
        let location = [
            Part::Scheme,
            Part::Text(format!("://{to}").into()),
            Part::Port,
            Part::RequestUri,
        ];
        let policy = RoutePolicy {
            redirect: Some(Redirect {
                location: Template(location.into()),
                status: self.redirect_status,
            }),
            ..RoutePolicy::default()
        };
        RouteRule {
            source: key.object(),
            field: WWW.into(),
            path: PathMatch::Prefix("".into()),
            filters: Filters {
                mode: self.mode(record),
                policy: Some(Arc::new(policy)),
                ..Filters::default()
            },
            backends: Vec::new(),
            invalid: record.policy.refused.or(self.defaults.refused),
            canary: None,
        }
    }
}

fn conflict(key: &SourceKey, field: &str, message: String) -> Problem {
    Problem {
        object: key.object(),
        field: field.into(),
        kind: ProblemKind::Conflict,
        message,
    }
}
