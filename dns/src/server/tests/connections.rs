use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::limit::Connections;
use crate::testing::World;
use crate::testing::secure::{self, Certificate, Secure};
use crate::testing::upstream::{Upstream, slow_web};

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
        let upstream = Upstream::start(slow_web(200)).await;
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
        let upstream = Upstream::start(slow_web(100)).await;
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

/// Open connections of the kernel's table that have this local port: the server's side of them.
fn open_at(port: u16) -> usize {
    let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    let local = format!(":{port:04X}");
    let is_open = |line: &&str| {
        let mut columns = line.split_whitespace().skip(1);
        let (at, state) = (columns.next().unwrap(), columns.nth(1).unwrap());
        // ESTABLISHED and CLOSE_WAIT: those that hold a descriptor.
        at.ends_with(&local) && matches!(state, "01" | "08")
    };
    table.lines().skip(1).filter(is_open).count()
}

#[tokio::test]
async fn reliability_l9_connections_that_come_and_go_leave_nothing() {
    const CLIENTS: u8 = 8;
    const EACH: usize = 16;
    local(async {
        let certificate = Certificate::new();
        let server = Secure::start(certificate.files(), None, ConnectionLimits::default());
        let message = framed(&secure::query(secure::NAME, 1));
        for round in 0..4 {
            let mut open = Vec::new();
            for client in 1..=CLIENTS {
                for n in 0..EACH {
                    let socket = tokio::net::TcpSocket::new_v4().unwrap();
                    socket.bind(([127, 0, 1, client], 0).into()).unwrap();
                    let to = [server.tcp, server.tls, server.https][n % 3];
                    let mut stream = socket.connect(to).await.unwrap();
                    match n % 4 {
                        // Reset by what is not read.
                        0 => stream.write_all(&message).await.unwrap(),
                        1 => stream.write_all(&message[..9]).await.unwrap(),
                        2 => stream.shutdown().await.unwrap(),
                        _ => {}
                    }
                    open.push(stream);
                }
            }
            drop(open);
            let all_gone = async {
                while server.limits.connections.open() > 0 {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            timeout(DEADLINE, all_gone).await.unwrap();
            for listener in [server.tcp, server.tls, server.https] {
                assert_eq!(open_at(listener.port()), 0, "round {round}");
            }
        }
        let mut stream = TcpStream::connect(server.tcp).await.unwrap();
        stream.write_all(&message).await.unwrap();
        assert_eq!(read(&mut stream).await.answers.len(), 1);
        drop(stream);
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn dns_tcp_many_queries_in_one_write_are_all_answered() {
    const SENT: u16 = 2000;
    local(async {
        let certificate = Certificate::new();
        let server = Secure::start(certificate.files(), None, ConnectionLimits::default());
        let (mut reading, mut writing) = TcpStream::connect(server.tcp).await.unwrap().into_split();
        let queries = (0..SENT).map(|id| framed(&secure::query(secure::NAME, id)));
        let bytes = queries.collect::<Vec<_>>().concat();
        let write = async { writing.write_all(&bytes).await.unwrap() };
        let answers = async {
            for id in 0..SENT {
                let length = reading.read_u16().await.unwrap();
                let mut reply = vec![0; length.into()];
                reading.read_exact(&mut reply).await.unwrap();
                assert_eq!(reply[..2], id.to_be_bytes());
                assert_eq!(reply[7], 1, "one answer");
            }
        };
        timeout(DEADLINE, async { tokio::join!(write, answers) })
            .await
            .unwrap();
        server.stop().await;
    })
    .await;
}

#[tokio::test]
async fn dns_tcp_timeouts_and_queries_of_a_connection_are_settings() {
    local(async {
        let certificate = Certificate::new();
        let timeouts = crate::config::Timeouts {
            read: Some(Duration::from_secs(2)),
            write: None,
            idle: Some(Duration::from_millis(300)),
            tcp_queries: Some(3),
        };
        let limits = ConnectionLimits::new(Connections::default(), Some(&timeouts));
        let server = Secure::start(certificate.files(), None, limits);
        let message = secure::query(secure::NAME, 1);
        let mut stream = TcpStream::connect(server.tcp).await.unwrap();
        stream.write_all(&framed(&message).repeat(5)).await.unwrap();
        for _ in 0..3 {
            read(&mut stream).await;
        }
        let end = timeout(DEADLINE, stream.read(&mut [0])).await.unwrap();
        assert!(matches!(end, Ok(0) | Err(_)), "a fourth answer");

        // A client that asks is told for how long the connection is kept (RFC 7828).
        let mut asking = Message::from_vec(&message).unwrap();
        let mut edns = hickory_proto::op::Edns::new();
        let keepalive = hickory_proto::rr::rdata::opt::EdnsOption::Unknown(11, Vec::new());
        edns.options_mut().insert(keepalive);
        asking.edns = Some(edns);
        let mut stream = TcpStream::connect(server.tcp).await.unwrap();
        let start = Instant::now();
        stream
            .write_all(&framed(&asking.to_vec().unwrap()))
            .await
            .unwrap();
        let length = stream.read_u16().await.unwrap();
        let mut reply = vec![0; length.into()];
        stream.read_exact(&mut reply).await.unwrap();
        assert!(reply.ends_with(&[0, 11, 0, 2, 0, 3]), "{reply:02x?}");
        let end = timeout(DEADLINE, stream.read(&mut [0])).await.unwrap();
        assert!(matches!(end, Ok(0) | Err(_)));
        assert!(start.elapsed() >= Duration::from_millis(300));
        server.stop().await;
    })
    .await;
}
