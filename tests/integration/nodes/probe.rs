//! Clients: what becomes of one connection, request or datagram.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

/// How a Service port is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// A request, on a port that does not say what it speaks.
    Http,
    /// A line, on a port that says that it speaks TCP.
    Opaque,
    /// A datagram, on the port with the same number.
    Datagram,
}

/// Longest wait for what has to come.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// A pod has answered.
    Answered(Said),
    /// Refused, after this time.
    Refused(Duration),
    /// Nothing came back.
    Lost,
    /// Anything else.
    Failed(String),
}

/// What a pod says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Said {
    /// The pod.
    pub(super) pod: String,
    /// Its port.
    pub(super) port: u16,
    /// The client as the pod sees it.
    pub(super) client: SocketAddr,
}

impl Said {
    fn read(text: &str) -> Outcome {
        let mut words = text.trim_end().split(' ');
        let said = (|| {
            Some(Self {
                pod: words.next()?.to_owned(),
                port: words.next()?.parse().ok()?,
                client: words.next()?.parse().ok()?,
            })
        })();
        said.map_or_else(|| Outcome::Failed(format!("{text:?}")), Outcome::Answered)
    }
}

/// Tries once from the calling thread's namespace, and waits so long for a first sign.
pub(super) fn ask(protocol: Protocol, addr: SocketAddr, patience: Duration) -> Outcome {
    match protocol {
        Protocol::Http => request(addr, patience),
        Protocol::Opaque => Connection::open(addr, patience)
            .map_or_else(|outcome| outcome, |mut connection| connection.say()),
        Protocol::Datagram => {
            Datagrams::open(addr).map_or_else(|outcome| outcome, |socket| socket.say(patience))
        }
    }
}

/// A socket for datagrams to one address.
pub(super) struct Datagrams {
    socket: UdpSocket,
}

impl Datagrams {
    /// Makes it in the calling thread's namespace.
    pub(super) fn open(addr: SocketAddr) -> Result<Self, Outcome> {
        let any = match addr {
            SocketAddr::V4(_) => (IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
            SocketAddr::V6(_) => (IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0),
        };
        let socket = UdpSocket::bind(any).unwrap();
        match socket.connect(addr) {
            Ok(()) => Ok(Self { socket }),
            Err(error) => Err(refusal(&error, Duration::ZERO)),
        }
    }

    /// Says hello once, and waits so long for what comes back.
    pub(super) fn say(&self, patience: Duration) -> Outcome {
        self.socket.set_read_timeout(Some(patience)).unwrap();
        let begun = Instant::now();
        let mut buffer = [0; 256];
        let heard = match self.socket.send(b"hello") {
            // Not let out of this machine. If it was refused, that is said next (`nft reject`).
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                self.socket.recv(&mut buffer)
            }
            sent => sent.and_then(|_| self.socket.recv(&mut buffer)),
        };
        match heard {
            Ok(length) => Said::read(&String::from_utf8_lossy(&buffer[..length])),
            Err(error) => refusal(&error, begun.elapsed()),
        }
    }
}

fn request(addr: SocketAddr, patience: Duration) -> Outcome {
    let mut connection = match Connection::open(addr, patience) {
        Ok(connection) => connection,
        Err(outcome) => return outcome,
    };
    let asked = connection.exchange(
        b"GET / HTTP/1.1\r\nhost: shop\r\nconnection: close\r\n\r\n",
        |stream| {
            let mut text = String::new();
            stream.read_to_string(&mut text).map(|_| text)
        },
    );
    match asked {
        Ok(text) => match text.split_once("\r\n\r\n") {
            Some((head, body)) if head.starts_with("HTTP/1.1 200 ") => Said::read(body),
            _ => Outcome::Failed(text),
        },
        Err(error) => Outcome::Failed(format!("connected, then {error}")),
    }
}

/// A connection on which lines are exchanged.
pub(super) struct Connection {
    stream: TcpStream,
}

impl Connection {
    /// Connects from the calling thread's namespace.
    pub(super) fn open(addr: SocketAddr, patience: Duration) -> Result<Self, Outcome> {
        let begun = Instant::now();
        let stream = TcpStream::connect_timeout(&addr, patience)
            .map_err(|error| refusal(&error, begun.elapsed()))?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Ok(Self { stream })
    }

    /// Says hello, and hears who is at the other end.
    pub(super) fn say(&mut self) -> Outcome {
        let asked = self.exchange(b"hello\n", |stream| {
            let mut line = Vec::new();
            let mut byte = [0];
            while byte != *b"\n" {
                stream.read_exact(&mut byte)?;
                line.push(byte[0]);
            }
            String::from_utf8(line).map_err(io::Error::other)
        });
        match asked {
            Ok(line) => Said::read(&line),
            Err(error) => Outcome::Failed(format!("connected, then {error}")),
        }
    }

    fn exchange(
        &mut self,
        message: &[u8],
        answer: impl FnOnce(&mut TcpStream) -> io::Result<String>,
    ) -> io::Result<String> {
        self.stream.write_all(message)?;
        answer(&mut self.stream)
    }
}

fn refusal(error: &io::Error, after: Duration) -> Outcome {
    match error.kind() {
        ErrorKind::ConnectionRefused => Outcome::Refused(after),
        ErrorKind::TimedOut | ErrorKind::WouldBlock => Outcome::Lost,
        _ => Outcome::Failed(error.to_string()),
    }
}
