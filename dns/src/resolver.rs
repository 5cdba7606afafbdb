//! Names that no plugin of ours has: the cache in front of the forwards.
//!
//! Rules:
//! - What the [cache](crate::cache) has is served at once; what it says should be fetched anew, or is
//!   likely to be asked for again (prefetch), is fetched by a task of its own, at most
//!   [`MAX_BACKGROUND`] at a time.
//! - Identical questions in flight are one fetch. It goes on when the client that asked first is gone.
//! - The forwards are asked in order: the first whose zone the name is in; if its answer does not count
//!   (`next`), the next one.
//! - When nothing is to be had, what has expired is served if the settings allow it. A client waits
//!   for a fetch at most as long as `serve_stale verify` says if there is something to serve instead.
//! - Failures are remembered for a second, so that a dead upstream is not asked again for every client
//!   (RFC 9520 section 3.2).
//! - At most [`MAX_WAITING`] clients wait a worker; above that they are refused.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::Shared;
use hickory_proto::rr::RecordType;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use crate::answer::Answer;
use crate::answer::packed::{Packed, Serving};
use crate::cache::{Cache, Key, Served, Slot, State, is_answer};
use crate::config::StaleRefresh;
use crate::forward::ForwardError;
use crate::message::{Query, Question};
use crate::name::Name;
use crate::rcode::forward_failure;

mod guard;
mod line;

use guard::Guard;
pub(crate) use line::Line;

/// Clients that may wait at a time.
const MAX_WAITING: usize = 4096;
/// Fetches that no client waits for.
const MAX_BACKGROUND: usize = 64;
/// How long it is remembered that no upstream could be asked.
const FAILURE: Duration = Duration::from_secs(1);

/// What has to be asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Fetch {
    /// The question.
    pub(crate) key: Key,
    /// The client asks over a stream, so that nothing needs to be truncated for it.
    pub(crate) stream: bool,
    /// RD is set.
    pub(crate) recursion_desired: bool,
}

impl Fetch {
    /// What has to be asked for a question on behalf of a query.
    pub(crate) fn new(query: &Query, question: &Question, stream: bool) -> Self {
        Self {
            key: Key {
                name: question.name.to_lowercase(),
                record_type: question.record_type,
                dnssec_ok: query.dnssec_ok(),
                checking_disabled: query.checking_disabled(),
            },
            stream,
            recursion_desired: query.recursion_desired(),
        }
    }
}

/// Where answers come from.
pub(crate) trait Source: std::fmt::Debug + 'static {
    /// Names like this are asked here.
    fn takes(&self, name: &Name) -> bool;

    /// The answer.
    async fn ask(&self, fetch: &Fetch) -> Result<Answer, ForwardError>;

    /// After this the next source is to be asked.
    fn hands_on(&self, result: &Result<Answer, ForwardError>) -> bool;
}

/// What there is without asking.
#[derive(Debug)]
pub(crate) enum Cached {
    /// This is the answer.
    Hit(Served),
    /// It has to be fetched; if that fails there is this.
    Miss(Option<Served>),
}

type Fetched = Result<Served, ForwardError>;
type InFlight = Shared<oneshot::Receiver<Fetched>>;

/// The cache and the forwards of a server block on one worker. Cheap to clone; needs a runtime for
/// local tasks.
#[derive(Debug)]
pub(crate) struct Resolver<S> {
    inner: Rc<Inner<S>>,
}

impl<S> Clone for Resolver<S> {
    fn clone(&self) -> Self {
        Self {
            inner: Rc::clone(&self.inner),
        }
    }
}

#[derive(Debug)]
struct Inner<S> {
    sources: Vec<S>,
    cache: Option<RefCell<Cache>>,
    guard: Guard,
    in_flight: RefCell<HashMap<Fetch, InFlight>>,
    waiting: Cell<usize>,
    background: Cell<usize>,
}

impl<S: Source> Resolver<S> {
    /// Asks `sources` in order, with a cache in front of them if there is one.
    pub(crate) fn new(sources: Vec<S>, cache: Option<Cache>) -> Self {
        let guarded = cache
            .as_ref()
            .map_or(&[][..], |cache| &cache.settings().search_guard);
        let guard = Guard::new(guarded);
        Self {
            inner: Rc::new(Inner {
                sources,
                cache: cache.map(RefCell::new),
                guard,
                in_flight: RefCell::default(),
                waiting: Cell::new(0),
                background: Cell::new(0),
            }),
        }
    }

