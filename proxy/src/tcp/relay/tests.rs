use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::timeout;

use super::*;

const TIMEOUT: Duration = Duration::from_secs(5);
const HOUR: Duration = Duration::from_secs(3600);

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (near, far) = tokio::join!(TcpStream::connect(addr), listener.accept());
    (near.unwrap(), far.unwrap().0)
}

struct Relay {
    client: TcpStream,
    server: TcpStream,
    relay: tokio::task::JoinHandle<io::Result<()>>,
    counts: [Arc<AtomicU64>; 2],
}

async fn start(prefix: &[u8], idle: Duration) -> Relay {
    let (client, mut near_client) = pair().await;
    let (mut near_server, server) = pair().await;
    let prefix = prefix.to_vec();
    let counts = [(); 2].map(|()| Arc::new(AtomicU64::new(0)));
    let [to_upstream, to_client] = counts.clone().map(Counter::from_arc);
    let task = async move {
        let options = RelayOptions {
            idle,
            to_upstream: &to_upstream,
            to_client: &to_client,
        };
        relay(&mut near_client, &mut near_server, prefix, options).await
    };
    Relay {
        client,
        server,
        relay: tokio::task::spawn_local(task),
        counts,
    }
}

impl Relay {
    async fn end(self) -> io::Result<()> {
        timeout(TIMEOUT, self.relay).await.unwrap().unwrap()
    }
}

async fn read_to_end(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = stream.read_to_end(&mut bytes);
    timeout(TIMEOUT, read).await.expect("no end of stream")?;
    Ok(bytes)
}

#[tokio::test(flavor = "local")]
async fn proxy_l25_half_close_is_forwarded_each_way() {
    let mut relay = start(b"pre", HOUR).await;
    relay.client.write_all(b"fix").await.unwrap();
    relay.client.shutdown().await.unwrap();
    assert_eq!(read_to_end(&mut relay.server).await.unwrap(), b"prefix");
    relay.server.write_all(b"late answer").await.unwrap();
    relay.server.shutdown().await.unwrap();
    let answer = read_to_end(&mut relay.client).await.unwrap();
    assert_eq!(answer, b"late answer");
    let counts = relay.counts.clone();
    relay.end().await.unwrap();
    assert_eq!(counts.map(|count| count.load(Relaxed)), [6, 11]);
}

#[tokio::test(flavor = "local")]
async fn proxy_l25_no_data_is_lost_when_fin_follows_data() {
    let mut relay = start(b"", HOUR).await;
    let body = vec![7; 8 << 20];
    let sent = body.len();
    let mut server = relay.server;
    let sender = tokio::task::spawn_local(async move {
        server.write_all(&body).await.unwrap();
        server.shutdown().await.unwrap();
        server
    });
    // The receiver begins late, so that every buffer on the way is full.
    let mut first = [0];
    relay.client.read_exact(&mut first).await.unwrap();
    let received = read_to_end(&mut relay.client).await.unwrap();
    assert_eq!(received.len() + 1, sent);
    drop(relay.client);
    drop(sender.await.unwrap());
}

#[tokio::test(flavor = "local")]
async fn proxy_l25_an_answer_is_whole_when_the_server_closes_on_an_upload() {
    let mut relay = start(b"", HOUR).await;
    relay.client.write_all(b"x").await.unwrap();
    relay.server.read_exact(&mut [0]).await.unwrap();
    // Fits into the buffers on the way, so that the server is gone before the client reads.
    let answer = vec![7; 200_000];
    relay.server.write_all(&answer).await.unwrap();
    drop(relay.server);
    let (mut reader, mut writer) = relay.client.into_split();
    // The server's side answers the upload with a reset.
    for _ in 0..50 {
        writer.write_all(&[0; 4096]).await.unwrap();
        sleep(Duration::from_millis(1)).await;
    }
    let mut received = Vec::new();
    let read = reader.read_to_end(&mut received);
    timeout(TIMEOUT, read).await.unwrap().unwrap();
    assert_eq!(received.len(), answer.len());
    drop(writer);
    timeout(TIMEOUT, relay.relay)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
}

