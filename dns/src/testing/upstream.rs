//! An upstream that behaves as a test wants it to.

use std::cell::RefCell;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::{Name, RData, Record, RecordType, rdata};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::spawn_local;

/// What the upstream does with a query, step by step.
pub(crate) enum React {
    Reply(Message),
    /// The same, from another socket.
    ReplyFromElsewhere(Message),
    Raw(Vec<u8>),
    After(Duration),
}

/// A query that the upstream saw.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) name: String,
    pub(crate) id: u16,
    pub(crate) port: u16,
    pub(crate) tcp: bool,
}

/// A running upstream; ends with the local task set of the test.
#[derive(Clone)]
pub(crate) struct Upstream {
    pub(crate) addr: SocketAddr,
    seen: Rc<RefCell<Vec<Seen>>>,
}

impl Upstream {
    /// Starts it on UDP and TCP, on the same port.
    pub(crate) async fn start(react: impl Fn(&Message, bool) -> Vec<React> + 'static) -> Self {
        let (listener, socket) = loop {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            if let Ok(socket) = UdpSocket::bind(listener.local_addr().unwrap()).await {
                break (listener, Rc::new(socket));
            }
        };
        let upstream = Self {
            addr: listener.local_addr().unwrap(),
            seen: Rc::default(),
        };
        let react = Rc::new(react);
        let (by_udp, udp_react) = (upstream.clone(), Rc::clone(&react));
        spawn_local(async move {
            let mut buffer = [0; 4096];
            loop {
                let (length, client) = socket.recv_from(&mut buffer).await.unwrap();
                let steps = by_udp.react(&buffer[..length], client.port(), false, &*udp_react);
                let socket = Rc::clone(&socket);
                spawn_local(async move { play_udp(&socket, client, steps).await });
            }
        });
        let by_tcp = upstream.clone();
        spawn_local(async move {
            loop {
                let (stream, client) = listener.accept().await.unwrap();
                let (upstream, react) = (by_tcp.clone(), Rc::clone(&react));
                spawn_local(async move {
                    upstream.play_tcp(stream, client.port(), &*react).await;
                });
            }
        });
        upstream
    }

    /// Every query so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.borrow().clone()
    }

    fn react(
        &self,
        query: &[u8],
        port: u16,
        tcp: bool,
        react: &dyn Fn(&Message, bool) -> Vec<React>,
    ) -> Vec<React> {
        let query = Message::from_vec(query).unwrap();
        self.seen.borrow_mut().push(Seen {
            name: query.queries[0].name.to_string(),
            id: query.metadata.id,
            port,
            tcp,
        });
        react(&query, tcp)
    }

    async fn play_tcp(
        &self,
        mut stream: TcpStream,
        port: u16,
        react: &dyn Fn(&Message, bool) -> Vec<React>,
    ) {
        let Ok(length) = stream.read_u16().await else {
            return;
        };
        let mut query = vec![0; length.into()];
        stream.read_exact(&mut query).await.unwrap();
        for step in self.react(&query, port, true, react) {
            match step {
                React::Reply(message) | React::ReplyFromElsewhere(message) => {
                    let message = message.to_vec().unwrap();
                    stream.write_u16(message.len() as u16).await.unwrap();
                    stream.write_all(&message).await.unwrap();
                }
                React::Raw(bytes) => stream.write_all(&bytes).await.unwrap(),
                React::After(time) => tokio::time::sleep(time).await,
            }
        }
    }
}

async fn play_udp(socket: &UdpSocket, client: SocketAddr, steps: Vec<React>) {
    for step in steps {
        // The client may be gone by now, which is no concern of the upstream.
        let _ = match step {
            React::Reply(message) => socket.send_to(&message.to_vec().unwrap(), client).await,
            React::Raw(bytes) => socket.send_to(&bytes, client).await,
            React::ReplyFromElsewhere(message) => {
                let other = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
                other.send_to(&message.to_vec().unwrap(), client).await
            }
            React::After(time) => {
                tokio::time::sleep(time).await;
                Ok(0)
            }
        };
    }
}

/// A reply without records.
pub(crate) fn reply(query: &Message, rcode: ResponseCode) -> Message {
    let mut reply = Message::new(query.metadata.id, MessageType::Response, OpCode::Query);
    reply.metadata.response_code = rcode;
    reply.metadata.recursion_available = true;
    reply.add_query(query.queries[0].clone());
    reply
}

/// A reply with one address.
pub(crate) fn address(query: &Message, last: u8) -> Message {
    let mut message = reply(query, ResponseCode::NoError);
    let data = RData::A(rdata::A::new(10, 1, 2, last));
    message.add_answer(Record::from_rdata(query.queries[0].name.clone(), 60, data));
    message
}

/// A negative reply with an SOA record of `test`.
pub(crate) fn negative(query: &Message, rcode: ResponseCode) -> Message {
    let mut message = reply(query, rcode);
    let test = Name::from_ascii("test.").unwrap();
    let soa = rdata::SOA::new(test.clone(), test.clone(), 1, 2, 3, 4, 300);
    message.add_authority(Record::from_rdata(test, 300, RData::SOA(soa)));
    message
}

/// As [`web`], after some time.
pub(crate) fn slow_web(millis: u64) -> impl Fn(&Message, bool) -> Vec<React> {
    move |query, tcp| {
        let wait = React::After(Duration::from_millis(millis));
        std::iter::once(wait).chain(web(query, tcp)).collect()
    }
}

/// `web.test` is 10.1.2.3, and there is nothing else.
pub(crate) fn web(query: &Message, _tcp: bool) -> Vec<React> {
    let asked = &query.queries[0];
    let is_web = asked.name.to_lowercase() == Name::from_ascii("web.test.").unwrap();
    let reply = match (is_web, asked.query_type) {
        (true, RecordType::A) => address(query, 3),
        (true, _) => negative(query, ResponseCode::NoError),
        (false, _) => negative(query, ResponseCode::NXDomain),
    };
    vec![React::Reply(reply)]
}
