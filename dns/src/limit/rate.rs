//! How many queries a client may ask: a token bucket for each IPv4 address and each IPv6 /64.
//!
//! A bucket is one number, the time at which it would be full again (the generic cell rate
//! algorithm): a query moves it ahead by one interval, and is over the limit if that lies more than
//! `burst` intervals ahead of now. A time that has passed is a full bucket, no different from that
//! of a client never seen, so buckets need no cleaning up.
//!
//! Buckets live in a table of fixed size, four places to a hash. A client that finds none of them
//! its own takes the one that is fullest, which at worst gives somebody some queries back. Places
//! are atomic words that hold 16 bits of the hash and 48 bits of time, so that workers share the
//! table without a lock; two clients with the same hash share a bucket, once in some ten thousand.
//! The hash has a random key: nobody can choose addresses that collide.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tokio::time::Instant;

/// Places that a client's bucket can be in.
const WAYS: usize = 4;
/// Groups of such places: 512 KiB in all.
const SETS: usize = 1 << 14;
/// Bits of a place that hold the time, in microseconds: almost nine years.
const TIME: u64 = (1 << 48) - 1;
/// Tries to change a place that others change too. One fails only when another thread's query was
/// counted meanwhile, so a client whose queries all workers read at once needs several.
const TRIES: usize = 64;
const MICROSECONDS: u64 = 1_000_000;

/// How many queries a client may ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientLimit {
    /// Queries a second in the long run, 1 to 1,000,000.
    pub per_second: u32,
    /// Queries at once, at least 1.
    pub burst: u32,
    /// What happens to queries above it that came over UDP; those of connections are refused.
    pub over: OverLimit,
    /// Networks without a limit, as address and prefix length.
    pub exempt: Vec<(IpAddr, u8)>,
}

/// What happens to a datagram of a client that asks too much.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum OverLimit {
    /// An empty reply with TC: a client that is there can ask again over TCP, one whose address is
    /// forged gets no more bytes than were sent in its name.
    #[default]
    Truncate,
    /// Silence.
    Drop,
}

/// The buckets of a [`ClientLimit`].
pub struct ClientRates {
    limit: ClientLimit,
    /// Time for one query, microseconds.
    interval: u64,
    /// How far ahead of now a bucket may be, microseconds.
    ahead: u64,
    start: Instant,
    hash_key: RandomState,
    /// Made for the first query.
    places: OnceLock<Box<[AtomicU64]>>,
}

impl std::fmt::Debug for ClientRates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(&self.limit, f)
    }
}

impl ClientRates {
    /// Full buckets for everybody.
    pub fn new(limit: ClientLimit) -> Self {
        let interval = (MICROSECONDS / u64::from(limit.per_second.max(1))).max(1);
        Self {
            interval,
            ahead: interval * u64::from(limit.burst.max(1) - 1),
            limit,
            start: Instant::now(),
            hash_key: RandomState::new(),
            places: OnceLock::new(),
        }
    }

    /// What is limited, and how.
    pub fn limit(&self) -> &ClientLimit {
        &self.limit
    }

    /// Takes a query out of the client's bucket. `false` if there is none left.
    pub fn take(&self, client: IpAddr) -> bool {
        let client = client.to_canonical();
        if self.limit.exempt.iter().any(|&net| contains(net, client)) {
            return true;
        }
        // A time of 0 is a place that nobody has.
        let now = self.start.elapsed().as_micros() as u64 + 1;
        let hash = match client {
            IpAddr::V4(ip) => self.hash_key.hash_one(ip.octets()),
            IpAddr::V6(ip) => self.hash_key.hash_one(&ip.segments()[..4]),
        };
        let tag = hash & !TIME;
        let set = (hash as usize % SETS) * WAYS;
        let places = self
            .places
            .get_or_init(|| (0..SETS * WAYS).map(|_| AtomicU64::new(0)).collect());
        let places = &places[set..set + WAYS];
        for _ in 0..TRIES {
            let Some((place, seen)) = find(places, tag) else {
                return true;
            };
            let full_at = match seen & !TIME == tag {
                true => (seen & TIME).max(now),
                false => now,
            };
            if full_at - now > self.ahead {
                return false;
            }
            let next = tag | ((full_at + self.interval) & TIME);
            if place.compare_exchange(seen, next, Relaxed, Relaxed).is_ok() {
                return true;
            }
        }
        true
    }
}

