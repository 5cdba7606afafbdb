//! Why a reconciliation failed.

use std::fmt::Display;

/// A failed step of a controller; the object is named, the cause is the source.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A request to the API failed.
    #[error("{verb} {object}")]
    Request {
        /// What was asked for: create, patch, delete, ….
        verb: &'static str,
        /// Kind, namespace and name.
        object: String,
        /// The client's error.
        #[source]
        source: Box<kube::Error>,
    },
    /// A label selector that cannot be evaluated.
    #[error("label selector of {object}")]
    Selector {
        /// Kind, namespace and name.
        object: String,
        /// What is wrong with it.
        #[source]
        source: kube::core::ParseExpressionError,
    },
    /// Several creations or deletions were asked for and some failed; the first failure.
    #[error("{what}: {failed} of {asked} failed")]
    Batch {
        /// What was done.
        what: &'static str,
        /// How many failed.
        failed: usize,
        /// How many were asked for.
        asked: usize,
        /// The first failure.
        #[source]
        source: Box<Self>,
    },
    /// Work that others have to finish first; tried again later.
    #[error("{object} waits for {what}")]
    Waiting {
        /// Kind and name.
        object: String,
        /// For what.
        what: String,
    },
}

impl Error {
    /// Someone else changed the object first (409 Conflict): read again and repeat at once.
    pub(crate) fn is_conflict(&self) -> bool {
        self.status()
            .is_some_and(|status| status.code == 409 && status.reason == "Conflict")
    }

    /// The object is not there (404).
    pub(crate) fn is_not_found(&self) -> bool {
        self.status().is_some_and(|status| status.code == 404)
    }

    /// The name is taken (409 AlreadyExists).
    pub(crate) fn is_already_exists(&self) -> bool {
        self.status()
            .is_some_and(|status| status.reason == "AlreadyExists")
    }

    /// The namespace is going away, so creations are refused (403, cause NamespaceTerminating).
    pub(crate) fn is_namespace_terminating(&self) -> bool {
        self.status().is_some_and(|status| {
            status.code == 403
                && status.details.as_ref().is_some_and(|details| {
                    details
                        .causes
                        .iter()
                        .any(|cause| cause.reason == "NamespaceTerminating")
                })
        })
    }

    /// The server's words if it answered, else the whole chain of causes.
    pub(crate) fn message(&self) -> String {
        self.status()
            .map_or_else(|| chain(self), |status| status.message.clone())
    }

    fn status(&self) -> Option<&kube::core::Status> {
        match self {
            Self::Request { source, .. } => match source.as_ref() {
                kube::Error::Api(status) => Some(status),
                _ => None,
            },
            Self::Batch { source, .. } => source.status(),
            Self::Selector { .. } | Self::Waiting { .. } => None,
        }
    }
}

/// Names the request that failed: `.map_err(during("create", "Pod a/b"))`.
pub(crate) fn during(
    verb: &'static str,
    object: impl Display,
) -> impl FnOnce(kube::Error) -> Error {
    move |source| Error::Request {
        verb,
        object: object.to_string(),
        source: Box::new(source),
    }
}

/// An error and its causes in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
