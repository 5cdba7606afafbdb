//! `cache [TTL] [ZONES…] { … }`.

use std::time::Duration;

use crate::config::{CacheSettings, CacheShare, Prefetch, ServeStale, StaleRefresh};
use crate::corefile::block::Scope;
use crate::corefile::problem::Result;
use crate::corefile::token::Token;
use crate::corefile::tree::Directive;
use crate::corefile::words::{self, Words};
use crate::name::Name;

const KNOWN: &[&str] = &[
    "success",
    "denial",
    "prefetch",
    "serve_stale",
    "serve_stale_policy",
    "servfail",
    "disable",
    "keepttl",
    "max_bytes",
    "search_guard",
];

/// Fewest messages of a part of the cache.
const MIN_CAPACITY: usize = 1024;
/// Most of them.
const MAX_CAPACITY: usize = 1 << 24;
/// Longest TTL, seconds (RFC 2181 section 8).
const MAX_TTL: u32 = (1 << 31) - 1;
/// SERVFAIL is kept no longer (RFC 2308 section 7), and an upstream is left alone no longer after a
/// failure.
const MAX_FAILURE: Duration = Duration::from_secs(300);

pub(in crate::corefile) fn read(scope: &mut Scope<'_, '_>, directive: &Directive) -> Result<()> {
    let mut cache = CacheSettings::default();
    let mut words = Words::of(directive);
    // A number is the longest life, anything else a zone.
    if words
        .peek()
        .is_some_and(|token| token.text.parse::<i64>().is_ok())
    {
        let ttl = seconds(words.need("a TTL")?, 1)?;
        cache.success.max_ttl = ttl;
        cache.denial.max_ttl = ttl;
    }
    cache.zones = scope.zones_or_own(words.all())?;
    let mut prefers_positive = None;
    scope.properties(directive, KNOWN, |_, words| {
        match &*words.name.text {
            "success" => share(&mut cache.success, words)?,
            "denial" => share(&mut cache.denial, words)?,
            "prefetch" => cache.prefetch = prefetch(words)?,
            "serve_stale" => cache.serve_stale = Some(serve_stale(words)?),
            "serve_stale_policy" => {
                let policy = words.need("a policy: 'prefer_positive'")?;
                if !policy.text.eq_ignore_ascii_case("prefer_positive") {
                    let text = &policy.text;
                    let message = format!("unknown policy '{text}'; known is: prefer_positive");
                    return Err(policy.bad(message));
                }
                prefers_positive = Some(words.name);
            }
            "servfail" => cache.servfail = at_most(words.need("a duration")?, MAX_FAILURE)?,
            "disable" => disable(&mut cache, words)?,
            "keepttl" => cache.keep_ttl = true,
            "max_bytes" => {
                let bytes = words::number(words.need("a number of bytes")?, 1 << 16..=1 << 40)?;
                cache.success.max_bytes = bytes;
                cache.denial.max_bytes = bytes;
            }
            "search_guard" => {
                cache.search_guard = words::zones(words.some("the suffixes to guard")?)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    });
    if let Some(policy) = prefers_positive {
        let Some(stale) = &mut cache.serve_stale else {
            return Err(policy.bad("'serve_stale_policy' needs 'serve_stale', too"));
        };
        stale.prefer_positive = true;
    }
    scope.plugins.cache = Some(cache);
    Ok(())
}

fn seconds(token: &Token, least: u32) -> Result<Duration> {
    let seconds = words::number(token, least..=MAX_TTL)?;
    Ok(Duration::from_secs(seconds.into()))
}

fn at_most(token: &Token, most: Duration) -> Result<Duration> {
    let duration = words::duration(token)?;
    if duration > most {
        let text = &token.text;
        return Err(token.bad(format!(
            "'{text}' is more than {most:?}, the longest allowed"
        )));
    }
    Ok(duration)
}

/// `CAPACITY [TTL [MINTTL]]`.
fn share(share: &mut CacheShare, words: &mut Words<'_>) -> Result<()> {
    let capacity = words::number(words.need("a capacity")?, 0..=MAX_CAPACITY)?;
    share.capacity = capacity.max(MIN_CAPACITY);
    if let Some(ttl) = words.next() {
        share.max_ttl = seconds(ttl, 1)?;
    }
    if let Some(ttl) = words.next() {
        share.min_ttl = seconds(ttl, 0)?;
    }
    Ok(())
}

/// `AMOUNT [DURATION [PERCENTAGE%]]`.
fn prefetch(words: &mut Words<'_>) -> Result<Option<Prefetch>> {
    let mut prefetch = Prefetch {
        amount: words::number(words.need("a number of hits")?, 0..=u32::MAX)?,
        duration: Duration::from_secs(60),
        percentage: 10,
    };
    if let Some(token) = words.next() {
        prefetch.duration = words::duration(token)?;
    }
    if let Some(token) = words.next() {
        let percentage = token
            .text
            .strip_suffix('%')
            .and_then(|text| text.parse().ok());
        let percentage = percentage.filter(|percentage| (10..=90).contains(percentage));
        prefetch.percentage = percentage.ok_or_else(|| {
            token.bad(format!("'{}' is no percentage from 10% to 90%", token.text))
        })?;
    }
    Ok((prefetch.amount > 0).then_some(prefetch))
}

/// `[DURATION [immediate [TTL [RECHECK]] | verify [TIMEOUT [TTL [RECHECK]]]]]`.
///
/// Without a mode it is what RFC 8767 section 5 recommends: the client waits for a moment, stale
/// answers have a TTL of 30 s, and an upstream that failed is left alone for 30 s. With a mode, what
/// is not given is CoreDNS's.
fn serve_stale(words: &mut Words<'_>) -> Result<ServeStale> {
    let mut stale = ServeStale {
        max_age: Duration::from_secs(3600),
        refresh: StaleRefresh::Verify {
            timeout: Duration::from_millis(400),
        },
        ttl: 30,
        recheck: Duration::from_secs(30),
        prefer_positive: false,
    };
    if let Some(token) = words.next() {
        stale.max_age = words::duration(token)?;
    }
    let Some(mode) = words.next() else {
        return Ok(stale);
    };
    stale.ttl = 0;
    stale.recheck = Duration::ZERO;
    stale.refresh = match mode.text.to_ascii_lowercase().as_str() {
        "immediate" => StaleRefresh::Immediate,
        "verify" => StaleRefresh::Verify {
            timeout: words.next().map_or(Ok(Duration::ZERO), words::duration)?,
        },
        other => {
            let message = format!("unknown mode '{other}'; known are: immediate, verify");
            return Err(mode.bad(message));
        }
    };
    if let Some(token) = words.next() {
        let ttl = words::duration(token)?;
        if ttl.subsec_nanos() != 0 || ttl.as_secs() > MAX_TTL.into() {
            return Err(token.bad("the TTL of stale answers is a whole number of seconds"));
        }
        stale.ttl = ttl.as_secs() as u32;
    }
    if let Some(token) = words.next() {
        stale.recheck = at_most(token, MAX_FAILURE)?;
    }
    Ok(stale)
}

/// `success|denial [ZONES…]`.
fn disable(cache: &mut CacheSettings, words: &mut Words<'_>) -> Result<()> {
    let part = words.need("'success' or 'denial'")?;
    let place = match part.text.as_str() {
        "success" => &mut cache.disable_success,
        "denial" => &mut cache.disable_denial,
        other => {
            let message = format!("unknown part '{other}'; known are: success, denial");
            return Err(part.bad(message));
        }
    };
    *place = match words.left() {
        0 => vec![Name::root()],
        _ => words::zones(words.all())?,
    };
    Ok(())
}
