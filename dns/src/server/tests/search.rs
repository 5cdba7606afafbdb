//! Search paths, and what is answered at once.

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use sealane_config::model::Pod;

use super::*;
use crate::config::AutopathSettings;
use crate::testing::World;
use crate::testing::upstream::{React, address, negative, reply, web};

/// A cluster in which the tests are pod `web-0` of `testns`, and there is a Service `db`.
fn with_pod(host_network: bool) -> Snapshot {
    let mut snapshot = World::new()
        .cluster_ip("db", &["10.96.0.7"], &["pg/tcp/5432"])
        .build();
    let pod = Pod {
        namespace: "testns".into(),
        name: "web-0".into(),
        host_network,
    };
    let list = [pod].into();
    snapshot.pods.insert_mut([127, 0, 0, 1].into(), list);
    snapshot
}

fn following(upstream: &Upstream) -> DnsConfig {
    let mut config = forwarding_to(upstream);
    let block = Arc::make_mut(&mut config.blocks[0]);
    block.plugins.autopath = Some(AutopathSettings {
        zones: vec!["cluster.local".parse().unwrap()],
        host_search: vec!["lan.test".parse().unwrap()],
    });
    config
}

const ASKED: &str = "web.test.testns.svc.cluster.local.";

#[tokio::test]
async fn dns_q1_autopath_finds_the_name_with_one_query() {
    local(async {
        let upstream = Upstream::start(web).await;
        let server = Running::start(with_pod(false), following(&upstream)).await;
        for round in ["fetched", "from the cache"] {
            let alias = format!("{ASKED} 60 IN CNAME web.test.");
            let expected = ["NOERROR", &alias, "web.test. 60 IN A 10.1.2.3"];
            assert_eq!(lines(&server.ask(ASKED, "A").await), expected, "{round}");
            let found = lines(&server.ask(ASKED, "AAAA").await);
            let alias = format!("{ASKED} 300 IN CNAME web.test.");
            assert_eq!(
                found[..2],
                ["NOERROR", &alias],
                "{round}: ends where A does"
            );
        }
        let asked: Vec<String> = upstream
            .seen()
            .into_iter()
            .map(|seen| seen.name.to_lowercase())
            .collect();
        let lan = asked.iter().filter(|name| *name == "web.test.lan.test.");
        let plain = asked.iter().filter(|name| *name == "web.test.");
        assert_eq!(
            (lan.count(), plain.count(), asked.len()),
            (2, 2, 4),
            "{asked:?}"
        );
        let service = server.ask("db.testns.svc.cluster.local.", "A").await;
        let expected = ["NOERROR", "db.testns.svc.cluster.local. 30 IN A 10.96.0.7"];
        assert_eq!(lines(&service), expected);
        let alias = "db.testns.testns.svc.cluster.local.";
        let found = lines(&server.ask(alias, "A").await);
        let expected = format!("{alias} 30 IN CNAME db.testns.svc.cluster.local.");
        assert_eq!(found[1], expected);
        assert_eq!(upstream.seen().len(), 4, "names of the cluster stay here");
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn dns_q1_autopath_is_not_for_others() {
    Box::pin(local(async {
        let upstream = Upstream::start(web).await;
        for snapshot in [with_pod(true), World::new().build()] {
            let server = Running::start(snapshot, following(&upstream)).await;
            let found = server.ask(ASKED, "A").await;
            assert_eq!(found.metadata.response_code, ResponseCode::NXDomain);
            server.stop().await;
        }
        let server = Running::start(with_pod(false), forwarding_to(&upstream)).await;
        let found = server.ask(ASKED, "A").await;
        assert_eq!(found.metadata.response_code, ResponseCode::NXDomain, "off");
        assert!(upstream.seen().is_empty());
        server.stop().await;
    }))
    .await;
}

#[tokio::test]
async fn dns_q1_autopath_does_not_believe_that_a_name_with_an_address_is_missing() {
    local(async {
        let upstream = Upstream::start(|query, _| {
            let asked = &query.queries[0];
            let found = asked.name.to_lowercase().to_ascii() == "web.test.";
            vec![React::Reply(match (found, asked.query_type) {
                (true, RecordType::A) => address(query, 3),
                _ => negative(query, ResponseCode::NXDomain),
            })]
        })
        .await;
        let server = Running::start(with_pod(false), following(&upstream)).await;
        assert_eq!(lines(&server.ask(ASKED, "A").await).len(), 3);
        let found = lines(&server.ask(ASKED, "AAAA").await);
        let alias = format!("{ASKED} 300 IN CNAME web.test.");
        assert_eq!(found[..2], ["NOERROR", &alias]);
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn dns_q1_autopath_ends_at_a_failure_or_with_the_first_answer() {
    local(async {
        for (case, of_lan, expected) in [
            ("a failure", ResponseCode::ServFail, ResponseCode::ServFail),
            ("nothing", ResponseCode::NXDomain, ResponseCode::NXDomain),
        ] {
            let upstream = Upstream::start(move |query, _| {
                let lan = query.queries[0]
                    .name
                    .to_lowercase()
                    .to_ascii()
                    .ends_with("lan.test.");
                let rcode = match lan {
                    true => of_lan,
                    false => ResponseCode::NXDomain,
                };
                vec![React::Reply(reply(query, rcode))]
            })
            .await;
            let server = Running::start(with_pod(false), following(&upstream)).await;
            let found = server.ask(ASKED, "A").await;
            assert_eq!(found.metadata.response_code, expected, "{case}");
            assert!(found.answers.is_empty(), "{case}");
            if expected == ResponseCode::NXDomain {
                let soa = &found.authorities[0];
                assert_eq!(
                    soa.name.to_ascii(),
                    "cluster.local.",
                    "the answer for the first"
                );
            }
            server.stop().await;
        }
    })
    .await;
}

#[tokio::test]
async fn dns_cache_a_hit_is_answered_at_once() {
    local(async {
        let upstream = Upstream::start(web).await;
        let (_publisher, server) = server(World::new().build(), forwarding_to(&upstream));
        let front = server.front(Listener::CLUSTER);
        let client = "127.0.0.1:4000".parse().unwrap();
        let mut out = Vec::new();
        let first = query("web.test.", "A").to_vec().unwrap();
        match front.start(&first, client, Transport::Udp, &mut out) {
            Step::Later(later) => front.finish(later, &mut out).await,
            Step::Silence | Step::Replied(..) => panic!("nothing is known yet"),
        }
        let expected = lines(&Message::from_vec(&out).unwrap());
        out.clear();
        let again = query("web.test.", "A").to_vec().unwrap();
        let step = front.start(&again, client, Transport::Udp, &mut out);
        assert!(matches!(step, Step::Replied(..)), "no task");
        let again = Message::from_vec(&out).unwrap();
        assert_eq!(lines(&again), expected);
        assert!(!again.metadata.authoritative && again.metadata.recursion_available);
        assert_eq!(upstream.seen().len(), 1);
    })
    .await;
}
