//! The one place where a failure becomes a response code and an extended error (RFC 8914).

use hickory_proto::op::ResponseCode;

use crate::answer::{Answer, ExtendedError};
use crate::forward::ForwardError;
use crate::record::Record;

/// Why a name of ours cannot be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LocalFailure {
    /// The name is not known, but not everything was listed yet.
    NotSynced,
    /// An alias leads to itself.
    AliasLoop,
    /// Too many aliases in a row.
    LongChain,
}

/// The answer for a failure in a zone of ours. Names the zone's SOA record where there is one.
pub(crate) fn local_failure(failure: LocalFailure, soa: Option<Record>) -> Answer {
    let (code, text) = match failure {
        LocalFailure::NotSynced => (14, "cluster state is not synced yet"),
        LocalFailure::AliasLoop => (0, "alias loop"),
        LocalFailure::LongChain => (0, "too many aliases"),
    };
    Answer {
        authority: soa.into_iter().collect(),
        error: Some(ExtendedError {
            code,
            text: text.into(),
        }),
        ..Answer::local(ResponseCode::ServFail)
    }
}

/// The answer for a name that could not be forwarded.
pub(crate) fn forward_failure(error: ForwardError) -> Answer {
    let (rcode, code, text) = match error {
        ForwardError::NotAllowed => (
            ResponseCode::Refused,
            18,
            "recursion is for private clients",
        ),
        ForwardError::Busy => (ResponseCode::Refused, 0, "too many queries in flight"),
        ForwardError::Looped => (
            ResponseCode::Refused,
            0,
            "the upstream leads back to this server",
        ),
        ForwardError::NoUpstream => (ResponseCode::ServFail, 22, "no upstream is configured"),
        ForwardError::AllDown => (ResponseCode::ServFail, 22, "all upstreams are down"),
        ForwardError::TimedOut => (ResponseCode::ServFail, 22, "upstreams did not answer"),
        ForwardError::Network => (ResponseCode::ServFail, 23, "upstreams cannot be reached"),
        ForwardError::BadReply => (ResponseCode::ServFail, 22, "upstreams failed"),
    };
    let error = Some(ExtendedError {
        code,
        text: text.into(),
    });
    Answer {
        recursion_available: rcode != ResponseCode::Refused,
        ..Answer::code(rcode, error)
    }
}

/// The answer to a client that asks more than it may.
pub(crate) fn over_rate() -> Answer {
    let error = ExtendedError {
        code: 0,
        text: "too many queries a second".into(),
    };
    Answer::code(ResponseCode::Refused, Some(error))
}
