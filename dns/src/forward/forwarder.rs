//! Identical queries in flight are one upstream query; answers go through the cache.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::Shared;
use hickory_proto::op::ResponseCode;
use sealane_config::sockets::HostSockets;
use tokio::sync::oneshot;

use super::{Forward, ForwardError, ForwardPlan, Via};
use crate::answer::Answer;
use crate::cache::{Cache, Key};
use crate::config::{ForwardSettings, Policy, Protocol, Upstream};
use crate::metrics::Metrics;

type Fetched = Result<Rc<Answer>, ForwardError>;

/// Asks upstreams. One a worker, cheap to clone; needs a runtime for local tasks.
#[derive(Clone, Debug)]
pub struct Forwarder {
    inner: Rc<Inner>,
}

#[derive(Debug)]
struct Inner {
    forward: Forward,
    cache: RefCell<Cache>,
    in_flight: RefCell<HashMap<Key, Shared<oneshot::Receiver<Fetched>>>>,
}

impl Forwarder {
    /// Forwards to these resolvers, over sockets made by `sockets`.
    pub fn new(sockets: HostSockets, upstreams: &[SocketAddr]) -> Self {
        let upstreams = upstreams.iter().copied().map(Upstream::Plain).collect();
        let mut settings = ForwardSettings::to(upstreams);
        settings.protocol = Protocol::PreferUdp;
        settings.policy = Policy::Sequential;
        settings.failover = vec![
            ResponseCode::ServFail,
            ResponseCode::Refused,
            ResponseCode::NotImp,
        ];
        let plan = ForwardPlan::load(Arc::new(settings), &[], Metrics::default())
            .expect("no file is named, and no address is ours");
        Self {
            inner: Rc::new(Inner {
                forward: Forward::new(plan, sockets),
                cache: RefCell::default(),
                in_flight: RefCell::default(),
            }),
        }
    }

    /// The answer, if it is in the cache.
    pub fn cached(&self, key: &Key) -> Option<Answer> {
        self.inner.cache.borrow_mut().get(key)
    }

    /// The answer from an upstream.
    ///
    /// # Errors
    /// [`ForwardError`].
    pub async fn resolve(&self, key: Key) -> Result<Answer, ForwardError> {
        let running = self.inner.in_flight.borrow().get(&key).cloned();
        let fetch = running.unwrap_or_else(|| self.start(key));
        match fetch.await {
            Ok(fetched) => fetched.map(|answer| Answer::clone(&answer)),
            // The task that fetches ends without a result only when the runtime ends.
            Err(_gone) => Err(ForwardError::TimedOut),
        }
    }

    /// Starts a task that fetches the answer for everybody who asks meanwhile. It goes on when the
    /// client that asked first is gone.
    fn start(&self, key: Key) -> Shared<oneshot::Receiver<Fetched>> {
        let (sender, receiver) = oneshot::channel();
        let receiver = receiver.shared();
        let mut in_flight = self.inner.in_flight.borrow_mut();
        in_flight.insert(key.clone(), receiver.clone());
        drop(in_flight);
        let inner = Rc::clone(&self.inner);
        tokio::task::spawn_local(async move {
            let fetched = inner.forward.resolve(&key, true, Via::Datagram).await;
            if let Ok(answer) = &fetched {
                inner.cache.borrow_mut().insert(key.clone(), answer);
            }
            inner.in_flight.borrow_mut().remove(&key);
            // Nobody may be waiting any more.
            let _ = sender.send(fetched.map(Rc::new));
        });
        receiver
    }
}