    /// A source takes names like this.
    pub(crate) fn takes(&self, name: &Name) -> bool {
        self.inner.sources.iter().any(|source| source.takes(name))
    }

    /// What there is without asking for a question on behalf of a query.
    pub(crate) fn cached(&self, query: &Query, question: &Question) -> Cached {
        let Some(cache) = &self.inner.cache else {
            return Cached::Miss(None);
        };
        let now = Instant::now();
        let cache = cache.borrow();
        let name = &question.name;
        let slot = Slot::new(
            name,
            question.record_type,
            query.dnssec_ok(),
            query.checking_disabled(),
        );
        let Some(hit) = cache.get(&slot, now) else {
            return match self.guarded(&cache, name, now) {
                Some(served) => Cached::Hit(served),
                None => Cached::Miss(None),
            };
        };
        match hit.state {
            State::Fresh => {}
            State::Popular => {
                if self.in_background(Fetch::new(query, question, false)) {
                    cache.metrics().prefetch.increment();
                }
            }
            State::StaleThenAsk => {
                self.in_background(Fetch::new(query, question, false));
                cache.metrics().served_stale.increment();
            }
            State::Stale => cache.metrics().served_stale.increment(),
            State::AskThenStale => return Cached::Miss(Some(hit.served)),
        }
        Cached::Hit(hit.served)
    }

    /// The name is known to have an address of the family that is not asked for.
    pub(crate) fn has_other_address(&self, query: &Query, question: &Question) -> bool {
        let other = match question.record_type {
            RecordType::A => RecordType::AAAA,
            RecordType::AAAA => RecordType::A,
            _ => return false,
        };
        let (dnssec_ok, checking_disabled) = (query.dnssec_ok(), query.checking_disabled());
        let slot = Slot::new(&question.name, other, dnssec_ok, checking_disabled);
        let cache = self.inner.cache.as_ref();
        cache.is_some_and(|cache| cache.borrow().has_records(&slot, Instant::now()))
    }

    /// The answer from a source, or `stale` if there is none in time.
    ///
    /// # Errors
    /// [`ForwardError`].
    pub(crate) async fn resolve(&self, fetch: Fetch, stale: Option<Served>) -> Fetched {
        let Some(_place) = Place::take(&self.inner.waiting, MAX_WAITING) else {
            return stale.ok_or(ForwardError::Busy);
        };
        let fetched = self.join(fetch);
        let Some(stale) = stale else {
            return received(fetched.await);
        };
        let (patience, prefer_positive) = self.inner.patience();
        let fetched = match patience {
            Some(patience) => timeout(patience, fetched).await.ok(),
            None => Some(fetched.await),
        };
        match fetched.map(received) {
            Some(Ok(fresh))
                if is_answer(&fresh.packed)
                    && (fresh.positive || !(prefer_positive && stale.positive)) =>
            {
                Ok(fresh)
            }
            Some(_) | None => {
                if let Some(cache) = &self.inner.cache {
                    cache.borrow().metrics().served_stale.increment();
                }
                Ok(stale)
            }
        }
    }

    /// The fetch that runs, or a new one.
    fn join(&self, fetch: Fetch) -> InFlight {
        let running = self.inner.in_flight.borrow().get(&fetch).cloned();
        running.unwrap_or_else(|| self.start(fetch, None))
    }

    /// Starts a fetch that no client waits for. `false` if it already runs or there are too many.
    fn in_background(&self, fetch: Fetch) -> bool {
        let running = self.inner.in_flight.borrow().contains_key(&fetch);
        let background = self.inner.background.get();
        if running || background >= MAX_BACKGROUND {
            return false;
        }
        self.inner.background.set(background + 1);
        drop(self.start(fetch, Some(Background(Rc::clone(&self.inner)))));
        true
    }

    fn start(&self, fetch: Fetch, background: Option<Background<S>>) -> InFlight {
        let (sender, receiver) = oneshot::channel();
        let receiver = receiver.shared();
        let mut in_flight = self.inner.in_flight.borrow_mut();
        in_flight.insert(fetch.clone(), receiver.clone());
        drop(in_flight);
        let inner = Rc::clone(&self.inner);
        tokio::task::spawn_local(async move {
            let result = inner.ask(&fetch).await;
            let fetched = inner.keep(&fetch, result);
            inner.in_flight.borrow_mut().remove(&fetch);
            drop(background);
            // Nobody may be waiting any more.
            let _ = sender.send(fetched);
        });
        receiver
    }

