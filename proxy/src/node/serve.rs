//! What happens to one connection.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use sealane_config::model::{AppProtocol, ClientAddr};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};

use super::Worker;
use crate::ErrorKind;
use crate::balance::Flight;
use crate::connect::tune;
use crate::detect::{Detected, ENOUGH, detect};
use crate::http::{ServiceTarget, Target, Upstream};
use crate::tcp::{Ends, IDLE, Prefixed, relay_counted, reset};

/// A client that is silent for so long waits for the server to speak first (SMTP, MySQL, NATS).
pub(super) const SILENCE: Duration = Duration::from_millis(100);

/// A client that began like HTTP and got stuck is relayed as it is after this.
const UNDECIDED: Duration = Duration::from_secs(5);

/// First bytes that are read for a verdict: a usual request head or TLS hello, so that it goes on in
/// one piece.
const FIRST: usize = 2048;
const _: () = assert!(FIRST >= ENOUGH);

/// How long a destination outside the cluster may take to accept.
const OUTSIDE_CONNECT: Duration = Duration::from_secs(15);

impl Worker {
    pub(super) async fn serve_service(
        &self,
        stream: TcpStream,
        ends: Ends,
        target: ServiceTarget,
        protocol: AppProtocol,
    ) {
        let resolved = target.resolve(Upstream::Http1);
        if resolved.as_ref().is_ok_and(Target::is_cut_off) {
            // Not the same as no endpoints at all, which the kernel refuses: elsewhere there are
            // some, and the client may try again later (proxy S5).
            let metrics = self.metrics.of(Some(&target.backend.service));
            metrics.no_local_endpoints.increment(1);
            return;
        }
        // Who the client is can be said once a connection, not once a request.
        let is_announced = resolved.is_ok_and(|target| target.port.http.sends_proxy_protocol);
        let protocol = if is_announced {
            AppProtocol::Tcp
        } else {
            protocol
        };
        match protocol {
            AppProtocol::Http | AppProtocol::Http2 => {
                self.serve_http(Prefixed::new(Vec::new(), stream), ends.client, target)
                    .await;
            }
            AppProtocol::Tls | AppProtocol::Tcp => {
                self.serve_flow(stream, Vec::new(), ends, &target).await;
            }
            AppProtocol::Detect => self.serve_detected(stream, ends, target).await,
        }
    }

    async fn serve_http(
        &self,
        stream: Prefixed<TcpStream>,
        client: ClientAddr,
        target: ServiceTarget,
    ) {
        let shutdown = self.shutdown.clone();
        // The engine's future is large, and most of a worker's connections are not HTTP ones.
        Box::pin(self.engine.serve_service(stream, client, target, shutdown)).await;
    }

    /// Looks at what the client says first. While it says nothing the server is connected to: it may
    /// be the one that speaks first.
    async fn serve_detected(&self, mut stream: TcpStream, ends: Ends, target: ServiceTarget) {
        let client = ends.client;
        let mut first = Vec::new();
        let spoke = timeout(SILENCE, read_some(&stream, &mut first)).await;
        let (detected, upstream) = match spoke {
            Ok(Ok(_)) => (read_verdict(&stream, &mut first).await, None),
            Ok(Err(error)) => (Err(error), None),
            Err(_silent) => {
                let Some(connected) = self.connect(&stream, ends, &target).await else {
                    return;
                };
                let mut byte = [0];
                let detected = tokio::select! {
                    detected = read_verdict(&stream, &mut first) => detected,
                    _spoke = connected.0.peek(&mut byte) => Ok(Detected::Opaque),
                    () = sleep(IDLE) => Err(io::ErrorKind::TimedOut.into()),
                };
                (detected, Some(connected))
            }
        };
        match (detected, upstream) {
            (Ok(Detected::Http1 | Detected::Http2), unused) => {
                drop(unused);
                let stream = Prefixed::new(first, stream);
                self.serve_http(stream, client, target).await;
            }
            (Ok(Detected::Opaque), Some((mut upstream, _flight))) => {
                let metrics = self.metrics.of(Some(&target.backend.service));
                relay_counted(&mut stream, &mut upstream, first, &metrics).await;
            }
            (Ok(Detected::Opaque), None) => {
                self.serve_flow(stream, first, ends, &target).await;
            }
            (Err(error), _) => tracing::debug!(%client, %error, "client gone"),
        }
    }

