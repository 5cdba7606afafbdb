//! Connections that ask for something once in a while and are idle otherwise.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

use crate::cluster::HOST;

/// From one request to the next: within the minute that proxies keep idle connections for.
const PAUSE: Duration = Duration::from_secs(45);

/// Clients have this many addresses: a proxy may allow each only so many connections.
const ADDRESSES: usize = 50;

/// New connections a second.
const PACE: u64 = 2_000;

/// Idle connections; they end with this value.
pub(crate) struct Idle {
    open: Arc<AtomicU64>,
    /// Connections that ended or answered badly.
    lost: Arc<AtomicU64>,
    _tasks: JoinSet<()>,
}

impl Idle {
    /// Opens `count` connections to the gateway.
    pub(crate) async fn open(count: usize, gateway: SocketAddr) -> Self {
        let open = Arc::new(AtomicU64::new(0));
        let lost = Arc::new(AtomicU64::new(0));
        let mut tasks = JoinSet::new();
        for number in 0..count {
            let (open, lost) = (Arc::clone(&open), Arc::clone(&lost));
            tasks.spawn(async move {
                loop {
                    // Comes back at once if it is lost, but is counted.
                    let _ = keep(number, gateway, &open).await;
                    lost.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            });
            tokio::time::sleep(Duration::from_micros(1_000_000 / PACE)).await;
        }
        Self {
            open,
            lost,
            _tasks: tasks,
        }
    }

    /// Open now, and lost so far.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let Self { open, lost, .. } = self;
        (open.load(Ordering::Relaxed), lost.load(Ordering::Relaxed))
    }
}

/// Ends only with an error.
async fn keep(number: usize, gateway: SocketAddr, open: &Arc<AtomicU64>) -> std::io::Result<()> {
    let mut stream = connect(number, gateway).await?;
    let _counted = Counted::new(open);
    // Not all at the same time.
    let offset = PAUSE.mul_f64((number % 97) as f64 / 97.0);
    let mut pause = PAUSE / 3 + offset * 2 / 3;
    loop {
        ask(&mut stream).await?;
        tokio::time::sleep(pause).await;
        pause = PAUSE;
    }
}

async fn connect(number: usize, gateway: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    let host = u8::try_from(number % ADDRESSES).unwrap_or_default() + 1;
    socket.bind((Ipv4Addr::new(127, 0, 1, host), 0).into())?;
    socket.connect(gateway).await
}

async fn ask(stream: &mut TcpStream) -> std::io::Result<()> {
    let request = format!("HEAD /idle HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut head).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    if head.starts_with(b"HTTP/1.1 200") {
        Ok(())
    } else {
        Err(std::io::ErrorKind::InvalidData.into())
    }
}

/// Counts an open connection.
struct Counted(Arc<AtomicU64>);

impl Counted {
    fn new(open: &Arc<AtomicU64>) -> Self {
        open.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(open))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
