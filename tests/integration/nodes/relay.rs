//! The way from a node to the API server, which can be cut.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use tokio::io::copy_bidirectional;
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::task::{JoinHandle, JoinSet};

use super::api::WITHIN;
use super::net::Namespace;

/// A relay from [`WITHIN`] in a namespace to the API server.
pub(super) struct Relay {
    namespace: Arc<Namespace>,
    to: SocketAddr,
    running: Mutex<Option<JoinHandle<()>>>,
}

impl Relay {
    /// Starts it.
    pub(super) async fn start(namespace: Arc<Namespace>, to: SocketAddr) -> Self {
        let running = Mutex::new(None);
        let relay = Self {
            namespace,
            to,
            running,
        };
        relay.heal().await;
        relay
    }

    /// Cuts all connections and refuses new ones.
    pub(super) async fn cut(&self) {
        if let Some(running) = self.running.lock().await.take() {
            running.abort();
            let _ = running.await;
        }
    }

    /// Takes connections again.
    pub(super) async fn heal(&self) {
        let listener = self.namespace.run(|| {
            let listener = TcpListener::bind(WITHIN).unwrap();
            listener.set_nonblocking(true).unwrap();
            listener
        });
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let running = tokio::spawn(relay(listener, self.to));
        *self.running.lock().await = Some(running);
    }
}

async fn relay(listener: tokio::net::TcpListener, to: SocketAddr) {
    // Connections end with this task.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((mut inner, _)) = accepted else { return };
                connections.spawn(async move {
                    if let Ok(mut outer) = TcpStream::connect(to).await {
                        let _ = copy_bidirectional(&mut inner, &mut outer).await;
                    }
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}
