use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use super::*;
use crate::accept::Acceptor;

const IN_TIME: Duration = Duration::from_secs(20);

/// A connection that is accepted after its client has sent `first`, and the client's end.
async fn pair(first: &[u8]) -> (Fresh, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let addr = listener.local_addr().unwrap();
    let listener = Listener::new(listener).unwrap();
    let mut client = TcpStream::connect(addr).await.unwrap();
    client.write_all(first).await.unwrap();
    let mut acceptor = Acceptor::default();
    let (fresh, from) = acceptor.accept_fresh(&listener).await.unwrap();
    assert_eq!(from, client.local_addr().unwrap());
    (fresh, client)
}

async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut buffer = [0; 64];
    let read = timeout(IN_TIME, stream.read(&mut buffer)).await;
    let read = read.expect("nothing came").unwrap();
    buffer[..read].to_vec()
}

#[tokio::test]
async fn proxy_pf7_a_connection_for_one_question_is_no_matter_for_the_runtime() {
    let (mut fresh, mut client) = pair(b"question").await;
    assert_eq!(read(&mut fresh).await, b"question");
    fresh.write_all(b"answer").await.unwrap();
    assert!(!fresh.is_registered());
    drop(fresh);
    assert_eq!(read(&mut client).await, b"answer");
    assert_eq!(read(&mut client).await, b"");
}

#[tokio::test]
async fn proxy_pf7_what_has_to_be_waited_for_comes_as_well() {
    let (mut fresh, mut client) = pair(b"").await;
    for more in [b"first", b"other"] {
        let (read, sent) = tokio::join!(read(&mut fresh), client.write_all(more));
        sent.unwrap();
        assert_eq!(read, more);
        assert!(fresh.is_registered());
    }
    drop(client);
    assert_eq!(read(&mut fresh).await, b"");
}

#[tokio::test]
async fn proxy_pf7_a_second_read_goes_by_the_runtime() {
    let (mut fresh, mut client) = pair(b"1").await;
    assert_eq!(read(&mut fresh).await, b"1");
    client.write_all(b"2").await.unwrap();
    assert_eq!(read(&mut fresh).await, b"2");
    assert!(fresh.is_registered());
}

#[tokio::test]
async fn proxy_pf7_an_answer_that_does_not_fit_waits_for_its_reader() {
    let (mut fresh, mut client) = pair(b"").await;
    let long = vec![7; 20 << 20];
    let mut answer = Vec::new();
    let send = async {
        fresh.write_all(&long).await.unwrap();
        let was_registered = fresh.is_registered();
        fresh.shutdown().await.unwrap();
        was_registered
    };
    let both = async { tokio::join!(send, client.read_to_end(&mut answer)) };
    let (was_registered, received) = timeout(IN_TIME, both).await.expect("stuck");
    received.unwrap();
    assert!(answer == long, "{} bytes", answer.len());
    assert!(was_registered);
}
