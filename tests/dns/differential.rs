//! Ours and CoreDNS on the same API server, with the same configuration, asked the same.

use std::collections::BTreeMap;
use std::time::Instant;

use sealane_test_kubernetes::{COREDNS_VERSION, ControlPlane, Options, Unavailable, coredns};
use serde_json::Value;

use crate::allowed::{self, Case};
use crate::api::Api;
use crate::client::{Client, Transport};
use crate::compare::{Part, differences};
use crate::servers::{Server, Settings};
use crate::support::{control_plane, outer_address, skip};
use crate::wire::{Query, Reply, flag};
use crate::{objects, questions, upstream};

/// Differences that are printed.
const SHOWN: usize = 20;

#[tokio::test(flavor = "multi_thread")]
async fn dns_answers_as_coredns_does() {
    let begun = Instant::now();
    let program = match coredns() {
        Ok(program) => program,
        Err(Unavailable(reason)) => return skip(&reason),
    };
    let options = Options {
        service_cidr: "10.96.0.0/16,fd00:10:96::/112".to_owned(),
        ..Options::default()
    };
    let Some(mut plane) = control_plane(options).await else {
        return;
    };
    let services = populate(&plane).await;
    // A node that nobody reports for would lose its pods.
    plane.stop_controllers();
    eprintln!("objects after {:?}", begun.elapsed());
    let upstream = upstream::start();
    let upstreams = [upstream];
    let settings = Settings::new(plane.kubeconfig(), &upstreams);
    let with_compat = Settings {
        flags: &["--compat=coredns"],
        ..settings.clone()
    };
    let directory = plane.directory();
    let mut theirs = Server::coredns(&program, directory, &settings);
    let mut ours = Server::sealane(directory, &settings);
    let mut compatible = Server::sealane(directory, &with_compat);
    tokio::task::block_in_place(|| {
        theirs.until_answers(objects::LAST);
        ours.until_answers(objects::LAST);
        compatible.until_answers(objects::LAST);
        eprintln!("all know everything after {:?}", begun.elapsed());
        compare(&questions::all(&services, 6), &ours, &theirs, false);
        compare(&questions::all(&services, 7), &compatible, &theirs, true);
    });
    eprintln!("compared after {:?}", begun.elapsed());
}

/// Writes everything; returns the Services as they are then.
async fn populate(plane: &ControlPlane) -> Value {
    let api = Api::new(plane.client());
    for object in objects::all(outer_address()) {
        api.create(&object).await;
    }
    for object in objects::selected() {
        api.create(&object).await;
    }
    for (index, (name, is_ready)) in objects::PODS.into_iter().enumerate() {
        let status = objects::pod_status(index, is_ready);
        api.pod_status(objects::NAMESPACE, name, &status).await;
    }
    // The kubelet that would end it is not there, so it stays, terminating.
    let pod = format!("/api/v1/namespaces/{}/pods/db-2", objects::NAMESPACE);
    api.delete(&pod).await;
    for service in ["db", "db-early"] {
        let path = format!(
            "/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices?labelSelector=kubernetes.io/service-name={service}",
            objects::NAMESPACE
        );
        api.until(&path, |list| {
            let endpoints = &list["items"][0]["endpoints"];
            let endpoints = endpoints.as_array().map_or(&[][..], Vec::as_slice);
            let of = |pod: &str| {
                let mut found = endpoints.iter();
                found.find(|endpoint| endpoint["targetRef"]["name"] == pod)
            };
            let early = service == "db-early";
            let is = |pod: &str, ready: bool| {
                of(pod).is_some_and(|endpoint| endpoint["conditions"]["ready"] == ready)
            };
            is("db-0", true)
                && is("db-1", early)
                && of("db-2").is_some_and(|it| it["conditions"]["terminating"] == true)
        })
        .await;
    }
    for object in objects::last() {
        api.create(&object).await;
    }
    api.get("/api/v1/services").await
}

/// Asks both everything over both transports, and fails with what no entry explains and with the
/// entries that explained nothing.
fn compare(queries: &[Query], ours: &Server, theirs: &Server, compat: bool) {
    let mut clients = [Client::new(ours.addr), Client::new(theirs.addr)];
    let mut used: BTreeMap<usize, usize> = BTreeMap::new();
    let mut unexplained = Vec::new();
    let mut asked = 0;
    for transport in [Transport::Udp, Transport::Tcp] {
        for query in queries {
            asked += 1;
            let [ours, theirs] = [0, 1].map(|index: usize| clients[index].ask(query, transport));
            let (Ok(ours), Ok(theirs)) = (&ours, &theirs) else {
                unexplained.push(format!("{transport:?} {query}: {ours:?} {theirs:?}"));
                continue;
            };
            let parts = differences(ours, theirs);
            let case = Case {
                query,
                transport,
                ours,
                theirs,
            };
            match allowed::explain(&case, &parts, compat) {
                Some(entries) => entries
                    .into_iter()
                    .for_each(|entry| *used.entry(entry).or_default() += 1),
                None => unexplained.push(shown(&case, &parts)),
            }
            check_truncated(&mut clients[0], query, ours);
        }
    }
    eprintln!("{asked} replies compared with CoreDNS {COREDNS_VERSION}; on purpose different:");
    for (index, entry) in allowed::LIST.iter().enumerate() {
        let count = used.get(&index).copied().unwrap_or_default();
        eprintln!("  {:4} {}: {}", count, entry.row, entry.why);
        if count == 0 && (entry.must_be(compat)) {
            unexplained.push(format!("nothing differs by {}: {}", entry.row, entry.why));
        }
    }
    let count = unexplained.len();
    let file = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("dns-differences.txt");
    std::fs::write(&file, unexplained.join("\n")).unwrap();
    unexplained.truncate(SHOWN);
    assert!(
        count == 0,
        "{count} differences:\n{}",
        unexplained.join("\n")
    );
}

/// What is left of a truncated reply is part of the whole.
fn check_truncated(client: &mut Client, query: &Query, truncated: &Reply) {
    if !truncated.has(flag::TC) || truncated.answer.is_empty() {
        return;
    }
    let whole = client.ask(query, Transport::Tcp).unwrap();
    for record in &truncated.answer {
        assert!(whole.answer.contains(record), "{query}: {record}");
    }
}

fn shown(case: &Case<'_>, parts: &std::collections::BTreeSet<Part>) -> String {
    let Case {
        query,
        transport,
        ours,
        theirs,
    } = case;
    format!("{transport:?} {query}: {parts:?}\n    ours   {ours}\n    theirs {theirs}")
}
