//! One host: its rules from all Ingresses that name it, merged and in order, and its certificate.
//!
//! - The oldest Ingress wins a path that several have, and settles what there can be only one of:
//!   the fallback and the certificate. The losers get a problem that names the winner.
//! - `use-regex` or `rewrite-target` on one Ingress turns *all* paths of the host into regular
//!   expressions, as in ingress-nginx, where they become locations of one server.
//! - A rule that cannot be served keeps its place and answers 503: leaving it out would hand its
//!   requests to the next broader rule.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::canaries::{Canaries, split};
use super::classes::Classes;
use super::config_maps::ConfigMaps;
use super::host_backends;
use super::host_certificate::CertificateChoice;
use super::ingress::{BackendRecord, IngressRecord, Origin, PathKind, PathRecord};
use super::path::{self, Patterns};
use super::rank::{PathRank, SourceKey};
use super::secrets::Secrets;
use super::services::Services;
use super::store::ObjectKey;
use crate::model::{
    AccessList, Filters, HostMatch, HostRoutes, HostTls, HttpOverrides, Mode, PathMatch, Problem,
    ProblemKind, RoutePolicy, RouteRule, RuleDefaults,
};

/// Compiles hosts against the Services and Secrets as they are.
#[derive(Clone, Copy)]
pub(super) struct HostCompiler<'a> {
    pub(super) services: &'a Services,
    pub(super) secrets: &'a Secrets,
    pub(super) config_maps: &'a ConfigMaps,
    /// What holds where an object says nothing.
    pub(super) defaults: &'a RuleDefaults,
    /// Status of redirects from one host to another, as from HTTP to HTTPS.
    pub(super) redirect_status: u16,
    pub(super) classes: &'a Classes,
    /// Where requests go that no rule takes, and errors that nobody else answers.
    pub(super) default_service: Option<&'a ObjectKey>,
    /// Now, seconds since the Unix epoch: certificates expire.
    pub(super) epoch_seconds: i64,
}

/// A host, compiled.
pub(super) struct CompiledHost {
    /// `None`: no rule has this host.
    pub(super) routes: Option<HostRoutes>,
    pub(super) certificate: CertificateChoice,
    pub(super) problems: Vec<Problem>,
}

/// An object with rules and its record; lists of them are sorted, the oldest first.
pub(super) type Source<'a> = (SourceKey, &'a IngressRecord);

/// A rule with its precedence.
struct Ranked {
    rank: PathRank,
    rule: Arc<RouteRule>,
}

