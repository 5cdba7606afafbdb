//! Sizes and times as ingress-nginx writes them.

use std::time::Duration;

/// The longest time that is taken as one.
const LONGEST: u64 = 7 * 24 * 3600;

/// A size such as `8m`: bytes, or with `k`, `m`, `g` times 1024; 0 is no limit.
pub(in crate::compile) fn size(text: &str) -> Result<u64, String> {
    let bad = || format!("`{text}` is not a size such as 1024, 8k, 8m or 1g");
    let unit = text.bytes().last().map_or(0, |b| match b {
        b'k' | b'K' => 10,
        b'm' | b'M' => 20,
        b'g' | b'G' => 30,
        _ => 0,
    });
    let digits = if unit == 0 {
        text
    } else {
        &text[..text.len() - 1]
    };
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(bad());
    }
    let number: u64 = digits.parse().map_err(|_not_a_number| bad())?;
    number.checked_mul(1 << unit).ok_or_else(bad)
}

/// A time in whole seconds, at least one.
pub(in crate::compile) fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds @ 1..=LONGEST) => Ok(Duration::from_secs(seconds)),
        _ => Err(format!(
            "`{text}` is not a number of seconds from 1 to {LONGEST}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ingress_a3_sizes_are_bytes_or_have_a_unit() {
        for (text, expected) in [
            ("0", Some(0)),
            ("1024", Some(1024)),
            ("8k", Some(8 << 10)),
            ("8K", Some(8 << 10)),
            ("1m", Some(1 << 20)),
            ("2G", Some(2 << 30)),
            ("", None),
            ("m", None),
            ("-1m", None),
            ("+1m", None),
            ("1.5m", None),
            ("1mb", None),
            ("1 m", None),
            ("99999999999999g", None),
        ] {
            assert_eq!(size(text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn ingress_a4_times_are_whole_seconds() {
        for (text, expected) in [
            ("1", Some(1)),
            ("604800", Some(604_800)),
            ("0", None),
            ("604801", None),
            ("60s", None),
            ("", None),
        ] {
            let expected = expected.map(Duration::from_secs);
            assert_eq!(seconds(text).ok(), expected, "{text}");
        }
    }
}
