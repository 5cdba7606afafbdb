//! What is known of an object of Gateway API besides its rules, for its status.

use std::sync::Arc;

/// A GatewayClass, Gateway or HTTPRoute that is ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// `metadata.generation` of what was read.
    pub generation: i64,
    /// The Gateways of ours that a route names.
    pub parents: Vec<Parent>,
}

/// A Gateway of ours that a route names, in the words of its `parentRefs`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parent {
    /// Namespace of the Gateway, as written.
    pub namespace: Option<Arc<str>>,
    /// Name of the Gateway.
    pub name: Arc<str>,
    /// A listener by its name.
    pub section_name: Option<Arc<str>>,
    /// Listeners by their port.
    pub port: Option<i32>,
    /// Why the Gateway does not take the route, if that is so.
    pub refused: Option<Refusal>,
}

/// Why a Gateway does not take a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It has no such listener for HTTP.
    NoListener,
    /// `allowedRoutes` of its listeners say so.
    NotAllowed,
    /// Its listeners and the route have no host in common.
    NoHostname,
}

impl Refusal {
    /// The reason of the condition `Accepted`, as Gateway API defines it.
    pub fn reason(self) -> &'static str {
        match self {
            Self::NoListener => "NoMatchingParent",
            Self::NotAllowed => "NotAllowedByListeners",
            Self::NoHostname => "NoMatchingListenerHostname",
        }
    }

    /// For people.
    pub fn message(self) -> &'static str {
        match self {
            Self::NoListener => "the Gateway has no such listener for HTTP",
            Self::NotAllowed => "the Gateway's listeners do not allow this route (allowedRoutes)",
            Self::NoHostname => "the Gateway's listeners have none of the route's hostnames",
        }
    }
}
