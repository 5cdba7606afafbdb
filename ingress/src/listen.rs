//! Accepting the gateway's connections.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use futures_util::FutureExt;
use sealane_proxy::accept::Acceptor;
use sealane_proxy::admission::{Connections, Place};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Accepts until `shutdown`, then waits for the connections that it started. One that is not admitted
/// is closed at once.
///
/// # Errors
/// The listener cannot be used any more.
pub(crate) async fn accept_loop<F, C>(
    listener: TcpListener,
    admitted: &Connections,
    shutdown: CancellationToken,
    mut connection: F,
) -> io::Result<()>
where
    F: FnMut(TcpStream, SocketAddr, Rc<Place>) -> C,
    C: Future<Output = ()> + 'static,
{
    let connections = TaskTracker::new();
    let mut start = |stream: TcpStream, client: SocketAddr| {
        if let Ok(place) = admitted.admit(client.ip(), &shutdown) {
            // Fails only if the client is gone already, which the first read will tell.
            let _ = stream.set_nodelay(true);
            connections.spawn_local(connection(stream, client, Rc::new(place)));
        }
    };
    let mut acceptor = Acceptor::default();
    loop {
        let accepted = tokio::select! {
            accepted = acceptor.accept(&listener) => accepted,
            () = shutdown.cancelled() => break,
        };
        let (stream, client) = accepted?;
        start(stream, client);
    }
    // Closing the listener resets what waits in its queue; those clients were promised service.
    while let Some(Ok((stream, client))) = listener.accept().now_or_never() {
        start(stream, client);
    }
    drop(listener);
    connections.close();
    connections.wait().await;
    Ok(())
}
