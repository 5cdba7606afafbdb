//! Load at a pace: what a request takes while neither the proxy nor what is around it is at its limit.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::sleep_until;

use super::{Served, block_on, together};
use crate::gate::Gate;

/// Connections that are kept.
const CLIENTS: usize = 64;

/// From one request of a client to its next: 8,000 a second of all together.
const PERIOD: Duration = Duration::from_millis(8);

/// Requests for the hosts in turn, when they are due. What is due while an answer is waited for is
/// left out.
///
/// # Errors
/// A connection broke, or an answer was not a good one.
pub(crate) fn paced(
    addr: SocketAddr,
    hosts: usize,
    time: Duration,
    gate: &Gate,
) -> anyhow::Result<Served> {
    let client = |number: usize, begun: Instant| {
        let gate = gate.clone();
        async move {
            let mut stream = TcpStream::connect(addr).await.context("cannot connect")?;
            stream.set_nodelay(true)?;
            let mut due = begun + PERIOD.mul_f64(number as f64 / CLIENTS as f64);
            let mut host = number;
            let mut taken = Vec::new();
            while due < begun + time {
                sleep_until(due.into()).await;
                gate.pass();
                host = (host + CLIENTS) % hosts;
                taken.push(ask(&mut stream, host).await?);
                while due <= Instant::now() {
                    due += PERIOD;
                }
            }
            Ok(taken)
        }
    };
    block_on(together(CLIENTS, client))
}

/// From sending a request to the end of its answer.
async fn ask(stream: &mut TcpStream, host: usize) -> anyhow::Result<Duration> {
    let request = format!("GET / HTTP/1.1\r\nHost: host-{host}.test\r\n\r\n");
    let mut answer = Vec::with_capacity(1024);
    let sent = Instant::now();
    stream.write_all(request.as_bytes()).await?;
    while !is_whole(&answer)? {
        ensure!(
            stream.read_buf(&mut answer).await? > 0,
            "a connection broke"
        );
    }
    Ok(sent.elapsed())
}

/// Whether all of a good answer is there.
fn is_whole(answer: &[u8]) -> anyhow::Result<bool> {
    let mut fields = [httparse::EMPTY_HEADER; 32];
    let mut head = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(end) = head.parse(answer).context("not an answer")? else {
        return Ok(false);
    };
    if head.code != Some(200) {
        bail!("not a good answer: {head:?}");
    }
    let is_length =
        |field: &&httparse::Header<'_>| field.name.eq_ignore_ascii_case("content-length");
    let length = head.headers.iter().find(is_length);
    let length = length.context("an answer of no known length")?.value;
    let length: usize = std::str::from_utf8(length)?.trim().parse()?;
    Ok(answer.len() >= end + length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_with_the_last_byte_of_its_body() {
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc";
        for end in 0..answer.len() {
            let part = answer.get(..end).expect("a part of it");
            assert!(!is_whole(part).expect("it may go on"), "{end}");
        }
        assert!(is_whole(answer).expect("it is good"));
        for bad in [
            "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\n",
            "SSH-2.0\r\n\r\n",
        ] {
            assert!(is_whole(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
