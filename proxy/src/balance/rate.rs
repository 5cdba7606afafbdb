//! The share of good answers of an endpoint over the last five to ten seconds.
//!
//! One word holds two halves of five seconds, each with its answers and its failures, so that a
//! request costs one load and one store. Two workers may write at once: one of two answers is then
//! lost, which is harmless.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use sealane_config::model::{Endpoint, EndpointStats};

use super::eject::{State, state};

/// A half, nanoseconds.
const HALF: u64 = 5_000_000_000;

/// Answers without which there is no share to speak of.
const LEAST_ANSWERS: u32 = 5;

/// How much worse than its peers an endpoint has to be, percent, and how much of that is chance: a
/// Service that fails for all of them is not helped by sending its requests to some of them.
fn worse_by(total: u32) -> u32 {
    // Two standard deviations of a coin that is tossed so often.
    5 + (10_000 / total).isqrt()
}

/// Peers that are looked at.
const PEERS: usize = 64;

/// Counts are kept in twelve bits.
const MOST: u64 = 0xfff;

#[derive(Clone, Copy, Default)]
struct Counts {
    total: u64,
    failed: u64,
}

impl Counts {
    fn unpack(word: u64) -> Self {
        Self {
            total: (word >> 12) & MOST,
            failed: word & MOST,
        }
    }

    fn pack(self) -> u64 {
        self.total << 12 | self.failed
    }
}

/// Takes an answer into account.
pub(super) fn record(stats: &EndpointStats, failed: bool, now: u64) {
    let (mut half, before) = halves(stats, now);
    if half.total == MOST {
        half.total /= 2;
        half.failed /= 2;
    }
    half.total += 1;
    half.failed += u64::from(failed);
    let word = epoch(now) << 48 | half.pack() << 24 | before.pack();
    stats.outcomes.store(word, Relaxed);
}

/// Nothing is known any more.
pub(super) fn forget(stats: &EndpointStats) {
    stats.outcomes.store(0, Relaxed);
}

/// Whether the endpoint's share is below `least` percent, and lower than its peers'.
pub(super) fn is_low(stats: &EndpointStats, peers: &[Arc<Endpoint>], least: u32, now: u64) -> bool {
    let Some((own, total)) = percent(stats, now).filter(|(own, _)| *own < least) else {
        return false;
    };
    let from = usize::try_from(super::mix(now)).unwrap_or(0) % peers.len().max(1);
    let (behind, ahead) = peers.split_at(from);
    let (mut sum, mut count) = (0, 0);
    for peer in ahead.iter().chain(behind).take(PEERS) {
        let is_other = !std::ptr::eq(&*peer.stats, stats);
        if is_other
            && state(&peer.stats, now) == State::Open
            && let Some((share, _)) = percent(&peer.stats, now)
        {
            sum += share;
            count += 1;
        }
    }
    count == 0 || own + worse_by(total) <= sum / count
}

/// The share of good answers, and how many there were; `None` if they were too few.
fn percent(stats: &EndpointStats, now: u64) -> Option<(u32, u32)> {
    let (half, before) = halves(stats, now);
    let total = u32::try_from(half.total + before.total).ok()?;
    let failed = u32::try_from(half.failed + before.failed).ok()?;
    let good = total.saturating_sub(failed);
    (total >= LEAST_ANSWERS).then(|| (good * 100 / total, total))
}

/// This half and the one before it.
fn halves(stats: &EndpointStats, now: u64) -> (Counts, Counts) {
    let word = stats.outcomes.load(Relaxed);
    let (half, before) = (Counts::unpack(word >> 24), Counts::unpack(word));
    match epoch(now).wrapping_sub(word >> 48) & 0xffff {
        0 => (half, before),
        1 => (Counts::default(), half),
        _ => (Counts::default(), Counts::default()),
    }
}

/// The number of the half, in sixteen bits.
fn epoch(now: u64) -> u64 {
    (now / HALF) & 0xffff
}
