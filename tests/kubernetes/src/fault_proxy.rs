//! A TCP proxy in front of the API server that does to connections what networks do.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Context as _;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What happens to connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// Bytes pass.
    Up,
    /// Nothing passes any more in either direction, but nobody is told: connections stay open.
    /// Those that were open then, or are opened meanwhile, stay dead when the network is up again,
    /// as behind a firewall that has forgotten them.
    BlackHole,
    /// All connections are closed, new ones at once.
    Down,
}

#[derive(Clone, Copy, Debug)]
struct State {
    network: Network,
    /// How often connections were cut.
    cuts: u64,
}

/// The proxy; it ends with this value.
#[derive(Debug)]
pub struct FaultProxy {
    addr: SocketAddr,
    state: watch::Sender<State>,
    task: JoinHandle<()>,
}

impl FaultProxy {
    /// Starts it on a free loopback port, in front of `target`.
    ///
    /// # Errors
    /// There is no free port.
    pub async fn start(target: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.context("cannot listen on loopback")?;
        let addr = listener.local_addr().context("a bound socket's address")?;
        let (sender, state) = watch::channel(State {
            network: Network::Up,
            cuts: 0,
        });
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(relay(client, target, state.clone()));
            }
        });
        Ok(Self {
            addr,
            state: sender,
            task,
        })
    }

    /// Its URL, instead of the API server's.
    pub fn url(&self) -> String {
        format!("https://{}", self.addr)
    }

    /// Changes the network.
    pub fn set(&self, network: Network) {
        self.state.send_modify(|state| state.network = network);
    }

    /// Closes all connections; new ones pass.
    pub fn cut(&self) {
        self.state.send_modify(|state| state.cuts += 1);
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        // Connections end as well: their end of the channel is closed.
        self.task.abort();
    }
}

async fn relay(mut client: TcpStream, target: SocketAddr, mut state: watch::Receiver<State>) {
    let up = async {
        // Nobody there looks to the client as it would without a proxy: the connection is closed.
        let mut server = TcpStream::connect(target).await.ok()?;
        copy_bidirectional(&mut client, &mut server).await.ok()
    };
    let cuts = state.borrow().cuts;
    let ended = async {
        let is_over = |state: &State| state.network != Network::Up || state.cuts != cuts;
        let changed = state.wait_for(is_over).await;
        changed.map_or(Network::Down, |state| state.network)
    };
    let network = tokio::select! {
        _ = up => return,
        network = ended => network,
    };
    if network == Network::BlackHole {
        let is_over = |state: &State| state.network == Network::Down || state.cuts != cuts;
        // The error means that the proxy has ended.
        let _ = state.wait_for(is_over).await;
    }
}
