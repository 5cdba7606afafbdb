//! A new server takes over from one that ends, on the same address.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use nix::sys::signal::Signal;
use sealane_test_kubernetes::free_port;
use serde_json::json;

use crate::client::{Client, Transport};
use crate::embedded::Embedded;
use crate::objects::{NAMESPACE, service};
use crate::servers::{Server, Settings};
use crate::support::{DEADLINE, until};
use crate::wire::{Query, kind, rcode};

/// Queries that are asked at least.
const QUERIES: usize = 100_000;
/// Times that a new server takes over.
const TAKEOVERS: usize = 3;
/// Clients that ask at once, each from many ports, so that the kernel deals them to all sockets.
const CLIENTS: usize = 4;
const PORTS: usize = 32;

/// The fourth complaint: no query is lost, and none fails, while servers follow one another.
#[tokio::test(flavor = "multi_thread")]
async fn dns_f4_no_query_of_100_000_is_lost_over_sigterm_and_takeover() {
    let embedded = Embedded::here().await;
    let namespace =
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    embedded.api.create(&namespace).await;
    let web = service("web", json!({"ports": [{"name": "http", "port": 80}]}));
    embedded.api.create(&web).await;
    let settings = Settings {
        port: Some(free_port()),
        flags: &["--take-over"],
        ..Settings::new(&embedded.kubeconfig, &[])
    };
    let directory = embedded.directory.path();
    tokio::task::block_in_place(|| {
        let mut server = Server::sealane(directory, &settings);
        server.until_ready();
        let asking = Arc::new(AtomicBool::new(true));
        let answered = Arc::new(AtomicUsize::new(0));
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                let (asking, answered) = (Arc::clone(&asking), Arc::clone(&answered));
                let addr = server.addr;
                std::thread::spawn(move || ask(addr, &asking, &answered))
            })
            .collect();
        let begun = Instant::now();
        for takeover in 1..=TAKEOVERS {
            let mut next = Server::sealane(directory, &settings);
            next.until_ready();
            server.process().signal(Signal::SIGTERM).unwrap();
            until("the old server has ended", || {
                match server.process().check() {
                    Ok(()) => Err("it runs".to_owned()),
                    Err(ended) if ended.to_string().contains("exit status: 0") => Ok(()),
                    Err(ended) => panic!("{ended}"),
                }
            });
            server = next;
            let wanted = QUERIES * takeover / TAKEOVERS;
            until("enough queries", || {
                let lives = clients.iter().all(|client| !client.is_finished());
                let count = answered.load(Ordering::Relaxed);
                if count >= wanted || !lives {
                    return Ok(());
                }
                Err(format!("{count} answered"))
            });
        }
        asking.store(false, Ordering::Relaxed);
        let lost: Vec<String> = clients
            .into_iter()
            .flat_map(|client| client.join().unwrap())
            .collect();
        let count = answered.load(Ordering::Relaxed);
        eprintln!(
            "{count} queries over {TAKEOVERS} takeovers in {:?}",
            begun.elapsed()
        );
        assert!(
            lost.is_empty(),
            "{} of {count} lost: {:?}",
            lost.len(),
            lost.first()
        );
        assert!(count >= QUERIES, "{count}");
    });
}

/// Asks until it is told to stop; what was not answered as it should.
fn ask(addr: SocketAddr, asking: &AtomicBool, answered: &AtomicUsize) -> Vec<String> {
    let query = Query::new(&format!("web.{NAMESPACE}.svc.cluster.local"), kind::A);
    let mut clients: Vec<Client> = (0..PORTS).map(|_| Client::new(addr)).collect();
    let end = Instant::now() + DEADLINE;
    let mut lost = Vec::new();
    while asking.load(Ordering::Relaxed) && Instant::now() < end {
        for client in &mut clients {
            match client.ask(&query, Transport::Udp) {
                Ok(reply) if reply.rcode == rcode::NOERROR && reply.answer.len() == 1 => {
                    answered.fetch_add(1, Ordering::Relaxed);
                }
                Ok(reply) => lost.push(reply.to_string()),
                Err(error) => lost.push(error),
            }
        }
    }
    lost
}
