//! A bounded load: keep-alive connections that send one request after the other until told to stop.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use http::Method;
use tokio::task::JoinSet;

use super::http::Connection;

/// Longest time that a load runs, whatever the test does.
const LIMIT: Duration = Duration::from_secs(120);

/// Pause between two requests of a connection: a load that leaves the machine some air.
const PAUSE: Duration = Duration::from_millis(10);

/// A running load.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    tasks: JoinSet<Tally>,
}

/// What came of a load.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Requests answered with 2xx.
    pub(crate) good: u64,
    /// Everything else, by what it was.
    pub(crate) failed: BTreeMap<String, u64>,
}

impl Tally {
    /// How many failed.
    pub(crate) fn failures(&self) -> u64 {
        self.failed.values().sum()
    }
}

impl Load {
    /// Starts `connections` connections; every fourth request is a POST.
    pub(crate) fn start(
        addr: SocketAddr,
        host: &'static str,
        path: &'static str,
        connections: usize,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let sent = Arc::new(AtomicU64::new(0));
        let mut tasks = JoinSet::new();
        for _ in 0..connections {
            let (stop, sent) = (Arc::clone(&stop), Arc::clone(&sent));
            tasks.spawn(async move {
                let mut tally = Tally::default();
                let work = run(addr, host, path, &stop, &sent, &mut tally);
                if tokio::time::timeout(LIMIT, work).await.is_err() {
                    *tally
                        .failed
                        .entry("the load was not stopped".to_owned())
                        .or_default() += 1;
                }
                tally
            });
        }
        Self { stop, sent, tasks }
    }

    /// Waits until so many more requests were sent.
    pub(crate) async fn more(&self, count: u64) {
        let target = self.sent.load(Ordering::Relaxed) + count;
        super::eventually("the load goes on", async || {
            let sent = self.sent.load(Ordering::Relaxed);
            if sent >= target {
                Ok(())
            } else {
                Err(format!("{sent} of {target} sent"))
            }
        })
        .await;
    }

    /// Stops and counts.
    pub(crate) async fn stop(mut self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        let mut total = Tally::default();
        while let Some(tally) = self.tasks.join_next().await {
            let tally = tally.expect("no panic");
            total.good += tally.good;
            for (failure, count) in tally.failed {
                *total.failed.entry(failure).or_default() += count;
            }
        }
        total
    }
}

async fn run(
    addr: SocketAddr,
    host: &str,
    path: &str,
    stop: &AtomicBool,
    sent: &AtomicU64,
    tally: &mut Tally,
) {
    let mut connection = None;
    while !stop.load(Ordering::Relaxed) {
        let mut fail = |what: String| *tally.failed.entry(what).or_default() += 1;
        let mut open = match connection.take() {
            Some(open) => open,
            None => match Connection::open(addr).await {
                Ok(open) => open,
                Err(error) => {
                    fail(error);
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            },
        };
        if !open.ready().await {
            // The gateway closed an idle connection; that is no failed request.
            continue;
        }
        let number = sent.fetch_add(1, Ordering::Relaxed);
        let method = if number % 4 == 3 {
            Method::POST
        } else {
            Method::GET
        };
        match open.send(method, host, path).await {
            Ok(answer) if answer.status.is_success() => {
                tally.good += 1;
                connection = Some(open);
            }
            Ok(answer) => {
                let reason = answer.headers.get("sealane-error");
                fail(format!("{} {:?}", answer.status, reason));
                connection = Some(open);
            }
            Err(error) => fail(error),
        }
        tokio::time::sleep(PAUSE).await;
    }
}
