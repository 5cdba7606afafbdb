//! Endpoints that move between EndpointSlices never lose their names.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::client::{Client, Transport};
use crate::embedded::Embedded;
use crate::objects::{NAMESPACE, headless, host, slice};
use crate::servers::{Server, Settings};
use crate::support::Numbers;
use crate::wire::{Query, kind, rcode};

const SLICES: usize = 100;
/// Endpoints of a slice at the start.
const EACH: usize = 50;
/// Endpoints that change places in a step.
const MOVED: usize = 20;
/// Clients that ask meanwhile.
const CLIENTS: u64 = 2;

/// B12 and the second complaint: 5,000 endpoints in 100 slices are dealt anew, in either order of
/// the two halves of a move, while clients ask for each of them and for all.
#[tokio::test(flavor = "multi_thread")]
async fn dns_b12_f2_no_name_is_missing_while_5000_endpoints_move_between_100_slices() {
    let embedded = Embedded::here().await;
    let namespace =
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    embedded.api.create(&namespace).await;
    embedded.api.create(&headless("big", &["IPv4"])).await;
    let mut slices: Vec<Vec<Value>> = (0..SLICES).map(endpoints).collect();
    for (index, endpoints) in slices.iter().enumerate() {
        embedded.api.create(&object(index, endpoints)).await;
    }
    let settings = Settings::new(&embedded.kubeconfig, &[]);
    let mut server = Server::sealane(embedded.directory.path(), &settings);
    tokio::task::block_in_place(|| server.until_ready());
    let last = format!("h{}.big.{NAMESPACE}.svc.cluster.local", SLICES * EACH - 1);
    tokio::task::block_in_place(|| server.until_answers(&last));
    let moving = Arc::new(AtomicBool::new(true));
    let asked = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|seed| {
            let (moving, asked, addr) = (Arc::clone(&moving), Arc::clone(&asked), server.addr);
            std::thread::spawn(move || ask(addr, seed, &moving, &asked))
        })
        .collect();
    let mut numbers = Numbers(12);
    for step in 0..SLICES {
        let from = step;
        let to = (step + 1 + numbers.below(SLICES - 1)) % SLICES;
        let moved: Vec<Value> = slices[from].drain(..MOVED).collect();
        slices[to].extend(moved);
        let (less, more) = (object(from, &slices[from]), object(to, &slices[to]));
        // The halves arrive as near to each other as a controller writes them, in either order.
        match step % 2 {
            0 => tokio::join!(embedded.api.replace(&less), embedded.api.replace(&more)),
            _ => tokio::join!(embedded.api.replace(&more), embedded.api.replace(&less)),
        };
    }
    moving.store(false, Ordering::Relaxed);
    for client in clients {
        client.join().unwrap();
    }
    let asked = asked.load(Ordering::Relaxed);
    eprintln!("{asked} queries while {} endpoints moved", SLICES * MOVED);
    assert!(asked > SLICES, "too few queries to see anything: {asked}");
}

fn endpoints(slice: usize) -> Vec<Value> {
    let numbers = slice * EACH..(slice + 1) * EACH;
    numbers
        .map(|number| {
            let address = format!(
                "10.{}.{}.{}",
                100 + number / 2500,
                number / 50 % 50,
                number % 50 + 1
            );
            host(&address, &format!("h{number}"))
        })
        .collect()
}

fn object(index: usize, endpoints: &[Value]) -> Value {
    let ports = json!([{"name": "http", "port": 80, "protocol": "TCP"}]);
    slice("big", &index.to_string(), "IPv4", &ports, endpoints)
}

fn ask(addr: std::net::SocketAddr, seed: u64, moving: &AtomicBool, asked: &AtomicUsize) {
    let mut client = Client::new(addr);
    let mut numbers = Numbers(seed);
    while moving.load(Ordering::Relaxed) {
        let host = match numbers.below(10) {
            0 => String::new(),
            _ => format!("h{}.", numbers.below(SLICES * EACH)),
        };
        let query = Query::new(&format!("{host}big.{NAMESPACE}.svc.cluster.local"), kind::A);
        let reply = client.ask(&query, Transport::Udp).unwrap();
        assert_eq!(reply.rcode, rcode::NOERROR, "{query}: {reply}");
        assert!(!reply.answer.is_empty(), "{query}: {reply}");
        asked.fetch_add(1, Ordering::Relaxed);
    }
}
