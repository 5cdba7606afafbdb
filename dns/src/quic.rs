//! DNS over dedicated QUIC connections (RFC 9250): a query a stream.
//!
//! | client | answer |
//! |---|---|
//! | a message with id 0, its length in front, then FIN | the same with the reply |
//! | another id, edns-tcp-keepalive, bytes after the message, FIN before its end | connection closed, DOQ_PROTOCOL_ERROR (section 4.3.3) |
//! | what gets silence over UDP | the same |
//! | a stream that takes longer than [`ConnectionLimits::read`] | stream reset, DOQ_UNSPECIFIED_ERROR |
//! | no stream for [`ConnectionLimits::idle`] | connection closed, DOQ_NO_ERROR |
//! | more connections than may be | refused |
//!
//! While many handshakes are under way, a client first has to show that it gets what is sent to its
//! address (Retry, RFC 9000 section 8.1.2), so forged addresses cost no state. There is no 0-RTT,
//! which could be replayed. Connections do not migrate: each worker has a socket of its own, and the
//! kernel would hand a client that moved to another one.

use std::cell::Cell;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use quinn::{
    Endpoint, EndpointConfig, IdleTimeout, Incoming, ReadToEndError, RecvStream, SendStream,
    ServerConfig, TokioRuntime, TransportConfig, VarInt,
};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::answer::encode::Transport;
use crate::limit::{ConnectionLimits, HANDSHAKE, MAX_IN_FLIGHT, Place};
use crate::message;
use crate::metrics::names;
use crate::server::Front;
use crate::tcp::GRACE;
use crate::tls::{Current, TlsIdentity};

/// Nothing is wrong (DOQ_NO_ERROR).
const NO_ERROR: VarInt = VarInt::from_u32(0);
/// The peer does not keep to the protocol (DOQ_PROTOCOL_ERROR).
const PROTOCOL_ERROR: VarInt = VarInt::from_u32(2);
/// DOQ_UNSPECIFIED_ERROR.
const UNSPECIFIED_ERROR: VarInt = VarInt::from_u32(5);

/// Bytes in front of a message that say its length.
const PREFIX: usize = 2;
/// Longest message with its length.
const MAX_STREAM: usize = PREFIX + 65_535;
/// What a connection may send before it is read, bytes.
const RECEIVE_WINDOW: u32 = 256 * 1024;
/// Replies of a connection that are not acknowledged yet, bytes.
const SEND_WINDOW: u64 = 1 << 20;
/// Clients waiting to be looked at.
const MAX_INCOMING: usize = 256;
/// Bytes that such a client may send meanwhile, and all of them.
const INCOMING_BUFFER: (u64, u64) = (16 * 1024, 1 << 20);
/// Handshakes under way above which addresses have to be proven.
const UNPROVEN_HANDSHAKES: usize = 32;
/// Pause before a socket is used again that failed.
const PAUSE: Duration = Duration::from_millis(100);
/// How long clients are told that the server is gone.
const FAREWELL: Duration = Duration::from_millis(500);

/// Serves DNS over QUIC.
pub(crate) async fn serve(
    server: Front,
    socket: UdpSocket,
    identity: TlsIdentity,
    limits: ConnectionLimits,
    shutdown: CancellationToken,
) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    let listener = Listener {
        server,
        identity,
        limits,
        shutdown,
        handshakes: Rc::default(),
    };
    while !listener.shutdown.is_cancelled() {
        let (current, config) = listener.config();
        let endpoint = Endpoint::new(
            EndpointConfig::default(),
            Some((*config).clone()),
            socket.try_clone()?,
            Arc::new(TokioRuntime),
        )?;
        listener.accept(&endpoint, current, config).await;
        if !listener.shutdown.is_cancelled() {
            tracing::warn!("the socket of DNS over QUIC failed");
            sleep(PAUSE).await;
        }
    }
    Ok(())
}

struct Listener {
    server: Front,
    identity: TlsIdentity,
    limits: ConnectionLimits,
    shutdown: CancellationToken,
    /// Handshakes under way.
    handshakes: Rc<Cell<usize>>,
}

/// A handshake under way.
struct Handshake(Rc<Cell<usize>>);

impl Drop for Handshake {
    fn drop(&mut self) {
        self.0.update(|count| count - 1);
    }
}

impl Listener {
    /// The certificate of now, and what connections are accepted with.
    fn config(&self) -> (Arc<Current>, Arc<ServerConfig>) {
        let current = self.identity.current();
        let mut config = ServerConfig::with_crypto(Arc::clone(&current.quic) as _);
        config
            .migration(false)
            .max_incoming(MAX_INCOMING)
            .incoming_buffer_size(INCOMING_BUFFER.0)
            .incoming_buffer_size_total(INCOMING_BUFFER.1)
            .transport_config(Arc::new(transport(self.limits.idle)));
        (current, Arc::new(config))
    }

