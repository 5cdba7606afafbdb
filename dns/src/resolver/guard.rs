//! Names that a search path makes in vain.
//!
//! With `ndots:5` a client that means `www.example.com` asks for it below every suffix of its search
//! path first. Those of the cluster are answered from memory; the last ones, the node's own, would
//! leave the cluster, one question for every name and type. Where such a suffix is guarded, the name
//! one label below it (`com.SUFFIX`) is asked for once: if it does not exist, nothing below it does
//! (RFC 8020), and that is said from then on for as long as that answer may be kept. Names directly
//! below the suffix are always forwarded, so hosts that are there are found.

use std::cell::Cell;
use std::time::Duration;

use tokio::time::Instant;

use crate::name::Name;

/// How long nothing is asked after an answer that may not be kept.
const PAUSE: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(super) struct Guard {
    suffixes: Vec<Name>,
    pause_until: Cell<Option<Instant>>,
}

impl Guard {
    pub(super) fn new(suffixes: &[Name]) -> Self {
        Self {
            suffixes: suffixes.to_vec(),
            pause_until: Cell::new(None),
        }
    }

    /// The name one label below a guarded suffix that this name is below.
    pub(super) fn cut(&self, name: &Name) -> Option<Name> {
        self.suffixes.iter().find_map(|suffix| {
            let (left, _) = name.split_zone(suffix)?;
            (left >= 2).then(|| name.without_labels(left - 1))
        })
    }

    pub(super) fn may_probe(&self, now: Instant) -> bool {
        self.pause_until.get().is_none_or(|until| now >= until)
    }

    /// What was learned about a name cannot be kept.
    pub(super) fn probed_in_vain(&self, name: &Name, now: Instant) {
        let is_probe = |suffix: &Name| name.split_zone(suffix).is_some_and(|(left, _)| left == 1);
        if self.suffixes.iter().any(is_probe) {
            self.pause_until.set(Some(now + PAUSE));
        }
    }
}
