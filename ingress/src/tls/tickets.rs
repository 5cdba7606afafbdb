//! Keys of session tickets (RFC 5077; RFC 8446, 4.6.1).
//!
//! Whoever gets hold of a ticket's key can read the connections that were made with it, so a key is
//! for a few hours and in memory only. A new one takes over for new tickets after [`ROTATION`]; the
//! one before it reads the tickets that it has made until it is [`LIFE`] old. rustls' own rotation
//! keeps the last key of a quiet gateway for as long as nobody comes, and reads with it then.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::Error;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::ProducesTickets;
use tokio::time::Instant;

/// How long a key makes tickets.
const ROTATION: Duration = Duration::from_secs(6 * 3600);

/// How long it reads them, from when it was made. Not longer than rustls' own keys live.
const LIFE: Duration = Duration::from_secs(12 * 3600);

/// Makes and reads tickets.
#[derive(Debug)]
pub(super) struct Tickets {
    keys: RwLock<Keys>,
}

#[derive(Debug)]
struct Keys {
    current: Key,
    previous: Option<Key>,
}

#[derive(Clone, Debug)]
struct Key {
    ticketer: Arc<dyn ProducesTickets>,
    made: Instant,
}

impl Tickets {
    /// With a first key.
    ///
    /// # Errors
    /// There is no randomness for it.
    pub(super) fn new() -> Result<Self, Error> {
        let keys = Keys {
            current: Key::new(Instant::now())?,
            previous: None,
        };
        Ok(Self {
            keys: RwLock::new(keys),
        })
    }

    /// The key for new tickets, and the one before it if its time is not over.
    fn keys(&self) -> Option<(Key, Option<Key>)> {
        let now = Instant::now();
        {
            // Nothing that could panic half-way is done under the lock.
            let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
            if !keys.current.is_older(ROTATION, now) {
                return Some(keys.at(now));
            }
        }
        // Without randomness there are no tickets, and handshakes are full ones.
        let next = Key::new(now).ok()?;
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        // Another worker may have been faster.
        if keys.current.is_older(ROTATION, now) {
            let last = std::mem::replace(&mut keys.current, next);
            keys.previous = (!last.is_older(LIFE, now)).then_some(last);
        }
        Some(keys.at(now))
    }
}

impl Keys {
    fn at(&self, now: Instant) -> (Key, Option<Key>) {
        let previous = self.previous.as_ref();
        let previous = previous.filter(|key| !key.is_older(LIFE, now));
        (self.current.clone(), previous.cloned())
    }
}

impl Key {
    fn new(made: Instant) -> Result<Self, Error> {
        Ok(Self {
            ticketer: Ticketer::new()?,
            made,
        })
    }

    fn is_older(&self, age: Duration, now: Instant) -> bool {
        now.saturating_duration_since(self.made) >= age
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        u32::try_from(LIFE.as_secs()).unwrap_or(u32::MAX)
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.keys()?.0.ticketer.encrypt(plain)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (current, previous) = self.keys()?;
        let read = |key: Key| key.ticketer.decrypt(ticket);
        read(current).or_else(|| previous.and_then(read))
    }
}
