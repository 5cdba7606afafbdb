//! A client with one socket and one connection.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use crate::wire::{Query, Reply};

/// How long a reply may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// How a query travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Udp,
    Tcp,
}

/// Asks one server.
#[derive(Debug)]
pub(crate) struct Client {
    server: SocketAddr,
    socket: UdpSocket,
    connection: Option<TcpStream>,
    id: u16,
}

impl Client {
    /// A client of this server.
    pub(crate) fn new(server: SocketAddr) -> Self {
        let any = match server {
            SocketAddr::V4(_) => "0.0.0.0:0",
            SocketAddr::V6(_) => "[::]:0",
        };
        let socket = UdpSocket::bind(any).unwrap();
        socket.connect(server).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self {
            server,
            socket,
            connection: None,
            id: 0,
        }
    }

    /// The reply to a query.
    ///
    /// # Errors
    /// There was none in time, or it cannot be read.
    pub(crate) fn ask(&mut self, query: &Query, transport: Transport) -> Result<Reply, String> {
        self.id = self.id.wrapping_add(1);
        let message = query.message(self.id);
        let answer = match transport {
            Transport::Udp => self.over_udp(&message),
            Transport::Tcp => self.over_tcp(&message),
        };
        let answer = answer.map_err(|error| format!("{transport:?}: {error}"))?;
        Reply::read(&answer)
    }

    fn over_udp(&self, message: &[u8]) -> std::io::Result<Vec<u8>> {
        self.socket.send(message)?;
        let mut buffer = vec![0; 65_535];
        loop {
            let length = self.socket.recv(&mut buffer)?;
            // One that came too late for an earlier query is not it.
            if buffer[..length].starts_with(&message[..2]) {
                buffer.truncate(length);
                return Ok(buffer);
            }
        }
    }

    fn over_tcp(&mut self, message: &[u8]) -> std::io::Result<Vec<u8>> {
        if let Some(connection) = &mut self.connection
            && let Ok(answer) = exchange(connection, message)
        {
            return Ok(answer);
        }
        let mut connection = TcpStream::connect_timeout(&self.server, PATIENCE)?;
        connection.set_read_timeout(Some(PATIENCE))?;
        connection.set_nodelay(true)?;
        let answer = exchange(&mut connection, message);
        self.connection = Some(connection);
        answer
    }
}

fn exchange(connection: &mut TcpStream, message: &[u8]) -> std::io::Result<Vec<u8>> {
    let length = u16::try_from(message.len()).expect("a short query");
    connection.write_all(&[&length.to_be_bytes()[..], message].concat())?;
    let mut length = [0; 2];
    connection.read_exact(&mut length)?;
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    connection.read_exact(&mut answer)?;
    Ok(answer)
}
