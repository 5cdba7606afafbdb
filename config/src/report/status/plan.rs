//! Which statuses have to be written now, and which later.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::Snapshot;
use crate::model::{IngressStatus, ObjectRef, PublishedAddress, StatusWriter};

/// The same value is not written to the same Ingress again before this has passed.
const REPEAT: Duration = Duration::from_secs(60);

/// How long a write may take to come back through the watch.
const ECHO: Duration = Duration::from_secs(5);

/// A fight is over when nothing of it was seen for this long.
const PEACE: Duration = Duration::from_secs(300);

/// A status to write.
#[derive(Clone, Debug)]
pub(super) struct Write {
    pub(super) object: ObjectRef,
    /// As the snapshot has it.
    pub(super) status: Arc<IngressStatus>,
    /// As it should be.
    pub(super) target: Arc<[PublishedAddress]>,
}

/// What we wrote to an Ingress last.
#[derive(Debug)]
struct Written {
    uid: Arc<str>,
    target: Arc<[PublishedAddress]>,
    at: Instant,
    /// The watch has shown it since.
    is_seen: bool,
    /// Somebody changed it after us, last seen then.
    contested: Option<Instant>,
}

#[derive(Debug, Default)]
pub(super) struct Plan {
    written: HashMap<ObjectRef, Written>,
}

impl Plan {
    /// What to write now, and when to ask again. `wanted` is what the status of our Ingresses should
    /// be.
    pub(super) fn make(
        &mut self,
        snapshot: &Snapshot,
        wanted: &Arc<[PublishedAddress]>,
        now: Instant,
    ) -> (Vec<Write>, Option<Instant>) {
        self.written
            .retain(|object, _| snapshot.ingresses.contains_key(object));
        let mut writes = Vec::new();
        let mut next: Option<Instant> = None;
        for (object, status) in snapshot.ingresses.iter() {
            let Some(target) = self.target(object, status, wanted) else {
                continue;
            };
            let written = self.written.get_mut(object);
            let later = match written.filter(|it| it.is_of(&status.uid, &target)) {
                Some(written) => written.later(status.addresses == target, now),
                None => None,
            };
            next = match (next, later) {
                (Some(next), Some(later)) => Some(next.min(later)),
                (next, later) => next.or(later),
            };
            if status.addresses != target && later.is_none() {
                writes.push(Write {
                    object: object.clone(),
                    status: Arc::clone(status),
                    target,
                });
            }
        }
        writes.sort_by(|a, b| a.object.cmp(&b.object));
        (writes, next)
    }

    /// What the status of an Ingress should be; `None` if that is not ours to say.
    fn target(
        &self,
        object: &ObjectRef,
        status: &IngressStatus,
        wanted: &Arc<[PublishedAddress]>,
    ) -> Option<Arc<[PublishedAddress]>> {
        if status.is_ours {
            // Having no address is no reason to take away what another controller wrote.
            let keep = wanted.is_empty() && status.writer == StatusWriter::Other;
            return (!keep).then(|| Arc::clone(wanted));
        }
        let is_left_over = match status.writer {
            StatusWriter::Us => true,
            StatusWriter::Other => false,
            StatusWriter::Unknown => {
                let written = self.written.get(object);
                status.addresses == *wanted
                    || written.is_some_and(|written| written.target == status.addresses)
            }
        };
        is_left_over.then(|| Arc::from([]))
    }

    /// A write was taken.
    pub(super) fn written(&mut self, write: &Write, now: Instant) {
        let before = self.written.remove(&write.object);
        let uid = &write.status.uid;
        let before = before.filter(|before| before.is_of(uid, &write.target));
        let written = Written {
            uid: Arc::clone(uid),
            target: Arc::clone(&write.target),
            at: now,
            is_seen: false,
            contested: before.and_then(|before| before.contested),
        };
        self.written.insert(write.object.clone(), written);
    }

    /// Ingresses over whose status somebody fights with us.
    pub(super) fn contested(&self) -> impl Iterator<Item = &ObjectRef> {
        let fights = self.written.iter().filter(|(_, w)| w.contested.is_some());
        fights.map(|(object, _)| object)
    }
}

impl Written {
    fn is_of(&self, uid: &Arc<str>, target: &Arc<[PublishedAddress]>) -> bool {
        (&self.uid, &self.target) == (uid, target)
    }

    /// Until when to leave the Ingress alone; `is_kept` says whether it still has what we wrote.
    fn later(&mut self, is_kept: bool, now: Instant) -> Option<Instant> {
        if is_kept {
            self.is_seen = true;
            self.contested = self.contested.filter(|at| now.duration_since(*at) < PEACE);
            return self.contested.map(|at| at + PEACE);
        }
        let echo = self.at + ECHO;
        if !self.is_seen && now < echo {
            return Some(echo);
        }
        self.contested = Some(now);
        let again = self.at + REPEAT;
        (now < again).then_some(again)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Addresses<'a> = &'a [PublishedAddress];

    /// Name, whether it is ours, its addresses and who wrote them, what is to be published, and what
    /// is written.
    type Case<'a> = (
        &'a str,
        bool,
        Addresses<'a>,
        StatusWriter,
        Addresses<'a>,
        Option<Addresses<'a>>,
    );

    #[tokio::test(start_paused = true)]
    async fn ingress_i21_what_is_written_and_what_is_left_alone() {
        use StatusWriter::{Other, Unknown, Us};
        let ip = |last: u8| PublishedAddress::Ip([203, 0, 113, last].into());
        let (edge, old, none): (&[_], &[_], &[_]) = (&[ip(1)], &[ip(9)], &[]);
        let cases: [Case<'_>; 10] = [
            ("new", true, none, Unknown, edge, Some(edge)),
            ("right", true, edge, Us, edge, None),
            ("right by another", true, edge, Other, edge, None),
            ("changed", true, old, Us, edge, Some(edge)),
            ("migrated", true, old, Other, edge, Some(edge)),
            ("no address any more", true, old, Us, none, Some(none)),
            ("no address, another's", true, old, Other, none, None),
            ("left over", false, old, Us, edge, Some(none)),
            ("another's", false, edge, Other, edge, None),
            ("nobody's", false, old, Unknown, edge, None),
        ];
        for (name, is_ours, addresses, writer, wanted, expected) in cases {
            let object = ObjectRef {
                kind: "Ingress",
                namespace: "shop".into(),
                name: "it".into(),
            };
            let status = IngressStatus {
                uid: "1".into(),
                class: None,
                is_ours,
                addresses: addresses.into(),
                writer,
                services: [].into(),
            };
            let mut snapshot = Snapshot::default();
            snapshot.ingresses.insert_mut(object, Arc::new(status));
            let made = Plan::default().make(&snapshot, &wanted.into(), Instant::now());
            let target = made.0.first().map(|write| &*write.target);
            assert_eq!(target, expected, "{name}");
        }
    }
}