impl HostCompiler<'_> {
    /// Compiles `host` from the Ingresses that name it. `before` is its last compilation, from which
    /// regular expressions are reused.
    pub(super) fn host(
        &self,
        host: &HostMatch,
        sources: &[Source<'_>],
        before: Option<&HostRoutes>,
    ) -> CompiledHost {
        let mut problems = Vec::new();
        let has_host =
            |(_, record): &&Source<'_>| record.rules.iter().any(|rule| &rule.host == host);
        let (canaries, sources) = split(sources);
        let canaries: Vec<&Source<'_>> = canaries.into_iter().filter(has_host).collect();
        let (certificate, is_tls) = self.certificate(host, &sources, &mut problems);
        let with_rule: Vec<&Source<'_>> = sources.into_iter().filter(has_host).collect();
        let mut waiting = Canaries::claim(host, &canaries, &mut problems);
        let mut routes = (!with_rule.is_empty()).then(|| HostRoutes {
            host: host.clone(),
            rules: self.rules(host, &with_rule, &mut waiting, before, &mut problems),
            fallback: self.fallback(&with_rule, &mut waiting, &mut problems),
            has_certificate: is_tls,
            tls: HostTls {
                client: self.client_auth(&with_rule, &mut problems),
                passthrough: None,
            },
        });
        if let Some(routes) = &mut routes {
            self.pass_through(routes, &with_rule, &mut problems);
        }
        waiting.left_over(&mut problems);
        CompiledHost {
            routes,
            certificate,
            problems,
        }
    }

    /// The rule for requests that no host took, from the Ingresses without rules.
    pub(super) fn default_rule(
        &self,
        sources: &[Source<'_>],
    ) -> (Option<Arc<RouteRule>>, Vec<Problem>) {
        let mut problems = Vec::new();
        let (canaries, sources) = split(sources);
        let mut waiting = Canaries::claim_default(&canaries, &mut problems);
        let rule = self.fallback(&sources, &mut waiting, &mut problems);
        waiting.left_over(&mut problems);
        let rule = rule.map(|rule| self.without_client_auth(rule, &sources, &mut problems));
        (rule, problems)
    }

    /// How the paths of an object are served.
    pub(super) fn mode(&self, record: &IngressRecord) -> Mode {
        self.classes.mode(record).unwrap_or_default()
    }

    fn rules<'a>(
        &self,
        host: &HostMatch,
        sources: &[&'a Source<'_>],
        canaries: &mut Canaries<'a>,
        before: Option<&HostRoutes>,
        problems: &mut Vec<Problem>,
    ) -> Vec<Arc<RouteRule>> {
        let is_regex = sources.iter().any(|(_, record)| record.policy.regex);
        let patterns = Patterns::of(before);
        let mut taken: HashMap<(PathKind, &str), &SourceKey> = HashMap::new();
        let mut ranked: Vec<Ranked> = Vec::new();
        let mut directories: BTreeMap<&str, (&SourceKey, String)> = BTreeMap::new();
        for (key, record) in sources {
            let rules = record.rules.iter().filter(|rule| &rule.host == host);
            for (rule, path) in rules.flat_map(|rule| rule.paths.iter().map(move |p| (rule, p))) {
                let field = record.path_field(rule, path);
                let mode = self.mode(record);
                // Among regular expressions the path type makes no difference.
                let kind = if is_regex {
                    PathKind::Prefix
                } else {
                    path::kind(path, mode)
                };
                if let Some(winner) = taken.get(&(kind, &*path.path)) {
                    let shown = if rule.host == HostMatch::Any {
                        "any host"
                    } else {
                        "the host"
                    };
                    problems.push(Problem {
                        object: key.object(),
                        field,
                        kind: ProblemKind::Conflict,
                        message: format!(
                            "{} of {shown} belongs to {winner}, which is older",
                            path.path
                        ),
                    });
                    continue;
                }
                taken.insert((kind, &path.path), key);
                if mode == Mode::Compat
                    && !is_regex
                    && let Some(bare) = path::directory(path)
                {
                    directories
                        .entry(bare)
                        .or_insert_with(|| (key, field.clone()));
                }
                let patterns = is_regex.then_some(&patterns);
                let compiled = self.path((key, record), (path, kind), &field, patterns, problems);
                if let Some((rank, mut rule)) = compiled {
                    if record.origin == Origin::Ingress {
                        let canary = canaries.take(path.kind, &path.path);
                        rule.canary = canary.map(|found| self.canary(&rule, &found, problems));
                    }
                    let rule = Arc::new(rule);
                    ranked.push(Ranked { rank, rule });
                }
            }
        }
        // nginx looks for a path of just that length before it adds the slash.
        let is_free = |bare: &str| {
            PathKind::ALL
                .iter()
                .all(|kind| !taken.contains_key(&(*kind, bare)))
        };
        let directories = directories.into_iter().filter(|(bare, _)| is_free(bare));
        ranked.extend(directories.map(|(bare, (key, field))| Ranked {
            rank: PathRank::exact(bare),
            rule: Arc::new(path::to_directory(bare, key.object(), &field)),
        }));
        ranked.sort_by(|a, b| a.rank.cmp(&b.rank));
        ranked.into_iter().map(|ranked| ranked.rule).collect()
    }

    /// One path; with `patterns`, as a regular expression. `None` if no request can match it.
    fn path(
        &self,
        (key, record): (&SourceKey, &IngressRecord),
        (path, kind): (&PathRecord, PathKind),
        field: &str,
        patterns: Option<&Patterns>,
        problems: &mut Vec<Problem>,
    ) -> Option<(PathRank, RouteRule)> {
        let mut bad_path = |message: String| {
            problems.push(Problem {
                object: key.object(),
                field: format!("{field}.path"),
                kind: ProblemKind::BadField,
                message,
            });
        };
        let mut invalid = None;
        if self.mode(record) == Mode::Compat && !path::is_allowed(path) {
            bad_path(format!(
                "`{}` has characters that only a path of type ImplementationSpecific may have",
                path.path
            ));
            invalid = Some("path not allowed for its type");
        }
        let (rank, matcher) = if let Some(patterns) = patterns {
            let pattern = match record.origin {
                Origin::Ingress => Cow::Borrowed(&*path.path),
                Origin::Gateway | Origin::HttpRoute => path::pattern(path).into(),
            };
            let matcher = patterns.compile(&pattern).unwrap_or_else(|(error, guard)| {
                bad_path(format!(
                    "`{}` is not a regular expression: {error}",
                    path.path
                ));
                invalid = Some("bad regular expression");
                guard
            });
            (PathRank::regex(path), matcher)
        } else {
            match path::plain(path, kind) {
                Ok(matcher) => (PathRank::plain(path, kind), matcher),
                Err(why) => {
                    bad_path(format!("`{}`: {why}", path.path));
                    return None;
                }
            }
        };
        let place = (field, record.backend_field(field));
        let mut rule = self.rule(key, record, matcher, &path.backend, &place, problems);
        if let Some(reason) = invalid {
            rule.invalid = Some(reason);
            rule.backends.clear();
        }
        Some((rank, rule))
    }

    /// The `defaultBackend` of the oldest Ingress that has one.
    fn fallback(
        &self,
        sources: &[&Source<'_>],
        canaries: &mut Canaries<'_>,
        problems: &mut Vec<Problem>,
    ) -> Option<Arc<RouteRule>> {
        let mut with_default = sources
            .iter()
            .filter_map(|(key, record)| Some((key, *record, record.default_backend.as_ref()?)));
        let (winner, record, backend) = with_default.next()?;
        let field = "spec.defaultBackend";
        let everything = PathMatch::Prefix("".into());
        let place = (field, field.to_owned());
        let mut rule = self.rule(winner, record, everything, backend, &place, problems);
        let canary = canaries.take_default();
        rule.canary = canary.map(|found| self.canary(&rule, &found, problems));
        for (loser, ..) in with_default {
            problems.push(Problem {
                object: loser.object(),
                field: field.into(),
                kind: ProblemKind::Conflict,
                message: format!("{winner}, which is older, has the default backend"),
            });
        }
        Some(Arc::new(rule))
    }

    fn rule(
        &self,
        key: &SourceKey,
        record: &IngressRecord,
        path: PathMatch,
        backend: &BackendRecord,
        (field, backend_field): &(&str, String),
        problems: &mut Vec<Problem>,
    ) -> RouteRule {
        let policy = &record.policy;
        let upstream_tls = policy
            .tls
            .as_ref()
            .and_then(|tls| tls.upstream.as_ref())
            .map(|record| self.upstream_tls(key, record, backend, problems))
            .transpose();
        let resolved = self.backends((key, record), backend, backend_field, problems);
        let route = self.route_policy(key, record, problems);
        let refused = upstream_tls.as_ref().err().or(route.as_ref().err());
        let answers_for_it = |policy: &Arc<RoutePolicy>| {
            let pages = policy.errors.as_ref();
            pages.is_some_and(|pages| pages.without_endpoints)
        };
        let is_answered = route.iter().flatten().any(answers_for_it);
        let resolved = resolved.or_else(|why| {
            let absent = host_backends::absent(key, backend, why).filter(|_| is_answered);
            absent.map(|absent| vec![absent]).ok_or(why)
        });
        let resolved = refused.map_or(resolved, |why| Err(*why));
        // A template refers to the groups of a pattern; the default backend has none.
        let rewrite = policy
            .rewrite
            .as_ref()
            .filter(|_| matches!(path, PathMatch::Regex(_)));
        RouteRule {
            source: key.object(),
            field: (*field).into(),
            filters: Filters {
                mode: self.mode(record),
                rewrite: rewrite.map(path::rewrite),
                ssl_redirect: policy.ssl_redirect.unwrap_or(self.defaults.ssl_redirect),
                force_ssl_redirect: policy
                    .force_ssl_redirect
                    .unwrap_or(self.defaults.force_ssl_redirect),
                backend_protocol: policy.backend_protocol,
                service_upstream: policy
                    .service_upstream
                    .then(|| self.service_upstream(key, resolved.as_deref(), problems))
                    .flatten(),
                upstream_tls: upstream_tls.ok().flatten(),
                policy: route.ok().flatten(),
            },
            path,
            invalid: resolved.as_ref().err().copied(),
            backends: resolved.unwrap_or_default(),
            canary: None,
        }
    }

    /// What is asked of the gateway, by the object or by default.
    pub(super) fn policy(&self, asked: Option<&Arc<RoutePolicy>>) -> Option<Arc<RoutePolicy>> {
        let RuleDefaults {
            access,
            blocked,
            overrides,
            ..
        } = self.defaults;
        let says_nothing = *access == AccessList::default()
            && blocked.is_empty()
            && *overrides == HttpOverrides::default();
        if says_nothing {
            return asked.cloned();
        }
        let mut policy = asked.map(|asked| (**asked).clone()).unwrap_or_default();
        policy.access = policy.access.or(access);
        policy.access.deny = policy.access.deny.iter().chain(blocked).copied().collect();
        policy.overrides = policy.overrides.or(overrides);
        Some(Arc::new(policy))
    }
}
