//! Ages and durations as kubectl shows them.

use jiff::Timestamp;
use serde_json::Value;

use crate::api::json::text;

/// Time since the RFC 3339 time at `pointer`, or `<unknown>` if there is none.
pub(super) fn since(object: &Value, pointer: &str, now: Timestamp) -> String {
    match time(object, pointer) {
        Some(then) => short(now.as_second() - then.as_second()),
        None => "<unknown>".to_owned(),
    }
}

/// The RFC 3339 time at `pointer`.
pub(super) fn time(object: &Value, pointer: &str) -> Option<Timestamp> {
    text(object, pointer).parse().ok()
}

/// A duration in at most two units, coarser the longer it is: `119s`, `9m5s`, `179m`, `7h30m`,
/// `47h`, `7d3h`, `700d`, `3y20d`.
pub(super) fn short(seconds: i64) -> String {
    const MINUTE: i64 = 60;
    const HOUR: i64 = 60 * MINUTE;
    const DAY: i64 = 24 * HOUR;
    const YEAR: i64 = 365 * DAY;
    let two = |large: i64, large_unit: &str, small: i64, small_unit: &str| match small {
        0 => format!("{large}{large_unit}"),
        _ => format!("{large}{large_unit}{small}{small_unit}"),
    };
    match seconds {
        // Clocks may differ by a second; further in the future something is wrong.
        ..-1 => "<invalid>".to_owned(),
        -1..0 => "0s".to_owned(),
        0..120 => format!("{seconds}s"),
        120..600 => two(seconds / MINUTE, "m", seconds % MINUTE, "s"),
        600..10_800 => format!("{}m", seconds / MINUTE),
        10_800..28_800 => two(seconds / HOUR, "h", seconds / MINUTE % 60, "m"),
        28_800..172_800 => format!("{}h", seconds / HOUR),
        172_800..691_200 => two(seconds / DAY, "d", seconds / HOUR % 24, "h"),
        691_200..63_072_000 => format!("{}d", seconds / DAY),
        63_072_000..252_288_000 => two(seconds / YEAR, "y", seconds / DAY % 365, "d"),
        252_288_000.. => format!("{}y", seconds / YEAR),
    }
}
