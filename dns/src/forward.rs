//! Forwarding of names that are not ours.
//!
//! Rules:
//! - Upstreams are asked in order, those that failed within [`AVOID`] last. If one has not answered
//!   after [`HEDGE`], the next is asked as well and the first good answer wins. After failures each
//!   is asked at most twice; all of it takes at most [`TOTAL`].
//! - An upstream that answers SERVFAIL or REFUSED or the like counts as failed; its answer is used if
//!   no other one does better.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use hickory_proto::op::ResponseCode;
use sealane_config::sockets::HostSockets;
use tokio::time::{Instant, sleep_until, timeout};

use crate::answer::Answer;
use crate::cache::Key;
use crate::message::Question;

mod exchange;

/// How long the preferred upstream is waited for alone.
pub const HEDGE: Duration = Duration::from_millis(300);
/// How long one upstream has for one query, TCP after truncation included.
pub const PER_TRY: Duration = Duration::from_secs(2);
/// How long one query may take.
pub const TOTAL: Duration = Duration::from_secs(5);
/// How long an upstream that failed or was slow comes last.
pub const AVOID: Duration = Duration::from_secs(10);

/// Why a query could not be forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ForwardError {
    /// The client may not use recursion.
    #[error("recursion is not allowed for this client")]
    NotAllowed,
    /// Too many clients wait.
    #[error("too many queries are in flight")]
    Busy,
    /// There is none.
    #[error("no upstream is configured")]
    NoUpstream,
    /// None answered in time.
    #[error("no upstream answered in time")]
    TimedOut,
    /// None could be reached.
    #[error("no upstream can be reached")]
    Network,
    /// What came cannot be read.
    #[error("the reply of the upstream is malformed")]
    BadReply,
}

/// Asks upstreams. One a worker, cheap to clone; needs a runtime for local tasks.
#[derive(Clone, Debug)]
pub struct Forwarder {
    inner: Rc<Inner>,
}

#[derive(Debug)]
struct Inner {
    sockets: HostSockets,
    upstreams: Vec<Upstream>,
}

#[derive(Debug)]
struct Upstream {
    addr: SocketAddr,
    /// Until when it comes last.
    avoid_until: Cell<Option<Instant>>,
    traits: exchange::Traits,
}

impl Forwarder {
    /// Forwards to these resolvers, over sockets made by `sockets`.
    pub fn new(sockets: HostSockets, upstreams: &[SocketAddr]) -> Self {
        let upstream = |&addr| Upstream {
            addr,
            avoid_until: Cell::new(None),
            traits: exchange::Traits::default(),
        };
        Self {
            inner: Rc::new(Inner {
                sockets,
                upstreams: upstreams.iter().map(upstream).collect(),
            }),
        }
    }

    /// The answer from an upstream.
    ///
    /// # Errors
    /// [`ForwardError`].
    pub async fn resolve(&self, key: &Key) -> Result<Answer, ForwardError> {
        self.inner.fetch(key).await
    }
}

impl Inner {
    async fn fetch(&self, key: &Key) -> Result<Answer, ForwardError> {
        let ask = self.ask_in_order(key);
        let mut answer = timeout(TOTAL, ask)
            .await
            .unwrap_or(Err(ForwardError::TimedOut))?;
        answer.recursion_available = true;
        Ok(answer)
    }

    async fn ask_in_order(&self, key: &Key) -> Result<Answer, ForwardError> {
        let order = self.order();
        let mut first_round = order.iter().copied();
        let mut second_round = order.iter().copied();
        let mut tries = FuturesUnordered::new();
        let mut last = first_round.next().ok_or(ForwardError::NoUpstream)?;
        tries.push(self.ask(last, key));
        let mut hedge_at = Instant::now() + HEDGE;
        let mut failed = Err(ForwardError::TimedOut);
        loop {
            let next = tokio::select! {
                biased;
                Some((upstream, result)) = tries.next() => match result {
                    Ok(answer) if is_good(&answer) => {
                        upstream.avoid_until.set(None);
                        return Ok(answer);
                    }
                    result => {
                        upstream.avoid();
                        // An answer, if a bad one, says more than an error.
                        if result.is_ok() || failed.is_err() {
                            failed = result;
                        }
                        let retry = first_round.next().or_else(|| second_round.next());
                        if retry.is_none() && tries.is_empty() {
                            return failed;
                        }
                        retry
                    }
                },
                () = sleep_until(hedge_at), if first_round.len() > 0 => {
                    last.avoid();
                    first_round.next()
                }
            };
            if let Some(upstream) = next {
                last = upstream;
                tries.push(self.ask(upstream, key));
                hedge_at = Instant::now() + HEDGE;
            }
        }
    }

    /// The upstreams, those to be avoided last.
    fn order(&self) -> Vec<&Upstream> {
        let now = Instant::now();
        let avoided = |upstream: &Upstream| {
            let until = upstream.avoid_until.get();
            until.is_some_and(|until| now < until)
        };
        let mut order: Vec<&Upstream> = self.upstreams.iter().collect();
        order.sort_by_key(|upstream| avoided(upstream));
        order
    }

    async fn ask<'a>(
        &self,
        upstream: &'a Upstream,
        key: &Key,
    ) -> (&'a Upstream, Result<Answer, ForwardError>) {
        let question = Question::new(key.name.clone(), key.record_type);
        let asked = exchange::Asked {
            question: &question,
            dnssec_ok: key.dnssec_ok,
            checking_disabled: key.checking_disabled,
        };
        let exchange = exchange::exchange(&self.sockets, upstream.addr, &upstream.traits, &asked);
        let result = timeout(PER_TRY, exchange).await;
        (upstream, result.unwrap_or(Err(ForwardError::TimedOut)))
    }
}

impl Upstream {
    fn avoid(&self) {
        self.avoid_until.set(Some(Instant::now() + AVOID));
    }
}

fn is_good(answer: &Answer) -> bool {
    matches!(answer.rcode, ResponseCode::NoError | ResponseCode::NXDomain)
}

#[cfg(test)]
mod tests;
