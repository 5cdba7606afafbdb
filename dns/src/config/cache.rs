//! Settings of the cache.

use std::time::Duration;

use crate::name::Name;

/// `cache`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheSettings {
    /// Zones whose answers are kept.
    pub zones: Vec<Name>,
    /// Answers with records.
    pub success: CacheShare,
    /// Answers that say that there is nothing.
    pub denial: CacheShare,
    /// Zones of which answers with records are not kept.
    pub disable_success: Vec<Name>,
    /// Zones of which answers that say that there is nothing are not kept.
    pub disable_denial: Vec<Name>,
    /// How long SERVFAIL is kept, at most five minutes.
    pub servfail: Duration,
    /// Names that are asked for often are fetched anew before they expire.
    pub prefetch: Option<Prefetch>,
    /// What has expired is served when upstreams fail (RFC 8767).
    pub serve_stale: Option<ServeStale>,
    /// TTLs are served as they were received.
    pub keep_ttl: bool,
    /// `search_guard`, our own: suffixes that clients append to names in vain, such as those of the
    /// node's search path. A name below one that is known not to exist is not forwarded (RFC 8020).
    pub search_guard: Vec<Name>,
}

/// One part of the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheShare {
    /// Messages, at least 1024.
    pub capacity: usize,
    /// Bytes that they may take a worker, keys and bookkeeping included.
    pub max_bytes: usize,
    /// Longest life.
    pub max_ttl: Duration,
    /// Shortest life.
    pub min_ttl: Duration,
}

/// `prefetch`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefetch {
    /// Hits that make a name popular.
    pub amount: u32,
    /// Within this time.
    pub duration: Duration,
    /// Share of the TTL that is left when the name is fetched anew, percent, 10 to 90.
    pub percentage: u8,
}

/// `serve_stale` and `serve_stale_policy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServeStale {
    /// For how long after its end an answer may be served.
    pub max_age: Duration,
    /// What happens first.
    pub refresh: StaleRefresh,
    /// TTL of what is served, seconds.
    pub ttl: u32,
    /// After a failure the upstream is not asked again for this long, at most five minutes; zero: it
    /// is asked each time.
    pub recheck: Duration,
    /// `prefer_positive`: what has records is served rather than a newer answer that says that there
    /// is nothing.
    pub prefer_positive: bool,
}

/// When an upstream is asked for an answer that has expired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StaleRefresh {
    /// After the stale answer was given.
    Immediate,
    /// Before; the stale answer is given if there is none in time.
    Verify {
        /// How long the client waits; zero: as long as the upstreams take.
        timeout: Duration,
    },
}

impl Default for CacheSettings {
    fn default() -> Self {
        let share = |max_ttl| CacheShare {
            capacity: 9984,
            max_bytes: 4 << 20,
            max_ttl: Duration::from_secs(max_ttl),
            min_ttl: Duration::from_secs(5),
        };
        Self {
            zones: vec![Name::root()],
            success: share(3600),
            denial: share(1800),
            disable_success: Vec::new(),
            disable_denial: Vec::new(),
            servfail: Duration::from_secs(5),
            prefetch: None,
            serve_stale: None,
            keep_ttl: false,
            search_guard: Vec::new(),
        }
    }
}