    /// Accepts connections until shutdown or until the endpoint ends, and waits a while for those
    /// that are open.
    async fn accept(
        &self,
        endpoint: &Endpoint,
        mut current: Arc<Current>,
        mut config: Arc<ServerConfig>,
    ) {
        let open = TaskTracker::new();
        loop {
            let incoming = tokio::select! {
                biased;
                () = self.shutdown.cancelled() => break,
                incoming = endpoint.accept() => incoming,
            };
            let Some(incoming) = incoming else {
                return;
            };
            let proven = incoming.remote_address_validated();
            if !proven && self.handshakes.get() >= UNPROVEN_HANDSHAKES && incoming.may_retry() {
                // It may, as was just asked.
                let _ = incoming.retry();
                continue;
            }
            let Some(place) = self
                .limits
                .connections
                .admit(incoming.remote_address().ip())
            else {
                incoming.refuse();
                continue;
            };
            if !Arc::ptr_eq(&current, &self.identity.current()) {
                (current, config) = self.config();
            }
            self.handshakes.update(|count| count + 1);
            let handshake = Handshake(Rc::clone(&self.handshakes));
            let connection = Connection {
                server: self.server.clone(),
                limits: self.limits.clone(),
                shutdown: self.shutdown.clone(),
                client: incoming.remote_address(),
                _place: place,
            };
            let config = Arc::clone(&config);
            open.spawn_local(connection.serve(incoming, config, handshake));
        }
        open.close();
        // What is still open is given up.
        let _ = timeout(GRACE, open.wait()).await;
        endpoint.close(NO_ERROR, b"");
        let _ = timeout(FAREWELL, endpoint.wait_idle()).await;
    }
}

fn transport(idle: Duration) -> TransportConfig {
    let mut transport = TransportConfig::default();
    let idle = IdleTimeout::try_from(idle).ok();
    transport
        .max_idle_timeout(idle)
        .max_concurrent_bidi_streams(VarInt::from_u32(MAX_IN_FLIGHT as u32))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(MAX_STREAM as u32))
        .receive_window(VarInt::from_u32(RECEIVE_WINDOW))
        .send_window(SEND_WINDOW)
        .datagram_receive_buffer_size(None);
    transport
}

/// A client.
struct Connection {
    server: Front,
    limits: ConnectionLimits,
    shutdown: CancellationToken,
    client: SocketAddr,
    _place: Place,
}

impl Connection {
    /// Serves a connection until the client closes it, breaks the protocol or has nothing to ask.
    async fn serve(self, incoming: Incoming, config: Arc<ServerConfig>, handshake: Handshake) {
        let Ok(connecting) = incoming.accept_with(config) else {
            return;
        };
        let Ok(Ok(connection)) = timeout(HANDSHAKE, connecting).await else {
            return;
        };
        drop(handshake);
        let mut streams = FuturesUnordered::new();
        let mut idle_at = Instant::now() + self.limits.idle_now();
        let mut reading = true;
        let code = loop {
            if !reading && streams.is_empty() {
                break NO_ERROR;
            }
            tokio::select! {
                biased;
                Some(ended) = streams.next(), if !streams.is_empty() => {
                    let code = match ended {
                        Ok(code) => code,
                        Err(ProtocolError) => PROTOCOL_ERROR,
                    };
                    let status = u16::try_from(code.into_inner()).unwrap_or(u16::MAX);
                    self.server.statuses().count(&names::QUIC_RESPONSES, status);
                    if code == PROTOCOL_ERROR {
                        break PROTOCOL_ERROR;
                    }
                }
                () = self.shutdown.cancelled(), if reading => reading = false,
                stream = connection.accept_bi(), if reading => match stream {
                    Ok((send, receive)) => streams.push(self.stream(send, receive)),
                    Err(_closed) => return,
                },
                () = sleep_until(idle_at), if streams.is_empty() => break NO_ERROR,
            }
            idle_at = Instant::now() + self.limits.idle_now();
        };
        connection.close(code, b"");
    }

    /// Answers the query of a stream. The code says how that ended.
    async fn stream(
        &self,
        mut send: SendStream,
        mut receive: RecvStream,
    ) -> Result<VarInt, ProtocolError> {
        let read = timeout(self.limits.read, receive.read_to_end(MAX_STREAM));
        let bytes = match read.await {
            Ok(Ok(bytes)) => bytes,
            Ok(Err(ReadToEndError::TooLong)) => return Err(ProtocolError),
            // The client changed its mind, or is gone.
            Ok(Err(ReadToEndError::Read(_))) => return Ok(NO_ERROR),
            Err(_late) => {
                // Both say that the stream is gone already, which is as well.
                let _ = receive.stop(UNSPECIFIED_ERROR);
                let _ = send.reset(UNSPECIFIED_ERROR);
                return Ok(UNSPECIFIED_ERROR);
            }
        };
        let query = message_of(&bytes)?;
        let mut reply = vec![0; PREFIX];
        let answered = self
            .server
            .answer(query, self.client, Transport::Quic, &mut reply);
        if !answered.await {
            return Err(ProtocolError);
        }
        let length = (reply.len() - PREFIX) as u16;
        reply[..PREFIX].copy_from_slice(&length.to_be_bytes());
        let sent = async {
            send.write_all(&reply).await.ok()?;
            send.finish().ok()?;
            // Until all of it was acknowledged: closing the connection would throw the rest away.
            send.stopped().await.ok()
        };
        // Whether the client takes the reply is its own business.
        let _ = timeout(self.limits.write, sent).await;
        Ok(NO_ERROR)
    }
}

/// The client does what RFC 9250 section 4.3.3 forbids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ProtocolError;

/// The message of a stream, which has to be the only one.
fn message_of(bytes: &[u8]) -> Result<&[u8], ProtocolError> {
    let (length, query) = bytes.split_first_chunk().ok_or(ProtocolError)?;
    if usize::from(u16::from_be_bytes(*length)) != query.len() || !query.starts_with(&[0, 0]) {
        return Err(ProtocolError);
    }
    match message::parse(query) {
        Ok(query) if query.edns.is_some_and(|edns| edns.keepalive) => Err(ProtocolError),
        _ => Ok(query),
    }
}

#[cfg(test)]
mod tests;
