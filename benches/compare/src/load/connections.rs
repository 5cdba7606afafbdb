//! Load by connections: one for each request, or very many that are idle.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Served, block_on, repeat};
use crate::gate::Gate;

pub(super) const LAST: &[u8] = b"GET / HTTP/1.1\r\nHost: host-0.test\r\nConnection: close\r\n\r\n";
const KEPT: &[u8] = b"GET / HTTP/1.1\r\nHost: host-0.test\r\n\r\n";

/// `clients` that connect, ask once and read to the end, over and over.
///
/// # Errors
/// An answer was not a good one.
pub(crate) fn connections(
    addr: SocketAddr,
    clients: usize,
    time: Duration,
    gate: &Gate,
) -> anyhow::Result<Served> {
    let request = move || async move {
        let mut stream = TcpStream::connect(addr).await?;
        stream.write_all(LAST).await?;
        let mut answer = Vec::with_capacity(1024);
        stream.read_to_end(&mut answer).await?;
        check(&answer)
    };
    block_on(repeat(clients, time, gate, request))
}

/// Opens `count` connections, has one request answered on each, and holds them.
///
/// # Errors
/// An answer was not a good one.
pub(crate) fn hold(addr: SocketAddr, count: usize) -> anyhow::Result<Vec<std::net::TcpStream>> {
    let held = block_on(async {
        let mut held = Vec::with_capacity(count);
        for index in 0..count {
            let mut stream = TcpStream::connect(addr).await.context("cannot connect")?;
            stream.write_all(KEPT).await?;
            let mut answer = vec![0; 4096];
            let read = stream.read(&mut answer).await?;
            check(answer.get(..read).unwrap_or_default())
                .with_context(|| format!("connection {index}"))?;
            held.push(stream.into_std()?);
        }
        anyhow::Ok(held)
    })?;
    // What is freed a moment after an answer counts as free.
    std::thread::sleep(Duration::from_millis(500));
    Ok(held)
}

pub(super) fn check(answer: &[u8]) -> anyhow::Result<()> {
    if !answer.starts_with(b"HTTP/1.1 200 ") {
        let begin = answer.get(..answer.len().min(200)).unwrap_or_default();
        bail!("not a good answer: {}", String::from_utf8_lossy(begin));
    }
    Ok(())
}

/// Whether a request for a host of that number is answered well.
pub(crate) fn answers(addr: SocketAddr, host: usize) -> bool {
    answers_at(addr, &format!("host-{host}.test"), "/")
}

/// Whether a request for a path of a host is answered well.
pub(crate) fn answers_at(addr: SocketAddr, host: &str, path: &str) -> bool {
    let asked = block_on(async {
        let mut stream = TcpStream::connect(addr).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        check(&answer)
    });
    asked.is_ok()
}
