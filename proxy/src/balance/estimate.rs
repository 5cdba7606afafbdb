//! The round-trip estimate of an endpoint. The rules are in the parent's header.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use sealane_config::model::EndpointStats;

use crate::clock;

/// Estimates below this are equal, nanoseconds.
const FLOOR: u64 = 1_000_000;

/// How far one sample can raise the estimate.
const RISE: u64 = 2;

/// An estimate loses half of its height in this time without a sample, nanoseconds: an endpoint
/// that was slow long ago deserves another look.
const HALF_LIFE: u64 = 10_000_000_000;

/// Takes one measurement into account.
pub(super) fn sample(stats: &EndpointStats, elapsed: Duration, now: u64) {
    let sample = clock::nanos(elapsed).max(FLOOR);
    // Two workers may sample at once; one of the two samples is then lost, which is harmless.
    let next = match current(stats, now) {
        None => sample.min(FLOOR * RISE),
        Some(estimate) if sample > estimate => sample.min(estimate.saturating_mul(RISE)),
        Some(estimate) => estimate - (estimate - sample) / 4,
    };
    stats.rtt_nanos.store(next, Relaxed);
    stats.rtt_updated.store(clock::ticks(now), Relaxed);
}

/// Starts over: the endpoint counts as never measured.
pub(super) fn forget(stats: &EndpointStats) {
    stats.rtt_nanos.store(0, Relaxed);
}

/// The costs of two endpoints, comparable with each other. One that was never measured is taken to
/// be as fast as the other, so that a new endpoint gets its share and no stampede.
pub(super) fn costs(a: &EndpointStats, b: &EndpointStats, now: u64) -> (f64, f64) {
    let (rtt_a, rtt_b) = match (current(a, now), current(b, now)) {
        (None, None) => (FLOOR, FLOOR),
        (Some(a), None) => (a, a),
        (None, Some(b)) => (b, b),
        (Some(a), Some(b)) => (a, b),
    };
    let (load_a, load_b) = loads(a, b);
    (rtt_a as f64 * load_a, rtt_b as f64 * load_b)
}

/// The requests in flight at two endpoints, with the one that is to come.
pub(super) fn loads(a: &EndpointStats, b: &EndpointStats) -> (f64, f64) {
    let load = |stats: &EndpointStats| f64::from(stats.in_flight.load(Relaxed)) + 1.0;
    (load(a), load(b))
}

/// The estimate as it stands, nanoseconds, at least [`FLOOR`]; `None` before the first sample.
fn current(stats: &EndpointStats, now: u64) -> Option<u64> {
    let estimate = stats.rtt_nanos.load(Relaxed);
    if estimate == 0 {
        return None;
    }
    let age = clock::since_tick(stats.rtt_updated.load(Relaxed), now);
    let halvings = u32::try_from(age / HALF_LIFE).unwrap_or(u32::MAX);
    Some(estimate.checked_shr(halvings).unwrap_or(0).max(FLOOR))
}
