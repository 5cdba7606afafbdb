//! Certificates of a host's clients: settled by the oldest Ingress of the host that asks for them.

use std::sync::Arc;

use super::annotations::ClientRecord;
use super::host_routes::{HostCompiler, Source};
use super::rank::SourceKey;
use crate::model::{ClientAuth, Problem, ProblemKind, RouteRule};

const FIELD: &str = "metadata.annotations[nginx.ingress.kubernetes.io/auth-tls-secret]";

impl HostCompiler<'_> {
    /// What is asked of the clients of a host with these Ingresses.
    pub(super) fn client_auth(
        &self,
        sources: &[&Source<'_>],
        problems: &mut Vec<Problem>,
    ) -> Option<Arc<ClientAuth>> {
        let mut asking = sources
            .iter()
            .filter_map(|(key, record)| Some((key, record.policy.tls.as_ref()?.client.as_ref()?)));
        let (winner, client) = asking.next()?;
        for (loser, _) in asking.filter(|(_, other)| *other != client) {
            problems.push(Problem {
                object: loser.object(),
                field: FIELD.into(),
                kind: ProblemKind::Conflict,
                message: format!(
                    "{winner}, which is older, says which certificates clients of the host show"
                ),
            });
        }
        Some(Arc::new(self.of_record(winner, client, problems)))
    }

    /// The rule for requests that no host took has no host whose clients could be asked: if its
    /// Ingress wants certificates, it is not served.
    pub(super) fn without_client_auth(
        &self,
        rule: Arc<RouteRule>,
        sources: &[&Source<'_>],
        problems: &mut Vec<Problem>,
    ) -> Arc<RouteRule> {
        let source = sources.iter().find(|(key, record)| {
            key.object() == rule.source && {
                let tls = record.policy.tls.as_ref();
                tls.is_some_and(|tls| tls.client.is_some())
            }
        });
        if source.is_none() {
            return rule;
        }
        problems.push(Problem {
            object: rule.source.clone(),
            field: FIELD.into(),
            kind: ProblemKind::RefusedAnnotation,
            message: "certificates of clients need a rule, which may be one without a host: the \
                      Ingress answers 503"
                .into(),
        });
        let mut rule = Arc::unwrap_or_clone(rule);
        rule.invalid = Some("client certificates without a rule");
        rule.backends.clear();
        Arc::new(rule)
    }

    fn of_record(
        &self,
        source: &SourceKey,
        client: &ClientRecord,
        problems: &mut Vec<Problem>,
    ) -> ClientAuth {
        let authorities = client.secret.as_ref().and_then(|secret| {
            let current = self.secrets.get(secret)?.current()?;
            match current.and_then(|record| record.authorities.as_ref()) {
                Ok(authorities) => Some(Arc::clone(authorities)),
                Err(bad) => {
                    problems.push(Problem {
                        object: source.object(),
                        field: FIELD.into(),
                        kind: bad.kind,
                        message: format!("{}: the host answers 403", bad.message),
                    });
                    None
                }
            }
        });
        ClientAuth {
            source: source.object(),
            authorities,
            verify: client.verify,
            depth: client.depth,
            subject: client.subject.clone(),
            error_page: client.error_page.clone(),
            pass_certificate: client.pass_certificate,
        }
    }
}
