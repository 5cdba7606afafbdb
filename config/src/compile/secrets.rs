//! The Secrets that Ingresses refer to.

use std::collections::HashMap;

use super::secret::{Loaded, SecretProblem, SecretRecord};
use super::store::{Decoded, Delta, ObjectKey};
use crate::model::ProblemKind;

/// What is known of the Secrets that are referred to.
#[derive(Debug, Default)]
pub(super) struct Secrets {
    states: HashMap<ObjectKey, SecretState>,
    /// References made so far: the number of the next one.
    next_reference: u64,
    version: u64,
}

/// What is known of one Secret.
#[derive(Debug)]
pub(super) struct SecretState {
    reference: u64,
    /// What the API server said last, if only that there is none.
    current: Option<Result<SecretRecord, SecretProblem>>,
    /// The last good certificate.
    pub(super) good: Option<Loaded>,
    /// What a list that is not complete says.
    listed: Decoded<SecretRecord>,
}

impl Secrets {
    /// A reference to this Secret exists.
    pub(super) fn refer(&mut self, key: &ObjectKey) {
        if !self.states.contains_key(key) {
            let state = SecretState::new(self.next_reference);
            self.states.insert(key.clone(), state);
            self.next_reference += 1;
            self.version += 1;
        }
    }

    /// No reference is left: its last good certificate goes too.
    pub(super) fn forget(&mut self, key: &ObjectKey) {
        if let Some(state) = self.states.remove(key) {
            self.version += 1;
            if state.good.is_some() {
                report_expiry(key, 0);
            }
        }
    }

    /// Changes whenever [`Self::references`] does.
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    pub(super) fn get(&self, key: &ObjectKey) -> Option<&SecretState> {
        self.states.get(key)
    }

    /// All Secrets that are referred to, each with the number of its reference: a Secret that was
    /// forgotten and is referred to again has another one, and must be read again.
    pub(super) fn references(&self) -> impl Iterator<Item = (&ObjectKey, u64)> {
        self.states
            .iter()
            .map(|(key, state)| (key, state.reference))
    }

    /// Whether the API server has spoken about each of them.
    pub(super) fn all_known(&self) -> bool {
        self.states.values().all(|state| state.current.is_some())
    }

    /// The Secrets whose certificate began or ceased to be valid between two times, in seconds since
    /// the Unix epoch.
    pub(super) fn turned(&self, before: i64, now: i64) -> Vec<ObjectKey> {
        let has_turned = |state: &SecretState| {
            let good = state.good.as_ref();
            good.is_some_and(|good| good.invalid_at(before) != good.invalid_at(now))
        };
        let turned = self.states.iter().filter(|(_, state)| has_turned(state));
        turned.map(|(key, _)| key.clone()).collect()
    }

    /// Takes an event about one Secret in; returns whether anything changed. Late events about a
    /// Secret that is no longer referred to are dropped.
    pub(super) fn apply(&mut self, key: &ObjectKey, delta: Delta<SecretRecord>) -> bool {
        let Some(state) = self.states.get_mut(key) else {
            return false;
        };
        let decoded = match delta {
            Delta::Set(_, decoded) => decoded,
            Delta::Remove(_) => Ok(None),
            Delta::ListBegin => {
                state.listed = Ok(None);
                return false;
            }
            Delta::Page(objects) => {
                if let Some((_, found)) = objects.into_iter().find(|(listed, _)| listed == key) {
                    state.listed = found;
                }
                return false;
            }
            Delta::ListEnd => std::mem::replace(&mut state.listed, Ok(None)),
        };
        state.apply(key, decoded)
    }
}

impl SecretState {
    fn new(reference: u64) -> Self {
        Self {
            reference,
            current: None,
            good: None,
            listed: Ok(None),
        }
    }

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
