use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::testing::World;
use crate::testing::upstream::{React, Upstream, web};

fn framed(message: &[u8]) -> Vec<u8> {
    let length = (message.len() as u16).to_be_bytes();
    [&length[..], message].concat()
}

async fn read(stream: &mut TcpStream) -> Message {
    let length = timeout(DEADLINE, stream.read_u16()).await.unwrap().unwrap();
    let mut message = vec![0; length.into()];
    stream.read_exact(&mut message).await.unwrap();
    Message::from_vec(&message).unwrap()
}

/// One query on a connection of its own.
pub(super) async fn ask(server: SocketAddr, message: &[u8]) -> Message {
    let mut stream = TcpStream::connect(server).await.unwrap();
    stream.write_all(&framed(message)).await.unwrap();
    read(&mut stream).await
}

fn cluster() -> Snapshot {
    World::new()
        .cluster_ip("svc1", &["10.0.0.1"], &["http/tcp/80"])
        .build()
}

#[tokio::test]
async fn queries_of_a_connection_do_not_wait_for_each_other() {
    local(async {
        let upstream = Upstream::start(|query, tcp| {
            let mut steps = vec![React::After(Duration::from_millis(200))];
            steps.extend(web(query, tcp));
            steps
        })
        .await;
        let settings = forwarding_to(&upstream);
        let server = Running::start(cluster(), settings).await;
        let mut stream = TcpStream::connect(server.tcp).await.unwrap();
        let slow = query("web.test.", "A");
        let fast = query("svc1.testns.svc.cluster.local.", "A");
        let mut bytes = framed(&slow.to_vec().unwrap());
        bytes.extend(framed(&fast.to_vec().unwrap()));
        stream.write_all(&bytes).await.unwrap();
        assert_eq!(read(&mut stream).await.metadata.id, fast.metadata.id);
        // What is in flight is answered also after the client has said that nothing more comes.
        stream.shutdown().await.unwrap();
        assert_eq!(read(&mut stream).await.metadata.id, slow.metadata.id);
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn reliability_b31_queries_in_flight_of_a_connection_are_bounded() {
    const SENT: usize = 40;
    local(async {
        let upstream = Upstream::start(|query, tcp| {
            let mut steps = vec![React::After(Duration::from_millis(100))];
            steps.extend(web(query, tcp));
            steps
        })
        .await;
        let settings = forwarding_to(&upstream);
        let server = Running::start(cluster(), settings).await;
        let mut stream = TcpStream::connect(server.tcp).await.unwrap();
        for n in 0..SENT {
            let message = query(&format!("n{n}.test."), "A").to_vec().unwrap();
            stream.write_all(&framed(&message)).await.unwrap();
        }
        read(&mut stream).await;
        let seen = upstream.seen().len();
        assert!(seen < SENT, "{seen} were asked before the first answer");
        for _ in 1..SENT {
            read(&mut stream).await;
        }
        assert_eq!(upstream.seen().len(), SENT);
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn reliability_b31_connections_of_a_client_are_bounded() {
    const LIMIT: usize = 64;
    local(async {
        let server = Running::start(cluster(), DnsSettings::default()).await;
        let message = framed(
            &query("svc1.testns.svc.cluster.local.", "A")
                .to_vec()
                .unwrap(),
        );
        let mut open = Vec::new();
        for n in 0..LIMIT {
            let mut stream = TcpStream::connect(server.tcp).await.unwrap();
            stream.write_all(&message).await.unwrap();
            assert_eq!(read(&mut stream).await.answers.len(), 1, "connection {n}");
            open.push(stream);
        }
        let mut one_more = TcpStream::connect(server.tcp).await.unwrap();
        let end = timeout(DEADLINE, one_more.read(&mut [0])).await.unwrap();
        assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
        // Another address is another client.
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        let mut other = socket.connect(server.tcp).await.unwrap();
        other.write_all(&message).await.unwrap();
        assert_eq!(read(&mut other).await.answers.len(), 1);
        // A place is free again once a connection has ended.
        drop(open.pop());
        let again = async {
            loop {
                let mut stream = TcpStream::connect(server.tcp).await.unwrap();
                if stream.write_all(&message).await.is_ok() && stream.read_u16().await.is_ok() {
                    return;
                }
            }
        };
        timeout(DEADLINE, again).await.unwrap();
        drop((open, other));
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn shutdown_closes_idle_connections() {
    local(async {
        let server = Running::start(cluster(), DnsSettings::default()).await;
        let message = framed(
            &query("svc1.testns.svc.cluster.local.", "A")
                .to_vec()
                .unwrap(),
        );
        let mut stream = TcpStream::connect(server.tcp).await.unwrap();
        stream.write_all(&message).await.unwrap();
        read(&mut stream).await;
        let addr = server.tcp;
        server.stop().await;
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
        assert!(TcpStream::connect(addr).await.is_err());
    })
    .await;
}
