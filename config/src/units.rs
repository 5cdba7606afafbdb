//! Durations and numbers of bytes as people write them.

use std::time::Duration;

pub(crate) fn no_duration(text: &str) -> String {
    format!("`{text}` is not a duration such as 500ms, 5s or 1m30s")
}

/// Units of a duration, nanoseconds, longest first.
const UNITS: [(&str, u64); 8] = [
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ns", 1),
];

/// A duration as Go's `time.ParseDuration` reads it, without a sign: numbers with a unit each, `0`.
pub fn duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut nanos: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, behind) = rest.split_at(digits);
        let end = behind.find(|c: char| c.is_ascii_digit() || c == '.');
        let (unit, next) = behind.split_at(end.unwrap_or(behind.len()));
        let (_, size) = UNITS.iter().find(|(name, _)| *name == unit)?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let whole: u64 = if whole.is_empty() {
            0
        } else {
            whole.parse().ok()?
        };
        nanos = nanos.checked_add(whole.checked_mul(*size)?)?;
        let mut place = *size;
        for digit in fraction.bytes() {
            place /= 10;
            nanos = nanos.checked_add(u64::from(digit.checked_sub(b'0')?) * place)?;
        }
        rest = next;
    }
    (!text.is_empty()).then(|| Duration::from_nanos(nanos))
}

/// In the largest units that leave no fraction.
pub(crate) fn duration_text(duration: Duration) -> String {
    let mut nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    if nanos == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    for (unit, size) in UNITS {
        if let (count @ 1.., left) = (nanos / size, nanos % size) {
            text.push_str(&format!("{count}{unit}"));
            nanos = left;
        }
    }
    text
}

const BYTE_UNITS: [(&str, u64); 4] = [
    ("Ti", 1 << 40),
    ("Gi", 1 << 30),
    ("Mi", 1 << 20),
    ("Ki", 1 << 10),
];

pub(crate) fn byte_count(text: &str) -> Option<u64> {
    let unit = BYTE_UNITS.iter().find(|(unit, _)| text.ends_with(unit));
    let (digits, size) = unit.map_or((text, 1), |(unit, size)| {
        (text.strip_suffix(unit).unwrap_or(text), *size)
    });
    digits.parse::<u64>().ok()?.checked_mul(size)
}

pub(crate) fn bytes_text(count: u64) -> String {
    let mut units = BYTE_UNITS.iter();
    let unit = units.find(|(_, size)| count >= *size && count.is_multiple_of(*size));
    unit.map_or_else(
        || count.to_string(),
        |(unit, size)| format!("{}{unit}", count / size),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        for (text, nanos) in [
            ("0", Some(0)),
            ("1.5s", Some(1_500_000_000)),
            (".5s", Some(500_000_000)),
            ("1h2m3s4ms5us6ns", Some(3_723_004_005_006)),
            ("1µs", Some(1_000)),
            ("s", None),
            (".s", None),
            ("1..5s", None),
            ("1s ", None),
            ("1d", None),
        ] {
            assert_eq!(duration(text), nanos.map(Duration::from_nanos), "{text}");
        }
    }
}
