//! Upstreams over real sockets.

use std::cell::Cell;
use std::collections::HashSet;
use std::future::Future;
use std::net::SocketAddr;

use futures_util::stream::{FuturesUnordered, StreamExt};
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RecordType;
use tokio::task::LocalSet;
use tokio::time::Instant;

use super::*;
use crate::config::{ForwardSettings, Policy, Protocol, Upstream as To};
use crate::metrics::Metrics;
use crate::testing::shown;
use crate::testing::upstream::{React, Seen, Upstream, address, negative, reply, web};

mod encrypted;
mod health;
mod loops;

fn key(name: &str) -> Key {
    Key {
        name: name.parse().unwrap(),
        record_type: RecordType::A,
        dnssec_ok: false,
        checking_disabled: false,
    }
}

/// Forwards by these settings.
struct Tested {
    forward: Forward,
    metrics: Metrics,
}

impl Tested {
    fn new(settings: ForwardSettings) -> Self {
        let metrics = Metrics::default();
        let plan = ForwardPlan::load(Arc::new(settings), &[], metrics.clone()).unwrap();
        Self {
            forward: Forward::new(plan, HostSockets::here()),
            metrics,
        }
    }

    /// For a client over UDP.
    async fn ask(&self, name: &str) -> Result<Answer, ForwardError> {
        self.forward.resolve(&key(name), true, Via::Datagram).await
    }

    /// The value of a metric, labels as they are written.
    fn metric(&self, name: &str) -> f64 {
        let text = self.metrics.render();
        let mut lines = text.lines();
        let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.map_or(0.0, |value| value.parse().unwrap())
    }
}

/// These upstreams in order, TCP after truncation.
fn in_order(upstreams: &[SocketAddr]) -> ForwardSettings {
    let upstreams = upstreams.iter().copied().map(To::Plain).collect();
    ForwardSettings {
        policy: Policy::Sequential,
        protocol: Protocol::PreferUdp,
        ..ForwardSettings::to(upstreams)
    }
}

fn forward(upstreams: &[SocketAddr]) -> Tested {
    Tested::new(in_order(upstreams))
}

async fn local<F: Future>(test: F) -> F::Output {
    LocalSet::new().run_until(test).await
}

/// Nobody listens there: bound, so that nobody else takes it, and never read.
async fn silent() -> (tokio::net::UdpSocket, SocketAddr) {
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let addr = socket.local_addr().unwrap();
    (socket, addr)
}

const WEB: &[&str] = &["NOERROR", "web.test. 60 IN A 10.1.2.3"];

#[tokio::test]
async fn reliability_f36_a_dead_upstream_costs_the_hedge_once() {
    local(async {
        let (_socket, dead) = silent().await;
        let alive = Upstream::start(web).await;
        let tested = forward(&[dead, alive.addr]);
        let start = Instant::now();
        let answer = tested.ask("web.test").await.unwrap();
        assert_eq!(shown(&answer), WEB);
        let took = start.elapsed();
        assert!(took >= MAX_HEDGE, "{took:?}");
        let start = Instant::now();
        for n in 0..50 {
            tested.ask(&format!("n{n}.test")).await.unwrap();
        }
        let took = start.elapsed();
        assert!(
            took < MAX_HEDGE * 10,
            "the dead one comes last now: {took:?}"
        );
    })
    .await;
}

/// Queries that begin while the first one still waits for the dead upstream do not wait in line.
#[tokio::test]
async fn dns_f6_queries_at_the_same_time_wait_for_a_dead_upstream_once() {
    local(async {
        let (_socket, dead) = silent().await;
        let alive = Upstream::start(web).await;
        let tested = forward(&[dead, alive.addr]);
        let start = Instant::now();
        let names: Vec<String> = (0..100).map(|n| format!("n{n}.test")).collect();
        let mut asking: FuturesUnordered<_> = names.iter().map(|name| tested.ask(name)).collect();
        while let Some(answer) = asking.next().await {
            answer.unwrap();
        }
        let took = start.elapsed();
        assert!(took < MAX_HEDGE * 10, "{took:?}");
    })
    .await;
}

#[tokio::test]
async fn reliability_f36_a_refusing_upstream_costs_nothing() {
    local(async {
        let (socket, closed) = silent().await;
        drop(socket);
        let alive = Upstream::start(web).await;
        let mut least = Duration::MAX;
        // Any of them may be delayed by what else this machine does.
        for _ in 0..5 {
            let start = Instant::now();
            let answer = forward(&[closed, alive.addr]).ask("web.test").await;
            least = least.min(start.elapsed());
            assert_eq!(shown(&answer.unwrap()), WEB);
        }
        assert!(least < MAX_HEDGE, "{least:?}");
        let answer = forward(&[closed]).ask("web.test").await;
        assert_eq!(answer, Err(ForwardError::Network));
        let answer = forward(&[]).ask("web.test").await;
        assert_eq!(answer, Err(ForwardError::NoUpstream));
    })
    .await;
}

