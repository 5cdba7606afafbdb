//! DNS over TCP (RFC 7766).
//!
//! | limit | value | above |
//! |---|---|---|
//! | connections a listener | [`MAX_CONNECTIONS`] | the new one is closed |
//! | connections a client address | [`MAX_PER_CLIENT`] | the new one is closed |
//! | queries in flight a connection | [`MAX_IN_FLIGHT`] | nothing is read until one is answered |
//! | from a message's first byte to its last | [`READ_TIMEOUT`] | closed |
//! | between messages, nothing in flight | [`IDLE_TIMEOUT`] | closed |
//! | to take a reply | [`WRITE_TIMEOUT`] | closed |
//!
//! Queries of a connection are answered as answers come, not in order.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::server::Front;

mod connection;

/// Connections of one listener.
const MAX_CONNECTIONS: usize = 1024;
/// Connections of one client address.
const MAX_PER_CLIENT: usize = 64;
/// Queries in flight of one connection.
const MAX_IN_FLIGHT: usize = 32;
/// Time for one message, once it has begun.
const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// Time without a message.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for a client to take a reply.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long connections may go on after shutdown.
const GRACE: Duration = Duration::from_secs(5);
/// First and longest pause after an error of `accept` that does not go away by itself, such as
/// EMFILE.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(100));

pub(crate) async fn serve(
    server: Front,
    listener: std::net::TcpListener,
    shutdown: CancellationToken,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let clients = Clients::default();
    let connections = TaskTracker::new();
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
                tracing::warn!(%error, "cannot accept DNS connections");
                sleep(pause).await;
                pause = (pause * 2).min(BACKOFF.1);
                continue;
            }
        };
        pause = BACKOFF.0;
        let Some(place) = clients.admit(client.ip()) else {
            continue;
        };
        let (server, shutdown) = (server.clone(), shutdown.clone());
        connections.spawn_local(async move {
            connection::serve(&server, stream, client, shutdown).await;
            drop(place);
        });
    }
    drop(listener);
    connections.close();
    // What is still open is given up.
    let _ = timeout(GRACE, connections.wait()).await;
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

/// Open connections by client.
#[derive(Clone, Default)]
struct Clients {
    counts: Rc<RefCell<Counts>>,
}

#[derive(Default)]
struct Counts {
    total: usize,
    by_client: HashMap<IpAddr, usize>,
}

/// A connection that counts.
struct Place {
    clients: Clients,
    client: IpAddr,
}

impl Clients {
    fn admit(&self, client: IpAddr) -> Option<Place> {
        let mut counts = self.counts.borrow_mut();
        if counts.total >= MAX_CONNECTIONS {
            return None;
        }
        let open = counts.by_client.entry(client).or_default();
        if *open >= MAX_PER_CLIENT {
            return None;
        }
        *open += 1;
        counts.total += 1;
        Some(Place {
            clients: self.clone(),
            client,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.clients.counts.borrow_mut();
        counts.total -= 1;
        if let Some(open) = counts.by_client.get_mut(&self.client) {
            *open -= 1;
            if *open == 0 {
                counts.by_client.remove(&self.client);
            }
        }
    }
}