    async fn serve_flow(
        &self,
        mut stream: TcpStream,
        first: Vec<u8>,
        ends: Ends,
        target: &ServiceTarget,
    ) {
        if let Some((mut upstream, _flight)) = self.connect(&stream, ends, target).await {
            let metrics = self.metrics.of(Some(&target.backend.service));
            relay_counted(&mut stream, &mut upstream, first, &metrics).await;
        }
    }

    /// Connects to an endpoint; if that fails, the client's connection is set to be reset.
    async fn connect(
        &self,
        stream: &TcpStream,
        ends: Ends,
        target: &ServiceTarget,
    ) -> Option<(TcpStream, Flight)> {
        let client = ends.client;
        let service = &target.backend.service;
        let target = match target.resolve(Upstream::Http1) {
            Ok(resolved) => resolved,
            Err(error) => {
                tracing::debug!(%client, %service, %error, "Service gone");
                reset(stream);
                return None;
            }
        };
        let connected = self.flows.connect(ends, &target, self.engine.balancer());
        match connected.await {
            Ok(connected) => Some(connected),
            Err(error) => {
                self.metrics.of(Some(service)).failed(error.label());
                let error = &error as &(dyn std::error::Error + 'static);
                tracing::debug!(%client, %service, error, "no endpoint");
                reset(stream);
                None
            }
        }
    }

    pub(super) async fn serve_outside(&self, mut stream: TcpStream, addr: SocketAddr) {
        let connect = async {
            let socket = self.host.tcp(addr).await?;
            let upstream = TcpSocket::from_std_stream(socket.into())
                .connect(addr)
                .await?;
            tune(&upstream)?;
            Ok::<_, io::Error>(upstream)
        };
        let metrics = self.metrics.of(None);
        let error = match timeout(OUTSIDE_CONNECT, connect).await {
            Ok(Ok(mut upstream)) => {
                relay_counted(&mut stream, &mut upstream, Vec::new(), &metrics).await;
                return;
            }
            Ok(Err(error)) => error,
            Err(_elapsed) => io::ErrorKind::TimedOut.into(),
        };
        tracing::debug!(%addr, %error, "cannot connect to the outside");
        let kind = if error.kind() == io::ErrorKind::AddrNotAvailable {
            ErrorKind::NoLocalPorts
        } else {
            ErrorKind::ConnectFailed
        };
        metrics.failed(kind.label());
        reset(&stream);
    }
}

/// Reads until the bytes decide. A client that says nothing at all may take any time, one that
/// stops half-way is no HTTP client.
pub(super) async fn read_verdict(stream: &TcpStream, first: &mut Vec<u8>) -> io::Result<Detected> {
    if first.is_empty() && read_some(stream, first).await? == 0 {
        return Ok(Detected::Opaque);
    }
    let read = async {
        loop {
            if let Some(detected) = detect(first) {
                return Ok(detected);
            }
            // The end of the stream is seen again, and passed on, by the relay.
            if read_some(stream, first).await? == 0 {
                return Ok(Detected::Opaque);
            }
        }
    };
    match timeout(UNDECIDED, read).await {
        Ok(verdict) => verdict,
        Err(_elapsed) => Ok(Detected::Opaque),
    }
}

/// Appends what the client says next and returns how many bytes that is; 0 at the end.
async fn read_some(stream: &TcpStream, first: &mut Vec<u8>) -> io::Result<usize> {
    loop {
        match try_read(stream, first) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => stream.readable().await?,
            read => return read,
        }
    }
}

fn try_read(stream: &TcpStream, first: &mut Vec<u8>) -> io::Result<usize> {
    let mut bytes = [0; FIRST];
    let read = stream.try_read(&mut bytes)?;
    first.extend_from_slice(&bytes[..read]);
    Ok(read)
}
