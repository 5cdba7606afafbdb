//! What is answered, before it is encoded.

use std::borrow::Cow;

use hickory_proto::op::ResponseCode;
use rand::seq::SliceRandom;

use crate::record::Record;

pub mod encode;
pub mod packed;

/// A reply without its question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Code.
    pub rcode: ResponseCode,
    /// From a zone of ours.
    pub authoritative: bool,
    /// Forwarded, so recursion is available.
    pub recursion_available: bool,
    /// From the snapshot alone.
    pub from_snapshot: bool,
    /// The upstream validated it.
    pub authentic: bool,
    /// The upstream cut it off: TC is set in the reply, so that the client asks over TCP.
    pub truncated: bool,
    /// Answer section; aliases come before what they lead to.
    pub answers: Vec<Record>,
    /// Authority section.
    pub authority: Vec<Record>,
    /// Additional section, without OPT.
    pub additional: Vec<Record>,
    /// Why it failed, for clients that speak EDNS.
    pub error: Option<ExtendedError>,
}

/// An extended DNS error (RFC 8914).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtendedError {
    /// Info code of the IANA registry.
    pub code: u16,
    /// A few words.
    pub text: Cow<'static, str>,
}

impl Answer {
    /// An authoritative answer without records.
    pub fn local(rcode: ResponseCode) -> Self {
        Self {
            rcode,
            authoritative: true,
            recursion_available: false,
            from_snapshot: false,
            authentic: false,
            truncated: false,
            answers: Vec::new(),
            authority: Vec::new(),
            additional: Vec::new(),
            error: None,
        }
    }

    /// A failure or refusal that has nothing to do with a zone of ours.
    pub fn code(rcode: ResponseCode, error: Option<ExtendedError>) -> Self {
        Self {
            authoritative: false,
            error,
            ..Self::local(rcode)
        }
    }

    /// Puts addresses in random order, so that clients that take the first one spread out and a
    /// truncated reply holds a random part. Aliases stay in front.
    pub fn shuffle(&mut self) {
        let first = self.answers.iter().position(Record::is_address);
        let Some(addresses) = first.map(|first| &mut self.answers[first..]) else {
            return;
        };
        if addresses.len() > 1 && addresses.iter().all(Record::is_address) {
            addresses.shuffle(&mut rand::rng());
        }
    }
}
