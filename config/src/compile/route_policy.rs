//! What is asked of the gateway as the annotations say, with the users out of Secrets.
//!
//! There is no last good version here. Users whose Secret is gone, or was never there, must not come
//! in, and nobody else must because of that: the rule answers 503.

use std::sync::Arc;

use super::annotations::{BasicRecord, UserForm};
use super::error_pages::with_errors;
use super::host_routes::HostCompiler;
use super::ingress::IngressRecord;
use super::rank::SourceKey;
use crate::model::{Auth, BasicAuth, Problem, ProblemKind, RoutePolicy};

/// The annotation that names the Secret with the users.
const SECRET: &str = "metadata.annotations[nginx.ingress.kubernetes.io/auth-secret]";

impl HostCompiler<'_> {
    /// The policy for the paths of an object.
    ///
    /// # Errors
    /// Why the path cannot be served, in a few words.
    pub(super) fn route_policy(
        &self,
        key: &SourceKey,
        record: &IngressRecord,
        problems: &mut Vec<Problem>,
    ) -> Result<Option<Arc<RoutePolicy>>, &'static str> {
        let mut base = self.policy(record.policy.route.as_ref());
        if let Some(pages) = self.error_pages(key, record, problems) {
            base = Some(with_errors(base.as_deref(), pages));
        }
        let headers = self.answer_headers(key, record, problems)?;
        if !headers.is_empty() {
            base = Some(Arc::new(RoutePolicy {
                headers,
                ..base.as_deref().cloned().unwrap_or_default()
            }));
        }
        let Some(auth) = record.policy.auth.as_deref() else {
            return Ok(base);
        };
        let basic = match &auth.basic {
            Some(basic) => Some(self.users(key, basic, problems)?),
            None => None,
        };
        let mut external = auth.external.clone();
        if let (Some(external), Some(map)) = (&mut external, &auth.question_headers) {
            external.headers = self.question_headers(key, map, problems)?;
        }
        let auth = Auth {
            basic,
            external,
            any: auth.any,
        };
        Ok(Some(Arc::new(RoutePolicy {
            auth: Some(Arc::new(auth)),
            ..base.as_deref().cloned().unwrap_or_default()
        })))
    }

    fn users(
        &self,
        key: &SourceKey,
        basic: &BasicRecord,
        problems: &mut Vec<Problem>,
    ) -> Result<BasicAuth, &'static str> {
        // Each path of the Ingress says the same.
        let mut problem = |kind, message| {
            let problem = Problem {
                object: key.object(),
                field: SECRET.to_owned(),
                kind,
                message,
            };
            if !problems.contains(&problem) {
                problems.push(problem);
            }
        };
        let BasicRecord {
            realm,
            secret,
            form,
        } = basic;
        if !self.defaults.cross_namespace && secret.namespace != key.key.namespace {
            let message = format!(
                "Secret {secret} is in another namespace than the Ingress: its paths answer 503"
            );
            problem(ProblemKind::RefusedAnnotation, message);
            return Err("Secret of another namespace");
        }
        let current = self.secrets.get(secret).and_then(|state| state.current());
        let Some(current) = current else {
            return Err("the Secret with the users is not known yet");
        };
        let found = match current {
            Ok(found) => found,
            Err(bad) => {
                problem(bad.kind, bad.message.clone());
                return Err("no Secret with the users");
            }
        };
        let list = match form {
            UserForm::File => &found.user_file,
            UserForm::Map => &found.user_map,
        };
        if list.users.is_empty() {
            let why = list.bad.as_deref().unwrap_or("there are no users");
            let message = format!("Secret {secret}: {why}: the Ingress answers 503");
            problem(ProblemKind::RefusedAnnotation, message);
            return Err("no users in the Secret");
        }
        if let Some(bad) = &list.bad {
            let message = format!("Secret {secret}: {bad}: who is meant cannot come in");
            problem(ProblemKind::BadAnnotation, message);
        }
        Ok(BasicAuth {
            realm: Arc::clone(realm),
            users: Arc::clone(&list.users),
        })
    }
}
