//! What clients and endpoints on either side may expect of anything between them, with bytes written
//! by hand (proxy T5, T6).

mod churn;
mod framing;
mod races;
mod transparency;

use std::net::SocketAddr;

use sealane_config::model::AppProtocol;
use sealane_proxy::testing::{Origin, RawClient};
use sealane_test_peers::{Front, HOST};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// Where requests enter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    Gateway,
    Node,
}

const ENTRIES: [Entry; 2] = [Entry::Gateway, Entry::Node];

impl Entry {
    fn addr(self, front: &Front) -> SocketAddr {
        match self {
            Self::Gateway => front.http,
            Self::Node => front.vip,
        }
    }
}

/// A front with these endpoints and a client that has connected to it.
async fn connected(entry: Entry, endpoints: &[SocketAddr]) -> (Front, RawClient) {
    let mut front = Front::start();
    front.service(AppProtocol::Detect, endpoints);
    // A listener for the Service's address appears a moment after its endpoints.
    while TcpStream::connect(entry.addr(&front)).await.is_err() {}
    let client = RawClient::connect(entry.addr(&front)).await;
    (front, client)
}

/// An endpoint that answers each head with the same bytes, whatever comes after the head.
async fn answering(answer: &'static [u8]) -> Origin {
    Origin::raw(move |mut stream, _| {
        Box::pin(async move {
            while read_head(&mut stream).await.is_some() {
                if tokio::io::AsyncWriteExt::write_all(&mut stream, answer)
                    .await
                    .is_err()
                {
                    return;
                }
            }
        })
    })
    .await
}

/// Reads until the end of a head; `None` if there is none.
async fn read_head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).await.ok()?;
        head.push(byte[0]);
    }
    String::from_utf8(head).ok()
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n")
}
