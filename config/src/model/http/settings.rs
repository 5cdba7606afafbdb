//! The annotations of a Service: names, defaults, ranges, and the field that each one sets.
//!
//! An annotation that cannot be used changes nothing: the default stays in force.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::{Algorithm, HttpPolicy, RetryOn};
use crate::units::{byte_count, bytes_text, duration, duration_text, no_duration};

/// What the names of our annotations begin with.
pub const PREFIX: &str = "sealane.dev/";

/// Statuses of answers that are errors of a gateway.
const GATEWAY_ERRORS: RangeInclusive<u16> = 502..=504;
const SERVER_ERRORS: RangeInclusive<u16> = 500..=599;

/// gRPC's names for the codes that may be a reason for a retry.
const GRPC: [(&str, u32); 5] = [
    ("cancelled", 1),
    ("deadline-exceeded", 4),
    ("resource-exhausted", 8),
    ("internal", 13),
    ("unavailable", 14),
];

const SECOND: Duration = Duration::from_secs(1);
const MILLI: Duration = Duration::from_millis(1);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// One annotation.
#[derive(Debug)]
pub struct Setting {
    /// Its name, without [`PREFIX`].
    pub name: &'static str,
    value: Value,
}

/// What a value is, and where it belongs.
#[derive(Debug)]
enum Value {
    /// A duration as Go writes it.
    Duration {
        /// Zero is allowed as well, and means that there is no limit.
        or_zero: bool,
        range: RangeInclusive<Duration>,
        field: fn(&mut HttpPolicy) -> &mut Duration,
    },
    /// First and longest pause, both durations, with `-` between them.
    Pauses(fn(&mut HttpPolicy) -> &mut RangeInclusive<Duration>),
    Number {
        range: RangeInclusive<u32>,
        field: fn(&mut HttpPolicy) -> &mut u32,
    },
    /// Bytes, as a number or with `Ki`, `Mi`, `Gi`.
    Bytes {
        range: RangeInclusive<u64>,
        field: fn(&mut HttpPolicy) -> &mut u64,
    },
    Switch(fn(&mut HttpPolicy) -> &mut bool),
    Algorithm,
    RetryOn,
}

/// A limit that may be switched off.
const fn optional(
    least: Duration,
    most: Duration,
    field: fn(&mut HttpPolicy) -> &mut Duration,
) -> Value {
    Value::Duration {
        or_zero: true,
        range: least..=most,
        field,
    }
}

const fn required(
    least: Duration,
    most: Duration,
    field: fn(&mut HttpPolicy) -> &mut Duration,
) -> Value {
    Value::Duration {
        or_zero: false,
        range: least..=most,
        field,
    }
}

const fn number(least: u32, most: u32, field: fn(&mut HttpPolicy) -> &mut u32) -> Value {
    Value::Number {
        range: least..=most,
        field,
    }
}

const fn bytes(least: u64, most: u64, field: fn(&mut HttpPolicy) -> &mut u64) -> Value {
    Value::Bytes {
        range: least..=most,
        field,
    }
}

