//! HTTP/3 (RFC 9114): the gateway's HTTPS over QUIC, off unless asked for.
//!
//! What a request meets behind its transport is the same as for HTTP/1.1 and HTTP/2: message gate,
//! routes, guards, filters, engine. Only this module knows QUIC and the HTTP/3 library, which is young
//! and calls itself experimental; [`frames`] and [`transport`] say what is not left to it. Another
//! library would take its place here and nowhere else.
//!
//! A socket belongs to one worker, and its connections to all of them. With a socket for each worker
//! (`SO_REUSEPORT`) the kernel would choose by the client's address, and give the packets of a client
//! that moved to another address, or that its NAT gave another port, to a worker that does not know it.
//! So the first worker receives, tells connections apart by their ids, and hands each new one out in
//! turn; the worker that got it does its cryptography, sends, and serves its requests.
//!
//! | what | limit |
//! |---|---|
//! | connections | those of all clients together, with TCP's |
//! | handshakes under way | above [`Limits::unproven`] addresses have to be proven (Retry, RFC 9000, 8.1.2); above [`Limits::handshakes`] they are refused |
//! | a handshake | 10 s |
//! | streams, windows | as HTTP/2 |
//! | the head of a request | as HTTP/2; a frame of one at most twice as long |
//! | 0-RTT, datagrams, extended CONNECT, server push | none |

mod body;
mod connection;
mod crypto;
mod endpoint;
mod frames;
mod request;
mod transport;

pub(crate) use endpoint::serve;
pub use endpoint::{Limits, Share, distribute};