#[tokio::test]
async fn reliability_f36_lies_are_ignored() {
    let lie = |query: &Message, change: fn(&mut Message)| {
        let mut lie = address(query, 66);
        change(&mut lie);
        React::Reply(lie)
    };
    local(async {
        let upstream = Upstream::start(move |query, _| {
            vec![
                lie(query, |lie| lie.metadata.id ^= 1),
                lie(query, |lie| {
                    lie.queries[0].query_type = RecordType::AAAA;
                }),
                lie(query, |lie| lie.queries.clear()),
                lie(query, |lie| {
                    let victim = hickory_proto::rr::Name::from_ascii("victim.test.");
                    lie.queries[0].name = victim.unwrap();
                }),
                React::ReplyFromElsewhere(address(query, 66)),
                React::Raw(vec![1, 2, 3]),
                React::After(Duration::from_millis(20)),
                React::Reply(address(query, 3)),
            ]
        })
        .await;
        let answer = forward(&[upstream.addr]).ask("web.test").await;
        assert_eq!(shown(&answer.unwrap()), WEB);
        assert_eq!(upstream.seen().len(), 1);
    })
    .await;
}

#[tokio::test]
async fn reliability_b29_guesses_lead_to_tcp() {
    local(async {
        let upstream = Upstream::start(|query, tcp| {
            if tcp {
                return vec![React::Reply(address(query, 3))];
            }
            let guess = |n: u16| {
                let mut guess = address(query, 66);
                guess.metadata.id = query.metadata.id.wrapping_add(n);
                React::Reply(guess)
            };
            (1..=100).map(guess).collect()
        })
        .await;
        let answer = forward(&[upstream.addr]).ask("web.test").await;
        assert_eq!(shown(&answer.unwrap()), WEB);
        assert!(upstream.seen()[1].tcp);
    })
    .await;
}

#[tokio::test]
async fn reliability_b29_ids_and_ports_are_random() {
    local(async {
        let upstream = Upstream::start(web).await;
        let tested = forward(&[upstream.addr]);
        for n in 0..200 {
            tested.ask(&format!("n{n}.test")).await.unwrap();
        }
        let seen = upstream.seen();
        let ids: HashSet<u16> = seen.iter().map(|seen| seen.id).collect();
        let ports: HashSet<u16> = seen.iter().map(|seen| seen.port).collect();
        assert!(ids.len() > 190, "{} ids", ids.len());
        assert!(ports.len() > 180, "{} ports", ports.len());
        let steps = seen
            .windows(2)
            .filter(|pair| pair[1].id == pair[0].id.wrapping_add(1));
        assert!(steps.count() < 5, "ids do not count up");
    })
    .await;
}

#[tokio::test]
async fn dns_forward_prefer_udp_fetches_truncated_replies_over_tcp() {
    local(async {
        let upstream = Upstream::start(|query, tcp| {
            let mut message = address(query, 3);
            message.metadata.truncation = !tcp;
            vec![React::Reply(message)]
        })
        .await;
        let answer = forward(&[upstream.addr]).ask("web.test").await;
        assert_eq!(shown(&answer.unwrap()), WEB);
        let tcp: Vec<bool> = upstream.seen().iter().map(|seen| seen.tcp).collect();
        assert_eq!(tcp, [false, true]);
    })
    .await;
}

#[tokio::test]
async fn dns_forward_codes_are_passed_on_unless_failover_names_them() {
    local(async {
        let fail = |rcode| Upstream::start(move |query, _| vec![React::Reply(reply(query, rcode))]);
        let servfail = fail(ResponseCode::ServFail).await;
        let refused = fail(ResponseCode::Refused).await;
        let good = Upstream::start(web).await;
        let upstreams = [servfail.addr, refused.addr, good.addr];
        let answer = forward(&upstreams).ask("web.test").await.unwrap();
        assert_eq!(shown(&answer), ["SERVFAIL"]);
        let failover = |codes: &[ResponseCode], upstreams: &[SocketAddr]| {
            Tested::new(ForwardSettings {
                failover: codes.to_vec(),
                ..in_order(upstreams)
            })
        };
        let codes = [ResponseCode::ServFail];
        let answer = failover(&codes, &upstreams).ask("web.test").await.unwrap();
        assert_eq!(shown(&answer), ["REFUSED"]);
        let codes = [ResponseCode::ServFail, ResponseCode::Refused];
        let answer = failover(&codes, &upstreams).ask("web.test").await.unwrap();
        assert_eq!(shown(&answer), WEB);
        let alone = failover(&codes, &upstreams[..2]);
        let answer = alone.ask("web.test").await.unwrap();
        assert_eq!(
            shown(&answer),
            ["REFUSED"],
            "the last one, if nobody does better"
        );
        assert_eq!(servfail.seen().len(), 4, "once a query");
    })
    .await;
}

