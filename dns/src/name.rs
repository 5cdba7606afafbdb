//! Domain names in wire form.
//!
//! A name is kept as it was typed: replies echo it bit for bit, and comparisons fold ASCII case
//! (RFC 4343). Suffixes share the bytes of the name that they were cut from.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;

/// Longest name on the wire, length bytes and root included (RFC 1035 section 2.3.4).
pub const MAX_NAME: usize = 255;
/// Longest label (RFC 1035 section 2.3.4).
pub const MAX_LABEL: usize = 63;

/// An absolute domain name: uncompressed wire form, at most [`MAX_NAME`] bytes.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Name(Bytes);

/// Why a text is no domain name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Two dots in a row, or one at the start.
    #[error("a label is empty")]
    EmptyLabel,
    /// A label is longer than 63 bytes.
    #[error("a label is longer than 63 bytes")]
    LongLabel,
    /// The name is longer than 255 bytes on the wire.
    #[error("the name is longer than 255 bytes")]
    LongName,
    /// Escapes are not understood.
    #[error("a backslash is not allowed")]
    Backslash,
}

impl Name {
    /// The root.
    pub fn root() -> Self {
        Self(Bytes::from_static(&[0]))
    }

    /// A name from its checked wire form: labels, root byte, nothing else.
    pub(crate) fn from_checked_wire(wire: &[u8]) -> Self {
        debug_assert!(wire.len() <= MAX_NAME && wire.last() == Some(&0));
        Self(Bytes::copy_from_slice(wire))
    }

    /// Labels put in front of a name. `None` if the result is too long or a label is not 1 to 63
    /// bytes.
    pub fn prepend<'a>(labels: impl IntoIterator<Item = &'a str>, rest: &Self) -> Option<Self> {
        let mut wire = [0u8; MAX_NAME];
        let mut length = 0;
        for label in labels {
            let end = length + 1 + label.len();
            if !(1..=MAX_LABEL).contains(&label.len()) {
                return None;
            }
            let room = wire.get_mut(length..end)?;
            room[0] = label.len() as u8;
            room[1..].copy_from_slice(label.as_bytes());
            length = end;
        }
        let end = length + rest.0.len();
        wire.get_mut(length..end)?.copy_from_slice(&rest.0);
        Some(Self(Bytes::copy_from_slice(&wire[..end])))
    }

    /// Reads what [`Display`](fmt::Display) writes, escapes included. `None` if that is no name.
    pub(crate) fn from_escaped(text: &str) -> Option<Self> {
        if !text.contains('\\') {
            return text.parse().ok();
        }
        let mut wire = Vec::with_capacity(text.len() + 2);
        let mut label = Vec::new();
        let mut bytes = text.bytes();
        while let Some(byte) = bytes.next() {
            match byte {
                b'.' => push_label(&mut wire, &std::mem::take(&mut label)).ok()?,
                b'\\' => label.push(match bytes.next()? {
                    hundreds @ b'0'..=b'9' => {
                        let digits = [hundreds, bytes.next()?, bytes.next()?];
                        std::str::from_utf8(&digits).ok()?.parse().ok()?
                    }
                    byte => byte,
                }),
                byte => label.push(byte),
            }
        }
        if !label.is_empty() {
            push_label(&mut wire, &label).ok()?;
        }
        wire.push(0);
        (wire.len() <= MAX_NAME).then(|| Self(wire.into()))
    }

    /// The wire form, root byte included.
    pub fn wire(&self) -> &[u8] {
        &self.0
    }

    /// The labels, first one first, without the root.
    pub fn labels(&self) -> Labels<'_> {
        Labels { wire: &self.0 }
    }

    /// The name without its first label. `None` for the root.
    pub(crate) fn parent(&self) -> Option<Self> {
        let first = usize::from(*self.0.first()?);
        (first > 0).then(|| Self(self.0.slice(first + 1..)))
    }

    /// The same name in lower case.
    pub fn to_lowercase(&self) -> Self {
        if self.0.iter().any(u8::is_ascii_uppercase) {
            // Length bytes are at most 63, below 'A', so they stay as they are.
            Self(self.0.to_ascii_lowercase().into())
        } else {
            self.clone()
        }
    }

    /// The same name with each letter in upper or lower case as the bits of `random` say, so that a
    /// reply has more to guess (draft-vixie-dnsext-dns0x20).
    pub fn with_case(&self, mut random: impl Iterator<Item = bool>) -> Self {
        let flip = |&byte: &u8| match byte.is_ascii_alphabetic() && random.next() == Some(true) {
            true => byte ^ 0x20,
            false => byte,
        };
        Self(self.0.iter().map(flip).collect())
    }

    /// Equal but for ASCII case.
    pub fn eq_ignore_case(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(&other.0)
    }

    /// The first labels of this name in front of `suffix`. `None` if that is too long.
    pub fn onto(&self, labels: usize, suffix: &Self) -> Option<Self> {
        let rest = self.without_labels(labels);
        let head = &self.0[..self.0.len() - rest.0.len()];
        let length = head.len() + suffix.0.len();
        (length <= MAX_NAME).then(|| Self([head, &suffix.0].concat().into()))
    }

    /// The name without its first labels; the root if it has not as many.
    pub fn without_labels(&self, count: usize) -> Self {
        let mut at = 0;
        for _ in 0..count {
            match self.0[at] {
                0 => break,
                length => at += usize::from(length) + 1,
            }
        }
        Self(self.0.slice(at..))
    }

    /// If this name is `zone` or below it: how many labels are left of the zone, and the zone as
    /// it is typed in this name.
    pub fn split_zone(&self, zone: &Self) -> Option<(usize, Self)> {
        let (left, start) = self.cut(zone)?;
        Some((left, Self(self.0.slice(start..))))
    }

    /// The same for the longest of these zones.
    pub fn split_longest_zone<'a>(
        &self,
        zones: impl IntoIterator<Item = &'a Self>,
    ) -> Option<(usize, Self)> {
        let cuts = zones.into_iter().filter_map(|zone| self.cut(zone));
        let (left, start) = cuts.min()?;
        Some((left, Self(self.0.slice(start..))))
    }

    /// This name is `zone` or below it.
    pub fn is_within(&self, zone: &Self) -> bool {
        self.cut(zone).is_some()
    }

    /// How many labels and bytes are left of `zone`, if this name is within it.
    fn cut(&self, zone: &Self) -> Option<(usize, usize)> {
        let start = self.0.len().checked_sub(zone.0.len())?;
        if !self.0[start..].eq_ignore_ascii_case(&zone.0) {
            return None;
        }
        // The zone has to begin where a label begins: `xcluster.local` is not below `cluster.local`.
        let (mut at, mut left) = (0, 0);
        while at < start {
            at += usize::from(self.0[at]) + 1;
            left += 1;
        }
        (at == start).then_some((left, start))
    }
}

