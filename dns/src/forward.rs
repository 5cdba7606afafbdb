//! Forwarding of names that are not ours.
//!
//! - A [`ForwardPlan`] holds what a `forward` line says, for all workers; each worker has a
//!   [`Forward`] for it, with connections and what it has learned about the upstreams.
//! - Upstreams are ordered by the policy, those that failed lately last; how several are asked for
//!   one answer is in [`race`], health checks in [`health`].
//! - One try takes `read_timeout` at most, TCP after truncation included; all of it [`TOTAL`].
//! - At most `max_concurrent` queries wait, over all workers; above that they are refused.
//!
//! Every answer that fits the query counts, whatever its code, unless `failover` names that code:
//! what an upstream says is passed on.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use sealane_config::sockets::HostSockets;
use tokio::time::timeout;

use crate::answer::Answer;
use crate::cache::Key;
use crate::metrics::ForwardMetrics;

mod choice;
mod exchange;
mod health;
mod https;
mod liveness;
mod loops;
mod plan;
mod plans;
mod race;
mod stream;
mod tls;
mod udp;
mod upstream;

pub use plan::{ForwardPlan, ForwardSetupError, MAX_WAITING};
pub use plans::ForwardPlans;
pub use tls::TlsError;
pub use upstream::MAX_HEDGE;

use exchange::{Asked, Links, exchange};
use upstream::Upstream;

/// How long one query may take.
pub const TOTAL: Duration = Duration::from_secs(5);

/// Why a query could not be forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ForwardError {
    /// The client may not use recursion.
    #[error("recursion is not allowed for this client")]
    NotAllowed,
    /// Too many clients wait.
    #[error("too many queries are in flight")]
    Busy,
    /// The question is one of ours that an upstream has brought back.
    #[error("the upstream leads back to this server")]
    Looped,
    /// There is none.
    #[error("no upstream is configured")]
    NoUpstream,
    /// Health checks of all of them fail, and `failfast_all_unhealthy_upstreams` is set.
    #[error("no healthy upstream")]
    AllDown,
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

/// How the client asked; upstreams may be asked likewise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Via {
    /// UDP: the client can be told to come back over TCP.
    Datagram,
    /// TCP, or what is built on it.
    Stream,
}

/// The forwarding of one `forward` line on one worker. Needs a runtime for local tasks.
#[derive(Debug)]
pub struct Forward {
    plan: Arc<ForwardPlan>,
    links: Rc<Links>,
    /// The plan's list as of `generation`.
    upstreams: RefCell<Rc<[Rc<Upstream>]>>,
    generation: Cell<u64>,
    turn: Cell<usize>,
    metrics: ForwardMetrics,
}

impl Forward {
    /// Forwards by `plan`, over sockets made by `sockets`.
    pub fn new(plan: Arc<ForwardPlan>, sockets: HostSockets) -> Self {
        let settings = Arc::clone(plan.settings());
        Self {
            links: Rc::new(Links { sockets, settings }),
            upstreams: RefCell::new(Rc::new([])),
            generation: Cell::new(0),
            turn: Cell::new(0),
            metrics: ForwardMetrics::new(plan.metrics()),
            plan,
        }
    }

    /// What all workers have in common.
    pub(crate) fn plan(&self) -> &Arc<ForwardPlan> {
        &self.plan
    }

    /// The answer of an upstream, to be shown to a client that asked like this. Names in it are in
    /// lower case as far as they come from the question.
    ///
    /// # Errors
    /// [`ForwardError`].
    pub async fn resolve(
        &self,
        key: &Key,
        recursion_desired: bool,
        via: Via,
    ) -> Result<Answer, ForwardError> {
        let Some(_place) = self.plan.enter() else {
            self.metrics.rejects.increment();
            return Err(ForwardError::Busy);
        };
        let settings = &self.links.settings;
        let upstreams = self.upstreams();
        let choice = choice::choose(&upstreams, settings.policy, &self.turn, settings.max_fails);
        if choice.all_down {
            if settings.failfast_all_unhealthy_upstreams {
                return Err(ForwardError::AllDown);
            }
            self.metrics.broken.increment();
        }
        let asked = Asked {
            key: key.clone(),
            recursion_desired,
        };
        let ask = |upstream: Rc<Upstream>| {
            let asked = &asked;
            async move {
                let reply = exchange(&self.links, &upstream, asked, via);
                let reply = timeout(settings.read_timeout, reply).await;
                reply.unwrap_or(Err(ForwardError::TimedOut))
            }
        };
        let suspect = |upstream: &Rc<Upstream>| health::watch(&self.links, upstream);
        let answer = race::race(choice.order, settings, suspect, ask);
        let answer = timeout(TOTAL, answer).await;
        answer.unwrap_or(Err(ForwardError::TimedOut))
    }

    /// The upstreams as the plan lists them now. What is known of those that stay is kept.
    fn upstreams(&self) -> Rc<[Rc<Upstream>]> {
        let generation = self.plan.generation();
        if self.generation.replace(generation) == generation {
            return Rc::clone(&self.upstreams.borrow());
        }
        let known = Rc::clone(&self.upstreams.borrow());
        let targets = self.plan.targets();
        let upstream = |target: &plan::Target| {
            let kept = known.iter().find(|known| known.target.addr == target.addr);
            let kept = kept.map(Rc::clone);
            kept.unwrap_or_else(|| Rc::new(Upstream::new(target.clone(), self.plan.metrics())))
        };
        let fresh: Rc<[Rc<Upstream>]> = targets.iter().map(upstream).collect();
        *self.upstreams.borrow_mut() = Rc::clone(&fresh);
        fresh
    }
}

#[cfg(test)]
mod tests;
