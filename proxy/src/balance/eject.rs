//! Passive outlier ejection.
//!
//! Five failures in a row, or a share of good answers below 80 % that is also well below that of its
//! peers, eject an endpoint for 1 s, doubled with every further ejection up to 60 s, plus up to half
//! of that at random so that endpoints do not return together; a Service may set other figures. When the time
//! is over one request is let through as a probe: success reopens the endpoint and forgets its
//! past, failure ejects it again at once. A probe that never ends is given up after five seconds
//! and the next request becomes the probe.
//!
//! An endpoint is not ejected if fewer than half of its peers would remain, and if that is the case
//! anyway (because the set shrank) ejection is ignored: a Service that fails everywhere is not
//! helped by sending all of its load to one pod. Kubernetes readiness is never overruled: endpoints
//! that are not ready are not in the set at all.
//!
//! `ejected_until` holds the time; its lowest bit says that a probe is on its way until then, which
//! tells a probe's failure from that of a request that was in flight when the endpoint was ejected.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use sealane_config::model::{self, Endpoint, EndpointStats};

use super::rate;
use crate::clock;

/// How long a probe keeps other probes away.
const PROBE: Duration = Duration::from_secs(5);

/// Marks `ejected_until` while a probe is on its way.
const PROBING: u64 = 1;

/// Whether an endpoint takes traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It does.
    Open,
    /// It does not.
    Ejected,
    /// It takes one request, to see.
    Probation,
}

/// The endpoint's state now.
pub(super) fn state(stats: &EndpointStats, now: u64) -> State {
    match stats.ejected_until.load(Relaxed) {
        0 => State::Open,
        until if until > now => State::Ejected,
        _ => State::Probation,
    }
}

/// Claims the one probe of an endpoint in probation.
pub(super) fn claim_probe(stats: &EndpointStats, now: u64) -> bool {
    let until = stats.ejected_until.load(Relaxed);
    until != 0
        && until <= now
        && stats
            .ejected_until
            .compare_exchange(
                until,
                (now + clock::nanos(PROBE)) | PROBING,
                Relaxed,
                Relaxed,
            )
            .is_ok()
}

/// Too few endpoints are open for ejection to make sense.
pub(super) fn in_panic(endpoints: &[Arc<Endpoint>], now: u64) -> bool {
    open(endpoints, now) * 2 < endpoints.len()
}

/// An endpoint answered. True if that reopened it.
pub(super) fn succeeded(stats: &EndpointStats) -> bool {
    // Reads before writes: the cells are shared by all workers and nearly always 0 already.
    if stats.consecutive_failures.load(Relaxed) != 0 {
        stats.consecutive_failures.store(0, Relaxed);
    }
    if stats.ejections.load(Relaxed) != 0 {
        stats.ejections.store(0, Relaxed);
    }
    let reopens = stats.ejected_until.load(Relaxed) != 0;
    if reopens {
        stats.ejected_until.store(0, Relaxed);
    }
    reopens
}

/// An endpoint failed.
pub(super) fn failed(
    stats: &EndpointStats,
    peers: &[Arc<Endpoint>],
    rules: &model::Ejection,
    now: u64,
) {
    let failures = stats
        .consecutive_failures
        .fetch_add(1, Relaxed)
        .saturating_add(1);
    let until = stats.ejected_until.load(Relaxed);
    if !rules.enabled || (until > now && until & PROBING == 0) {
        return;
    }
    if until == 0 {
        let in_a_row = rules.failures != 0 && failures >= rules.failures;
        let is_reason = in_a_row || rate::is_low(stats, peers, rules.success_rate, now);
        if !is_reason || !enough_remain(peers, now) {
            return;
        }
    }
    let ejections = stats.ejections.load(Relaxed);
    let doubled = 1_u32.checked_shl(ejections.into()).unwrap_or(u32::MAX);
    let time = rules.shortest.saturating_mul(doubled).min(rules.longest);
    let time = clock::nanos(time).max(2);
    let jitter = super::mix(now) % (time / 2);
    stats.ejections.store(ejections.saturating_add(1), Relaxed);
    stats
        .ejected_until
        .store((now + time + jitter) & !PROBING, Relaxed);
}

/// An endpoint asks for no traffic for so long.
pub(super) fn hold(
    stats: &EndpointStats,
    peers: &[Arc<Endpoint>],
    rules: &model::Ejection,
    time: Duration,
    now: u64,
) {
    let is_open = stats.ejected_until.load(Relaxed) == 0;
    if rules.enabled && is_open && enough_remain(peers, now) {
        let until = now + clock::nanos(time.min(rules.longest));
        stats.ejected_until.store(until & !PROBING, Relaxed);
    }
}

/// At least half of the endpoints are open without one of those that are.
fn enough_remain(peers: &[Arc<Endpoint>], now: u64) -> bool {
    open(peers, now).saturating_sub(1) * 2 >= peers.len()
}

fn open(endpoints: &[Arc<Endpoint>], now: u64) -> usize {
    endpoints
        .iter()
        .filter(|e| state(&e.stats, now) == State::Open)
        .count()
}
