//! Rules that change while clients ask.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use sealane_proxy::testing::{Origin, RawClient};
use tokio::task::{JoinHandle, spawn_local, yield_now};
use tokio::time::timeout;

use crate::manifests::Manifests;
use crate::support::{Edge, on_worker};

const HOST: &str = "shop.test";

/// Clients that ask without a pause, on connections that they keep and on new ones.
struct Load {
    answers: Rc<Cell<usize>>,
    /// Answers other than 200.
    failed: Rc<RefCell<Vec<String>>>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    fn start(edge: &Edge) -> Self {
        let (answers, failed) = (Rc::default(), Rc::default());
        let clients = (0..4).map(|number| {
            let (answers, failed) = (Rc::clone(&answers), Rc::clone(&failed));
            spawn_local(ask_on(edge.http, number % 2 == 0, answers, failed))
        });
        Self {
            clients: clients.collect(),
            answers,
            failed,
        }
    }

    /// Waits until all clients have asked since what was changed last.
    async fn go_on(&self) {
        let enough = self.answers.get() + 4 * self.clients.len();
        let wait = async {
            while self.answers.get() < enough {
                yield_now().await;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let waited = timeout(Duration::from_secs(30), wait).await;
        assert!(waited.is_ok(), "clients go on: {:?}", self.failed.borrow());
    }

    /// Ends, and tells what failed.
    fn finish(self) -> Vec<String> {
        for client in &self.clients {
            client.abort();
        }
        self.failed.take()
    }
}

async fn ask_on(
    addr: std::net::SocketAddr,
    keeps: bool,
    answers: Rc<Cell<usize>>,
    failed: Rc<RefCell<Vec<String>>>,
) {
    let mut client = RawClient::connect(addr).await;
    loop {
        client
            .send(format!("GET /a/b HTTP/1.1\r\nHost: {HOST}\r\n\r\n"))
            .await;
        match client.try_response(false).await {
            Some(answer) if answer.status == 200 => {}
            Some(answer) => {
                let why = answer.header("sealane-error");
                failed.borrow_mut().push(format!("{} {why}", answer.status));
            }
            None => failed.borrow_mut().push("closed".to_owned()),
        }
        answers.set(answers.get() + 1);
        if !keeps {
            client = RawClient::connect(addr).await;
        }
    }
}

#[tokio::test]
async fn ingress_u6_rules_that_are_edited_and_moved_lose_no_request() {
    on_worker(Box::pin(async {
        let (old, new) = (Origin::named("old").await, Origin::named("new").await);
        let mut edge = Edge::new().await;
        let mut manifests = Manifests::compat();
        manifests.service("old", old.addr);
        manifests.ingress("site", &[], HOST, &[("Prefix", "/", "old")]);
        manifests.publish(&mut edge);
        let load = Load::start(&edge);
        load.go_on().await;
        for round in 0..10 {
            // The Service that takes over is there, with endpoints, before the rule names it.
            let (from, to, addr) = match round % 2 {
                0 => ("old", "new", new.addr),
                _ => ("new", "old", old.addr),
            };
            manifests.service(to, addr);
            manifests.publish(&mut edge);
            load.go_on().await;
            for (annotations, paths) in edits(from, to) {
                manifests.ingress("site", annotations, HOST, &paths);
                manifests.publish(&mut edge);
                load.go_on().await;
            }
            manifests.remove_service(from);
            manifests.publish(&mut edge);
            load.go_on().await;
            let taker = if round % 2 == 0 { &new } else { &old };
            let before = taker.hits();
            load.go_on().await;
            assert!(taker.hits() > before, "{to} takes requests");
        }
        assert_eq!(load.finish(), Vec::<String>::new());
    }))
    .await;
}

type Edit<'a> = (&'a [(&'a str, &'a str)], Vec<(&'a str, &'a str, &'a str)>);

/// Ways in which people change an Ingress, the last of which is the move.
fn edits<'a>(from: &'a str, to: &'a str) -> [Edit<'a>; 7] {
    let all = vec![("Prefix", "/", from)];
    [
        (&[], vec![("Prefix", "/", from), ("Exact", "/a/b", from)]),
        (&[("enable-cors", "true")], all.clone()),
        (
            &[("proxy-body-size", "1k"), ("limit-rps", "100000")],
            all.clone(),
        ),
        (
            &[("use-regex", "true")],
            vec![("ImplementationSpecific", "/a/.*", from)],
        ),
        (&[("affinity", "cookie")], all),
        // A part of the paths goes first.
        (&[], vec![("Prefix", "/", from), ("Prefix", "/a", to)]),
        (&[], vec![("Prefix", "/", to)]),
    ]
}
