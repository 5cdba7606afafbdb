//! How many connections clients may have: all together, and each of them.
//!
//! One count for all workers of a process. When it is full, those connections that have had no
//! request for longest are asked to end, and make room; a client that has its share gets no more.
//! Sources that stand for many clients, such as a load balancer in front, have no share of their own.

mod ending;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use ipnet::IpNet;
use metrics::{counter, describe_counter};
use rustc_hash::FxHashMap;
use tokio_util::sync::CancellationToken;

pub use ending::Ending;

use crate::clock;

/// Parts of the tables, each with a lock of its own.
const SHARDS: usize = 16;

/// Connections that are asked to end at once when there is no room: looking for them is looking at
/// all.
const ENDED_AT_ONCE: usize = 32;

/// A connection with a request within this time is not idle.
const IDLE: Duration = Duration::from_secs(1);

const REFUSED: &str = "sealane_connections_refused_total";
const ENDED: &str = "sealane_connections_ended_for_room_total";

/// How many connections clients may have.
#[derive(Clone, Debug)]
pub struct Limits {
    /// All clients together.
    pub total: usize,
    /// One source address.
    pub per_source: usize,
    /// Sources without a limit of their own; loopback addresses have none either.
    pub trusted: Arc<[IpNet]>,
}

impl Limits {
    /// For clients that anybody may be.
    pub fn public() -> Self {
        Self {
            total: 10_000,
            per_source: 1_000,
            trusted: Arc::new([]),
        }
    }

    /// For clients within the cluster: none of its own, since descriptors are the limit.
    pub fn none() -> Self {
        Self {
            total: usize::MAX,
            per_source: usize::MAX,
            trusted: Arc::new([]),
        }
    }
}

/// Why a connection is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There are as many as there may be, and none of them is idle.
    Full,
    /// This source has as many as it may have.
    Source,
}

/// Without limits.
impl Default for Connections {
    fn default() -> Self {
        Self::new(Limits::none())
    }
}

/// The connections of a process; clones share them.
#[derive(Clone, Debug)]
pub struct Connections(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    limits: Limits,
    open: AtomicUsize,
    next: AtomicU64,
    shards: [Mutex<Shard>; SHARDS],
}

#[derive(Debug, Default)]
struct Shard {
    sources: HashMap<IpAddr, usize>,
    lines: FxHashMap<u64, Arc<Line>>,
}

/// One connection.
#[derive(Debug)]
struct Line {
    /// When its last request began, or it did.
    used: AtomicU64,
    shutdown: CancellationToken,
    /// A child of `shutdown`, made when it is waited for or cancelled: that of most connections never is.
    end: OnceLock<CancellationToken>,
    is_ending: AtomicBool,
}

impl Line {
    fn end(&self) -> &CancellationToken {
        self.end.get_or_init(|| self.shutdown.child_token())
    }
}

/// A connection's place, taken until it is dropped.
#[derive(Debug)]
pub struct Place {
    connections: Connections,
    source: IpAddr,
    id: u64,
    line: Arc<Line>,
}

impl Connections {
    /// None yet.
    pub fn new(limits: Limits) -> Self {
        describe_counter!(REFUSED, "Connections that were not served, by reason");
        describe_counter!(ENDED, "Idle connections that were ended to make room");
        Self(Arc::new(Shared {
            limits,
            open: AtomicUsize::new(0),
            next: AtomicU64::new(0),
            shards: Default::default(),
        }))
    }

    /// A place for a connection, which ends when `shutdown` is cancelled, or when it is idle and there
    /// is no room.
    ///
    /// # Errors
    /// There is none for this client.
    pub fn admit(&self, client: IpAddr, shutdown: &CancellationToken) -> Result<Place, Refusal> {
        self.place(client.to_canonical(), false, shutdown)
    }

    /// The same for a source that is known to stand for many clients, and so has no limit of its own.
    ///
    /// # Errors
    /// There are as many connections as there may be.
    pub fn admit_proxy(
        &self,
        proxy: IpAddr,
        shutdown: &CancellationToken,
    ) -> Result<Place, Refusal> {
        self.place(proxy.to_canonical(), true, shutdown)
    }

