//! Connections with a mark.

use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::Uri;
use hyper_util::rt::TokioIo;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tower::Service;

/// Makes TCP connections that carry a mark (`SO_MARK`).
#[derive(Clone, Debug)]
pub(super) struct MarkedConnector {
    mark: u32,
    keepalive: Duration,
}

impl MarkedConnector {
    /// With probes after `keepalive` without a segment.
    pub(super) fn new(mark: u32, keepalive: Duration) -> Self {
        Self { mark, keepalive }
    }

    /// Tries the host's addresses one after the other.
    async fn dial(self, uri: Uri) -> io::Result<TokioIo<TcpStream>> {
        let host = uri.host().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let is_tls = uri.scheme() == Some(&http::uri::Scheme::HTTPS);
        let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let mut failure = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
        for addr in lookup_host((host, port)).await? {
            match self.connect(addr).await {
                Ok(stream) => return Ok(TokioIo::new(stream)),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    async fn connect(&self, addr: SocketAddr) -> io::Result<TcpStream> {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.set_mark(self.mark)?;
        let stream = TcpSocket::from_std_stream(socket.into())
            .connect(addr)
            .await?;
        stream.set_nodelay(true)?;
        let keepalive = TcpKeepalive::new().with_time(self.keepalive);
        SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
        Ok(stream)
    }
}

impl Service<Uri> for MarkedConnector {
    type Response = TokioIo<TcpStream>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().dial(uri))
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn connections_carry_the_mark_and_reach_hosts_by_name_and_address() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut connector = MarkedConnector::new(7, Duration::from_secs(30));
        for host in ["127.0.0.1", "localhost"] {
            let uri: Uri = format!("https://{host}:{port}").parse().unwrap();
            match connector.call(uri).await {
                Ok(stream) => {
                    let stream = stream.into_inner();
                    assert_eq!(SockRef::from(&stream).mark().unwrap(), 7, "{host}");
                    assert!(stream.nodelay().unwrap(), "{host}");
                }
                // Without CAP_NET_ADMIN.
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::PermissionDenied),
            }
        }
    }
}
