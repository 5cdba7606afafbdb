//! The UDP socket, and who gets which connection.

use std::io;
use std::net::UdpSocket;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use metrics::counter;
use quinn::{
    Endpoint, EndpointConfig, IdleTimeout, Incoming, TokioRuntime, TransportConfig, VarInt,
};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::connection::{self, Client};
use super::crypto::Handshakes;
use crate::gateway::Inner;
use crate::metrics::{HTTP3_REFUSED, HTTP3_RETRIES, describe_http3};
use crate::tls::HANDSHAKE_TIMEOUT;

/// Requests that a client may have open at a time, and streams for other ends: three that every client
/// has, and some that say nothing.
const MAX_REQUESTS: u32 = 100;
const MAX_OTHER_STREAMS: u32 = 8;

/// Unread bytes of one stream, and of all streams of a connection; bytes of it that are on their way.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
const SEND_WINDOW: u64 = 1024 * 1024;

/// A client that does not answer is gone; so that others are not, they are asked.
const SILENCE: Duration = Duration::from_secs(40);
const PING_INTERVAL: Duration = Duration::from_secs(15);

/// Clients that the socket's worker has not looked at, bytes that one may send meanwhile, and all.
const MAX_INCOMING: usize = 256;
const INCOMING_BUFFER: (u64, u64) = (16 * 1024, 1 << 20);

/// Connections that wait for the worker that is to serve them.
const QUEUE: usize = 64;

/// Pause before a socket is used again that failed.
const PAUSE: Duration = Duration::from_millis(100);

/// How long clients are told that a connection is gone.
const FAREWELL: Duration = Duration::from_millis(500);

/// How many handshakes may be under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Without the client having shown that it gets what is sent to its address.
    pub unproven: usize,
    /// In any case.
    pub handshakes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            unproven: 64,
            handshakes: 1_000,
        }
    }
}

/// A worker's part in serving a socket.
#[derive(Debug)]
pub struct Share {
    /// Connections for this worker.
    connections: mpsc::Receiver<Connection>,
    /// Of the worker that has the socket.
    socket: Option<Socket>,
    port: u16,
    common: Arc<Common>,
}

#[derive(Debug)]
struct Socket {
    socket: UdpSocket,
    workers: Vec<mpsc::Sender<Connection>>,
    limits: Limits,
    handshakes: Arc<AtomicUsize>,
}

/// What all workers share.
#[derive(Debug, Default)]
struct Common {
    /// Connections of all workers.
    open: TaskTracker,
    /// Nothing is left to be said to any client: the socket is not needed any more.
    is_over: CancellationToken,
}

/// A connection that has begun.
#[derive(Debug)]
struct Connection {
    incoming: Incoming,
    handshake: Handshake,
    _open: TaskTrackerToken,
}

/// A handshake under way.
#[derive(Debug)]
struct Handshake(Arc<AtomicUsize>);

impl Drop for Handshake {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// Parts in serving a socket for `workers`, the first of which receives for all.
///
/// # Errors
/// The socket has no address.
pub fn distribute(socket: UdpSocket, workers: usize, limits: Limits) -> io::Result<Vec<Share>> {
    let port = socket.local_addr()?.port();
    let common = Arc::new(Common::default());
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..workers).map(|_| mpsc::channel(QUEUE)).unzip();
    let mut socket = Some(Socket {
        socket,
        workers: senders,
        limits,
        handshakes: Arc::default(),
    });
    let shares = receivers.into_iter().map(|connections| Share {
        connections,
        socket: socket.take(),
        port,
        common: Arc::clone(&common),
    });
    Ok(shares.collect())
}

/// Serves a worker's part until `shutdown`, and then what is in flight.
pub(crate) async fn serve(
    gateway: Rc<Inner>,
    share: Share,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let Share {
        mut connections,
        socket,
        port,
        common,
    } = share;
    let handing_out = async {
        match socket {
            Some(socket) => hand_out(&gateway, socket, &common, &shutdown).await,
            None => Ok(()),
        }
    };
    let serving = async {
        // Ends when the socket's worker takes no more.
        while let Some(connection) = connections.recv().await {
            let (gateway, shutdown) = (Rc::clone(&gateway), shutdown.clone());
            // Boxed, because it is large.
            let served = Box::pin(accept(gateway, connection, port, shutdown));
            tokio::task::spawn_local(served);
        }
        // Connections send by the socket until they have ended.
        common.is_over.cancelled().await;
    };
    let (handed_out, ()) = tokio::join!(handing_out, serving);
    handed_out
}

