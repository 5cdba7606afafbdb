//! Connections that are shared, with servers that are difficult in one way each.

use std::collections::VecDeque;
use std::net::SocketAddr;

use futures_util::future::join_all;
use hickory_proto::op::Message;
use hickory_proto::rr::RecordType;
use sealane_config::sockets::HostSockets;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::sleep;

use super::*;
use crate::cache::Key;
use crate::config::{ForwardSettings, Protocol, Upstream as To};
use crate::forward::{Forward, ForwardPlan, Via};
use crate::metrics::Metrics;
use crate::testing::shown;
use crate::testing::upstream::address;

/// How a server treats a connection.
#[derive(Clone, Copy, Debug)]
struct Manners {
    /// Queries read before the first reply.
    gather: usize,
    /// Replies after which it hangs up.
    replies: usize,
    /// Replies go out last query first.
    reversed: bool,
}

const POLITE: Manners = Manners {
    gather: 1,
    replies: usize::MAX,
    reversed: false,
};

/// A server over TCP, with the number of connections it had.
struct Server {
    addr: SocketAddr,
    connections: Rc<Cell<usize>>,
}

impl Server {
    async fn start(manners: Manners) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self {
            addr: listener.local_addr().unwrap(),
            connections: Rc::default(),
        };
        let connections = Rc::clone(&server.connections);
        spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                connections.set(connections.get() + 1);
                spawn_local(serve(stream, manners));
            }
        });
        server
    }
}

async fn serve(mut stream: TcpStream, manners: Manners) -> std::io::Result<()> {
    let mut waiting = VecDeque::new();
    let mut replies = 0;
    loop {
        let mut query = vec![0; stream.read_u16().await?.into()];
        stream.read_exact(&mut query).await?;
        waiting.push_back(Message::from_vec(&query).unwrap());
        while waiting.len() >= manners.gather || (replies > 0 && !waiting.is_empty()) {
            let next = match manners.reversed {
                true => waiting.pop_back(),
                false => waiting.pop_front(),
            };
            let query = next.unwrap();
            // Each reply tells which query it is for.
            let digits: String = query.queries[0].name.to_string();
            let digits = digits.trim_start_matches('n').split('.').next().unwrap();
            // A health check has no number.
            let number = digits.parse().unwrap_or_default();
            let reply = address(&query, number).to_vec().unwrap();
            stream.write_u16(reply.len() as u16).await?;
            stream.write_all(&reply).await?;
            replies += 1;
            if replies == manners.replies {
                return Ok(());
            }
        }
    }
}

fn forward(addr: SocketAddr, change: impl Fn(&mut ForwardSettings)) -> (Forward, Metrics) {
    let mut settings = ForwardSettings::to(vec![To::Plain(addr)]);
    settings.protocol = Protocol::Tcp;
    change(&mut settings);
    let metrics = Metrics::default();
    let plan = ForwardPlan::load(Arc::new(settings), &[], metrics.clone()).unwrap();
    (Forward::new(plan, HostSockets::here()), metrics)
}

async fn ask(forward: &Forward, number: u8) {
    let key = Key {
        name: format!("n{number}.test").parse().unwrap(),
        record_type: RecordType::A,
        dnssec_ok: false,
        checking_disabled: false,
    };
    let answer = forward.resolve(&key, true, Via::Datagram).await;
    let answer = answer.unwrap_or_else(|error| panic!("n{number}: {error}"));
    let expected = format!("n{number}.test. 60 IN A 10.1.2.{number}");
    assert_eq!(shown(&answer), ["NOERROR", &expected]);
}

async fn local<F: Future>(test: F) -> F::Output {
    LocalSet::new().run_until(test).await
}

