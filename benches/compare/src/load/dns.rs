//! DNS queries over UDP: a few sockets, each with a window of queries that are in flight, sent and
//! received many at a time, so that one CPU of load is enough for one CPU of server.

use std::io::{ErrorKind, IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrIn, recvmmsg, sendmmsg};

use super::Served;
use crate::gate::Gate;

/// Sockets, which are clients to the server.
const CLIENTS: usize = 8;
/// Queries in flight of each.
const WINDOW: usize = 32;
/// After this time without any reply a client's queries count as lost.
const LOST: Duration = Duration::from_millis(500);
/// Queries that may be lost, of a thousand: more, and it is not the load that was asked for.
const MAX_LOST: u64 = 1;
/// Longest reply that is read.
const REPLY: usize = 1232;
/// One reply of so many has its time taken.
const SAMPLE: u64 = 8;

/// A query and what the reply to it has to be.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    /// The message.
    pub(crate) message: Vec<u8>,
    /// Code.
    pub(crate) rcode: u8,
    /// Records in the answer section.
    pub(crate) answers: u8,
}

impl Question {
    /// A query for a name, with RD set and without EDNS, as the resolver of glibc makes it.
    pub(crate) fn new(name: &str, record_type: u16, rcode: u8, answers: u8) -> Self {
        let mut message = vec![0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            message.push(label.len() as u8);
            message.extend_from_slice(label.as_bytes());
        }
        message.push(0);
        message.extend_from_slice(&record_type.to_be_bytes());
        message.extend_from_slice(&[0, 1]);
        Self {
            message,
            rcode,
            answers,
        }
    }

    /// Asks on a socket that is connected to a server; whether the next reply is the one expected.
    pub(crate) fn is_answered_on(&self, socket: &UdpSocket) -> bool {
        let mut reply = [0; REPLY];
        let asked = socket.send(&self.message);
        let received = asked.and_then(|_sent| socket.recv(&mut reply));
        received.is_ok_and(|length| self.is_answered_by(&reply[..length]))
    }

    fn is_answered_by(&self, reply: &[u8]) -> bool {
        matches!(reply, [_, _, flags, code, _, 1, _, answers, ..]
            if flags & 0x80 != 0 && code & 15 == self.rcode && *answers == self.answers)
    }
}

/// Asks the questions in turn, over and over.
///
/// # Errors
/// A reply was not the one expected, or too many queries were lost.
pub(crate) fn dns(
    addr: SocketAddr,
    questions: &[Question],
    time: Duration,
    gate: &Gate,
) -> anyhow::Result<Served> {
    let mut next = 0;
    let mut clients = Vec::with_capacity(CLIENTS);
    for _ in 0..CLIENTS {
        clients.push(Client::new(addr)?);
    }
    let begun = Instant::now();
    for client in &mut clients {
        client.fill(questions, &mut next, begun)?;
    }
    let mut taken = Vec::new();
    let (mut served, mut lost) = (0, 0);
    let mut now = begun;
    while now - begun < time {
        gate.pass();
        let mut idle = true;
        for client in &mut clients {
            let replies = client.receive(questions, now, &mut taken)?;
            served += replies;
            idle &= replies == 0;
            if now - client.heard > LOST {
                lost += client.give_up(now);
            }
            client.fill(questions, &mut next, now)?;
        }
        if idle {
            wait(&clients)?;
        }
        now = Instant::now();
    }
    ensure!(served > 0, "all queries were lost");
    ensure!(
        lost * 1000 <= MAX_LOST * served,
        "{lost} of {} queries were lost",
        served + lost
    );
    let sampled = Served::of(taken, now - begun);
    Ok(Served {
        requests: served,
        ..sampled
    })
}

/// The server answers this question as it should.
pub(crate) fn is_answered(addr: SocketAddr, question: &Question) -> bool {
    let socket = || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect(addr)?;
        socket.set_read_timeout(Some(LOST))?;
        std::io::Result::Ok(socket)
    };
    socket().is_ok_and(|socket| question.is_answered_on(&socket))
}

/// Waits until a reply is there.
fn wait(clients: &[Client]) -> anyhow::Result<()> {
    let polled = |client| PollFd::new(Client::fd(client), PollFlags::POLLIN);
    let mut polled: Vec<PollFd<'_>> = clients.iter().map(polled).collect();
    poll(&mut polled, PollTimeout::from(50u8)).context("poll")?;
    Ok(())
}

/// A query in flight.
#[derive(Clone, Copy)]
struct Flight {
    id: u16,
    question: usize,
    sent: Instant,
}

struct Client {
    socket: UdpSocket,
    to_send: MultiHeaders<SockaddrIn>,
    to_receive: MultiHeaders<SockaddrIn>,
    buffers: Vec<[u8; REPLY]>,
    messages: Vec<Vec<u8>>,
    /// Slot of a query: the lower part of its id.
    flights: [Option<Flight>; WINDOW],
    /// Counts up in the higher part of ids.
    round: u16,
    replies: u64,
    heard: Instant,
}

