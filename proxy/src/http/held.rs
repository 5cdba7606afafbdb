//! Something that a request keeps for as long as it is being answered.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

/// Given back (dropped) when the last clone is. As an extension of a request it lasts as long as the
/// tunnel that the request may become; a body keeps it with [`Body::holding`](super::Body::holding).
#[derive(Clone)]
pub struct Held {
    _value: Arc<dyn Any + Send + Sync>,
}

impl Held {
    /// Holds `value`.
    pub fn new(value: impl Any + Send + Sync) -> Self {
        Self {
            _value: Arc::new(value),
        }
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Held")
    }
}
