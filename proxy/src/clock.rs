//! The process's monotonic clock as one number, so that it fits an atomic.

use std::sync::OnceLock;
use std::time::Duration;

use tokio::time::Instant;

/// Nanoseconds since the process's epoch; never 0, which stands for "not set" in the counters.
pub(crate) fn now() -> u64 {
    static EPOCH: OnceLock<std::time::Instant> = OnceLock::new();
    let epoch = EPOCH.get_or_init(|| {
        let now = std::time::Instant::now();
        now.checked_sub(Duration::from_secs(1)).unwrap_or(now)
    });
    nanos(Instant::now().saturating_duration_since(Instant::from_std(*epoch))).max(1)
}

/// How long ago a time of [`now`] was.
pub(crate) fn since(time: u64) -> Duration {
    Duration::from_nanos(now().saturating_sub(time))
}

/// A time of [`now`] in ticks of 2²⁴ ns, about 17 ms; never 0. They begin anew after more than two
/// years.
pub(crate) fn ticks(time: u64) -> u32 {
    ((time >> TICK_BITS) as u32).max(1)
}

/// Nanoseconds from a tick to a time; 0 if it is later, as another thread's may be.
pub(crate) fn since_tick(tick: u32, time: u64) -> u64 {
    let ticks = ticks(time).wrapping_sub(tick).cast_signed();
    u64::try_from(ticks).unwrap_or(0) << TICK_BITS
}

/// The time from a time of [`now`] to the tick after it.
#[cfg(any(test, feature = "test-util"))]
pub(crate) fn to_next_tick(time: u64) -> Duration {
    let tick = 1 << TICK_BITS;
    Duration::from_nanos(tick - time % tick)
}

/// Nanoseconds in a tick, as a power of two.
const TICK_BITS: u32 = 24;

/// A duration in nanoseconds; 584 years at most.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_go_on_after_they_begin_anew() {
        let tick = 1 << TICK_BITS;
        let turn = tick << 32;
        for (from, to, expected) in [
            (5 * tick, 5 * tick, 0),
            (5 * tick, 9 * tick, 4 * tick),
            (5 * tick, 4 * tick, 0),
            (turn - tick, turn + 4 * tick, 5 * tick),
            (turn + 4 * tick, turn - tick, 0),
        ] {
            assert_eq!(since_tick(ticks(from), to), expected, "{from} {to}");
        }
        assert_ne!(ticks(turn), 0);
    }
}
