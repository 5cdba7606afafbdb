//! Slow start: an endpoint that is new, or back from an ejection, gets less than its share for a
//! while (caches, connection pools and compilers want to be warmed). Its share grows evenly from a
//! tenth to the whole.
//!
//! Only the proportion of two endpoints' shares counts, so the rule changes nothing where all are
//! equally new. The time begins with the first draw: an endpoint without traffic does not get warm.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use sealane_config::model::EndpointStats;

use crate::clock;

/// The smallest share.
const LEAST: f64 = 0.1;

/// Two endpoints' shares in what they would otherwise get.
pub(super) fn shares(
    a: &EndpointStats,
    b: &EndpointStats,
    window: Duration,
    now: u64,
) -> (f64, f64) {
    if window.is_zero() {
        return (1.0, 1.0);
    }
    (share(a, window, now), share(b, window, now))
}

/// It starts over.
pub(super) fn restart(stats: &EndpointStats, now: u64) {
    stats.warming_since.store(clock::ticks(now), Relaxed);
}

fn share(stats: &EndpointStats, window: Duration, now: u64) -> f64 {
    let since = stats.warming_since.load(Relaxed);
    if since == 0 {
        restart(stats, now);
        return LEAST;
    }
    let window = clock::nanos(window);
    let age = clock::since_tick(since, now);
    if age >= window {
        return 1.0;
    }
    (age as f64 / window as f64).max(LEAST)
}