fn push_label(wire: &mut Vec<u8>, label: &[u8]) -> Result<(), NameError> {
    match label.len() {
        0 => Err(NameError::EmptyLabel),
        length if length > MAX_LABEL => Err(NameError::LongLabel),
        length => {
            wire.push(length as u8);
            wire.extend_from_slice(label);
            Ok(())
        }
    }
}

impl FromStr for Name {
    type Err = NameError;

    /// Reads `a.b.c` or `a.b.c.`; both are absolute.
    fn from_str(text: &str) -> Result<Self, NameError> {
        let text = text.strip_suffix('.').unwrap_or(text);
        if text.is_empty() {
            return Ok(Self::root());
        }
        if text.contains('\\') {
            return Err(NameError::Backslash);
        }
        let mut wire = Vec::with_capacity(text.len() + 2);
        for label in text.split('.') {
            push_label(&mut wire, label.as_bytes())?;
        }
        wire.push(0);
        if wire.len() > MAX_NAME {
            return Err(NameError::LongName);
        }
        Ok(Self(wire.into()))
    }
}

impl fmt::Display for Name {
    /// With a trailing dot; bytes that could disturb a terminal or a log are escaped (RFC 4343
    /// section 2.1).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.len() == 1 {
            return f.write_str(".");
        }
        for label in self.labels() {
            for &byte in label {
                match byte {
                    b'.' | b'\\' | b'"' | b';' => write!(f, "\\{}", char::from(byte))?,
                    0x21..=0x7e => write!(f, "{}", char::from(byte))?,
                    _ => write!(f, "\\{byte:03}")?,
                }
            }
            f.write_str(".")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Iterator over the labels of a [`Name`].
#[derive(Clone, Debug)]
pub struct Labels<'a> {
    wire: &'a [u8],
}

impl<'a> Iterator for Labels<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (&length, rest) = self.wire.split_first()?;
        if length == 0 {
            return None;
        }
        let (label, rest) = rest.split_at_checked(usize::from(length))?;
        self.wire = rest;
        Some(label)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_to_name_and_back() {
        for (text, shown) in [
            ("cluster.local", "cluster.local."),
            ("cluster.local.", "cluster.local."),
            (".", "."),
            ("", "."),
            ("A b.c", "A\\032b.c."),
        ] {
            assert_eq!(text.parse::<Name>().unwrap().to_string(), shown, "{text}");
        }
        let long = "a".repeat(64);
        let name = [
            "a".repeat(63),
            "b".repeat(63),
            "c".repeat(63),
            "d".repeat(62),
        ]
        .join(".");
        for (text, error) in [
            ("a..b", NameError::EmptyLabel),
            (".a", NameError::EmptyLabel),
            (long.as_str(), NameError::LongLabel),
            (name.as_str(), NameError::LongName),
            ("a\\046b", NameError::Backslash),
        ] {
            assert_eq!(text.parse::<Name>(), Err(error), "{text}");
        }
    }

    #[test]
    fn escaped_text_is_read_back() {
        let wire = [5, b'a', b'.', b' ', b'\\', 0xff, 1, b'b', 0];
        let name = Name::from_checked_wire(&wire);
        assert_eq!(name.to_string(), "a\\.\\032\\\\\\255.b.");
        assert_eq!(Name::from_escaped(&name.to_string()), Some(name));
        for bad in ["\\", "\\1", "\\999.", "a\\..b..c", ".\\065"] {
            assert_eq!(Name::from_escaped(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_zone_is_split_at_a_label() {
        let zone: Name = "cluster.local".parse().unwrap();
        for (text, expected) in [
            ("cluster.local", Some((0, "cluster.local."))),
            ("svc.CLUSTER.local", Some((1, "CLUSTER.local."))),
            ("a.b.cluster.local", Some((2, "cluster.local."))),
            ("xcluster.local", None),
            ("local", None),
            (".", None),
        ] {
            let split = text.parse::<Name>().unwrap().split_zone(&zone);
            let split = split.map(|(left, zone)| (left, zone.to_string()));
            let expected = expected.map(|(left, zone)| (left, zone.to_owned()));
            assert_eq!(split, expected, "{text}");
        }
    }
}
