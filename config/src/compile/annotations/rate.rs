//! How much a client may ask: `limit-rps`, `limit-rpm`, `limit-connections` and what goes with them.

use std::num::NonZeroU32;
use std::time::Duration;

use ipnet::IpNet;

use super::{Reader, access};
use crate::model::{Rate, RateLimits};

/// How many times a rate may come at once, if the Ingress does not say (ingress-nginx).
const BURST: u32 = 5;

/// The highest limit that is taken as one.
const MOST: u32 = 1_000_000;

/// What an Ingress says, as far as it was read.
#[derive(Debug, Default)]
pub(super) struct Written {
    per_second: Option<NonZeroU32>,
    per_minute: Option<NonZeroU32>,
    in_flight: Option<NonZeroU32>,
    burst: Option<NonZeroU32>,
    exempt: Box<[IpNet]>,
}

/// Whether an annotation is read here.
pub(super) fn is(name: &str) -> bool {
    let names = [
        "limit-burst-multiplier",
        "limit-connections",
        "limit-rpm",
        "limit-rps",
        "limit-whitelist",
    ];
    names.contains(&name)
}

impl Reader<'_> {
    /// A limit protects a backend and closes nothing: one that cannot be read is reported and does not
    /// hold, as with ingress-nginx, instead of taking the Ingress out of service.
    pub(super) fn rate(&mut self, name: &str, value: &str) {
        match name {
            "limit-rps" => self.limits.per_second = self.limit(name, value),
            "limit-rpm" => self.limits.per_minute = self.limit(name, value),
            "limit-connections" => self.limits.in_flight = self.limit(name, value),
            "limit-burst-multiplier" => self.limits.burst = self.limit(name, value),
            _ => {
                let exempt = self.or_report(name, access::networks(value));
                self.limits.exempt = exempt.unwrap_or_default();
            }
        }
    }

    fn limit(&mut self, name: &str, value: &str) -> Option<NonZeroU32> {
        self.or_report(name, number(value))
            .and_then(NonZeroU32::new)
    }

    /// The limits, if there are any.
    pub(super) fn limits(&mut self) -> Option<RateLimits> {
        let Written {
            per_second,
            per_minute,
            in_flight,
            burst,
            exempt,
        } = std::mem::take(&mut self.limits);
        per_second.or(per_minute).or(in_flight)?;
        let multiplier = burst.map_or(BURST, NonZeroU32::get);
        let rate = |limit: Option<NonZeroU32>, period: Duration| {
            limit.map(|limit| Rate {
                interval: period / limit.get(),
                burst: limit.get().saturating_mul(multiplier),
            })
        };
        let shown = |limit: Option<NonZeroU32>| limit.map_or(0, NonZeroU32::get);
        let (rps, rpm) = (shown(per_second), shown(per_minute));
        Some(RateLimits {
            zone: format!("{} {rps} {rpm} {multiplier}", self.key).into(),
            per_second: rate(per_second, Duration::from_secs(1)),
            per_minute: rate(per_minute, Duration::from_secs(60)),
            in_flight,
            exempt,
        })
    }
}

/// A limit; 0 is none.
fn number(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(number @ 0..=MOST) if !text.starts_with('+') => Ok(number),
        _ => Err(format!("`{text}` is not a number from 0 to {MOST}")),
    }
}
