//! The words of a line, taken one by one, and what they can be.

use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::slice;
use std::str::FromStr;
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use regex::Regex;
use sealane_config::units;

use super::key;
use super::problem::{Problem, ProblemKind, Result};
use super::token::Token;
use super::tree::{Directive, Line};
use crate::name::Name;

/// Longest regular expression, bytes; CoreDNS's bound.
const MAX_REGEX: usize = 10_000;

/// The arguments of a directive or a property that were not taken yet.
pub(super) struct Words<'a> {
    /// The line's first word.
    pub(super) name: &'a Token,
    /// What it is, for messages.
    label: String,
    rest: slice::Iter<'a, Token>,
}

impl<'a> Words<'a> {
    /// Those of a directive.
    pub(super) fn of(directive: &'a Directive) -> Self {
        Self {
            name: &directive.name,
            label: format!("'{}'", directive.name.text),
            rest: directive.args.iter(),
        }
    }

    /// Those of a property.
    pub(super) fn of_line(directive: &Directive, line: &'a Line) -> Self {
        Self {
            name: &line.name,
            label: format!("'{}' of '{}'", line.name.text, directive.name.text),
            rest: line.args.iter(),
        }
    }

    /// The next one, if there is one.
    pub(super) fn next(&mut self) -> Option<&'a Token> {
        self.rest.next()
    }

    /// The next one, which stays.
    pub(super) fn peek(&self) -> Option<&'a Token> {
        self.rest.clone().next()
    }

    /// How many there are.
    pub(super) fn left(&self) -> usize {
        self.rest.len()
    }

    /// The next one.
    pub(super) fn need(&mut self, what: &str) -> Result<&'a Token> {
        let next = self.next();
        next.ok_or_else(|| self.name.bad(format!("{} needs {what}", self.label)))
    }

    /// All that are left.
    pub(super) fn all(&mut self) -> slice::Iter<'a, Token> {
        std::mem::take(&mut self.rest)
    }

    /// All that are left, at least one.
    pub(super) fn some(&mut self, what: &str) -> Result<slice::Iter<'a, Token>> {
        if self.left() == 0 {
            return Err(self.name.bad(format!("{} needs {what}", self.label)));
        }
        Ok(self.all())
    }

    /// There are none left.
    pub(super) fn end(&self) -> Result<()> {
        match self.peek() {
            None => Ok(()),
            Some(more) => Err(more.bad(format!("'{}' is too much for {}", more.text, self.label))),
        }
    }

    /// The only one, as something that is written so.
    pub(super) fn only<T>(
        &mut self,
        what: &str,
        read: impl FnOnce(&Token) -> Result<T>,
    ) -> Result<T> {
        let value = read(self.need(what)?)?;
        self.end()?;
        Ok(value)
    }

    /// It is not one of the properties that there are.
    pub(super) fn unknown(&self, directive: &Directive, known: &[&str]) -> Problem {
        let message = format!(
            "unknown property '{}' of '{}'; known are: {}",
            self.name.text,
            directive.name.text,
            known.join(", ")
        );
        self.name.problem(ProblemKind::Unknown, message)
    }

    /// CoreDNS has it, this server has not.
    pub(super) fn unsupported(&self, advice: &str) -> Problem {
        let message = format!("{} is not supported: {advice}", self.label);
        self.name.problem(ProblemKind::Unsupported, message)
    }
}

/// A whole number in a range.
pub(super) fn number<T>(token: &Token, range: RangeInclusive<T>) -> Result<T>
where
    T: FromStr + PartialOrd + Display,
{
    let value = token
        .text
        .parse()
        .ok()
        .filter(|value| range.contains(value));
    value.ok_or_else(|| {
        let (least, most) = range.into_inner();
        let text = &token.text;
        token.bad(format!(
            "'{text}' is not a whole number from {least} to {most}"
        ))
    })
}

/// A length of time as Go writes it: `5s`, `1h30m`, `1.5s`, `0`.
pub(super) fn duration(token: &Token) -> Result<Duration> {
    parse_duration(&token.text).ok_or_else(|| {
        let text = &token.text;
        token.bad(format!(
            "'{text}' is not a duration such as 500ms, 5s, 1h30m"
        ))
    })
}

fn parse_duration(text: &str) -> Option<Duration> {
    units::duration(text.strip_prefix('+').unwrap_or(text))
}

/// A regular expression.
pub(super) fn regex(token: &Token) -> Result<Regex> {
    let length = token.text.len();
    if length > MAX_REGEX {
        return Err(token.bad(format!(
            "the regular expression has {length} bytes, more than {MAX_REGEX}"
        )));
    }
    Regex::new(&token.text).map_err(|error| {
        // The parser's message shows the expression over several lines; the last one says it.
        let error = error.to_string();
        let last = error.lines().last().unwrap_or_default();
        let last = last.trim_start_matches("error: ");
        token.bad(format!(
            "'{}' is not a regular expression: {last}",
            token.text
        ))
    })
}