/// Every annotation.
pub const SETTINGS: &[Setting] = &[
    Setting {
        name: "request-timeout",
        value: optional(MILLI, DAY, |p| &mut p.timeouts.request),
    },
    Setting {
        name: "response-timeout",
        value: optional(MILLI, DAY, |p| &mut p.timeouts.response),
    },
    Setting {
        name: "per-try-timeout",
        value: optional(MILLI, DAY, |p| &mut p.timeouts.per_try),
    },
    Setting {
        name: "idle-timeout",
        value: optional(SECOND, DAY, |p| &mut p.timeouts.idle),
    },
    Setting {
        name: "connect-timeout",
        value: required(Duration::from_millis(10), Duration::from_secs(30), |p| {
            &mut p.timeouts.connect
        }),
    },
    Setting {
        name: "retry-on",
        value: Value::RetryOn,
    },
    Setting {
        name: "retries",
        value: number(0, 10, |p| &mut p.retries.count),
    },
    Setting {
        name: "retry-backoff",
        value: Value::Pauses(|p| &mut p.retries.backoff),
    },
    Setting {
        name: "retry-budget-percent",
        value: number(0, 100, |p| &mut p.retries.budget_percent),
    },
    Setting {
        name: "retry-budget-per-second",
        value: number(0, 10_000, |p| &mut p.retries.budget_per_second),
    },
    Setting {
        name: "load-balancer",
        value: Value::Algorithm,
    },
    Setting {
        name: "slow-start",
        value: optional(SECOND, Duration::from_secs(900), |p| {
            &mut p.balancing.slow_start
        }),
    },
    Setting {
        name: "ejection",
        value: Value::Switch(|p| &mut p.balancing.ejection.enabled),
    },
    Setting {
        name: "ejection-failures",
        value: number(0, 1000, |p| &mut p.balancing.ejection.failures),
    },
    Setting {
        name: "ejection-success-rate",
        value: number(0, 100, |p| &mut p.balancing.ejection.success_rate),
    },
    Setting {
        name: "ejection-time",
        value: required(Duration::from_millis(100), Duration::from_secs(300), |p| {
            &mut p.balancing.ejection.shortest
        }),
    },
    Setting {
        name: "ejection-max-time",
        value: required(Duration::from_millis(100), Duration::from_secs(3600), |p| {
            &mut p.balancing.ejection.longest
        }),
    },
    Setting {
        name: "max-body-bytes",
        value: bytes(0, 1 << 40, |p| &mut p.limits.body_bytes),
    },
    Setting {
        name: "max-header-bytes",
        value: bytes(1 << 10, 1 << 20, |p| &mut p.limits.header_bytes),
    },
    Setting {
        name: "max-header-fields",
        value: number(16, 1024, |p| &mut p.limits.header_fields),
    },
    Setting {
        name: "max-requests-per-endpoint",
        value: number(0, 100_000, |p| &mut p.limits.requests_per_endpoint),
    },
    Setting {
        name: "max-queued-requests",
        value: number(0, 10_000, |p| &mut p.limits.queued_requests),
    },
    Setting {
        name: "queue-timeout",
        value: required(MILLI, Duration::from_secs(60), |p| {
            &mut p.limits.queue_timeout
        }),
    },
    Setting {
        name: "send-proxy-protocol",
        value: Value::Switch(|p| &mut p.sends_proxy_protocol),
    },
];

impl HttpPolicy {
    /// Reads the annotations of a Service. `problem` gets the name of each one that cannot be used,
    /// and why; `None` for a name that begins with [`PREFIX`] and is not one of [`SETTINGS`].
    pub fn read(
        annotations: &BTreeMap<String, String>,
        mut problem: impl FnMut(&str, Option<String>),
    ) -> Self {
        let mut policy = Self::default();
        for (name, text) in annotations {
            let Some(short) = name.strip_prefix(PREFIX) else {
                continue;
            };
            match SETTINGS.iter().find(|setting| setting.name == short) {
                Some(setting) => {
                    if let Err(why) = setting.set(&mut policy, text.trim()) {
                        let default = setting.default_text();
                        problem(name, Some(format!("{why}; {default} stays in force")));
                    }
                }
                None => problem(name, None),
            }
        }
        let ejection = &mut policy.balancing.ejection;
        ejection.longest = ejection.longest.max(ejection.shortest);
        policy
    }
}

impl Setting {
    /// What holds without it.
    pub fn default_text(&self) -> String {
        self.text(&HttpPolicy::default())
    }

    /// What a policy says, as the annotation would.
    pub fn text(&self, policy: &HttpPolicy) -> String {
        let policy = &mut policy.clone();
        match &self.value {
            Value::Duration { field, .. } => duration_text(*field(policy)),
            Value::Pauses(field) => {
                let pauses = field(policy);
                let (first, longest) = (*pauses.start(), *pauses.end());
                format!("{}-{}", duration_text(first), duration_text(longest))
            }
            Value::Number { field, .. } => field(policy).to_string(),
            Value::Bytes { field, .. } => bytes_text(*field(policy)),
            Value::Switch(field) => if *field(policy) { "on" } else { "off" }.to_owned(),
            Value::Algorithm => policy.balancing.algorithm.label().to_owned(),
            Value::RetryOn => policy.retries.on.text(),
        }
    }

    /// Which values are allowed, for people.
    pub fn range(&self) -> String {
        match &self.value {
            Value::Duration { or_zero, range, .. } => {
                let zero = if *or_zero { "0s or " } else { "" };
                let (least, most) = (duration_text(*range.start()), duration_text(*range.end()));
                format!("{zero}{least} to {most}")
            }
            Value::Pauses(_) => "1ms to 1m".to_owned(),
            Value::Number { range, .. } => format!("{} to {}", range.start(), range.end()),
            Value::Bytes { range, .. } => {
                let (least, most) = (bytes_text(*range.start()), bytes_text(*range.end()));
                format!("{least} to {most}")
            }
            Value::Switch(_) => "on, off".to_owned(),
            Value::Algorithm => Algorithm::ALL.map(Algorithm::label).join(", "),
            Value::RetryOn => {
                let codes = GRPC.map(|(name, _)| name).join(", ");
                format!(
                    "none, connect-failure, refused-stream, reset, 5xx, gateway-error, a status, \
                     two statuses with - between them, {codes}"
                )
            }
        }
    }

