//! Requests at a steady rate, whatever the answers do.
//!
//! Each connection has its own times to send at. Every request carries a number that its answer has
//! to repeat, every fourth is a POST.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use crate::namespace;

/// Connections of one load.
const CONNECTIONS: u32 = 24;

/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// A load to be started.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) name: &'static str,
    pub(crate) addr: SocketAddr,
    pub(crate) host: &'static str,
    /// Requests a second.
    pub(crate) rate: u32,
}

/// A running load.
pub(crate) struct Load {
    name: &'static str,
    shared: Arc<Shared>,
    thread: JoinHandle<anyhow::Result<Tally>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    sent: AtomicU64,
    failed: AtomicU64,
}

/// What came of a load.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) name: &'static str,
    pub(crate) good: u64,
    /// Everything else, by what it was.
    pub(crate) failed: BTreeMap<String, u64>,
    /// Microseconds, sorted in the end.
    times: Vec<u32>,
}

impl Tally {
    pub(crate) fn failures(&self) -> u64 {
        self.failed.values().sum()
    }

    fn at(&self, share: f64) -> Duration {
        let place = (self.times.len() as f64 * share) as usize;
        let micros = self.times.get(place).or(self.times.last());
        Duration::from_micros(micros.copied().unwrap_or_default().into())
    }

    fn add(&mut self, other: Self) {
        self.good += other.good;
        for (what, count) in other.failed {
            *self.failed.entry(what).or_default() += count;
        }
        self.times.extend(other.times);
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:<10} {:>9} good {:>6} failed   p50 {:>9.2?}  p99 {:>9.2?}  most {:>9.2?}",
            self.name,
            self.good,
            self.failures(),
            self.at(0.5),
            self.at(0.99),
            self.at(1.0)
        )?;
        let failed = self.failed.iter();
        failed
            .take(10)
            .try_for_each(|(what, count)| write!(f, "\n    {count} × {what}"))
    }
}

impl Load {
    /// Starts it in a thread of its own: in a pod's network namespace, or here.
    pub(crate) fn start(plan: Plan, pod: Option<&str>) -> anyhow::Result<Self> {
        let shared = Arc::new(Shared::default());
        let name = plan.name;
        let work = {
            let shared = Arc::clone(&shared);
            move || drive(plan, &shared)
        };
        let thread = match pod {
            Some(pod) => namespace::spawn(pod, work)?,
            None => std::thread::spawn(move || Ok(work())),
        };
        Ok(Self {
            name,
            shared,
            thread,
        })
    }

    /// Requests sent, and failed, so far.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let Shared { sent, failed, .. } = &*self.shared;
        (sent.load(Ordering::Relaxed), failed.load(Ordering::Relaxed))
    }

    /// Stops and counts.
    pub(crate) fn stop(self) -> anyhow::Result<Tally> {
        self.shared.stop.store(true, Ordering::Relaxed);
        let tally = self.thread.join();
        let mut tally = tally
            .ok()
            .with_context(|| format!("{} broke", self.name))??;
        tally.times.sort_unstable();
        Ok(tally)
    }
}

fn drive(plan: Plan, shared: &Arc<Shared>) -> Tally {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.expect("a runtime");
    let mut total = Tally {
        name: plan.name,
        ..Tally::default()
    };
    runtime.block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        let plan = Arc::new(plan);
        for number in 0..CONNECTIONS {
            let client = Client {
                plan: Arc::clone(&plan),
                shared: Arc::clone(shared),
                connection: None,
                tally: Tally::default(),
            };
            tasks.spawn(client.run(number));
        }
        while let Some(tally) = tasks.join_next().await {
            total.add(tally.expect("no panic"));
        }
    });
    total
}

/// One connection after the other, one request after the other.
struct Client {
    plan: Arc<Plan>,
    shared: Arc<Shared>,
    connection: Option<http1::SendRequest<Full<Bytes>>>,
    tally: Tally,
}

impl Client {
    async fn run(mut self, number: u32) -> Tally {
        let period = Duration::from_secs(1) * CONNECTIONS / self.plan.rate.max(1);
        let first = Instant::now() + period * number / CONNECTIONS;
        let mut times = interval_at(first, period);
        // A client that was held up does not make up for it in a burst.
        times.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !self.shared.stop.load(Ordering::Relaxed) {
            times.tick().await;
            let started = Instant::now();
            let exchange = timeout(PATIENCE, self.exchange());
            let ended = exchange.await;
            match ended.unwrap_or_else(|_elapsed| Err("no answer in time".to_owned())) {
                Ok(()) => {
                    self.tally.good += 1;
                    let micros = started.elapsed().as_micros();
                    self.tally
                        .times
                        .push(u32::try_from(micros).unwrap_or(u32::MAX));
                }
                Err(what) => {
                    self.connection = None;
                    self.shared.failed.fetch_add(1, Ordering::Relaxed);
                    *self.tally.failed.entry(what).or_default() += 1;
                }
            }
        }
        self.tally
    }

    async fn exchange(&mut self) -> Result<(), String> {
        let mut kept = self.connection.take();
        let usable = match &mut kept {
            Some(open) => open.ready().await.is_ok(),
            None => false,
        };
        let mut connection = match kept {
            Some(open) if usable => open,
            // The proxy closed an idle connection; that is no failed request.
            _ => self.connect().await?,
        };
        let number = self.shared.sent.fetch_add(1, Ordering::Relaxed);
        let request = self.request(number);
        let response = connection.send_request(request).await;
        let response = response.map_err(|error| format!("no answer: {error:?}"))?;
        let status = response.status();
        let reason = response.headers().get("sealane-error").cloned();
        let body = response.into_body().collect().await;
        let body = body.map_err(|error| format!("half an answer: {error:?}"))?;
        if !status.is_success() {
            return Err(format!("{status} {reason:?}"));
        }
        let mark = format!("number={number}\"");
        let body = body.to_bytes();
        if !body.windows(mark.len()).any(|part| part == mark.as_bytes()) {
            return Err("the answer to another request".to_owned());
        }
        self.connection = Some(connection);
        Ok(())
    }

    async fn connect(&self) -> Result<http1::SendRequest<Full<Bytes>>, String> {
        let stream = TcpStream::connect(self.plan.addr).await;
        let stream = stream.map_err(|error| format!("connect: {error}"))?;
        let _ = stream.set_nodelay(true);
        let handshake = http1::handshake(TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(|error| format!("connect: {error:?}"))?;
        tokio::spawn(connection);
        Ok(sender)
    }

    /// The endpoint repeats the query of a GET and the body of a POST.
    fn request(&self, number: u64) -> Request<Full<Bytes>> {
        let mark = format!("number={number}");
        let (method, path, body) = if number % 4 == 3 {
            (Method::POST, "/order".to_owned(), Bytes::from(mark))
        } else {
            (Method::GET, format!("/item?{mark}"), Bytes::new())
        };
        Request::builder()
            .method(method)
            .uri(path)
            .header("host", self.plan.host)
            .body(Full::new(body))
            .expect("a request")
    }
}
