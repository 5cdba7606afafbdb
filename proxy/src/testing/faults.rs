//! A TCP proxy that does to connections what networks and dying peers do: late, slow, chopped up,
//! cut off or silent. There is no traffic shaping in many kernels that tests run on, so it happens
//! in user space, one direction at a time.

use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::sleep;

use crate::balance::Balancer;

/// What happens to the bytes of one direction. By default nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fault {
    /// How long each piece is held.
    pub latency: Duration,
    /// Up to this much more, at random.
    pub jitter: Duration,
    /// Bytes a second.
    pub rate: Option<u32>,
    /// The largest piece that is passed on at a time.
    pub slice: Option<usize>,
    /// What happens after so many bytes.
    pub cut: Option<(usize, Cut)>,
    /// How long the end of the stream is held back.
    pub slow_close: Duration,
}

/// What happens at a byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Both connections are reset.
    Reset,
    /// Both connections are closed: to each side its peer has said all that it had to say.
    Close,
    /// The stream ends; the other direction goes on.
    HalfClose,
    /// Nothing passes any more, and nobody is told.
    BlackHole,
}

/// What happens to both directions of a connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// From the client to the server.
    pub request: Fault,
    /// From the server to the client.
    pub response: Fault,
}

impl Faults {
    /// The same in both directions.
    pub fn both(fault: Fault) -> Self {
        Self {
            request: fault,
            response: fault,
        }
    }

    /// Only from the server to the client.
    pub fn response(fault: Fault) -> Self {
        Self {
            response: fault,
            ..Self::default()
        }
    }

    /// Only from the client to the server.
    pub fn request(fault: Fault) -> Self {
        Self {
            request: fault,
            ..Self::default()
        }
    }
}

/// The proxy; it and its connections end with this value.
#[derive(Debug)]
pub struct FaultProxy {
    /// Where it listens.
    pub addr: SocketAddr,
    accepted: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl FaultProxy {
    /// Starts it on a free loopback port, in front of `target`.
    pub async fn start(target: SocketAddr, faults: Faults) -> Self {
        Self::with(target, move |_| faults).await
    }

    /// The same with faults for each connection; they are numbered from 0.
    pub async fn with(
        target: SocketAddr,
        faults: impl Fn(usize) -> Faults + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let accepted = Arc::new(AtomicUsize::new(0));
        let open = Arc::new(AtomicUsize::new(0));
        let (count, gauge) = (Arc::clone(&accepted), Arc::clone(&open));
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let number = count.fetch_add(1, Ordering::Relaxed);
                let (faults, open) = (faults(number), Open::new(&gauge));
                connections.spawn(async move {
                    relay(client, target, faults).await;
                    drop(open);
                });
                while connections.try_join_next().is_some() {}
            }
        });
        Self {
            addr,
            accepted,
            open,
            task,
        }
    }

    /// How many connections it took.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }

    /// How many of them are open.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Counts an open connection.
struct Open(Arc<AtomicUsize>);

impl Open {
    fn new(gauge: &Arc<AtomicUsize>) -> Self {
        gauge.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(gauge))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How a direction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// The stream did, and its end was passed on.
    Stream,
    /// The connection is over, for both directions: closed.
    Close,
    /// The same, reset.
    Reset,
}

async fn relay(client: TcpStream, target: SocketAddr, faults: Faults) {
    let Ok(server) = TcpStream::connect(target).await else {
        // Nobody there looks to the client as it would without a proxy, nearly.
        let _ = client.set_zero_linger();
        return;
    };
    for stream in [&client, &server] {
        stream.set_nodelay(true).unwrap();
    }
    let mut request = pin!(pump(&client, &server, faults.request));
    let mut response = pin!(pump(&server, &client, faults.response));
    let ended = tokio::select! {
        ended = request.as_mut() => match ended {
            Ended::Stream => response.await,
            Ended::Close | Ended::Reset => ended,
        },
        ended = response.as_mut() => match ended {
            Ended::Stream => request.await,
            Ended::Close | Ended::Reset => ended,
        },
    };
    if ended == Ended::Reset {
        for stream in [&client, &server] {
            let _ = stream.set_zero_linger();
        }
    }
}

/// Passes bytes on until the stream ends or is cut.
async fn pump(from: &TcpStream, to: &TcpStream, fault: Fault) -> Ended {
    let chance = Balancer::seeded(7);
    let mut left = fault.cut.map_or(usize::MAX, |(after, _)| after);
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let piece = fault.slice.unwrap_or(buffer.len()).min(left);
        if let (0, Some((_, cut))) = (piece, fault.cut) {
            return match cut {
                Cut::Reset => Ended::Reset,
                Cut::Close => Ended::Close,
                Cut::HalfClose => {
                    let _ = SockRef::from(to).shutdown(Shutdown::Write);
                    Ended::Stream
                }
                Cut::BlackHole => std::future::pending().await,
            };
        }
        let read = match read(from, &mut buffer[..piece]).await {
            Ok(0) => {
                sleep(fault.slow_close).await;
                let _ = SockRef::from(to).shutdown(Shutdown::Write);
                return Ended::Stream;
            }
            Ok(read) => read,
            Err(_reset) => return Ended::Reset,
        };
        left -= read;
        let jitter = fault
            .jitter
            .mul_f64(chance.random() as f64 / u64::MAX as f64);
        let paced = fault.rate.map_or(Duration::ZERO, |rate| {
            Duration::from_secs_f64(read as f64 / f64::from(rate))
        });
        let pause = fault.latency + jitter + paced;
        if !pause.is_zero() {
            sleep(pause).await;
        }
        if write_all(to, &buffer[..read]).await.is_err() {
            return Ended::Reset;
        }
    }
}

async fn read(stream: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    stream
        .async_io(Interest::READABLE, || stream.try_read(buffer))
        .await
}

async fn write_all(stream: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = stream
            .async_io(Interest::WRITABLE, || stream.try_write(bytes))
            .await?;
        bytes = &bytes[written..];
    }
    Ok(())
}