#[tokio::test(flavor = "local")]
async fn proxy_l25_a_server_that_nobody_listens_to_is_slowed_down() {
    let mut relay = start(b"x", HOUR).await;
    relay.server.read_exact(&mut [0]).await.unwrap();
    drop(relay.client);
    assert_eq!(read_to_end(&mut relay.server).await.unwrap(), b"");
    let chunk = vec![7; 1 << 20];
    let mut sent = 0_usize;
    let pour = async {
        while let Ok(written) = relay.server.write(&chunk).await {
            sent += written;
        }
    };
    // Unless it was reset before.
    let _ = timeout(Duration::from_secs(2), pour).await;
    // That much room sockets may have.
    assert!(sent < 128 << 20, "{sent} bytes");
}

#[tokio::test(flavor = "local")]
async fn proxy_pf6_bytes_keep_their_order_however_many_come_at_a_time() {
    let mut relay = start(b"", HOUR).await;
    // Copied, spliced, spliced after a wait, too little for that, and copied again.
    let sizes = [100, 3 << 20, 40_000, 40_000, 600_000, 10, 70_000, 1, 20_000];
    let mut number = 0_u32;
    for (turn, size) in sizes.into_iter().cycle().take(40).enumerate() {
        let sent: Vec<u8> = (0..size)
            .map(|_| {
                number += 1;
                (number % 251) as u8
            })
            .collect();
        let mut received = vec![0; size];
        let moved = async {
            // What was sent has arrived before more is.
            tokio::try_join!(
                relay.server.write_all(&sent),
                relay.client.read_exact(&mut received)
            )
        };
        timeout(TIMEOUT, moved).await.expect("stuck").unwrap();
        assert!(received == sent, "turn {turn}, {size} bytes");
    }
    assert_eq!(
        relay.counts[1].load(Relaxed),
        sizes.iter().cycle().take(40).sum::<usize>() as u64
    );
}

#[tokio::test(flavor = "local")]
async fn proxy_l25_a_reset_stays_a_reset() {
    for by_client in [true, false] {
        let mut relay = start(b"", HOUR).await;
        relay.client.write_all(b"x").await.unwrap();
        relay.server.read_exact(&mut [0]).await.unwrap();
        let (dies, mut lives) = if by_client {
            (relay.client, relay.server)
        } else {
            (relay.server, relay.client)
        };
        dies.set_zero_linger().unwrap();
        drop(dies);
        let error = read_to_end(&mut lives).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{by_client}");
        relay.relay.await.unwrap().unwrap_err();
    }
}

#[tokio::test(flavor = "local")]
async fn proxy_l25_an_idle_half_closed_relay_is_reaped() {
    let mut relay = start(b"", Duration::from_millis(50)).await;
    relay.client.shutdown().await.unwrap();
    assert_eq!(read_to_end(&mut relay.server).await.unwrap(), b"");
    let error = relay.end().await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
}

#[tokio::test(flavor = "local")]
async fn moving_bytes_keep_a_relay_alive() {
    // Longer than a busy machine takes from one byte to the next.
    let idle = Duration::from_secs(1);
    let mut relay = start(b"", idle).await;
    let begun = Instant::now();
    while begun.elapsed() < 3 * idle {
        relay.client.write_all(b"x").await.unwrap();
        relay.server.read_exact(&mut [0]).await.unwrap();
    }
    relay.server.write_all(b"y").await.unwrap();
    relay.client.read_exact(&mut [0]).await.unwrap();
}

#[tokio::test(flavor = "local")]
async fn a_slow_receiver_holds_the_sender_back() {
    let relay = start(b"", HOUR).await;
    let chunk = vec![0; 1 << 20];
    let mut sent = 0_usize;
    // Socket buffers hold some megabytes; far more than that must not fit.
    while let Ok(written) = timeout(Duration::from_millis(200), async {
        relay.client.writable().await.unwrap();
        relay.client.try_write(&chunk).unwrap_or(0)
    })
    .await
    {
        sent += written;
        assert!(sent < 256 << 20, "the relay buffers without bound");
    }
    assert!(sent > 0);
}

#[tokio::test]
async fn a_relay_costs_little_memory() {
    let (mut client, mut upstream) = pair().await;
    let count = Counter::noop();
    let options = RelayOptions {
        idle: HOUR,
        to_upstream: &count,
        to_client: &count,
    };
    let size = size_of_val(&relay(&mut client, &mut upstream, Vec::new(), options));
    assert!(size < 2048, "{size} bytes");
}
