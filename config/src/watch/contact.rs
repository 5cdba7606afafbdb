//! When the API server was last heard of, by kind.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// The last sign of life of one kind's watch: an event, a bookmark, a list, or an orderly end.
#[derive(Debug)]
pub(super) struct Contact {
    kind: &'static str,
    start: Instant,
    /// Milliseconds since `start`.
    last: AtomicU64,
}

impl Contact {
    pub(super) fn heard(&self) {
        let elapsed = self.start.elapsed().as_millis();
        let millis = u64::try_from(elapsed).unwrap_or(u64::MAX);
        self.last.store(millis, Ordering::Relaxed);
    }

    fn age(&self) -> Duration {
        let last = Duration::from_millis(self.last.load(Ordering::Relaxed));
        self.start.elapsed().saturating_sub(last)
    }
}

/// All kinds.
#[derive(Debug, Default)]
pub(super) struct Contacts(Vec<Arc<Contact>>);

impl Contacts {
    pub(super) fn add(&mut self, kind: &'static str) -> Arc<Contact> {
        let contact = Arc::new(Contact {
            kind,
            start: Instant::now(),
            last: AtomicU64::new(0),
        });
        self.0.push(Arc::clone(&contact));
        contact
    }

    /// Sets the gauges.
    pub(super) fn measure(&self) {
        for contact in &self.0 {
            metrics::gauge!("sealane_config_staleness_seconds", "kind" => contact.kind)
                .set(contact.age().as_secs_f64());
        }
    }
}
