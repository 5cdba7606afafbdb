use std::collections::HashSet;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{RData, Record, RecordType, rdata};

use super::*;
use crate::testing::World;
use crate::testing::upstream::{React, Upstream, reply, slow_web, web};

fn services(names: &[&str]) -> Snapshot {
    let mut world = World::new();
    for name in names {
        world = world.cluster_ip(name, &["10.0.0.1"], &["http/tcp/80"]);
    }
    world.build()
}

const SVC1: &str = "svc1.testns.svc.cluster.local.";

#[tokio::test]
async fn dns_n1_other_names_are_forwarded_before_sync() {
    local(async {
        let upstream = Upstream::start(web).await;
        let snapshot = World::new().not_synced().build();
        let server = Running::start(snapshot, forwarding_to(&upstream)).await;
        let found = server.ask("web.test.", "A").await;
        assert_eq!(lines(&found), ["NOERROR", "web.test. 60 IN A 10.1.2.3"]);
        let not_ready = with_edns(query(SVC1, "A"), 1232);
        let found = ask_at(server.udp, &not_ready).await;
        assert_eq!(found.metadata.response_code, ResponseCode::ServFail);
        let edns = found.edns.unwrap();
        let error = rdata::opt::EdnsCode::Unknown(15);
        assert!(edns.option(error).is_some(), "{edns:?}");
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn dns_n2_bound_before_sync_it_fails_and_then_answers() {
    local(async {
        let mut server = Running::start(Snapshot::default(), DnsSettings::default()).await;
        let found = server.ask(SVC1, "A").await;
        assert_eq!(found.metadata.response_code, ResponseCode::ServFail);
        server.publisher.publish(services(&["svc1"]));
        let found = server.ask(SVC1, "A").await;
        assert_eq!(
            lines(&found),
            ["NOERROR", &format!("{SVC1} 30 IN A 10.0.0.1")]
        );
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn dns_n3_what_is_published_is_answered_at_once() {
    local(async {
        let mut server = Running::start(services(&[]), DnsSettings::default()).await;
        for _ in 0..3 {
            let found = server.ask(SVC1, "A").await;
            assert_eq!(found.metadata.response_code, ResponseCode::NXDomain);
            server.publisher.publish(services(&["svc1"]));
            let found = server.ask(SVC1, "A").await;
            assert_eq!(found.metadata.response_code, ResponseCode::NoError);
            server.publisher.publish(services(&[]));
        }
        // The last state is served on when its source is gone.
        server.publisher.publish(services(&["svc1"]));
        let (gone, _reader) = snapshot::channel();
        drop(std::mem::replace(&mut server.publisher, gone));
        assert_eq!(server.ask(SVC1, "A").await.answers.len(), 1);
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn dns_q3_cluster_names_are_never_forwarded() {
    local(async {
        let upstream = Upstream::start(web).await;
        let server = Running::start(services(&["svc1"]), forwarding_to(&upstream)).await;
        for name in [
            "google.com.testns.svc.cluster.local.",
            "google.com.svc.cluster.local.",
            "google.com.cluster.local.",
            "a.b.c.d.e.f.CLUSTER.local.",
            "1-2-3-4.nope.pod.cluster.local.",
        ] {
            for record_type in ["A", "AAAA", "ANY", "DS"] {
                let found = server.ask(name, record_type).await;
                assert_eq!(
                    found.metadata.response_code,
                    ResponseCode::NXDomain,
                    "{name}"
                );
                assert!(found.metadata.authoritative && !found.metadata.recursion_available);
            }
        }
        assert!(upstream.seen().is_empty());
        server.ask("google.com.", "A").await;
        assert_eq!(upstream.seen().len(), 1);
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn dns_r4_unknown_addresses_are_forwarded() {
    local(async {
        let upstream = Upstream::start(web).await;
        let server = Running::start(services(&["svc1"]), forwarding_to(&upstream)).await;
        let known = server.ask("1.0.0.10.in-addr.arpa.", "PTR").await;
        assert_eq!(known.answers.len(), 1);
        assert!(upstream.seen().is_empty());
        let unknown = server.ask("8.8.8.8.in-addr.arpa.", "PTR").await;
        assert_eq!(unknown.metadata.response_code, ResponseCode::NXDomain);
        assert!(unknown.metadata.recursion_available && !unknown.metadata.authoritative);
        assert_eq!(
            upstream.seen()[0].name.to_lowercase(),
            "8.8.8.8.in-addr.arpa."
        );
        server.stop().await;
    })
    .await;
}

fn aliases() -> Snapshot {
    World::new()
        .external("ext", "Web.test")
        .external("gone", "gone.test")
        .external("broken", "broken.test")
        .build()
}

#[tokio::test]
async fn dns_e1_aliases_are_completed_by_the_upstream() {
    local(async {
        let upstream = Upstream::start(web).await;
        let server = Running::start(aliases(), forwarding_to(&upstream)).await;
        for from in ["upstream", "cache"] {
            let found = server.ask("Ext.testns.svc.cluster.local.", "A").await;
            let expected = [
                "NOERROR",
                "Ext.testns.svc.cluster.local. 30 IN CNAME Web.test.",
                "Web.test. 60 IN A 10.1.2.3",
            ];
            assert_eq!(lines(&found), expected, "from {from}");
            assert!(found.metadata.authoritative, "from {from}");
        }
        assert_eq!(upstream.seen().len(), 1);
        server.ask("ext.testns.svc.cluster.local.", "CNAME").await;
        assert_eq!(upstream.seen().len(), 1);
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn dns_e5_the_code_is_that_of_the_last_name() {
    local(async {
        let upstream = Upstream::start(|query, tcp| {
            if query.queries[0].name.to_lowercase().to_string() == "broken.test." {
                return vec![React::Reply(reply(query, ResponseCode::ServFail))];
            }
            web(query, tcp)
        })
        .await;
        let server = Running::start(aliases(), forwarding_to(&upstream)).await;
        let soa = "@test. 300 IN SOA test. test. 1 2 3 4 300";
        let ask = async |name: &str, record_type| {
            let name = format!("{name}.testns.svc.cluster.local.");
            lines(&server.ask(&name, record_type).await)
        };
        let gone = "gone.testns.svc.cluster.local. 30 IN CNAME gone.test.";
        assert_eq!(ask("gone", "A").await, ["NXDOMAIN", gone, soa]);
        let other_family = ask("ext", "AAAA").await;
        assert_eq!((&*other_family[0], &*other_family[2]), ("NOERROR", soa));
        assert_eq!(ask("broken", "A").await[0], "SERVFAIL");
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn dns_x1_transfers_are_refused() {
    local(async {
        let server = Running::start(services(&["svc1"]), DnsSettings::default()).await;
        for record_type in [RecordType::AXFR, RecordType::IXFR] {
            let mut message = query("cluster.local.", "SOA");
            message.queries[0].query_type = record_type;
            let found = ask_at(server.udp, &message).await;
            assert_eq!(found.metadata.response_code, ResponseCode::Refused);
            let found = connections::ask(server.tcp, &message.to_vec().unwrap()).await;
            assert_eq!(found.metadata.response_code, ResponseCode::Refused);
            assert!(found.answers.is_empty());
        }
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn dns_k1_the_question_is_echoed_bit_for_bit() {
    local(async {
        let upstream = Upstream::start(web).await;
        let server = Running::start(services(&["svc1"]), forwarding_to(&upstream)).await;
        for name in [
            "SvC1.tEsTnS.svc.Cluster.LOCAL.",
            "wEb.TeSt.",
            "WEB.test.",
            "nOpe.test.",
        ] {
            let socket = client(server.udp).await;
            let message = query(name, "A").to_vec().unwrap();
            socket.send(&message).await.unwrap();
            let reply = receive(&socket).await;
            assert_eq!(reply[12..message.len()], message[12..], "{name}");
            let owner = Message::from_vec(&reply)
                .unwrap()
                .answers
                .first()
                .map(|a| a.name.clone());
            assert!(
                owner.is_none_or(|owner| owner.to_string() == name),
                "{name}"
            );
        }
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn reliability_b28_strangers_get_no_recursion() {
    local(async {
        let upstream = Upstream::start(web).await;
        let (_publisher, server) = server(services(&["svc1"]), forwarding_to(&upstream));
        let front = server.front(Listener::CLUSTER);
        let start = |name, client: &str| {
            let message = query(name, "A").to_vec().unwrap();
            let mut out = Vec::new();
            let client = SocketAddr::new(client.parse().unwrap(), 4321);
            let step = front.start(&message, client, Transport::Udp, &mut out);
            match step {
                Step::Replied(..) => Some(Message::from_vec(&out).unwrap().metadata.response_code),
                Step::Later(_) => None,
                Step::Silence => panic!("silence"),
            }
        };
        assert_eq!(
            start("web.test.", "203.0.113.9"),
            Some(ResponseCode::Refused)
        );
        assert_eq!(start("web.test.", "10.244.0.7"), None);
        assert_eq!(start(SVC1, "203.0.113.9"), Some(ResponseCode::NoError));
    })
    .await;
}

#[tokio::test]
async fn reliability_b28_large_answers_are_cut_over_udp_and_whole_over_tcp() {
    local(async {
        let addrs: Vec<String> = (0..2000)
            .map(|n| format!("10.1.{}.{}", n / 250, n % 250))
            .collect();
        let addrs: Vec<&str> = addrs.iter().map(String::as_str).collect();
        let snapshot = World::new().headless("hdls", &["a/tcp/1"], &addrs).build();
        let server = Running::start(snapshot, DnsSettings::default()).await;
        let message = with_edns(query("hdls.testns.svc.cluster.local.", "A"), 4096);
        let mut parts = HashSet::new();
        for _ in 0..3 {
            let found = ask_at(server.udp, &message).await;
            assert!(found.metadata.truncation && found.answers.len() > 60);
            parts.insert(lines(&found));
        }
        assert_eq!(parts.len(), 3, "each time another part");
        let whole = connections::ask(server.tcp, &message.to_vec().unwrap()).await;
        assert!(!whole.metadata.truncation);
        let distinct: HashSet<String> = lines(&whole).into_iter().collect();
        assert_eq!(distinct.len(), 2001);
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn addresses_come_in_random_order_after_aliases() {
    local(async {
        let upstream = Upstream::start(|query, _| {
            let mut message = reply(query, ResponseCode::NoError);
            let name = query.queries[0].name.clone();
            let cdn = TheirName::from_ascii("cdn.test.").unwrap();
            let alias = RData::CNAME(rdata::CNAME(cdn.clone()));
            message.add_answer(Record::from_rdata(name, 60, alias));
            for last in 1..=8 {
                let data = RData::A(rdata::A::new(10, 0, 0, last));
                message.add_answer(Record::from_rdata(cdn.clone(), 60, data));
            }
            vec![React::Reply(message)]
        })
        .await;
        let server = Running::start(services(&[]), forwarding_to(&upstream)).await;
        let mut orders = HashSet::new();
        for _ in 0..10 {
            let found = lines(&server.ask("www.test.", "A").await);
            assert_eq!(found[1], "www.test. 60 IN CNAME cdn.test.");
            assert_eq!(found.len(), 10);
            orders.insert(found);
        }
        assert!(orders.len() > 5, "{} orders of 10", orders.len());
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn replies_come_from_the_address_that_was_asked() {
    local(async {
        for (wildcard, asked) in [
            ("0.0.0.0:0", &["127.0.0.1", "127.0.0.2"][..]),
            ("[::]:0", &["::1"]),
        ] {
            // A machine without IPv6 has nothing to check there.
            let Ok(socket) = bind_udp(wildcard.parse().unwrap()) else {
                continue;
            };
            let port = socket.local_addr().unwrap().port();
            let upstream = Upstream::start(web).await;
            let (_publisher, server) = server(services(&["svc1"]), forwarding_to(&upstream));
            let shutdown = CancellationToken::new();
            let stop = shutdown.clone();
            let task =
                spawn_local(async move { server.serve_udp(Listener::CLUSTER, socket, stop).await });
            for ip in asked {
                let addr = SocketAddr::new(ip.parse().unwrap(), port);
                let any = if addr.is_ipv4() {
                    "0.0.0.0:0"
                } else {
                    "[::]:0"
                };
                let client = UdpSocket::bind(any).await.unwrap();
                if client.connect(addr).await.is_err() {
                    continue;
                }
                for name in [SVC1, "web.test."] {
                    client
                        .send(&query(name, "A").to_vec().unwrap())
                        .await
                        .unwrap();
                    let found = Message::from_vec(&receive(&client).await).unwrap();
                    assert_eq!(found.answers.len(), 1, "{name} at {addr}");
                }
            }
            shutdown.cancel();
            timeout(DEADLINE, task).await.unwrap().unwrap().unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn dns_f4_shutdown_answers_what_has_arrived_once() {
    local(async {
        let upstream = Upstream::start(slow_web(100)).await;
        let (_publisher, server) = server(services(&["svc1"]), forwarding_to(&upstream));
        let socket = bind_udp("127.0.0.1:0".parse().unwrap()).unwrap();
        let client = client(socket.local_addr().unwrap()).await;
        for n in 0..100 {
            let name = if n % 10 == 0 { "web.test." } else { SVC1 };
            client
                .send(&query(name, "A").to_vec().unwrap())
                .await
                .unwrap();
        }
        let shutdown = CancellationToken::new();
        shutdown.cancel();
        server
            .serve_udp(Listener::CLUSTER, socket, shutdown)
            .await
            .unwrap();
        for n in 0..100 {
            let reply = Message::from_vec(&receive(&client).await).unwrap();
            assert_eq!(reply.answers.len(), 1, "reply {n}");
        }
        // A reply too many would take the place of one that a client waits for.
        let more = client.try_recv(&mut [0; 512]).map_err(|e| e.kind());
        assert_eq!(more, Err(io::ErrorKind::WouldBlock));
    })
    .await;
}
