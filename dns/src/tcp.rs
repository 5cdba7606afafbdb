//! DNS over TCP (RFC 7766), and what all transports over TCP share: accepting connections.
//!
//! | limit | value | above |
//! |---|---|---|
//! | connections, all together | [`ConnectionCaps::total`] | the new one is closed |
//! | connections of a client address | [`ConnectionCaps::per_client`] | the new one is closed |
//! | queries in flight of a connection | 32 | nothing is read until one is answered |
//! | from a message's first byte to its last | [`ConnectionLimits::read`] | closed |
//! | between messages, nothing in flight | [`ConnectionLimits::idle`] | closed |
//! | to take replies | [`ConnectionLimits::write`] | closed |
//!
//! Queries of a connection are answered as answers come, not in order.
//!
//! [`ConnectionCaps::total`]: crate::limit::ConnectionCaps::total
//! [`ConnectionCaps::per_client`]: crate::limit::ConnectionCaps::per_client

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::limit::ConnectionLimits;
use crate::server::Front;

pub(crate) mod connection;

/// How long connections may go on after shutdown.
pub(crate) const GRACE: Duration = Duration::from_secs(5);
/// First and longest pause after an error of `accept` that does not go away by itself, such as
/// EMFILE.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(100));

/// Serves DNS over TCP.
pub(crate) async fn serve(
    server: Front,
    listener: std::net::TcpListener,
    limits: ConnectionLimits,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let handle = |stream: TcpStream, client| {
        let (server, limits, shutdown) = (server.clone(), limits.clone(), shutdown.clone());
        async move {
            let (read, write) = stream.into_split();
            connection::serve(&server, read, write, client, &limits, shutdown).await;
        }
    };
    accept(listener, &limits, &shutdown, handle).await
}

/// Accepts connections until `shutdown`, then waits a while for those that are open. Each one that
/// the limits have room for is handled in a task of its own.
pub(crate) async fn accept<F>(
    listener: std::net::TcpListener,
    limits: &ConnectionLimits,
    shutdown: &CancellationToken,
    handle: impl Fn(TcpStream, SocketAddr) -> F,
) -> io::Result<()>
where
    F: Future<Output = ()> + 'static,
{
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let open = TaskTracker::new();
    let mut pause = BACKOFF.0;
    loop {
        let accepted = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, client) = match accepted {
            Ok(accepted) => accepted,
            Err(error) if is_of_connection(&error) => continue,
            Err(error) => {
                if pause == BACKOFF.0 {
                    tracing::warn!(%error, "cannot accept DNS connections");
                }
                sleep(pause).await;
                pause = (pause * 2).min(BACKOFF.1);
                continue;
            }
        };
        pause = BACKOFF.0;
        let Some(place) = limits.connections.admit(client.ip()) else {
            continue;
        };
        // Replies are written whole; there is nothing that waiting could add to them. A connection
        // for which that cannot be set is one that is gone.
        if stream.set_nodelay(true).is_err() {
            continue;
        }
        let connection = handle(stream, client);
        open.spawn_local(async move {
            connection.await;
            drop(place);
        });
    }
    drop(listener);
    open.close();
    // What is still open is given up.
    let _ = timeout(GRACE, open.wait()).await;
    Ok(())
}

/// The error is about a connection that is gone, not about the listener.
fn is_of_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    )
}
