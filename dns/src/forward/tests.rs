use std::collections::HashSet;
use std::future::Future;

use hickory_proto::op::Message;
use hickory_proto::rr::RecordType;
use tokio::task::LocalSet;

use super::*;
use crate::testing::shown;
use crate::testing::upstream::{React, Seen, Upstream, address, reply, web};

fn key(name: &str) -> Key {
    Key {
        name: name.parse().unwrap(),
        record_type: RecordType::A,
        dnssec_ok: false,
        checking_disabled: false,
    }
}

fn forwarder(upstreams: &[SocketAddr]) -> Forwarder {
    Forwarder::new(HostSockets::here(), upstreams)
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
        let forwarder = forwarder(&[dead, alive.addr]);
        let start = Instant::now();
        let answer = forwarder.resolve(&key("web.test")).await.unwrap();
        assert_eq!(shown(&answer), WEB);
        let took = start.elapsed();
        assert!(took >= HEDGE && took < PER_TRY, "{took:?}");
        let start = Instant::now();
        forwarder.resolve(&key("other.test")).await.unwrap();
        let took = start.elapsed();
        assert!(took < HEDGE, "the dead one comes last now: {took:?}");
    })
    .await;
}

#[tokio::test]
async fn reliability_f36_a_refusing_upstream_costs_nothing() {
    local(async {
        let (socket, closed) = silent().await;
        drop(socket);
        let alive = Upstream::start(web).await;
        let start = Instant::now();
        let answer = forwarder(&[closed, alive.addr])
            .resolve(&key("web.test"))
            .await;
        assert_eq!(shown(&answer.unwrap()), WEB);
        assert!(start.elapsed() < HEDGE);
        let answer = forwarder(&[closed]).resolve(&key("web.test")).await;
        assert_eq!(answer, Err(ForwardError::Network));
        let answer = forwarder(&[]).resolve(&key("web.test")).await;
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
        let answer = forwarder(&[upstream.addr]).resolve(&key("web.test")).await;
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
        let answer = forwarder(&[upstream.addr]).resolve(&key("web.test")).await;
        assert_eq!(shown(&answer.unwrap()), WEB);
        assert!(upstream.seen()[1].tcp);
    })
    .await;
}

#[tokio::test]
async fn reliability_b29_ids_and_ports_are_random() {
    local(async {
        let upstream = Upstream::start(web).await;
        let forwarder = forwarder(&[upstream.addr]);
        for n in 0..200 {
            forwarder
                .resolve(&key(&format!("n{n}.test")))
                .await
                .unwrap();
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
async fn truncated_replies_are_fetched_over_tcp() {
    local(async {
        let upstream = Upstream::start(|query, tcp| {
            let mut message = address(query, 3);
            message.metadata.truncation = !tcp;
            vec![React::Reply(message)]
        })
        .await;
        let answer = forwarder(&[upstream.addr]).resolve(&key("web.test")).await;
        assert_eq!(shown(&answer.unwrap()), WEB);
        let tcp: Vec<bool> = upstream.seen().iter().map(|seen| seen.tcp).collect();
        assert_eq!(tcp, [false, true]);
    })
    .await;
}

#[tokio::test]
async fn failures_move_on_and_are_reported_if_nobody_does_better() {
    local(async {
        let fail = |rcode| Upstream::start(move |query, _| vec![React::Reply(reply(query, rcode))]);
        let servfail = fail(ResponseCode::ServFail).await;
        let refused = fail(ResponseCode::Refused).await;
        let good = Upstream::start(web).await;
        let upstreams = [servfail.addr, refused.addr, good.addr];
        let answer = forwarder(&upstreams).resolve(&key("web.test")).await;
        assert_eq!(shown(&answer.unwrap()), WEB);
        let alone = forwarder(&upstreams[..1]);
        let answer = alone.resolve(&key("web.test")).await.unwrap();
        assert_eq!(shown(&answer), ["SERVFAIL"]);
        // Once before, and at most twice now.
        assert_eq!(servfail.seen().len(), 3);
    })
    .await;
}

#[tokio::test]
async fn reliability_b29_names_are_asked_in_random_case() {
    local(async {
        let upstream = Upstream::start(web).await;
        let forwarder = forwarder(&[upstream.addr]);
        for n in 0..20 {
            let name = format!("a-name-with-letters-{n}.test");
            let answer = forwarder.resolve(&key(&name)).await.unwrap();
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
        let forwarder = forwarder(&[upstream.addr]);
        for n in 0..3 {
            let name = format!("a-name-with-letters-{n}.test");
            let answer = forwarder.resolve(&key(&name)).await.unwrap();
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
        let forwarder = forwarder(&[upstream.addr]);
        let answer = forwarder.resolve(&key("web.test")).await.unwrap();
        assert_eq!(shown(&answer), WEB);
        forwarder.resolve(&key("other.test")).await.unwrap();
        assert_eq!(upstream.seen().len(), 3);
    })
    .await;
}
