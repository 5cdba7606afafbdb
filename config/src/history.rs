//! Which entries of its tables the compilations before a snapshot touched.
//!
//! What is derived from all Services, as the kernel's sets are, would otherwise take a walk over all
//! of them at each publication, to find the few that changed. Whoever missed too much walks.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;

use crate::model::Protocol;

/// Compilations that are remembered.
const COMPILATIONS: usize = 64;

/// Entries that are remembered, of all compilations together: 100 KiB or so. If a compilation touches
/// more, a walk over everything costs no more than looking at each.
const ENTRIES: usize = 4096;

/// What one compilation touched. All other entries of the same tables are as they were.
#[derive(Debug, Default)]
pub struct Touched {
    /// Keys of [`Snapshot::vips`](crate::Snapshot::vips).
    pub vips: Vec<(IpAddr, Protocol, u16)>,
    /// Keys of [`Snapshot::node_ports`](crate::Snapshot::node_ports), of which
    /// [`Snapshot::node_port`](crate::Snapshot::node_port) may have another answer.
    pub node_ports: Vec<(Protocol, u16)>,
    /// Addresses in [`Snapshot::cluster_ips`](crate::Snapshot::cluster_ips).
    pub cluster_ips: Vec<IpAddr>,
}

impl Touched {
    fn len(&self) -> usize {
        self.vips.len() + self.node_ports.len() + self.cluster_ips.len()
    }
}

/// The last compilations, the newest at the end. Empty where nobody keeps book: then nothing is known
/// of what changed.
#[derive(Clone, Debug, Default)]
pub struct History {
    recent: VecDeque<Arc<Touched>>,
    entries: usize,
}

/// A compilation in a [`History`].
#[derive(Clone, Debug)]
pub struct Place(Arc<Touched>);

impl History {
    /// The last compilation.
    pub fn place(&self) -> Option<Place> {
        self.recent.back().map(|last| Place(Arc::clone(last)))
    }

    /// What was touched since that compilation, in no particular order; `None` if anything may have
    /// been.
    pub fn since(&self, place: Option<&Place>) -> Option<impl Iterator<Item = &Touched>> {
        let place = place?;
        let mut places = self.recent.iter();
        let at = places.rposition(|it| Arc::ptr_eq(it, &place.0))?;
        Some(self.recent.range(at + 1..).map(AsRef::as_ref))
    }

    /// Notes a compilation, and forgets old ones.
    pub(crate) fn push(&mut self, touched: Touched) {
        let mut new = touched;
        self.entries += new.len();
        if new.len() > ENTRIES {
            // Its place is one to go on from, but none that leads to it.
            self.recent.clear();
            self.entries = 0;
            new = Touched::default();
        }
        self.recent.push_back(Arc::new(new));
        while self.recent.len() > COMPILATIONS || self.entries > ENTRIES {
            let Some(oldest) = self.recent.pop_front() else {
                return;
            };
            self.entries -= oldest.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touched(entries: usize) -> Touched {
        Touched {
            node_ports: vec![(Protocol::Tcp, 1); entries],
            ..Touched::default()
        }
    }

    fn entries_since(history: &History, place: Option<&Place>) -> Option<usize> {
        let touched = history.since(place)?;
        Some(touched.map(Touched::len).sum())
    }

    #[test]
    fn proxy_s20_who_missed_too_much_is_told_to_look_at_everything() {
        for (name, compilations, expected) in [
            ("nothing happened", vec![], Some(0)),
            ("some", vec![1, 2], Some(3)),
            ("as many as fit", vec![1; COMPILATIONS - 1], Some(63)),
            ("too many compilations", vec![1; COMPILATIONS], None),
            ("too many entries", vec![ENTRIES / 2, ENTRIES / 2 + 1], None),
            ("too many at once", vec![ENTRIES + 1], None),
            ("too many at once, and more", vec![ENTRIES + 1, 1], None),
        ] {
            let mut history = History::default();
            assert_eq!(entries_since(&history, None), None, "{name}: no book");
            history.push(touched(1));
            let place = history.place();
            for &entries in &compilations {
                history.push(touched(entries));
            }
            assert_eq!(entries_since(&history, place.as_ref()), expected, "{name}");
            let last = history.place();
            assert_eq!(entries_since(&history, last.as_ref()), Some(0), "{name}");
            history.push(touched(1));
            assert_eq!(entries_since(&history, last.as_ref()), Some(1), "{name}");
            let kept: usize = history.recent.iter().map(|it| it.len()).sum();
            assert_eq!(kept, history.entries, "{name}");
            assert!(kept <= ENTRIES, "{name}");
        }
    }

    #[test]
    fn a_place_in_another_history_says_nothing() {
        let (mut one, mut other) = (History::default(), History::default());
        one.push(touched(1));
        other.push(touched(1));
        assert_eq!(entries_since(&one, other.place().as_ref()), None);
    }
}
