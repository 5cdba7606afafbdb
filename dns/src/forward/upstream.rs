//! One upstream as a worker knows it: how fast it answers and whether it does.
//!
//! - *Suspect*: it let a query wait for longer than the hedge delay, or failed. It is asked after all
//!   others until it answers a health check. If it answers those but not queries, it stays suspect for
//!   longer each time, up to [`MAX_AVOID`], so that a resolver that lives but has lost the Internet
//!   costs little.
//! - *Down*: more than `max_fails` health checks failed in a row. It is not asked while another one
//!   is not down.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

use super::https::Https;
use super::plan::Target;
use super::stream::Pool;
use crate::metrics::{Metrics, UpstreamMetrics};

/// How long an upstream stays suspect without health checks, and at most with them.
pub(super) const MAX_AVOID: Duration = Duration::from_secs(10);
/// For how long an upstream that fails queries again and again is avoided first.
const FIRST_AVOID: Duration = Duration::from_millis(500);
/// Bounds of the time after which the next upstream is asked as well.
pub(super) const MIN_HEDGE: Duration = Duration::from_millis(50);
/// See [`MIN_HEDGE`]; also the time for an upstream of which nothing is known.
pub const MAX_HEDGE: Duration = Duration::from_millis(300);

/// What was learned about how an upstream speaks.
#[derive(Debug)]
pub(super) struct Traits {
    /// Repeats the question in the case in which it was asked.
    pub(super) keeps_case: Cell<bool>,
    /// Understands OPT records.
    pub(super) speaks_edns: Cell<bool>,
}

impl Default for Traits {
    fn default() -> Self {
        Self {
            keeps_case: Cell::new(true),
            speaks_edns: Cell::new(true),
        }
    }
}

/// State of an upstream.
#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) target: Target,
    pub(super) metrics: UpstreamMetrics,
    pub(super) traits: Traits,
    pub(super) streams: Rc<Pool>,
    pub(super) https: Https,
    /// Health checks run.
    pub(super) checked: Cell<bool>,
    /// Smoothed time until an answer.
    srtt: Cell<Option<Duration>>,
    suspect: Cell<Suspect>,
    /// Queries that failed since the last one that was answered.
    streak: Cell<u32>,
    /// Health checks that failed in a row.
    fails: Cell<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Suspect {
    No,
    Until(Instant),
    UntilChecked,
}

impl Upstream {
    pub(super) fn new(target: Target, metrics: &Metrics) -> Self {
        Self {
            metrics: UpstreamMetrics::new(metrics, &target.addr.to_string()),
            target,
            traits: Traits::default(),
            streams: Rc::default(),
            https: Https::default(),
            checked: Cell::new(false),
            srtt: Cell::new(None),
            suspect: Cell::new(Suspect::No),
            streak: Cell::new(0),
            fails: Cell::new(0),
        }
    }

    /// Smoothed time until an answer, if one has come.
    pub(super) fn srtt(&self) -> Option<Duration> {
        self.srtt.get()
    }

    /// How long it is waited for alone: twice its usual time.
    pub(super) fn hedge_after(&self) -> Duration {
        let usual = self.srtt.get().map_or(MAX_HEDGE, |srtt| srtt * 2);
        usual.clamp(MIN_HEDGE, MAX_HEDGE)
    }

    pub(super) fn is_suspect(&self, now: Instant) -> bool {
        match self.suspect.get() {
            Suspect::No => false,
            Suspect::Until(until) => now < until,
            Suspect::UntilChecked => true,
        }
    }

    pub(super) fn is_down(&self, max_fails: u32) -> bool {
        max_fails > 0 && self.fails.get() > max_fails
    }

    /// A query was answered.
    pub(super) fn answered(&self, took: Duration) {
        self.observe(took);
        self.streak.set(0);
        self.fails.set(0);
        self.suspect.set(Suspect::No);
    }

    /// A query has waited for this long and still does.
    pub(super) fn is_slow(&self, waited: Duration, max_fails: u32) {
        // A lower bound of what the sample would have been: without it only fast answers would count.
        self.observe(waited);
        self.failed(max_fails);
    }

    /// A query failed.
    pub(super) fn failed(&self, max_fails: u32) {
        self.streak.set(self.streak.get().saturating_add(1));
        self.suspect.set(match max_fails {
            0 => Suspect::Until(Instant::now() + MAX_AVOID),
            _ => Suspect::UntilChecked,
        });
    }

    /// A health check failed. Tells whether that takes the upstream down.
    pub(super) fn check_failed(&self, max_fails: u32) -> bool {
        let was_down = self.is_down(max_fails);
        self.fails.set(self.fails.get().saturating_add(1));
        self.suspect.set(Suspect::UntilChecked);
        !was_down && self.is_down(max_fails)
    }

    /// A health check was answered.
    pub(super) fn check_passed(&self) {
        self.fails.set(0);
        self.suspect.set(match self.streak.get() {
            0 | 1 => Suspect::No,
            streak => {
                let avoid = FIRST_AVOID * (1 << (streak - 2).min(8));
                Suspect::Until(Instant::now() + avoid.min(MAX_AVOID))
            }
        });
    }

    fn observe(&self, took: Duration) {
        let smoothed = match self.srtt.get() {
            None => took,
            Some(srtt) => (srtt * 7 + took) / 8,
        };
        self.srtt.set(Some(smoothed));
    }
}
