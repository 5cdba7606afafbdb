//! Passive outlier ejection.
//!
//! Five failures in a row eject an endpoint for 1 s, doubled with every further ejection up to
//! 60 s, plus up to half of that at random so that endpoints do not return together. When the time
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

use sealane_config::model::{Endpoint, EndpointStats};

use crate::clock;

/// Failures in a row that eject.
const FAILURES: u32 = 5;

/// The first ejection.
const SHORTEST: Duration = Duration::from_secs(1);

/// The longest ejection, before the random part.
const LONGEST: Duration = Duration::from_secs(60);

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
    for cell in [&stats.consecutive_failures, &stats.ejections] {
        if cell.load(Relaxed) != 0 {
            cell.store(0, Relaxed);
        }
    }
    let reopens = stats.ejected_until.load(Relaxed) != 0;
    if reopens {
        stats.ejected_until.store(0, Relaxed);
    }
    reopens
}

/// An endpoint failed.
pub(super) fn failed(stats: &EndpointStats, peers: &[Arc<Endpoint>], now: u64) {
    let failures = stats
        .consecutive_failures
        .fetch_add(1, Relaxed)
        .saturating_add(1);
    let until = stats.ejected_until.load(Relaxed);
    if until > now && until & PROBING == 0 {
        return;
    }
    if until == 0 {
        let remaining = open(peers, now).saturating_sub(1);
        if failures < FAILURES || remaining * 2 < peers.len() {
            return;
        }
    }
    let ejections = stats.ejections.load(Relaxed);
    let time = SHORTEST
        .saturating_mul(1_u32.checked_shl(ejections).unwrap_or(u32::MAX))
        .min(LONGEST);
    let time = clock::nanos(time);
    let jitter = super::mix(now) % (time / 2);
    stats.ejections.store(ejections.saturating_add(1), Relaxed);
    stats
        .ejected_until
        .store((now + time + jitter) & !PROBING, Relaxed);
}

fn open(endpoints: &[Arc<Endpoint>], now: u64) -> usize {
    endpoints
        .iter()
        .filter(|e| state(&e.stats, now) == State::Open)
        .count()
}