/// Receives for all workers, until `shutdown` and until all connections have ended.
async fn hand_out(
    gateway: &Inner,
    socket: Socket,
    common: &Common,
    shutdown: &CancellationToken,
) -> io::Result<()> {
    // Whatever happens here, the other workers must not wait for it.
    let _over = common.is_over.clone().drop_guard();
    describe_http3();
    let config = server_config(gateway)?;
    socket.socket.set_nonblocking(true)?;
    let mut turn = 0;
    let endpoint = loop {
        let endpoint = Endpoint::new(
            EndpointConfig::default(),
            Some(config.clone()),
            socket.socket.try_clone()?,
            Arc::new(TokioRuntime),
        )?;
        loop {
            let incoming = tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                incoming = endpoint.accept() => incoming,
            };
            match incoming {
                Some(incoming) => socket.admit(gateway, incoming, common, &mut turn),
                None => break,
            }
        }
        if shutdown.is_cancelled() {
            break endpoint;
        }
        tracing::warn!("the socket of HTTP/3 failed");
        sleep(PAUSE).await;
    };
    // Who comes now hears nothing, and tries TCP.
    endpoint.set_server_config(None);
    drop(socket);
    common.open.close();
    common.open.wait().await;
    let _in_time = timeout(FAREWELL, endpoint.wait_idle()).await;
    Ok(())
}

impl Socket {
    /// Hands a connection to the worker whose turn it is.
    fn admit(&self, gateway: &Inner, incoming: Incoming, common: &Common, turn: &mut usize) {
        let under_way = self.handshakes.load(Relaxed);
        if under_way >= self.limits.handshakes {
            return refuse(incoming, "handshakes");
        }
        let is_proven = incoming.remote_address_validated();
        if !is_proven && under_way >= self.limits.unproven && incoming.may_retry() {
            counter!(HTTP3_RETRIES).increment(1);
            // It may, as was just asked.
            let _ = incoming.retry();
            return;
        }
        // Nothing in a packet says who a proxy's client is.
        if gateway.reader.load().gateway.proxy_protocol.https {
            return refuse(incoming, "proxy_protocol");
        }
        *turn = turn.wrapping_add(1);
        let Some(worker) = self.workers.get(*turn % self.workers.len().max(1)) else {
            return;
        };
        self.handshakes.fetch_add(1, Relaxed);
        let connection = Connection {
            incoming,
            handshake: Handshake(Arc::clone(&self.handshakes)),
            _open: common.open.token(),
        };
        if let Err(error) = worker.try_send(connection) {
            refuse(error.into_inner().incoming, "busy");
        }
    }
}

fn refuse(incoming: Incoming, reason: &'static str) {
    counter!(HTTP3_REFUSED, "reason" => reason).increment(1);
    incoming.refuse();
}

async fn accept(
    gateway: Rc<Inner>,
    connection: Connection,
    port: u16,
    shutdown: CancellationToken,
) {
    let Connection {
        incoming,
        handshake,
        _open,
    } = connection;
    let source = incoming.remote_address().ip();
    let admitted = gateway.engine.connections();
    let place = if gateway.is_proxy(source) {
        admitted.admit_proxy(source, &shutdown)
    } else {
        admitted.admit(source, &shutdown)
    };
    let Ok(place) = place else {
        return incoming.refuse();
    };
    let Ok(connecting) = incoming.accept() else {
        return;
    };
    let connected = tokio::select! {
        connected = timeout(HANDSHAKE_TIMEOUT, connecting) => connected,
        () = place.end().cancelled() => return,
    };
    drop(handshake);
    match connected {
        Ok(Ok(quic)) => connection::serve(Client::new(gateway, place, quic, port)).await,
        Ok(Err(error)) => tracing::debug!(%error, "QUIC handshake failed"),
        Err(_elapsed) => tracing::debug!("QUIC handshake took too long"),
    }
}

fn server_config(gateway: &Inner) -> io::Result<quinn::ServerConfig> {
    let handshakes = Handshakes::new(Arc::clone(&gateway.options.tls)).map_err(io::Error::other)?;
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(handshakes));
    config
        .max_incoming(MAX_INCOMING)
        .incoming_buffer_size(INCOMING_BUFFER.0)
        .incoming_buffer_size_total(INCOMING_BUFFER.1)
        .transport_config(Arc::new(transport()));
    Ok(config)
}

fn transport() -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .max_idle_timeout(IdleTimeout::try_from(SILENCE).ok())
        .keep_alive_interval(Some(PING_INTERVAL))
        .max_concurrent_bidi_streams(VarInt::from_u32(MAX_REQUESTS))
        .max_concurrent_uni_streams(VarInt::from_u32(MAX_OTHER_STREAMS))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW))
        .send_window(SEND_WINDOW)
        .datagram_receive_buffer_size(None);
    transport
}