#[tokio::test]
async fn dns_forward_max_concurrent_refuses_and_counts() {
    local(async {
        let (_socket, dead) = silent().await;
        let tested = Tested::new(ForwardSettings {
            max_concurrent: 3,
            ..in_order(&[dead])
        });
        let mut waiting = Vec::new();
        for name in ["a.test", "b.test", "c.test"] {
            let mut asking = Box::pin(tested.ask(name));
            assert!(futures_util::poll!(&mut asking).is_pending());
            waiting.push(asking);
        }
        // Another worker shares the limit.
        let other = Forward::new(Arc::clone(&tested.forward.plan), HostSockets::here());
        let refused = other.resolve(&key("d.test"), true, Via::Datagram).await;
        assert_eq!(refused, Err(ForwardError::Busy));
        assert_eq!(tested.ask("d.test").await, Err(ForwardError::Busy));
        let rejects = tested.metric("coredns_forward_max_concurrent_rejects_total");
        assert_eq!(rejects, 2.0);
        waiting.pop();
        let mut asking = Box::pin(tested.ask("d.test"));
        assert!(futures_util::poll!(&mut asking).is_pending());
    })
    .await;
}

#[tokio::test]
async fn dns_forward_the_protocol_follows_the_client() {
    local(async {
        let truncating = |query: &Message, tcp: bool| {
            let mut message = address(query, 3);
            message.metadata.truncation = !tcp;
            vec![React::Reply(message)]
        };
        for (name, protocol, via, tcp, truncated) in [
            (
                "UDP, TC passed on",
                Protocol::Client,
                Via::Datagram,
                &[false][..],
                true,
            ),
            ("TCP", Protocol::Client, Via::Stream, &[true], false),
            ("force_tcp", Protocol::Tcp, Via::Datagram, &[true], false),
            (
                "prefer_udp",
                Protocol::PreferUdp,
                Via::Stream,
                &[false, true],
                false,
            ),
        ] {
            let upstream = Upstream::start(truncating).await;
            let tested = Tested::new(ForwardSettings {
                protocol,
                ..in_order(&[upstream.addr])
            });
            let answer = tested.forward.resolve(&key("web.test"), true, via).await;
            let answer = answer.unwrap();
            assert_eq!(answer.truncated, truncated, "{name}");
            assert_eq!(shown(&answer), WEB, "{name}");
            let seen: Vec<bool> = upstream.seen().iter().map(|seen| seen.tcp).collect();
            assert_eq!(seen, tcp, "{name}");
        }
    })
    .await;
}

#[tokio::test]
async fn dns_forward_flags_and_extended_errors_are_passed_on() {
    use hickory_proto::op::Edns;
    use hickory_proto::rr::rdata::opt::EdnsOption;
    local(async {
        let upstream = Upstream::start(|query, _| {
            let mut message = negative(query, ResponseCode::ServFail);
            message.metadata.authoritative = true;
            message.metadata.recursion_available = query.metadata.recursion_desired;
            let mut edns = Edns::new();
            let text = b"\x00\x06signature expired".to_vec();
            edns.options_mut().insert(EdnsOption::Unknown(15, text));
            message.set_edns(edns);
            vec![React::Reply(message)]
        })
        .await;
        let tested = forward(&[upstream.addr]);
        let answer = tested.ask("web.test").await.unwrap();
        assert!(answer.authoritative && answer.recursion_available);
        let error = answer.error.unwrap();
        assert_eq!((error.code, &*error.text), (6, "signature expired"));
        let key = key("web.test");
        let without = tested.forward.resolve(&key, false, Via::Datagram);
        assert!(
            !without.await.unwrap().recursion_available,
            "RD is as asked"
        );
    })
    .await;
}

