//! Accepting connections, and going on when that fails.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The first pause after an error that accepting again at once cannot cure.
const SHORTEST_PAUSE: Duration = Duration::from_millis(5);

/// The longest: connections that end meanwhile give their file descriptors back, and the client
/// waits in the kernel's queue.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// Accepts until `shutdown`, then waits for the connections that it started.
pub(crate) async fn accept_loop<F, C>(
    listener: TcpListener,
    shutdown: CancellationToken,
    mut connection: F,
) where
    F: FnMut(TcpStream, SocketAddr) -> C,
    C: Future<Output = ()> + 'static,
{
    let connections = TaskTracker::new();
    let mut pause = SHORTEST_PAUSE;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => break,
        };
        match accepted {
            Ok((stream, client)) => {
                pause = SHORTEST_PAUSE;
                start(&connections, stream, client, &mut connection);
            }
            Err(error) if is_the_clients(&error) => {}
            Err(error) => {
                if pause == SHORTEST_PAUSE {
                    tracing::warn!(%error, "cannot accept connections");
                }
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = shutdown.cancelled() => break,
                }
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
    // Closing the listener resets what waits in its queue; those clients were promised service.
    while let Some(Ok((stream, client))) = listener.accept().now_or_never() {
        start(&connections, stream, client, &mut connection);
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

fn start<F, C>(connections: &TaskTracker, stream: TcpStream, client: SocketAddr, connection: &mut F)
where
    F: FnMut(TcpStream, SocketAddr) -> C,
    C: Future<Output = ()> + 'static,
{
    // Fails only if the client is gone already, which the first read will tell.
    let _ = stream.set_nodelay(true);
    connections.spawn_local(connection(stream, client));
}

/// The connection failed, not the listener.
fn is_the_clients(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
            | io::ErrorKind::PermissionDenied
    )
}