    fn place(
        &self,
        source: IpAddr,
        is_proxy: bool,
        shutdown: &CancellationToken,
    ) -> Result<Place, Refusal> {
        let limits = &self.0.limits;
        if self.open() >= limits.total && !self.make_room() {
            return Err(refuse(Refusal::Full));
        }
        {
            let mut shard = self.shard(hash(source));
            let count = shard.sources.entry(source).or_default();
            if *count >= limits.per_source && !is_proxy && !self.is_trusted(source) {
                return Err(refuse(Refusal::Source));
            }
            *count += 1;
        }
        self.0.open.fetch_add(1, Relaxed);
        let id = self.0.next.fetch_add(1, Relaxed);
        let line = Arc::new(Line {
            used: AtomicU64::new(clock::now()),
            shutdown: shutdown.clone(),
            end: OnceLock::new(),
            is_ending: AtomicBool::new(false),
        });
        self.shard(id).lines.insert(id, Arc::clone(&line));
        Ok(Place {
            connections: self.clone(),
            source,
            id,
            line,
        })
    }

    /// How many there are.
    pub fn open(&self) -> usize {
        self.0.open.load(Relaxed)
    }

    /// How many there may be.
    pub fn limits(&self) -> &Limits {
        &self.0.limits
    }

    /// The sources with the most connections, at most `count`, most first.
    pub fn busiest_sources(&self, count: usize) -> Vec<(IpAddr, usize)> {
        let mut all = Vec::new();
        for shard in &self.0.shards {
            let shard = lock(shard);
            all.extend(
                shard
                    .sources
                    .iter()
                    .map(|(source, count)| (*source, *count)),
            );
        }
        all.sort_unstable_by_key(|(source, count)| (std::cmp::Reverse(*count), *source));
        all.truncate(count);
        all
    }

    /// Asks the connections to end that have been idle for longest; says whether there were any.
    fn make_room(&self) -> bool {
        let before = clock::now().saturating_sub(clock::nanos(IDLE));
        let mut idle = Vec::new();
        for shard in &self.0.shards {
            let shard = lock(shard);
            let lines = shard.lines.values();
            let of_shard = lines.filter_map(|line| {
                let used = line.used.load(Relaxed);
                let is_idle = used <= before && !line.is_ending.load(Relaxed);
                is_idle.then(|| (used, Arc::clone(line)))
            });
            idle.extend(of_shard);
        }
        if idle.len() > ENDED_AT_ONCE {
            idle.select_nth_unstable_by_key(ENDED_AT_ONCE, |(used, _)| *used);
            idle.truncate(ENDED_AT_ONCE);
        }
        let mut ended = 0;
        for (_, line) in idle {
            if !line.is_ending.swap(true, Relaxed) {
                line.end().cancel();
                ended += 1;
            }
        }
        counter!(ENDED).increment(ended);
        ended > 0
    }

    fn is_trusted(&self, source: IpAddr) -> bool {
        source.is_loopback()
            || self
                .0
                .limits
                .trusted
                .iter()
                .any(|net| net.contains(&source))
    }

    fn shard(&self, number: u64) -> MutexGuard<'_, Shard> {
        let index = usize::try_from(number % SHARDS as u64);
        lock(&self.0.shards[index.expect("below the number of shards")])
    }
}

impl Place {
    /// Cancelled when the connection shall end.
    pub fn end(&self) -> &CancellationToken {
        self.line.end()
    }

    /// Whether the connection shall end.
    pub fn is_wanted(&self) -> bool {
        let end = self.line.end.get().unwrap_or(&self.line.shutdown);
        end.is_cancelled()
    }

    /// A request began.
    pub fn used(&self) {
        self.line.used.store(clock::now(), Relaxed);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let connections = &self.connections;
        connections.shard(self.id).lines.remove(&self.id);
        let mut shard = connections.shard(hash(self.source));
        if let Some(count) = shard.sources.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                shard.sources.remove(&self.source);
            }
        }
        connections.0.open.fetch_sub(1, Relaxed);
    }
}

fn refuse(refusal: Refusal) -> Refusal {
    let reason = match refusal {
        Refusal::Full => "full",
        Refusal::Source => "source",
    };
    counter!(REFUSED, "reason" => reason).increment(1);
    refusal
}

/// The shard of a source: networks differ in their first bytes, hosts in their last.
fn hash(source: IpAddr) -> u64 {
    match source {
        IpAddr::V4(ip) => ip.octets().iter().map(|byte| u64::from(*byte)).sum(),
        IpAddr::V6(ip) => ip.octets().iter().map(|byte| u64::from(*byte)).sum(),
    }
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