#[tokio::test]
async fn dns_forward_policies_spread_queries() {
    local(async {
        for (policy, least, most) in [
            (Policy::Random, 5, 35),
            (Policy::RoundRobin, 20, 20),
            (Policy::Sequential, 0, 60),
        ] {
            let upstreams = [
                Upstream::start(web).await,
                Upstream::start(web).await,
                Upstream::start(web).await,
            ];
            let addrs: Vec<_> = upstreams.iter().map(|upstream| upstream.addr).collect();
            let tested = Tested::new(ForwardSettings {
                policy,
                ..in_order(&addrs)
            });
            for n in 0..60 {
                tested.ask(&format!("n{n}.test")).await.unwrap();
            }
            for upstream in &upstreams {
                let seen = upstream.seen().len();
                assert!((least..=most).contains(&seen), "{policy:?}: {seen}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn dns_forward_latency_prefers_the_fastest() {
    local(async {
        let slow = Upstream::start(|query, tcp| {
            let mut steps = vec![React::After(Duration::from_millis(15))];
            steps.extend(web(query, tcp));
            steps
        })
        .await;
        let fast = Upstream::start(web).await;
        let tested = Tested::new(ForwardSettings {
            policy: Policy::Latency,
            ..in_order(&[slow.addr, fast.addr])
        });
        for n in 0..100 {
            tested.ask(&format!("n{n}.test")).await.unwrap();
        }
        let slow = slow.seen().len();
        assert!(
            (1..=15).contains(&slow),
            "{slow} of 100 went to the slow one"
        );
    })
    .await;
}

#[tokio::test]
async fn dns_forward_source_address_is_kept() {
    local(async {
        let seen = Rc::new(Cell::new(None));
        let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let addr = socket.local_addr().unwrap();
        let client = Rc::clone(&seen);
        tokio::task::spawn_local(async move {
            loop {
                let (_, from) = socket.recv_from(&mut [0; 512]).await.unwrap();
                client.set(Some(from.ip()));
            }
        });
        let tested = Tested::new(ForwardSettings {
            source_address: Some("127.0.0.9".parse().unwrap()),
            read_timeout: Duration::from_millis(50),
            ..in_order(&[addr])
        });
        assert_eq!(tested.ask("web.test").await, Err(ForwardError::TimedOut));
        assert_eq!(seen.get(), Some("127.0.0.9".parse().unwrap()));
    })
    .await;
}

#[tokio::test]
async fn dns_forward_a_malformed_reply_is_a_failure_of_the_upstream() {
    local(async {
        let broken = Upstream::start(|query, _| {
            let mut message = address(query, 66).to_vec().unwrap();
            message.truncate(message.len() - 3);
            vec![React::Raw(message)]
        })
        .await;
        let good = Upstream::start(web).await;
        let tested = forward(&[broken.addr, good.addr]);
        assert_eq!(shown(&tested.ask("web.test").await.unwrap()), WEB);
        let alone = forward(&[broken.addr]).ask("web.test").await;
        assert_eq!(alone, Err(ForwardError::BadReply));
    })
    .await;
}

#[tokio::test]
async fn reliability_b29_names_are_asked_in_random_case() {
    local(async {
        let upstream = Upstream::start(web).await;
        let tested = forward(&[upstream.addr]);
        for n in 0..20 {
            let name = format!("a-name-with-letters-{n}.test");
            let answer = tested.ask(&name).await.unwrap();
            let soa = "@test. 300 IN SOA test. test. 1 2 3 4 300";
            assert_eq!(shown(&answer), ["NXDOMAIN", soa], "the case stays inside");
        }
        let stem = |seen: &Seen| seen.name[..20].to_owned();
        let spellings: HashSet<String> = upstream.seen().iter().map(stem).collect();
        assert!(spellings.len() > 15, "{spellings:?}");
        assert_eq!(upstream.seen().len(), 20);
    })
    .await;
}

#[tokio::test]
async fn an_upstream_that_changes_case_is_asked_over_tcp_once() {
    local(async {
        let upstream = Upstream::start(|query, _| {
            let mut message = address(query, 3);
            message.queries[0].name = message.queries[0].name.to_lowercase();
            vec![React::Reply(message)]
        })
        .await;
        let tested = forward(&[upstream.addr]);
        for n in 0..3 {
            let name = format!("a-name-with-letters-{n}.test");
            let answer = tested.ask(&name).await.unwrap();
            assert_eq!(answer.answers.len(), 1, "{name}");
        }
        let tcp: Vec<bool> = upstream.seen().iter().map(|seen| seen.tcp).collect();
        assert_eq!(tcp, [false, true, false, false]);
    })
    .await;
}

#[tokio::test]
async fn an_upstream_without_edns_is_asked_without() {
    local(async {
        let upstream = Upstream::start(|query, _| match query.edns {
            None => web(query, false),
            Some(_) => {
                let mut header = query.metadata.id.to_be_bytes().to_vec();
                header.extend_from_slice(&[0x80, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
                vec![React::Raw(header)]
            }
        })
        .await;
        let tested = forward(&[upstream.addr]);
        let answer = tested.ask("web.test").await.unwrap();
        assert_eq!(shown(&answer), WEB);
        tested.ask("other.test").await.unwrap();
        assert_eq!(upstream.seen().len(), 3);
    })
    .await;
}
