//! How much a client may ask: requests a second or a minute, and requests in flight (ingress-nginx
//! `limit-rps`, `limit-rpm` and `limit-connections`).
//!
//! A client is its whole address, of IPv6 too, as in nginx. A rate is nginx's leaky bucket without
//! delay: a request is let in while the bucket is not full, and refused otherwise. What is kept of a
//! bucket is the time at which it will be empty: one that would be empty by now is the same as none.
//!
//! One table for all workers of a process, bounded by forgetting buckets that were hardly used; what
//! is counted in flight is bounded by the requests there are. Both survive changes of the routes, and
//! go when nothing is counted in them any more.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::header::RETRY_AFTER;
use http::{HeaderValue, Request, Response, StatusCode};
use quick_cache::sync::Cache;
use sealane_config::model::{GatewaySettings, Rate, RateLimits};
use sealane_proxy::http::{Body, Held, respond};
use sealane_proxy::{Error, ErrorKind};
use tokio::time::Instant;

use crate::gateway::Inner;

/// Clients whose rates a process remembers.
const CAPACITY: usize = 100_000;

/// Parts of the table of requests in flight, each with a lock of its own.
const SHARDS: usize = 16;

/// How often buckets that are empty are looked for.
const SWEEP: Duration = Duration::from_secs(60);

/// What clients have asked for; clones share it. One for all workers of a process.
#[derive(Clone, Debug)]
pub struct Limiter(Arc<Tables>);

#[derive(Debug)]
struct Tables {
    /// What times are counted from.
    epoch: Instant,
    /// When buckets were last looked through.
    swept: AtomicU64,
    buckets: Cache<Key, Arc<Buckets>>,
    hasher: RandomState,
    in_flight: [Mutex<HashMap<Key, u32>>; SHARDS],
}

/// A client of the routes of one object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    zone: Arc<str>,
    client: IpAddr,
}

/// When the buckets of [`RateLimits::rates`] will be empty, nanoseconds since the table's epoch.
#[derive(Debug, Default)]
struct Buckets(Mutex<[u64; 2]>);

/// A request that is counted until this is dropped.
#[derive(Debug)]
struct InFlight {
    tables: Arc<Tables>,
    key: Key,
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refused {
    /// A bucket is full; after this time it would not be.
    TooOften(Duration),
    /// The client has as many requests in flight as it may.
    TooMany,
}

/// Counts a request that is within its limits, in flight until what is held is given back.
///
/// # Errors
/// The answer, if it is not.
pub(super) fn pass(
    gateway: &Inner,
    limits: &RateLimits,
    client: IpAddr,
    request: &mut Request<Body>,
) -> Result<Option<Held>, Box<Response<Body>>> {
    match gateway.options.limiter.count(limits, client) {
        Ok(held) => {
            // A tunnel outlasts the answer.
            if let Some(held) = &held {
                request.extensions_mut().insert(held.clone());
            }
            Ok(held)
        }
        Err(refused) => {
            let asked = respond::Asked::new(request.version(), request.headers());
            let settings = Arc::clone(&gateway.reader.load().gateway);
            Err(Box::new(refused.answer(asked, &settings)))
        }
    }
}

impl Default for Limiter {
    fn default() -> Self {
        Self(Arc::new(Tables {
            epoch: Instant::now(),
            swept: AtomicU64::new(0),
            buckets: Cache::new(CAPACITY),
            hasher: RandomState::new(),
            in_flight: Default::default(),
        }))
    }
}

impl Limiter {
    fn count(&self, limits: &RateLimits, client: IpAddr) -> Result<Option<Held>, Refused> {
        if !limits.concern(client) {
            return Ok(None);
        }
        let key = Key {
            zone: Arc::clone(&limits.zone),
            client: client.to_canonical(),
        };
        if limits.per_second.or(limits.per_minute).is_some() {
            let new = || Ok::<_, Refused>(Arc::default());
            let buckets = self.0.buckets.get_or_insert_with(&key, new)?;
            buckets.pour(limits.rates(), self.now())?;
        }
        let Some(most) = limits.in_flight else {
            return Ok(None);
        };
        let mut counts = self.0.counts(&key);
        let count = counts.entry(key.clone()).or_default();
        if *count >= most.get() {
            return Err(Refused::TooMany);
        }
        *count += 1;
        drop(counts);
        let tables = Arc::clone(&self.0);
        Ok(Some(Held::new(InFlight { tables, key })))
    }

    /// Forgets buckets that are empty. To be called now and then, by any worker.
    pub(crate) fn sweep(&self) {
        let now = self.now();
        let swept = self.0.swept.load(Relaxed);
        let is_due = now.saturating_sub(swept) >= nanos(SWEEP);
        let exchanged = || {
            let swap = self.0.swept.compare_exchange(swept, now, Relaxed, Relaxed);
            swap.is_ok()
        };
        if is_due && exchanged() {
            let is_used = |_: &Key, buckets: &Arc<Buckets>| !buckets.are_empty(now);
            self.0.buckets.retain(is_used);
        }
    }

    fn now(&self) -> u64 {
        nanos(self.0.epoch.elapsed())
    }
}

impl Refused {
    /// With the status that the gateway's settings have for it.
    fn answer(self, asked: respond::Asked, settings: &GatewaySettings) -> Response<Body> {
        let (detail, status, wait) = match self {
            Self::TooOften(wait) => (
                "the client sends too many requests",
                settings.rate_limit_status,
                wait,
            ),
            Self::TooMany => (
                "the client has too many requests in flight",
                settings.connection_limit_status,
                Duration::ZERO,
            ),
        };
        let error = Error::new(ErrorKind::RateLimited, detail);
        let status = StatusCode::from_u16(status).unwrap_or(error.kind().status());
        let mut response = respond::error_as(status, &error, asked);
        let seconds = wait.as_nanos().div_ceil(1_000_000_000).max(1);
        if let Ok(seconds) = HeaderValue::try_from(seconds.to_string()) {
            response.headers_mut().insert(RETRY_AFTER, seconds);
        }
        response
    }
}

impl Buckets {
    /// Pours a request into all buckets, or into none if one of them is full.
    fn pour(&self, rates: [Option<Rate>; 2], now: u64) -> Result<(), Refused> {
        let mut empty_at = self.lock();
        for (rate, empty_at) in rates.iter().zip(*empty_at) {
            let Some(rate) = rate else { continue };
            let full = nanos(rate.interval).saturating_mul(u64::from(rate.burst));
            let wait = empty_at.saturating_sub(now).saturating_sub(full);
            if wait > 0 {
                return Err(Refused::TooOften(Duration::from_nanos(wait)));
            }
        }
        for (rate, empty_at) in rates.iter().zip(&mut *empty_at) {
            if let Some(rate) = rate {
                *empty_at = (*empty_at).max(now).saturating_add(nanos(rate.interval));
            }
        }
        Ok(())
    }

    fn are_empty(&self, now: u64) -> bool {
        self.lock().iter().all(|empty_at| *empty_at <= now)
    }

    fn lock(&self) -> MutexGuard<'_, [u64; 2]> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tables {
    /// A lock is held for a few comparisons, never across an await.
    fn counts(&self, key: &Key) -> MutexGuard<'_, HashMap<Key, u32>> {
        let index = self.hasher.hash_one(key) % SHARDS as u64;
        let shard = &self.in_flight[index as usize];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut counts = self.tables.counts(&self.key);
        if let Some(count) = counts.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.key);
            }
        }
    }
}

/// 584 years at most.
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