    /// What is known about names below a suffix that is appended in vain.
    fn guarded(&self, cache: &Cache, name: &Name, now: Instant) -> Option<Served> {
        let cut = self.inner.guard.cut(name)?;
        let key = Key {
            name: cut.to_lowercase(),
            record_type: RecordType::A,
            dnssec_ok: false,
            checking_disabled: false,
        };
        let slot = Slot::from(&key);
        if let Some(missing) = cache.missing(&slot, now) {
            let answer = missing.packed.unpack(&cut, missing.serving).ok()?;
            return Some(Served {
                packed: Rc::new(Packed::new(&name.to_lowercase(), answer)),
                serving: Serving::PLAIN,
                positive: false,
            });
        }
        if !cache.knows(&slot, now) && self.inner.guard.may_probe(now) {
            self.in_background(Fetch {
                key,
                stream: false,
                recursion_desired: true,
            });
        }
        None
    }
}

/// The upstreams failed, rather than the server or the client.
fn is_of_upstreams(error: ForwardError) -> bool {
    use ForwardError::{BadReply, Network, TimedOut};
    matches!(error, TimedOut | Network | BadReply)
}

/// The task that fetches ends without a result only when the runtime ends.
fn received(fetched: Result<Fetched, oneshot::error::RecvError>) -> Fetched {
    fetched.unwrap_or(Err(ForwardError::TimedOut))
}

impl<S: Source> Inner<S> {
    async fn ask(&self, fetch: &Fetch) -> Result<Answer, ForwardError> {
        let mut result = Err(ForwardError::NoUpstream);
        let sources = self.sources.iter();
        for source in sources.filter(|source| source.takes(&fetch.key.name)) {
            result = source.ask(fetch).await;
            if !source.hands_on(&result) {
                break;
            }
        }
        result
    }

    fn keep(&self, fetch: &Fetch, result: Result<Answer, ForwardError>) -> Fetched {
        // Without RD a resolver says what it happens to know, which is no answer for others.
        let cache = self.cache.as_ref().filter(|_| fetch.recursion_desired);
        let now = Instant::now();
        match (result, cache) {
            (Ok(answer), Some(cache)) => {
                let served = cache.borrow_mut().insert(&fetch.key, answer, now);
                if !cache.borrow().knows(&Slot::from(&fetch.key), now) {
                    self.guard.probed_in_vain(&fetch.key.name, now);
                }
                Ok(served)
            }
            (Ok(answer), None) => Ok(Served {
                positive: !answer.answers.is_empty(),
                packed: Rc::new(Packed::new(&fetch.key.name, answer)),
                serving: Serving::PLAIN,
            }),
            (Err(error), Some(cache)) if is_of_upstreams(error) => {
                let answer = forward_failure(error);
                let mut cache = cache.borrow_mut();
                cache.insert_failure(&fetch.key, answer, FAILURE, now);
                Err(error)
            }
            (Err(error), _) => Err(error),
        }
    }

    /// How long a client waits when there is something stale, and whether that is better than an
    /// answer that says that there is nothing.
    fn patience(&self) -> (Option<Duration>, bool) {
        let cache = self.cache.as_ref().map(RefCell::borrow);
        let stale = cache
            .as_ref()
            .and_then(|cache| cache.settings().serve_stale);
        match stale {
            Some(stale) => match stale.refresh {
                StaleRefresh::Verify { timeout } if !timeout.is_zero() => {
                    (Some(timeout), stale.prefer_positive)
                }
                StaleRefresh::Verify { .. } | StaleRefresh::Immediate => {
                    (None, stale.prefer_positive)
                }
            },
            None => (None, false),
        }
    }
}

/// Gives back a place among the fetches that no client waits for.
struct Background<S>(Rc<Inner<S>>);

impl<S> Drop for Background<S> {
    fn drop(&mut self) {
        self.0.background.set(self.0.background.get() - 1);
    }
}

/// A place among the clients that wait.
struct Place<'a>(&'a Cell<usize>);

impl<'a> Place<'a> {
    fn take(taken: &'a Cell<usize>, limit: usize) -> Option<Self> {
        (taken.get() < limit).then(|| {
            taken.set(taken.get() + 1);
            Self(taken)
        })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

#[cfg(test)]
mod tests;
