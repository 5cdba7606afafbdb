use tokio::io::duplex;
use tokio::time::sleep;

use super::*;

const READ: Duration = Duration::from_secs(5);
const IDLE: Duration = Duration::from_secs(10);

fn messages_of<R: AsyncRead + Unpin>(read: R) -> Messages<R> {
    Messages::new(read, READ, IDLE)
}

#[tokio::test(start_paused = true)]
async fn reliability_b31_reading_is_limited_in_time() {
    let (mut client, server) = duplex(1024);
    let mut messages = messages_of(server);
    let start = Instant::now();
    assert_eq!(messages.next().await, Err(Stop::Idle), "nothing at all");
    assert_eq!(start.elapsed(), IDLE);

    messages.restart_clock();
    let drip = async {
        client.write_all(&[0, 20]).await.unwrap();
        for _ in 0..30 {
            sleep(Duration::from_secs(1)).await;
            client.write_all(&[1]).await.unwrap();
        }
    };
    let start = Instant::now();
    let read = async { messages.next().await };
    tokio::select! {
        () = drip => panic!("a message of 20 s was read"),
        read = read => assert_eq!(read, Err(Stop::Broken), "a drip"),
    }
    assert_eq!(start.elapsed(), READ);
}

#[tokio::test(start_paused = true)]
async fn messages_are_cut_at_their_lengths() {
    let (mut client, server) = duplex(1024);
    let mut messages = messages_of(server);
    client.write_all(b"\x00\x03abc\x00\x01d\x00").await.unwrap();
    assert_eq!(messages.next().await, Ok(Some(Bytes::from_static(b"abc"))));
    assert_eq!(messages.next().await, Ok(Some(Bytes::from_static(b"d"))));
    client.write_all(b"\x02ef").await.unwrap();
    assert_eq!(messages.next().await, Ok(Some(Bytes::from_static(b"ef"))));
    drop(client);
    assert_eq!(messages.next().await, Ok(None));

    let (mut client, server) = duplex(1024);
    client.write_all(&[0, 0]).await.unwrap();
    assert_eq!(
        messages_of(server).next().await,
        Err(Stop::Broken),
        "length 0"
    );

    let (mut client, server) = duplex(1024);
    client.write_all(&[0xff, 0xff, 1]).await.unwrap();
    let mut messages = messages_of(server);
    drop(client);
    assert_eq!(messages.next().await, Err(Stop::Broken), "cut off");
    assert!(
        messages.buffer.capacity() < 4096,
        "nothing is reserved by a length"
    );
}
