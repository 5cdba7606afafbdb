//! What can go wrong between a watch and the API server, what to do about it, and how long to wait.
//!
//! How long depends on what the next attempt costs. One that finds nobody costs the server nothing,
//! and the sooner it is repeated the sooner the outage is over; one that is refused at the door costs
//! it little; one that finds it overloaded makes that worse.

use std::time::Duration;

use kube::core::Status;

use super::source::Source;
use super::wire::Undecodable;
use crate::defaults::{DENIED_PAUSE, RETRY_PAUSE, UNREACHABLE_PAUSE};

/// Status code for a resource version that is too old.
const GONE: u16 = 410;

/// What kube-apiserver says with a 429 of a kind that it has just begun to serve (its storage/cacher). If
/// there is more behind it, such as an error of etcd, it is not that.
const INITIALIZING: &str = "storage is (re)initializing";

/// Why following has to pause.
#[derive(Debug, thiserror::Error)]
pub(super) enum FollowError {
    /// The request could not be made, was not answered, or the answer broke off.
    #[error("the API server cannot be reached")]
    Unreachable(#[source] kube::Error),
    /// No credentials could be had, such as from the program that a kubeconfig names.
    #[error("there are no credentials for the API server")]
    Credentials(#[source] kube::Error),
    /// The server answered with an error.
    #[error("the API server refuses: {}", .status.message)]
    Refused {
        /// What it said.
        status: Box<Status>,
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// The answer is not what the API promises.
    #[error("the API server's answer cannot be decoded")]
    Undecodable(#[source] Undecodable),
    /// An event is longer than any object can be.
    #[error("the API server's answer has no end")]
    Endless,
    /// Without a version a watch cannot start.
    #[error("the list has no resourceVersion")]
    NoVersion,
    /// No answer, or nothing more on an open watch.
    #[error("the API server says nothing")]
    Silence,
    /// The watch ended right away.
    #[error("the watch ended at once")]
    Short,
    /// The version is too old: list again.
    #[error("the resourceVersion is too old")]
    Gone,
    /// The other end of the queue is gone: stop.
    #[error("shutting down")]
    Closed,
}

impl From<kube::Error> for FollowError {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Auth(_) => Self::Credentials(error),
            error => Self::Unreachable(error),
        }
    }
}

impl FollowError {
    /// The error that a `Status` of the server stands for.
    pub(super) fn refused(status: Status, retry_after: Option<Duration>) -> Self {
        if status.code == GONE {
            return Self::Gone;
        }
        let details = status.details.as_ref();
        let seconds = details.map_or(0, |details| u64::from(details.retry_after_seconds));
        let in_body = (seconds > 0).then(|| Duration::from_secs(seconds));
        Self::Refused {
            status: Box::new(status),
            retry_after: retry_after.or(in_body),
        }
    }

    /// The longest pause before the next attempt.
    pub(super) fn longest_pause(&self) -> Duration {
        match self {
            Self::Unreachable(_) | Self::Silence | Self::Gone => UNREACHABLE_PAUSE,
            Self::Credentials(_) => DENIED_PAUSE,
            Self::Refused { status, .. } if (400..429).contains(&status.code) => DENIED_PAUSE,
            Self::Refused { .. }
            | Self::Undecodable(_)
            | Self::Endless
            | Self::NoVersion
            | Self::Short
            | Self::Closed => *RETRY_PAUSE.end(),
        }
    }

    /// When the server wants to be asked again, if it said so.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Whether this may be over as soon as another watch reaches the server.
    pub(super) fn is_outage(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Silence => true,
            Self::Refused {
                status,
                retry_after,
            } => status.code >= 500 && retry_after.is_none(),
            _ => false,
        }
    }

    /// A name for what has to be done: an outage is logged again when this changes.
    pub(super) fn label(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "unreachable",
            Self::Credentials(_) => "credentials",
            Self::Refused { status, .. } => match status.code {
                401 => "unauthorized",
                403 => "forbidden",
                404 => "not served",
                429 if status.message == INITIALIZING => "not ready",
                429 => "throttled",
                _ => "refused",
            },
            Self::Undecodable(_) => "undecodable",
            Self::Endless => "endless",
            Self::NoVersion => "no version",
            Self::Silence => "silence",
            Self::Short => "short",
            Self::Gone => "gone",
            Self::Closed => "closed",
        }
    }

    /// Whether it belongs to a healthy cluster: kinds of CustomResourceDefinitions come and go, and a
    /// server that has just started does not know them yet.
    pub(super) fn is_ordinary(&self) -> bool {
        matches!(self.label(), "not served" | "not ready")
    }

    /// What to do about it; empty if waiting is all.
    pub(super) fn advice(&self, source: &Source) -> String {
        let resource = source.resource();
        match self.label() {
            "forbidden" => format!(
                "the account needs the verbs `list` and `watch` on `{resource}`: add them to its ClusterRole or Role"
            ),
            "unauthorized" => {
                "the credentials are not accepted: they may have expired or been revoked".to_owned()
            }
            "credentials" => {
                "look at the `exec`, `tokenFile` or certificate entries of the kubeconfig's user"
                    .to_owned()
            }
            "not served" => format!("the API server does not serve `{resource}`"),
            "not ready" => format!("the API server does not serve `{resource}` yet"),
            _ => String::new(),
        }
    }
}

/// Logs a failure with its cause and advice. Repetitions are for debugging only.
pub(super) fn log(source: &Source, error: &FollowError, is_repeated: bool) {
    let kind = source.kind();
    let advice = error.advice(source);
    // The innermost says what happened; those around it repeat it.
    let cause = std::iter::successors(std::error::Error::source(error), |error| error.source());
    let cause = cause.last().map(|cause| format!(": {cause}"));
    let cause = cause.unwrap_or_default();
    if is_repeated {
        tracing::debug!(kind, "watch still interrupted: {error}{cause}");
    } else if error.is_ordinary() {
        tracing::info!(kind, "watch interrupted, trying again: {advice}");
    } else if advice.is_empty() {
        tracing::warn!(kind, "watch interrupted, trying again: {error}{cause}");
    } else {
        tracing::warn!(
            kind,
            "watch interrupted, trying again: {error}{cause}; {advice}"
        );
    }
}
