//! The Secrets that Ingresses refer to.

use super::referred::{Referent, Referred};
use super::secret::{Loaded, SecretProblem, SecretRecord};
use super::store::{Decoded, ObjectKey};
use crate::model::ProblemKind;

/// What is known of the Secrets that are referred to.
pub(super) type Secrets = Referred<SecretState>;

/// What is known of one Secret.
#[derive(Debug, Default)]
pub(super) struct SecretState {
    /// What the API server said last, if only that there is none.
    current: Option<Result<SecretRecord, SecretProblem>>,
    /// The last good certificate.
    pub(super) good: Option<Loaded>,
}

impl Secrets {
    /// The Secrets whose certificate began or ceased to be valid between two times, in seconds since
    /// the Unix epoch.
    pub(super) fn turned(&self, before: i64, now: i64) -> Vec<ObjectKey> {
        let has_turned = |state: &SecretState| {
            let good = state.good.as_ref();
            good.is_some_and(|good| good.invalid_at(before) != good.invalid_at(now))
        };
        let turned = self.iter().filter(|(_, state)| has_turned(state));
        turned.map(|(key, _)| key.clone()).collect()
    }
}

impl SecretState {
    /// The current version, or why there is none; `None` before the API server has spoken. Who
    /// must not go on with what is out of date asks for this and not for the last good.
    pub(super) fn current(&self) -> Option<Result<&SecretRecord, &SecretProblem>> {
        self.current.as_ref().map(Result::as_ref)
    }

    /// Why the current version is not usable as a certificate.
    pub(super) fn certificate_problem(&self) -> Option<&SecretProblem> {
        match self.current()? {
            Ok(record) => record.certificate.as_ref().err(),
            Err(problem) => Some(problem),
        }
    }
}

impl Referent for SecretState {
    type Record = SecretRecord;

    fn apply(&mut self, key: &ObjectKey, decoded: Decoded<SecretRecord>) -> bool {
        let problem = |kind, what: &str| {
            let message = format!("Secret {key} {what}");
            Err(SecretProblem { kind, message })
        };
        let new = match decoded {
            Ok(Some(record)) => Ok(record),
            Ok(None) => problem(ProblemKind::MissingSecret, "does not exist"),
            Err(_may_quote_the_data) => problem(ProblemKind::BadCertificate, "cannot be decoded"),
        };
        if self.current.as_ref() == Some(&new) {
            return false;
        }
        if let Ok(record) = &new
            && let Ok(loaded) = &record.certificate
        {
            report_expiry(key, loaded.certificate.not_after);
            self.good = Some(loaded.clone());
        }
        self.current = Some(new);
        true
    }

    fn is_known(&self) -> bool {
        self.current.is_some()
    }

    /// Its last good certificate goes too.
    fn forgotten(&self, key: &ObjectKey) {
        if self.good.is_some() {
            report_expiry(key, 0);
        }
    }
}

/// Sets the gauge of a certificate's end of validity, seconds since the Unix epoch; 0 once it is no
/// longer served.
fn report_expiry(key: &ObjectKey, not_after: i64) {
    metrics::gauge!(
        "sealane_certificate_not_after_seconds",
        "namespace" => key.namespace.to_string(),
        "secret" => key.name.to_string()
    )
    .set(not_after as f64);
}
