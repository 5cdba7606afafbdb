//! What was told already, and what may be told now.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::model::ObjectRef;
use crate::report::bucket::Bucket;
use crate::report::notices::Notice;

/// Events that one object may cause at once.
const BURST: u32 = 25;

/// Time in which an object earns one more.
const PERIOD: Duration = Duration::from_secs(300);

/// Events that all objects together may cause at once.
const ALL_BURST: u32 = 50;

/// Time in which all objects together earn one more.
const ALL_PERIOD: Duration = Duration::from_millis(200);

/// How many notices that are over, and how many objects' budgets, are remembered.
const REMEMBERED: usize = 4096;

/// A notice to be told.
#[derive(Clone, Debug)]
pub(super) struct Due {
    pub(super) notice: Notice,
    /// How often it was told before.
    pub(super) before: i32,
    id: u64,
}

#[derive(Debug)]
enum State {
    /// Not told yet; there since then.
    Pending(Instant),
    /// Told, and still so.
    Told,
    /// Over since then.
    Over(Instant),
}

#[derive(Debug)]
struct Entry {
    state: State,
    /// How often it was told.
    times: i32,
}

#[derive(Debug)]
pub(super) struct Ledger {
    entries: HashMap<u64, Entry>,
    budgets: HashMap<ObjectRef, Bucket>,
    all: Bucket,
}

impl Ledger {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            entries: HashMap::new(),
            budgets: HashMap::new(),
            all: Bucket::full(ALL_BURST, ALL_PERIOD, now),
        }
    }

    /// Takes in everything that holds now; returns what was not told yet and has lasted long enough.
    pub(super) fn update(&mut self, notices: Vec<Notice>, now: Instant) -> Vec<Due> {
        let mut current: HashMap<u64, Notice> = notices
            .into_iter()
            .map(|notice| {
                (
                    identity(&notice, notice.uid.as_deref().unwrap_or_default()),
                    notice,
                )
            })
            .collect();
        self.entries.retain(|id, entry| {
            let is_over = !current.contains_key(id);
            match entry.state {
                State::Pending(_) | State::Told if is_over => entry.state = State::Over(now),
                State::Over(_) if !is_over => entry.state = State::Pending(now),
                State::Pending(_) | State::Told | State::Over(_) => {}
            }
            // What was never told needs no memory.
            !is_over || entry.times > 0
        });
        for id in current.keys() {
            self.entries.entry(*id).or_insert(Entry {
                state: State::Pending(now),
                times: 0,
            });
        }
        self.forget();
        let mut due: Vec<(Instant, Due)> = Vec::new();
        for (id, entry) in &self.entries {
            if let State::Pending(since) = entry.state
                && let Some(notice) = current.remove(id)
                && now.duration_since(since) >= notice.settle
            {
                let before = entry.times;
                let id = *id;
                due.push((since, Due { notice, before, id }));
            }
        }
        due.sort_by(|(a, x), (b, y)| {
            (a, &x.notice.object, &x.notice.note).cmp(&(b, &y.notice.object, &y.notice.note))
        });
        due.into_iter().map(|(_, due)| due).collect()
    }

    /// Whether the pace allows to tell it; if so, that is spent.
    pub(super) fn may(&mut self, due: &Due, now: Instant) -> bool {
        if self.budgets.len() >= REMEMBERED && !self.budgets.contains_key(&due.notice.object) {
            let oldest = self.budgets.iter().min_by_key(|(_, bucket)| bucket.used());
            let oldest = oldest.map(|(object, _)| object.clone());
            self.budgets
                .retain(|object, _| Some(object) != oldest.as_ref());
        }
        let budget = self
            .budgets
            .entry(due.notice.object.clone())
            .or_insert_with(|| Bucket::full(BURST, PERIOD, now));
        self.all.has(now) && budget.take(now).is_ok() && self.all.take(now).is_ok()
    }

    /// It was told.
    pub(super) fn told(&mut self, due: &Due) {
        if let Some(entry) = self.entries.get_mut(&due.id) {
            entry.state = State::Told;
            entry.times = entry.times.saturating_add(1);
        }
    }

    /// Whether something waits to be told.
    pub(super) fn has_pending(&self) -> bool {
        let mut states = self.entries.values().map(|entry| &entry.state);
        states.any(|state| matches!(state, State::Pending(_)))
    }

    /// Forgets what has been over for longest, if that is too much to remember.
    fn forget(&mut self) {
        let ended = |entry: &Entry| match entry.state {
            State::Over(at) => Some(at),
            State::Pending(_) | State::Told => None,
        };
        let mut over: Vec<Instant> = self.entries.values().filter_map(ended).collect();
        if over.len() > REMEMBERED {
            over.sort_unstable();
            let from = over[over.len() - REMEMBERED / 2];
            let recent = |entry: &Entry| ended(entry).is_none_or(|at| at >= from);
            self.entries.retain(|_, entry| recent(entry));
        }
    }
}