/// The place with this tag, or the one whose bucket is fullest, with what is in it.
fn find(places: &[AtomicU64], tag: u64) -> Option<(&AtomicU64, u64)> {
    let seen = places.iter().map(|place| (place, place.load(Relaxed)));
    seen.min_by_key(|(_, word)| (word & !TIME != tag || *word == 0, word & TIME))
}

/// The network, given as address and prefix length, has this address.
fn contains((net, prefix): (IpAddr, u8), addr: IpAddr) -> bool {
    let same = |net: u128, addr: u128, width: u32| {
        let host_bits = width.saturating_sub(u32::from(prefix));
        (net ^ addr).checked_shr(host_bits).unwrap_or(0) == 0
    };
    match (net.to_canonical(), addr) {
        (IpAddr::V4(net), IpAddr::V4(addr)) => {
            same(u32::from(net).into(), u32::from(addr).into(), 32)
        }
        (IpAddr::V6(net), IpAddr::V6(addr)) => same(net.into(), addr.into(), 128),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::advance;

    use super::*;

    fn rates(per_second: u32, burst: u32, exempt: &[(&str, u8)]) -> ClientRates {
        let exempt = exempt.iter();
        ClientRates::new(ClientLimit {
            per_second,
            burst,
            over: OverLimit::default(),
            exempt: exempt
                .map(|(net, prefix)| (net.parse().unwrap(), *prefix))
                .collect(),
        })
    }

    fn taken(rates: &ClientRates, client: &str, tries: usize) -> usize {
        let client = client.parse().unwrap();
        (0..tries).filter(|_| rates.take(client)).count()
    }

    #[tokio::test(start_paused = true)]
    async fn dns_limit_a_client_has_its_burst_and_then_its_rate() {
        let rates = rates(10, 5, &[]);
        assert_eq!(taken(&rates, "10.0.0.1", 20), 5, "burst");
        assert_eq!(taken(&rates, "::ffff:10.0.0.1", 1), 0, "the same client");
        assert_eq!(taken(&rates, "10.0.0.2", 20), 5, "another client");
        advance(Duration::from_millis(100)).await;
        assert_eq!(taken(&rates, "10.0.0.1", 20), 1, "a tenth of a second");
        advance(Duration::from_secs(10)).await;
        assert_eq!(taken(&rates, "10.0.0.1", 20), 5, "no more than the burst");
    }

    #[tokio::test(start_paused = true)]
    async fn dns_limit_an_ipv6_client_is_a_64() {
        let rates = rates(1, 2, &[]);
        assert_eq!(taken(&rates, "2001:db8::1", 1), 1);
        assert_eq!(taken(&rates, "2001:db8::ffff:2", 2), 1, "the same /64");
        assert_eq!(taken(&rates, "2001:db8:0:1::1", 2), 2, "the next one");
    }

    #[tokio::test(start_paused = true)]
    async fn dns_limit_exempt_networks_have_none() {
        let rates = rates(1, 1, &[("10.1.0.0", 16), ("fd00::", 8), ("192.0.2.7", 32)]);
        for (client, expected) in [
            ("10.1.255.1", 9),
            ("10.2.0.1", 1),
            ("fd12::1", 9),
            ("fe80::1", 1),
            ("192.0.2.7", 9),
            ("192.0.2.8", 1),
        ] {
            assert_eq!(taken(&rates, client, 9), expected, "{client}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn dns_limit_the_table_is_bounded_and_forgets_the_idle_first() {
        let rates = rates(1, 3, &[]);

        // Clients that used one query each take what is there; they never push out one that is
        // over its limit and keeps asking.
        assert_eq!(taken(&rates, "10.0.0.1", 9), 3);
        for n in 0..200_000u32 {
            let client = IpAddr::from((0x0b00_0000 + n).to_be_bytes());
            assert!(rates.take(client), "{client}");
        }
        assert_eq!(taken(&rates, "10.0.0.1", 9), 0);
        let places = rates.places.get().unwrap();
        assert_eq!(places.len() * size_of::<AtomicU64>(), 512 * 1024);
    }

    #[tokio::test]
    async fn dns_limit_threads_share_the_buckets() {
        let rates = rates(1, 1000, &[]);
        let allowed: usize = std::thread::scope(|scope| {
            let thread = || scope.spawn(|| taken(&rates, "10.0.0.1", 1000));
            let threads: Vec<_> = (0..4).map(|_| thread()).collect();
            threads.into_iter().map(|t| t.join().unwrap()).sum()
        });
        // A word that others change under one's hands at every try is let through.
        assert!((1000..1100).contains(&allowed), "{allowed}");
    }
}
