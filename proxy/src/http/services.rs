//! What a process, and a worker, keeps of each Service: retry budget, requests in flight, queue,
//! metrics.
//!
//! [`Shared`] is one for all workers. A worker keeps what it has looked up, so that a request takes
//! no lock, and drops it when the Service is gone.

use std::cell::Cell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use sealane_config::Snapshot;
use sealane_config::model::{RetryPolicy, ServiceKey};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use super::metrics::ServiceMetrics;
use super::retry::Budget;
use crate::live::{Cache, Series};
use crate::sidecar::Direction;
use crate::{Error, ErrorKind};

/// Requests that a process works on at a time; more are turned away.
const MAX_IN_FLIGHT: usize = 100_000;

/// Bytes of request bodies that a process keeps for retries.
pub(super) const MAX_REPLAY: usize = 64 * 1024 * 1024;

/// Requests that a worker counts before it tells the others.
const BATCH: u32 = 16;

/// What all workers of a process share. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Shared(Arc<Process>);

#[derive(Debug, Default)]
struct Process {
    services: Mutex<HashMap<ServiceKey, Arc<Service>>>,
    in_flight: AtomicUsize,
    replay: AtomicUsize,
}

/// A Service, for all workers.
#[derive(Debug, Default)]
struct Service {
    budget: Budget,
    /// Requests that wait for room at an endpoint.
    queued: AtomicU32,
    freed: Notify,
}

impl Shared {
    fn service(&self, key: &ServiceKey) -> Arc<Service> {
        let services = self.0.services.lock();
        let mut services = services.unwrap_or_else(PoisonError::into_inner);
        Arc::clone(services.entry(key.clone()).or_default())
    }

    fn retain(&self, snapshot: &Snapshot) {
        let services = self.0.services.lock();
        let mut services = services.unwrap_or_else(PoisonError::into_inner);
        services.retain(|key, _| snapshot.services.contains_key(key));
    }

    /// Takes memory for a body that is kept; false if there is none left.
    pub(super) fn keep(&self, bytes: usize) -> bool {
        let before = self.0.replay.fetch_add(bytes, Relaxed);
        let fits = before + bytes <= MAX_REPLAY;
        if !fits {
            self.0.replay.fetch_sub(bytes, Relaxed);
        }
        fits
    }

    /// Gives it back.
    pub(super) fn forget(&self, bytes: usize) {
        self.0.replay.fetch_sub(bytes, Relaxed);
    }
}

/// The Services that a worker has looked up.
pub(super) struct Services {
    shared: Shared,
    direction: Direction,
    known: Cache<ServiceKey, ServiceState>,
}

/// A Service, for one worker.
pub(crate) struct ServiceState {
    pub(super) metrics: ServiceMetrics,
    service: Arc<Service>,
    shared: Shared,
    /// Requests that the budget does not know of yet.
    requests: Cell<u32>,
}

/// A request that is worked on, until it is dropped.
pub(crate) struct Admission {
    pub(super) state: Rc<ServiceState>,
}

/// A request that waits for room at an endpoint.
pub(super) struct Queued<'a>(&'a Service);

impl Services {
    pub(super) fn new(shared: Shared, direction: Direction) -> Self {
        Self {
            shared,
            direction,
            known: Cache::default(),
        }
    }

    pub(super) fn get(&self, key: &ServiceKey) -> Rc<ServiceState> {
        self.known.get(key, || ServiceState {
            metrics: ServiceMetrics::new(key, self.direction),
            service: self.shared.service(key),
            shared: self.shared.clone(),
            requests: Cell::new(0),
        })
    }

    /// Forgets the Services that are gone.
    pub(super) fn retain(&self, snapshot: &Snapshot) {
        self.known.retain(|key| snapshot.services.contains_key(key));
        self.shared.retain(snapshot);
    }

    /// To be called every [`UPKEEP`](crate::live::UPKEEP).
    pub(super) fn upkeep(&self) {
        self.known.upkeep();
    }
}

impl Series for ServiceState {
    fn keep(&self) {
        self.metrics.keep();
    }
}

impl ServiceState {
    /// A request came in: counts it, and lets it in unless the process has too many.
    pub(super) fn admit(self: &Rc<Self>, policy: &RetryPolicy) -> Result<Admission, Error> {
        let requests = self.requests.get() + 1;
        if requests >= BATCH {
            self.service.budget.earn(requests, policy);
            self.requests.set(0);
        } else {
            self.requests.set(requests);
        }
        let before = self.shared.0.in_flight.fetch_add(1, Relaxed);
        let admission = Admission {
            state: Rc::clone(self),
        };
        if before >= MAX_IN_FLIGHT {
            let detail = "the proxy has as many requests as it can work on";
            return Err(Error::new(ErrorKind::Overloaded, detail));
        }
        Ok(admission)
    }

    /// Takes a retry out of the Service's budget, if there is one.
    pub(super) fn spend(&self, policy: &RetryPolicy) -> bool {
        let requests = self.requests.take();
        self.service.budget.earn(requests, policy);
        self.service.budget.spend(policy)
    }

    /// Waits for room, unless so many wait already.
    pub(super) fn queue(&self, most: u32) -> Option<Queued<'_>> {
        let queued = Queued(&self.service);
        let before = self.service.queued.fetch_add(1, Relaxed);
        (before < most).then_some(queued)
    }

    /// What all workers share.
    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }
}

impl Queued<'_> {
    /// Ends when a request has ended.
    pub(super) fn freed(&self) -> Notified<'_> {
        self.0.freed.notified()
    }
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.0.queued.fetch_sub(1, Relaxed);
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.state.shared.0.in_flight.fetch_sub(1, Relaxed);
        if self.state.service.queued.load(Relaxed) != 0 {
            self.state.service.freed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{World, key};

    #[test]
    fn proxy_l15_memory_for_bodies_is_limited_for_the_whole_process() {
        let (shared, other) = (Shared::default(), Shared::default());
        let same = shared.clone();
        assert!(shared.keep(MAX_REPLAY - 10));
        assert!(same.keep(10) && !same.keep(1));
        assert!(other.keep(1));
        shared.forget(5);
        assert!(same.keep(5) && !shared.keep(1));
    }

    #[test]
    fn proxy_l18_a_process_works_on_so_many_requests_at_a_time() {
        let shared = Shared::default();
        let workers = [(); 2].map(|()| Services::new(shared.clone(), Direction::Outbound));
        let policy = RetryPolicy::default();
        shared.0.in_flight.store(MAX_IN_FLIGHT - 1, Relaxed);
        let last = workers[0].get(&key("api")).admit(&policy);
        assert!(last.is_ok());
        let refused = workers[1].get(&key("web")).admit(&policy);
        assert!(refused.is_err_and(|error| error.kind() == ErrorKind::Overloaded));
        drop(last);
        assert!(workers[1].get(&key("web")).admit(&policy).is_ok());
        assert_eq!(shared.0.in_flight.load(Relaxed), MAX_IN_FLIGHT - 1);
    }

    #[test]
    fn services_that_are_gone_are_forgotten() {
        let services = Services::new(Shared::default(), Direction::Outbound);
        let mut world = World::new();
        world.service("api", sealane_config::model::AppProtocol::Http, &[]);
        services.get(&key("api"));
        services.get(&key("gone"));
        services.retain(&world.snapshot);
        let known: Vec<ServiceKey> = services.known.keys();
        assert_eq!(known, [key("api")]);
        assert_eq!(services.shared.0.services.lock().unwrap().len(), 1);
    }
}
