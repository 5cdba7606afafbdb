//! Quantities (`resource.Quantity`): decimal numbers with an SI, binary or exponent suffix.
//!
//! The API server rewrites every quantity in canonical form: the number has no fraction, and the
//! suffix is the largest that allows this. Precision ends at 10⁻⁹, where values are rounded up.

use std::fmt;

/// Nano-units in one unit.
const NANO: i128 = 1_000_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Decimal,
    Binary,
    Exponent,
}

/// An exact amount and the family of suffixes it was written with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quantity {
    /// In units of 10⁻⁹.
    nano: i128,
    format: Format,
}

impl Quantity {
    /// Reads `[sign]digits[.digits][suffix]`. `None` if it is not a quantity or out of range.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (negative, unsigned) = match text.as_bytes().first()? {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        let end = unsigned
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(unsigned.len());
        let (number, suffix) = unsigned.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.len() + fraction.len() == 0 || fraction.contains('.') {
            return None;
        }
        let (format, scale) = suffix_scale(suffix)?;
        let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
        let places = u32::try_from(fraction.len()).ok()?;
        let nano = scale.apply(digits, places)?;
        // The API's range is that of a 64-bit integer.
        if nano > i128::from(i64::MAX) * NANO {
            return None;
        }
        let nano = if negative { -nano } else { nano };
        Some(Self { nano, format })
    }

    /// The amount in units of 10⁻⁹.
    pub(crate) fn nano(self) -> i128 {
        self.nano
    }
}

/// What a suffix multiplies by: `2^shift · 10^power`.
struct Scale {
    shift: u32,
    power: i32,
}

impl Scale {
    /// `digits · 10^-places · scale` in nano-units, rounded away from zero.
    fn apply(&self, digits: i128, places: u32) -> Option<i128> {
        let shifted = digits.checked_mul(1_i128.checked_shl(self.shift)?)?;
        let power = self
            .power
            .checked_add(9)?
            .checked_sub(i32::try_from(places).ok()?)?;
        let factor = 10_i128.checked_pow(power.unsigned_abs());
        if power >= 0 {
            shifted.checked_mul(factor?)
        } else {
            // Smaller than any precision, yet not nothing.
            let divisor = factor.unwrap_or(i128::MAX);
            Some(shifted / divisor + i128::from(shifted % divisor != 0))
        }
    }
}

const DECIMAL: [(&str, i32); 10] = [
    ("n", -9),
    ("u", -6),
    ("m", -3),
    ("", 0),
    ("k", 3),
    ("M", 6),
    ("G", 9),
    ("T", 12),
    ("P", 15),
    ("E", 18),
];
const BINARY: [&str; 6] = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

fn suffix_scale(suffix: &str) -> Option<(Format, Scale)> {
    if let Some((_, power)) = DECIMAL.iter().find(|(name, _)| *name == suffix) {
        let (shift, power) = (0, *power);
        return Some((Format::Decimal, Scale { shift, power }));
    }
    if let Some(index) = BINARY.iter().position(|name| *name == suffix) {
        let shift = 10 * (u32::try_from(index).ok()? + 1);
        return Some((Format::Binary, Scale { shift, power: 0 }));
    }
    let power = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
    Some((Format::Exponent, Scale { shift: 0, power }))
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nano == 0 {
            return f.write_str("0");
        }
        if self.format == Format::Binary && self.nano.abs() >= 1024 * NANO {
            let units = self.nano / NANO + i128::from(self.nano % NANO != 0) * self.nano.signum();
            let steps = (units.trailing_zeros() / 10).min(6);
            let suffix = steps
                .checked_sub(1)
                .map_or("", |index| BINARY[index as usize]);
            return write!(f, "{}{suffix}", units >> (10 * steps));
        }
        let (mut number, mut step) = (self.nano, 0);
        while number % 1000 == 0 && step + 1 < DECIMAL.len() {
            number /= 1000;
            step += 1;
        }
        match DECIMAL[step] {
            (_, 0) => write!(f, "{number}"),
            (_, power) if self.format == Format::Exponent => write!(f, "{number}e{power}"),
            (suffix, _) => write!(f, "{number}{suffix}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Quantity;

    #[test]
    fn cluster_t3_quantities_are_rewritten_in_canonical_form() {
        let cases = [
            ("0", "0"),
            ("0.0Gi", "0"),
            ("1", "1"),
            ("0.5", "500m"),
            (".5", "500m"),
            ("5.", "5"),
            ("1000m", "1"),
            ("1500m", "1500m"),
            ("100m", "100m"),
            ("1000", "1k"),
            ("1024", "1024"),
            ("1000000", "1M"),
            ("+2", "2"),
            ("-1500", "-1500"),
            ("-1.5Gi", "-1536Mi"),
            ("1024Mi", "1Gi"),
            ("1.5Gi", "1536Mi"),
            ("64Mi", "64Mi"),
            ("0.5Ki", "512"),
            ("1Ki", "1Ki"),
            ("1e3", "1e3"),
            ("1E3", "1e3"),
            ("12e-1", "1200e-3"),
            ("1E", "1E"),
            ("0.1n", "1n"),
            ("3u", "3u"),
        ];
        for (text, expected) in cases {
            let quantity = Quantity::parse(text).unwrap();
            assert_eq!(quantity.to_string(), expected, "{text}");
            let again = Quantity::parse(expected).unwrap();
            assert_eq!(again.nano(), quantity.nano(), "{text}");
            assert_eq!(again.to_string(), expected, "{text} twice");
        }
    }

    #[test]
    fn cluster_t3_bad_quantities_are_refused() {
        for text in [
            "",
            "-",
            ".",
            "x",
            "1x",
            "1 Mi",
            "1.2.3",
            "1mi",
            "1e",
            "99999999E",
            "１",
        ] {
            assert!(Quantity::parse(text).is_none(), "{text}");
        }
    }
}