    fn set(&self, policy: &mut HttpPolicy, text: &str) -> Result<(), String> {
        let outside = || format!("`{text}` is not {}", self.range());
        match &self.value {
            Value::Duration {
                or_zero,
                range,
                field,
            } => {
                let value = duration(text).ok_or_else(|| no_duration(text))?;
                let is_off = *or_zero && value.is_zero();
                if !is_off && !range.contains(&value) {
                    return Err(outside());
                }
                *field(policy) = value;
            }
            Value::Pauses(field) => {
                let (first, longest) = text.split_once('-').unwrap_or((text, text));
                let allowed = MILLI..=Duration::from_secs(60);
                let read = |text: &str| {
                    let value = duration(text.trim()).ok_or_else(|| no_duration(text))?;
                    allowed
                        .contains(&value)
                        .then_some(value)
                        .ok_or_else(outside)
                };
                let (first, longest) = (read(first)?, read(longest)?);
                if first > longest {
                    return Err(format!("`{text}` ends before it begins"));
                }
                *field(policy) = first..=longest;
            }
            Value::Number { range, field } => {
                let value = text.parse().ok().filter(|value| range.contains(value));
                *field(policy) = value.ok_or_else(outside)?;
            }
            Value::Bytes { range, field } => {
                let value = byte_count(text).filter(|value| range.contains(value));
                *field(policy) = value.ok_or_else(outside)?;
            }
            Value::Switch(field) => {
                *field(policy) = match text {
                    "on" | "true" => true,
                    "off" | "false" => false,
                    _ => return Err(outside()),
                };
            }
            Value::Algorithm => {
                let mut all = Algorithm::ALL.into_iter();
                let found = all.find(|algorithm| algorithm.label() == text);
                policy.balancing.algorithm = found.ok_or_else(outside)?;
            }
            Value::RetryOn => policy.retries.on = RetryOn::read(text)?,
        }
        Ok(())
    }
}

impl RetryOn {
    fn read(text: &str) -> Result<Self, String> {
        let mut on = Self::never();
        if text == "none" {
            return Ok(on);
        }
        let mut statuses = Vec::new();
        for reason in text.split(',').map(str::trim) {
            match reason {
                "connect-failure" => on.connect_failure = true,
                "refused-stream" => on.refused_stream = true,
                "reset" => on.reset = true,
                "5xx" => statuses.push(SERVER_ERRORS),
                "gateway-error" => statuses.push(GATEWAY_ERRORS),
                _ => {
                    if let Some((_, code)) = GRPC.iter().find(|(name, _)| *name == reason) {
                        on.grpc |= 1 << code;
                    } else {
                        statuses.push(status_range(reason)?);
                    }
                }
            }
        }
        on.statuses = statuses.into();
        Ok(on)
    }

    fn text(&self) -> String {
        let mut reasons: Vec<String> = [
            (self.connect_failure, "connect-failure"),
            (self.refused_stream, "refused-stream"),
            (self.reset, "reset"),
        ]
        .into_iter()
        .filter(|(is_one, _)| *is_one)
        .map(|(_, name)| name.to_owned())
        .collect();
        reasons.extend(self.statuses.iter().map(|range| {
            if *range == SERVER_ERRORS {
                "5xx".to_owned()
            } else if *range == GATEWAY_ERRORS {
                "gateway-error".to_owned()
            } else if range.start() == range.end() {
                range.start().to_string()
            } else {
                format!("{}-{}", range.start(), range.end())
            }
        }));
        let codes = GRPC.iter().filter(|(_, code)| self.has_grpc(*code));
        reasons.extend(codes.map(|(name, _)| (*name).to_owned()));
        if reasons.is_empty() {
            return "none".to_owned();
        }
        reasons.join(",")
    }
}

/// Only answers that are errors: anything else is what the client asked for.
fn status_range(text: &str) -> Result<RangeInclusive<u16>, String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let parse = |text: &str| {
        let status = text.parse::<u16>().ok();
        status.filter(|status| (400..=599).contains(status))
    };
    match (parse(first), parse(last)) {
        (Some(first), Some(last)) if first <= last => Ok(first..=last),
        _ => Err(format!(
            "`{text}` is neither a reason nor a status from 400 to 599"
        )),
    }
}

#[cfg(test)]
mod tests;
