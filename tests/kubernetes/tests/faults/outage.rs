//! The API server is killed under load and comes back.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sealane_config::Reader;
use sealane_config::watch::WatchOptions;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::plane;
use crate::world::{Operator, World};

/// The endpoints, as the API server knows them; it takes no loopback addresses. `10.1.0.N` is
/// reached at `127.1.0.N`.
const ADDRESSES: [&str; 3] = ["10.1.0.1", "10.1.0.2", "10.1.0.3"];

/// How long the server stays away: longer than the pauses between attempts take to grow.
const AWAY: Duration = Duration::from_secs(6);

/// Connections through the snapshot, one after the other.
struct Traffic {
    done: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Traffic {
    fn start(reader: Reader, operator: Operator) -> Self {
        let done = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&done);
        let task = tokio::spawn(async move {
            for turn in 0.. {
                let targets = {
                    let snapshot = reader.load();
                    assert!(snapshot.synced, "ready all the time");
                    operator.targets(&snapshot, "web")
                };
                assert!(!targets.is_empty(), "endpoints are never forgotten");
                let mut target = targets[turn % targets.len()];
                let SocketAddr::V4(v4) = &mut target else {
                    panic!("an IPv6 address: {target}");
                };
                let [_, rest @ ..] = v4.ip().octets();
                v4.set_ip(Ipv4Addr::from([127, rest[0], rest[1], rest[2]]));
                TcpStream::connect(target).await.expect("a connection");
                count.fetch_add(1, Ordering::Relaxed);
                sleep(Duration::from_millis(2)).await;
            }
        });
        Self { done, task }
    }

    /// How many connections there were; fails if one did.
    fn check(&self) -> u64 {
        assert!(!self.task.is_finished(), "traffic was interrupted");
        self.done.load(Ordering::Relaxed)
    }
}

/// Listens where the endpoints are; returns their common port.
async fn serve() -> u16 {
    let mut port = 0;
    for index in 1..=3 {
        let listener = TcpListener::bind((Ipv4Addr::new(127, 1, 0, index), port)).await;
        let listener = listener.expect("a free port");
        port = listener.local_addr().expect("an address").port();
        tokio::spawn(async move { while listener.accept().await.is_ok() {} });
    }
    port
}

#[tokio::test]
async fn reliability_f25_killed_and_restarted_under_load() {
    let Some(mut plane) = plane::own().await else {
        return;
    };
    let operator = Operator::new(plane.client(), "shop").await;
    operator.service("web").await;
    operator.slice("web", serve().await, &ADDRESSES).await;
    let kubeconfig = plane.kubeconfig().to_owned();
    let mut world = World::synced(kubeconfig, WatchOptions::default()).await;
    world
        .until("endpoints", |s| operator.targets(s, "web").len() == 3)
        .await;
    let traffic = Traffic::start(world.reader.clone(), operator.clone());
    for turn in 0..40 {
        operator.move_slice("web", &ADDRESSES[..1 + turn % 3]).await;
    }
    operator.move_slice("web", &ADDRESSES[1..]).await;
    let moved = |s: &sealane_config::Snapshot| operator.targets(s, "web").len() == 2;
    world.until("changes under load", moved).await;

    plane.kill_api_server();
    let killed = Instant::now();
    let before = traffic.check();
    sleep(AWAY).await;
    let age = world.reader.staleness().oldest();
    assert!(age >= AWAY, "stale for {age:?}");
    let name = "sealane_config_staleness_seconds{kind=\"EndpointSlice\"}";
    let gauge = world.metric(name).expect("the gauge");
    assert!(gauge > 0.0, "{gauge}");
    assert!(traffic.check() > before + 100, "traffic goes on");
    let warnings = world.log.count(&["WARN", "kind=\"EndpointSlice\""]);
    assert_eq!(warnings, 1, "said once\n{}", world.log.text());

    plane.start_api_server().await.expect("it comes back");
    eprintln!("away for {:?}", killed.elapsed());
    operator.move_slice("web", &ADDRESSES[2..]).await;
    operator.service("later").await;
    let took = world
        .until("current after the return", |s| {
            operator.targets(s, "web").len() == 1 && operator.has(s, "later")
        })
        .await;
    assert!(took <= Duration::from_secs(2), "{took:?}");
    let age = world.age("EndpointSlice");
    assert!(age <= Duration::from_secs(2), "stale for {age:?}");
    let relists = world.metric("sealane_config_relists_total{kind=\"EndpointSlice\"}");
    assert!(relists <= Some(2.0), "at most one list more: {relists:?}");
    assert!(traffic.check() > 500, "traffic never noticed");
}