impl Client {
    fn new(addr: SocketAddr) -> anyhow::Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect(addr)?;
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            to_send: MultiHeaders::preallocate(WINDOW, None),
            to_receive: MultiHeaders::preallocate(WINDOW, None),
            buffers: vec![[0; REPLY]; WINDOW],
            messages: vec![Vec::new(); WINDOW],
            flights: [None; WINDOW],
            round: 0,
            replies: 0,
            heard: Instant::now(),
        })
    }

    fn fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Takes replies that have arrived. Returns how many.
    fn receive(
        &mut self,
        questions: &[Question],
        now: Instant,
        taken: &mut Vec<Duration>,
    ) -> anyhow::Result<u64> {
        let mut lengths = [0; WINDOW];
        let mut count = 0;
        {
            let mut parts: Vec<[IoSliceMut<'_>; 1]> = self
                .buffers
                .iter_mut()
                .map(|buffer| [IoSliceMut::new(buffer)])
                .collect();
            let fd = self.socket.as_raw_fd();
            let parts = parts.iter_mut();
            match recvmmsg(fd, &mut self.to_receive, parts, MsgFlags::empty(), None) {
                Ok(received) => {
                    for (length, message) in lengths.iter_mut().zip(received) {
                        *length = message.bytes;
                        count += 1;
                    }
                }
                Err(error) if would_block(error) => return Ok(0),
                Err(error) => return Err(error).context("nobody answers"),
            }
        }
        let mut served = 0;
        for (buffer, length) in self.buffers.iter().zip(&lengths[..count]) {
            let reply = &buffer[..*length];
            let [high, low, ..] = *reply else {
                bail!("a reply of {length} bytes");
            };
            let id = u16::from_be_bytes([high, low]);
            let flight = &mut self.flights[usize::from(id) % WINDOW];
            // A reply that comes after its query was given up is of another round.
            let Some(found) = flight.take_if(|flight| flight.id == id) else {
                continue;
            };
            let question = &questions[found.question];
            ensure!(
                question.is_answered_by(reply),
                "expected code {} and {} records, got {reply:02x?} for {:02x?}",
                question.rcode,
                question.answers,
                question.message
            );
            served += 1;
            self.replies += 1;
            if self.replies.is_multiple_of(SAMPLE) {
                taken.push(now.saturating_duration_since(found.sent));
            }
        }
        if served > 0 {
            self.heard = now;
        }
        Ok(served)
    }

    /// Counts everything in flight as lost.
    fn give_up(&mut self, now: Instant) -> u64 {
        self.heard = now;
        let mut lost = 0;
        for flight in &mut self.flights {
            lost += u64::from(flight.take().is_some());
        }
        lost
    }

    /// Sends as many queries as there is room for in the window.
    fn fill(
        &mut self,
        questions: &[Question],
        next: &mut usize,
        now: Instant,
    ) -> anyhow::Result<()> {
        let mut count = 0;
        for (slot, flight) in self.flights.iter_mut().enumerate() {
            if flight.is_some() {
                continue;
            }
            self.round = self.round.wrapping_add(WINDOW as u16);
            let id = self.round | slot as u16;
            let question = *next % questions.len();
            *next += 1;
            let message = &mut self.messages[count];
            message.clear();
            message.extend_from_slice(&questions[question].message);
            message[..2].copy_from_slice(&id.to_be_bytes());
            *flight = Some(Flight {
                id,
                question,
                sent: now,
            });
            count += 1;
        }
        let parts: Vec<[IoSlice<'_>; 1]> = self.messages[..count]
            .iter()
            .map(|message| [IoSlice::new(message)])
            .collect();
        let mut sent = 0;
        while sent < count {
            let result = sendmmsg(
                self.socket.as_raw_fd(),
                &mut self.to_send,
                &parts[sent..],
                vec![None::<SockaddrIn>; count - sent],
                [],
                MsgFlags::empty(),
            );
            match result {
                Ok(results) => sent += results.count(),
                Err(error) if would_block(error) => {}
                Err(error) => return Err(error).context("nobody listens"),
            }
        }
        Ok(())
    }
}

fn would_block(error: nix::Error) -> bool {
    std::io::Error::from(error).kind() == ErrorKind::WouldBlock
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_lies_or_is_silent_is_found_out() {
        let questions = [Question::new("a.test", 1, 0, 1)];
        let server = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        let addr = server.local_addr().expect("it is bound");
        let time = Duration::from_millis(700);
        let silent = dns(addr, &questions, time, &Gate::new(true)).expect_err("nobody answers");
        assert!(silent.to_string().contains("lost"), "{silent}");
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 512];
            // Ends with an empty datagram.
            while let Ok((length @ 1.., peer)) = server.recv_from(&mut buffer) {
                buffer[2] |= 0x80;
                buffer[3] = 3;
                // The client ends at the first wrong reply.
                let _ = server.send_to(&buffer[..length], peer);
            }
        });
        let wrong = dns(addr, &questions, time, &Gate::new(true)).expect_err("a wrong code");
        assert!(wrong.to_string().contains("expected code 0"), "{wrong}");
        let last = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        last.send_to(&[], addr).expect("it listens");
        thread.join().expect("it was told to end");
    }
}
