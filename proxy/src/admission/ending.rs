//! When a connection shall end.

use std::rc::Rc;

use tokio_util::sync::CancellationToken;

use super::Place;

/// What says that a connection shall end.
#[derive(Clone, Debug)]
pub enum Ending {
    /// This is cancelled.
    Token(CancellationToken),
    /// The place that it takes is wanted, or all shall end.
    Place(Rc<Place>),
}

impl Ending {
    /// It shall end.
    pub fn is_due(&self) -> bool {
        match self {
            Self::Token(token) => token.is_cancelled(),
            Self::Place(place) => place.is_wanted(),
        }
    }

    /// What to wait for. Who does not wait should not ask, because a place makes it only then.
    pub fn token(&self) -> &CancellationToken {
        match self {
            Self::Token(token) => token,
            Self::Place(place) => place.end(),
        }
    }
}

impl From<CancellationToken> for Ending {
    fn from(token: CancellationToken) -> Self {
        Self::Token(token)
    }
}

impl From<Rc<Place>> for Ending {
    fn from(place: Rc<Place>) -> Self {
        Self::Place(place)
    }
}
