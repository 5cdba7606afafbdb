//! Accepting connections, and going on when that fails.
//!
//! Whatever accept(2) says, the listener goes on, except that it is none. An error of the connection
//! itself is passed over; one that accepting again at once cannot cure (no descriptors, no memory)
//! is waited out with growing pauses, while clients wait in the kernel's queue.
//!
//! The last descriptors are not for clients: with them the admin listener answers, and the API server
//! is reached again. The kernel gives out the lowest number that is free, so the number of a new
//! connection tells how many are left.

mod fresh;

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use metrics::counter;
use nix::errno::Errno;
use rustix::process::{Resource, getrlimit};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

pub use fresh::{Fresh, Listener};

/// The first pause and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(100));

/// Descriptors that are not for clients.
pub const RESERVED: u64 = 32;

const ERRORS: &str = "sealane_accept_errors_total";

/// Accepts on one listener.
#[derive(Debug)]
pub struct Acceptor {
    pause: Duration,
    /// Descriptors up to this number left enough for others when they were given out: only a higher
    /// one is worth asking for the limit.
    fine: Option<u64>,
    /// Accepting failed, or took the last descriptor that clients may have.
    is_short: bool,
}

impl Default for Acceptor {
    fn default() -> Self {
        metrics::describe_counter!(ERRORS, "Connections that could not be accepted, by reason");
        Self {
            pause: PAUSE.0,
            fine: None,
            is_short: false,
        }
    }
}

impl Acceptor {
    /// The next connection. Can be cancelled at any time without losing one.
    ///
    /// # Errors
    /// The listener cannot be used any more.
    pub async fn accept(&mut self, listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
        self.accept_by(async || listener.accept().await).await
    }

    /// The same of a listener whose connections the runtime is not told of.
    ///
    /// # Errors
    /// As for [`Self::accept`].
    pub async fn accept_fresh(&mut self, listener: &Listener) -> io::Result<(Fresh, SocketAddr)> {
        self.accept_by(async || listener.accept().await).await
    }

    async fn accept_by<S: AsRawFd>(
        &mut self,
        accept: impl AsyncFn() -> io::Result<(S, SocketAddr)>,
    ) -> io::Result<(S, SocketAddr)> {
        loop {
            if self.is_short {
                sleep(self.pause).await;
                self.pause = (self.pause * 2).min(PAUSE.1);
                if !self.has_descriptors() {
                    continue;
                }
                self.is_short = false;
            }
            let error = match accept().await {
                Ok((stream, client)) => {
                    if self.is_reserved(stream.as_raw_fd()) {
                        self.fall_short("reserved_descriptors", &"no more descriptors for clients");
                    } else {
                        self.pause = PAUSE.0;
                    }
                    return Ok((stream, client));
                }
                Err(error) => error,
            };
            match error.raw_os_error().map(Errno::from_raw) {
                Some(Errno::EBADF | Errno::EINVAL | Errno::ENOTSOCK | Errno::EOPNOTSUPP) => {
                    return Err(error);
                }
                Some(errno) if is_of_the_connection(errno) => count(label(errno)),
                Some(errno) => self.fall_short(label(errno), &error),
                None => self.fall_short("other", &error),
            }
        }
    }

    fn fall_short(&mut self, reason: &'static str, error: &dyn std::fmt::Display) {
        count(reason);
        if self.pause == PAUSE.0 {
            tracing::warn!(%error, "cannot accept connections");
        }
        self.is_short = true;
        self.fine = None;
    }

    /// Whether a client may have one more.
    fn has_descriptors(&mut self) -> bool {
        File::open("/dev/null").is_ok_and(|next| !self.is_reserved(next.as_raw_fd()))
    }

    fn is_reserved(&mut self, descriptor: RawFd) -> bool {
        let Ok(number) = u64::try_from(descriptor) else {
            return false;
        };
        if self.fine.is_some_and(|fine| number <= fine) {
            return false;
        }
        let limit = getrlimit(Resource::Nofile).current;
        // With a limit that is hardly enough to start there is little to reserve.
        let is_reserved = limit.is_some_and(|limit| number >= limit - RESERVED.min(limit / 8));
        if !is_reserved {
            self.fine = Some(number);
        }
        is_reserved
    }
}

/// The connection ended, or is not allowed, before it was accepted (accept(2), "Error handling").
fn is_of_the_connection(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::ECONNABORTED
            | Errno::ECONNRESET
            | Errno::EINTR
            | Errno::EPERM
            | Errno::EPROTO
            | Errno::EHOSTDOWN
            | Errno::EHOSTUNREACH
            | Errno::ENETDOWN
            | Errno::ENETUNREACH
            | Errno::ENONET
            | Errno::ENOPROTOOPT
    )
}

fn label(errno: Errno) -> &'static str {
    match errno {
        Errno::EMFILE => "process_descriptors",
        Errno::ENFILE => "system_descriptors",
        Errno::ENOBUFS | Errno::ENOMEM => "memory",
        Errno::ECONNABORTED | Errno::ECONNRESET => "aborted",
        Errno::EPERM => "firewall",
        _ => "other",
    }
}

fn count(reason: &'static str) {
    counter!(ERRORS, "reason" => reason).increment(1);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reliability_f15_only_a_listener_that_is_none_ends_accepting() {
        for (errno, passed_over, reason) in [
            (Errno::ECONNABORTED, true, "aborted"),
            (Errno::EPERM, true, "firewall"),
            (Errno::ENETDOWN, true, "other"),
            (Errno::EMFILE, false, "process_descriptors"),
            (Errno::ENFILE, false, "system_descriptors"),
            (Errno::ENOBUFS, false, "memory"),
            (Errno::ENOMEM, false, "memory"),
            (Errno::EIO, false, "other"),
        ] {
            assert_eq!(is_of_the_connection(errno), passed_over, "{errno}");
            assert_eq!(label(errno), reason, "{errno}");
        }
    }

    #[tokio::test]
    async fn reliability_f15_a_socket_that_does_not_listen_is_an_error() {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let socket = socket.unwrap();
        socket.set_nonblocking(true).unwrap();
        let listener = TcpListener::from_std(socket.into()).unwrap();
        let accepted = Acceptor::default().accept(&listener).await;
        assert_eq!(accepted.unwrap_err().raw_os_error(), Some(22));
    }
}