#[tokio::test]
async fn dns_f5_queries_share_a_connection_and_replies_come_in_any_order() {
    local(async {
        let server = Server::start(Manners {
            gather: 50,
            reversed: true,
            ..POLITE
        })
        .await;
        let (forward, metrics) = forward(server.addr, |_| {});
        join_all((0..50).map(|number| ask(&forward, number))).await;
        ask(&forward, 77).await;
        assert_eq!(server.connections.get(), 1);
        let text = metrics.render();
        let counts = ["hits", "misses"].map(|what| {
            let name = format!("coredns_proxy_conn_cache_{what}_total{{");
            let line = text.lines().find(|line| line.starts_with(&name));
            let value = line.and_then(|line| line.rsplit(' ').next());
            value.map_or(0, |value| value.parse::<u32>().unwrap())
        });
        assert_eq!(counts[0] + counts[1], 51, "{text}");
        assert!(counts.iter().all(|&count| count > 0), "{text}");
    })
    .await;
}

#[tokio::test]
async fn dns_f5_a_connection_that_breaks_is_replaced_at_once() {
    local(async {
        // Ten are sent, the server hangs up after three: seven are sent again.
        let server = Server::start(Manners {
            gather: 1,
            replies: 3,
            reversed: false,
        })
        .await;
        let (forward, _) = forward(server.addr, |settings| settings.max_fails = 0);
        let start = Instant::now();
        join_all((0..9).map(|number| ask(&forward, number))).await;
        for number in 20..30 {
            ask(&forward, number).await;
        }
        assert!(start.elapsed() < Duration::from_secs(1));
    })
    .await;
}

#[tokio::test]
async fn dns_f5_an_upstream_that_answers_once_a_connection_is_humoured() {
    local(async {
        let server = Server::start(Manners {
            replies: 1,
            ..POLITE
        })
        .await;
        let (forward, _) = forward(server.addr, |_| {});
        ask(&forward, 0).await;
        join_all((1..4).map(|number| ask(&forward, number))).await;
        join_all((4..30).map(|number| ask(&forward, number))).await;
    })
    .await;
}

#[tokio::test]
async fn dns_forward_expire_max_age_and_max_idle_conns_end_connections() {
    local(async {
        let server = Server::start(POLITE).await;
        let short = Duration::from_millis(100);
        for (name, change, pause, connections) in [
            ("kept", (|_| {}) as fn(&mut ForwardSettings), short * 2, 1),
            (
                "expire",
                |settings| settings.expire = Duration::from_millis(100),
                short * 2,
                2,
            ),
            (
                "max_age",
                |settings| settings.max_age = Duration::from_millis(100),
                short * 2,
                2,
            ),
        ] {
            let (forward, _) = forward(server.addr, change);
            let before = server.connections.get();
            ask(&forward, 1).await;
            sleep(pause).await;
            ask(&forward, 2).await;
            assert_eq!(server.connections.get() - before, connections, "{name}");
        }
        let (forward, _) = forward(server.addr, |settings| settings.max_idle_connections = 1);
        let upstreams = forward.upstreams();
        let pool = &upstreams[0].streams;
        // Every query wants a connection of its own.
        pool.hung_up_after_one();
        join_all((0..5).map(|number| ask(&forward, number))).await;
        assert_eq!(pool.connections.borrow().len(), 1);
    })
    .await;
}

#[tokio::test]
async fn dns_f5_a_silent_connection_gets_no_new_queries() {
    const WAIT: Duration = Duration::from_millis(1200);
    local(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        spawn_local(async move {
            let mut held = Vec::new();
            // The first connection is dead, the others are well.
            held.push(listener.accept().await.unwrap().0);
            while let Ok((stream, _)) = listener.accept().await {
                spawn_local(serve(stream, POLITE));
            }
        });
        let (forward, _) = forward(addr, |settings| {
            settings.max_fails = 0;
            settings.read_timeout = WAIT;
        });
        let start = Instant::now();
        ask(&forward, 1).await;
        let took = start.elapsed();
        assert!(took < WAIT * 2, "{took:?}");
        let start = Instant::now();
        ask(&forward, 2).await;
        assert!(start.elapsed() < WAIT);
    })
    .await;
}
