//! Load over plain TCP.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout_at;

use super::{Served, block_on, together};
use crate::backend::MIB;
use crate::gate::Gate;

/// What goes there and back.
const MESSAGE: usize = 100;

/// Messages go there and back on each connection, one at a time.
///
/// # Errors
/// A connection broke.
pub(crate) fn ping_pong(
    addr: SocketAddr,
    connections: usize,
    time: Duration,
    gate: &Gate,
) -> anyhow::Result<Served> {
    let client = |_, begun: Instant| {
        let gate = gate.clone();
        let rounds = async move {
            let mut stream = TcpStream::connect(addr).await?;
            stream.set_nodelay(true)?;
            let mut taken = Vec::new();
            let mut message = [b'x'; MESSAGE];
            while begun.elapsed() < time {
                gate.pass();
                let sent = Instant::now();
                stream.write_all(&message).await?;
                stream.read_exact(&mut message).await?;
                taken.push(sent.elapsed());
            }
            Ok::<_, std::io::Error>(taken)
        };
        async { rounds.await.context("a connection broke") }
    };
    block_on(together(connections, client))
}

/// Reads what comes; a request is a mebibyte.
///
/// # Errors
/// A connection broke.
pub(crate) fn bulk(
    addr: SocketAddr,
    connections: usize,
    time: Duration,
    gate: &Gate,
) -> anyhow::Result<Served> {
    block_on(async {
        let mut tasks = JoinSet::new();
        let begun = Instant::now();
        let end = tokio::time::Instant::now() + time;
        for _ in 0..connections {
            let gate = gate.clone();
            tasks.spawn_local(async move {
                let mut stream = TcpStream::connect(addr).await?;
                stream.write_all(b"!").await?;
                let mut buffer = vec![0; 256 * 1024];
                let mut bytes = 0_usize;
                while let Ok(read) = timeout_at(end, stream.read(&mut buffer)).await {
                    match read? {
                        0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                        read => bytes += read,
                    }
                    gate.pass();
                }
                Ok::<_, std::io::Error>(bytes)
            });
        }
        let mut bytes = 0;
        while let Some(read) = tasks.join_next().await {
            bytes += read?.context("a connection broke")?;
        }
        Ok(Served {
            requests: (bytes / MIB) as u64,
            time: begun.elapsed(),
            p50: None,
            p99: None,
            closed: 0,
            each: Vec::new(),
        })
    })
}
