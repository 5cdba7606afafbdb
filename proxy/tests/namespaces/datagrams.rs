//! Datagrams of pods: servers, clients and Service ports for them.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use sealane_config::model::{AppProtocol, Protocol, ServicePort};
use tokio_util::sync::CancellationToken;

use crate::world::{Pod, TIMEOUT, eventually, service_port};

impl Pod {
    /// A server in the pod that answers each datagram with its name, the client's address and the
    /// text. Closed when the returned value is dropped.
    pub(crate) fn serve_datagrams(&self, name: &'static str, port: u16) -> DatagramServer {
        let addr = (self.ip, port);
        DatagramServer::start(name, self.run(move || UdpSocket::bind(addr).unwrap()))
    }

    /// A socket of the pod that is connected to `addr`.
    pub(crate) fn datagrams(&self, addr: impl Into<SocketAddr>) -> UdpSocket {
        let addr = addr.into();
        self.run(move || datagrams(addr))
    }
}

/// A socket that is connected to `addr`, in the namespace of the calling thread.
pub(crate) fn datagrams(addr: SocketAddr) -> UdpSocket {
    let any: IpAddr = if addr.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    let socket = UdpSocket::bind((any, 0)).unwrap();
    socket.set_read_timeout(Some(TIMEOUT)).unwrap();
    socket.connect(addr).unwrap();
    socket
}

/// Sends a datagram and returns the answer.
pub(crate) fn ask_once(socket: &UdpSocket, text: &str) -> Result<String, io::ErrorKind> {
    socket.send(text.as_bytes()).map_err(|e| e.kind())?;
    let mut answer = vec![0; 65536];
    let length = socket.recv(&mut answer).map_err(|e| e.kind())?;
    answer.truncate(length);
    Ok(String::from_utf8(answer).unwrap())
}

/// The first word of an answer: who gave it.
pub(crate) fn who(answer: &str) -> &str {
    answer.split(' ').next().unwrap()
}

/// Asks until somebody answers: datagrams may be lost, and refusals come late.
pub(crate) fn who_answers(socket: &UdpSocket) -> String {
    let answer = eventually(|| ask_once(socket, "who"), Result::is_ok);
    who(&answer.unwrap()).to_owned()
}

/// A thread that answers datagrams.
pub(crate) struct DatagramServer {
    socket: Arc<UdpSocket>,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl DatagramServer {
    pub(crate) fn start(name: &'static str, socket: UdpSocket) -> Self {
        socket
            .set_read_timeout(Some(Duration::from_millis(20)))
            .unwrap();
        let (socket, stop) = (Arc::new(socket), CancellationToken::new());
        let (served, stopped) = (Arc::clone(&socket), stop.clone());
        let thread = std::thread::spawn(move || {
            let mut text = vec![0; 65536];
            while !stopped.is_cancelled() {
                let Ok((length, client)) = served.recv_from(&mut text) else {
                    continue;
                };
                let answer = format!(
                    "{name} {client} {}",
                    String::from_utf8_lossy(&text[..length])
                );
                // A client may be gone.
                let _ = served.send_to(answer.as_bytes(), client);
            }
        });
        Self {
            socket,
            stop,
            thread: Some(thread),
        }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.socket.local_addr().unwrap()
    }
}

impl Drop for DatagramServer {
    fn drop(&mut self) {
        self.stop.cancel();
        self.thread.take().unwrap().join().unwrap();
    }
}

/// A UDP Service port with these endpoints.
pub(crate) fn udp_port(number: u16, endpoints: &[SocketAddr]) -> ServicePort {
    let mut sorted = endpoints.to_vec();
    sorted.sort_unstable();
    let mut port = service_port(number, AppProtocol::Detect, &sorted);
    port.protocol = Protocol::Udp;
    port
}