/// The same for the same message about the same object, in any process: FNV-1a, 64 bits.
pub(super) fn identity(notice: &Notice, uid: &str) -> u64 {
    let object = &notice.object;
    let parts = [
        uid,
        object.kind,
        &object.namespace,
        &object.name,
        &notice.reason,
        &notice.note,
    ];
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for part in parts {
        for byte in part.bytes().chain([0]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notice(name: &str, note: &str) -> Notice {
        Notice {
            object: ObjectRef {
                kind: "Ingress",
                namespace: "shop".into(),
                name: name.into(),
            },
            uid: Some("1".into()),
            reason: "Reason".into(),
            note: note.into(),
            settle: Duration::ZERO,
        }
    }

    fn tell(ledger: &mut Ledger, notices: &[Notice], now: Instant) -> Vec<i32> {
        let mut told = Vec::new();
        for due in ledger.update(notices.to_vec(), now) {
            if ledger.may(&due, now) {
                ledger.told(&due);
                told.push(due.before);
            }
        }
        told
    }

    #[tokio::test(start_paused = true)]
    async fn once_a_change_and_counted_when_it_comes_back() {
        let now = Instant::now();
        let mut ledger = Ledger::new(now);
        let one = [notice("a", "x")];
        assert_eq!(tell(&mut ledger, &one, now), [0]);
        assert_eq!(tell(&mut ledger, &one, now), [0; 0]);
        assert_eq!(tell(&mut ledger, &[], now), [0; 0]);
        assert_eq!(tell(&mut ledger, &one, now), [1]);
        let two = [notice("a", "x"), notice("a", "y")];
        assert_eq!(tell(&mut ledger, &two, now), [0]);
        assert!(!ledger.has_pending());
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_last_is_not_told() {
        let start = Instant::now();
        let mut ledger = Ledger::new(start);
        let slow = [Notice {
            settle: Duration::from_secs(5),
            ..notice("a", "x")
        }];
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        assert_eq!(tell(&mut ledger, &slow, at(0)), [0; 0]);
        assert!(ledger.has_pending());
        assert_eq!(tell(&mut ledger, &[], at(3)), [0; 0]);
        assert!(!ledger.has_pending());
        assert_eq!(tell(&mut ledger, &slow, at(4)), [0; 0]);
        assert_eq!(tell(&mut ledger, &slow, at(8)), [0; 0]);
        assert_eq!(tell(&mut ledger, &slow, at(9)), [0]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_pace_holds_per_object_and_over_all() {
        let start = Instant::now();
        let mut ledger = Ledger::new(start);
        let noisy: Vec<Notice> = (0..100).map(|n| notice("noisy", &n.to_string())).collect();
        assert_eq!(tell(&mut ledger, &noisy, start).len(), 25);
        let mut with_other = noisy.clone();
        with_other.push(notice("other", "x"));
        assert_eq!(
            tell(&mut ledger, &with_other, start).len(),
            1,
            "the other's only"
        );
        let later = start + Duration::from_secs(601);
        assert_eq!(
            tell(&mut ledger, &with_other, later).len(),
            2,
            "one in five minutes"
        );
        let many: Vec<Notice> = (0..1_000).map(|n| notice(&format!("o{n}"), "x")).collect();
        let later = later + Duration::from_secs(601);
        assert_eq!(tell(&mut ledger, &many, later).len(), 50);
        let second = later + Duration::from_secs(1);
        assert_eq!(tell(&mut ledger, &many, second).len(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_bounded() {
        let now = Instant::now();
        let mut ledger = Ledger::new(now);
        for round in 0..300 {
            let at = now + Duration::from_secs(round * 60);
            let names = (0..50)
                .map(|n| notice(&format!("o{round}-{n}"), "x"))
                .collect::<Vec<_>>();
            tell(&mut ledger, &names, at);
        }
        assert!(ledger.entries.len() <= REMEMBERED + 50);
        assert!(ledger.budgets.len() <= REMEMBERED);
    }
}