/// A domain name, in lower case.
pub(super) fn name(token: &Token) -> Result<Name> {
    let name: std::result::Result<Name, _> = token.text.parse();
    let name = name.map_err(|error| token.bad(format!("'{}' is no name: {error}", token.text)))?;
    Ok(name.to_lowercase())
}

/// Names, each of which may be a CIDR, which stands for its reverse zones.
pub(super) fn zones<'a>(tokens: impl Iterator<Item = &'a Token>) -> Result<Vec<Name>> {
    let mut zones = Vec::new();
    for token in tokens {
        zones.extend(key::zones(token, key::without_scheme(&token.text))?);
    }
    Ok(zones)
}

/// A code such as `NXDOMAIN`, in upper or lower case.
pub(super) fn rcode(token: &Token) -> Result<ResponseCode> {
    Ok(match token.text.to_ascii_uppercase().as_str() {
        "NOERROR" => ResponseCode::NoError,
        "FORMERR" => ResponseCode::FormErr,
        "SERVFAIL" => ResponseCode::ServFail,
        "NXDOMAIN" => ResponseCode::NXDomain,
        "NOTIMP" => ResponseCode::NotImp,
        "REFUSED" => ResponseCode::Refused,
        "YXDOMAIN" => ResponseCode::YXDomain,
        "YXRRSET" => ResponseCode::YXRRSet,
        "NXRRSET" => ResponseCode::NXRRSet,
        "NOTAUTH" => ResponseCode::NotAuth,
        "NOTZONE" => ResponseCode::NotZone,
        _ => {
            let message = format!("'{}' is no response code such as NXDOMAIN", token.text);
            return Err(token.bad(message));
        }
    })
}

/// A record type such as `AAAA`, in upper or lower case.
pub(super) fn record_type(token: &Token) -> Result<RecordType> {
    let found = RecordType::from_str(&token.text.to_ascii_uppercase());
    found.map_err(|_unknown| token.bad(format!("'{}' is no record type such as AAAA", token.text)))
}

/// A class such as `IN`, in upper or lower case.
pub(super) fn class(token: &Token) -> Result<u16> {
    Ok(match token.text.to_ascii_uppercase().as_str() {
        "IN" => 1,
        "CS" => 2,
        "CH" => 3,
        "HS" => 4,
        "NONE" => 254,
        "ANY" => CLASS_ANY,
        _ => {
            let message = format!(
                "'{}' is no class; known are: IN, CS, CH, HS, NONE, ANY",
                token.text
            );
            return Err(token.bad(message));
        }
    })
}

/// Every class.
pub(super) const CLASS_ANY: u16 = 255;

/// An IP address.
pub(super) fn ip(token: &Token) -> Result<IpAddr> {
    let ip = token.text.parse();
    ip.map_err(|_invalid| token.bad(format!("'{}' is no IP address", token.text)))
}

/// Where to listen: `:8080`, `IP:8080` or `localhost:8080`. Without an address it is every one, of
/// both families.
pub(super) fn listen_address(token: &Token) -> Result<SocketAddr> {
    let split = token.text.rsplit_once(':');
    let found = split.and_then(|(host, port)| {
        let port: u16 = port.parse().ok()?;
        let ip = match host.trim_start_matches('[').trim_end_matches(']') {
            "" => Ipv6Addr::UNSPECIFIED.into(),
            "localhost" => Ipv4Addr::LOCALHOST.into(),
            host => host.parse::<IpAddr>().ok()?,
        };
        Some(SocketAddr::new(ip, port))
    });
    found.ok_or_else(|| {
        let text = &token.text;
        token.bad(format!(
            "'{text}' is no address; give it as :PORT or IP:PORT"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dns_corefile_durations_are_written_as_in_go() {
        for (text, milliseconds) in [
            ("5s", Some(5000)),
            ("0", Some(0)),
            ("0s", Some(0)),
            ("1h30m", Some(5_400_000)),
            ("1.5s", Some(1500)),
            (".5s", Some(500)),
            ("+2m", Some(120_000)),
            ("250ms", Some(250)),
            ("1000us", Some(1)),
            ("1000µs", Some(1)),
            ("5", None),
            ("-5s", None),
            ("5d", None),
            ("s", None),
            ("", None),
            ("1..5s", None),
            ("9999999999h", None),
            ("NaNs", None),
        ] {
            let expected = milliseconds.map(Duration::from_millis);
            assert_eq!(parse_duration(text), expected, "{text}");
        }
    }
}
