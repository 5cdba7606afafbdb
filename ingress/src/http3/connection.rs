//! A client's connection, from the end of its handshake.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use h3::error::{Code, ConnectionError};
use h3::server::RequestResolver;
use quinn::VarInt;
use quinn::crypto::rustls::HandshakeData;
use rustls::pki_types::CertificateDer;
use sealane_proxy::admission::Place;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::task::TaskTracker;

use super::request;
use super::transport::{Connection, Shared};
use crate::filters::forwarded::Peer;
use crate::gateway::Inner;
use crate::tls::Session;

/// Requests that a client may break off, and in which time, before it counts as an attack
/// (CVE-2023-44487): each may have cost a backend something.
const MAX_CANCELLED: u32 = 200;
const CANCELLED_IN: Duration = Duration::from_secs(10);

/// How long clients have to hear that no more requests are taken, before they are rejected.
const NOTICE: Duration = Duration::from_millis(250);

/// How long telling them may take.
const TELLING: Duration = Duration::from_secs(1);

/// What a field counts besides its bytes (RFC 9114, 4.2.2).
const FIELD: u64 = 32;

/// A client.
pub(super) struct Client {
    pub(super) gateway: Rc<Inner>,
    pub(super) peer: Rc<Peer>,
    pub(super) place: Place,
    quic: quinn::Connection,
    /// Since when there was no request, or one is being served.
    idle_since: Cell<Instant>,
    /// Requests that it has broken off, and since when they are counted.
    cancelled: Cell<(Instant, u32)>,
}

impl Client {
    /// The client of a connection that came to our `port`.
    pub(super) fn new(
        gateway: Rc<Inner>,
        place: Place,
        quic: quinn::Connection,
        port: u16,
    ) -> Self {
        let mut peer = Peer::new(quic.remote_address().ip(), port, true);
        peer.session = Some(Rc::new(session(&quic)));
        let now = Instant::now();
        Self {
            gateway,
            peer: Rc::new(peer),
            place,
            quic,
            idle_since: Cell::new(now),
            cancelled: Cell::new((now, 0)),
        }
    }

    /// It has lost interest in the answer to a request.
    pub(super) fn cancelled(&self) {
        let (since, count) = self.cancelled.get();
        let (since, count) = if since.elapsed() < CANCELLED_IN {
            (since, count + 1)
        } else {
            (Instant::now(), 1)
        };
        self.cancelled.set((since, count));
        if count > MAX_CANCELLED {
            self.close(Code::H3_EXCESSIVE_LOAD);
        }
    }

    fn close(&self, code: Code) {
        let code = VarInt::from_u64(code.value()).unwrap_or(VarInt::MAX);
        self.quic.close(code, b"");
    }

    /// It is somewhere else than it was.
    fn has_moved(&self) -> bool {
        self.quic.remote_address().ip().to_canonical() != self.peer.ip
    }
}

/// What the handshake has shown.
fn session(quic: &quinn::Connection) -> Session {
    let data = quic
        .handshake_data()
        .and_then(|it| it.downcast::<HandshakeData>().ok());
    let chain = quic
        .peer_identity()
        .and_then(|it| it.downcast::<Vec<CertificateDer<'static>>>().ok());
    let name = data.as_ref().and_then(|data| data.server_name.as_deref());
    Session::shown_by(name, chain.map_or_else(Vec::new, |chain| *chain))
}

type Http3 = h3::server::Connection<Connection, Bytes>;

/// What has been said about the end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Open,
    /// That it is coming; requests that are on their way are still taken.
    Told(Instant),
    /// Which requests are the last.
    Closed,
}

/// Serves a connection until its client closes it, breaks the protocol, has nothing to ask for long
/// enough, or until the end is asked for and the requests in flight are answered.
///
/// It ends too, in the same way, when the client comes from another address, which its filters and
/// limits would not know about: what it has asked for goes there, what it asks for next comes by a new
/// connection. An address is no proof of anything before packets have gone there and back, so nothing
/// is ever decided by the new one here.
pub(super) async fn serve(client: Client) {
    let (client, shared) = (Rc::new(client), Rc::new(Shared::default()));
    let head = client.gateway.options.server.head;
    let longest = head.read_bytes() as u64;
    let connection = Connection::new(client.quic.clone(), Rc::clone(&shared), longest);
    let mut builder = h3::server::builder();
    builder
        .send_grease(false)
        .max_field_section_size(longest + 2 * FIELD * u64::from(head.fields));
    let built = timeout(TELLING, builder.build(connection)).await;
    let Ok(Ok(mut http3)) = built else {
        return;
    };
    let requests = TaskTracker::new();
    if let Err(error) = drive(&client, &shared, &mut http3, &requests).await {
        tracing::debug!(%error, "client connection ended");
    }
    client.close(Code::H3_NO_ERROR);
}

async fn drive(
    client: &Rc<Client>,
    shared: &Shared,
    http3: &mut Http3,
    requests: &TaskTracker,
) -> Result<(), ConnectionError> {
    let idle_timeout = client.gateway.options.server.idle_timeout;
    let mut stage = Stage::Open;
    let mut look_at = Instant::now() + idle_timeout;
    loop {
        tokio::select! {
            biased;
            () = requests.wait(), if stage == Stage::Closed => return Ok(()),
            () = client.place.end().cancelled(), if stage == Stage::Open => {
                stage = tell(http3, shared).await?;
            }
            () = sleep_until(look_at), if stage == Stage::Open => {
                let idle_at = client.idle_since.get() + idle_timeout;
                if !requests.is_empty() {
                    look_at = Instant::now() + idle_timeout;
                } else if idle_at > Instant::now() {
                    look_at = idle_at;
                } else {
                    stage = tell(http3, shared).await?;
                }
            }
            () = notice_over(stage), if stage != Stage::Open => {
                shared.is_closed.set(true);
                // No error if the client is too slow for it: its next requests are rejected anyhow.
                if let Ok(told) = timeout(TELLING, http3.shutdown(1)).await {
                    told?;
                }
                requests.close();
                stage = Stage::Closed;
            }
            accepted = http3.accept() => {
                let Some(resolver) = accepted? else {
                    return Ok(());
                };
                start(client, shared, resolver, requests);
                if stage == Stage::Open && client.has_moved() {
                    stage = tell(http3, shared).await?;
                }
            }
        }
    }
}

/// Says that the connection is about to end. Too slow a client hears it when its requests are rejected.
async fn tell(http3: &mut Http3, shared: &Shared) -> Result<Stage, ConnectionError> {
    // Without a request so far the library says that there will be none. Its client may send one again
    // that is on its way, so it must not be served here.
    shared.is_closed.set(!shared.is_used.get());
    if let Ok(told) = timeout(TELLING, http3.shutdown(usize::MAX)).await {
        told?;
    }
    Ok(Stage::Told(Instant::now() + NOTICE))
}

async fn notice_over(stage: Stage) {
    match stage {
        Stage::Told(until) => sleep_until(until).await,
        Stage::Open | Stage::Closed => std::future::pending().await,
    }
}

fn start(
    client: &Rc<Client>,
    shared: &Shared,
    resolver: RequestResolver<Connection, Bytes>,
    requests: &TaskTracker,
) {
    let Some(taken) = shared.taken() else {
        return;
    };
    let client = Rc::clone(client);
    requests.spawn_local(async move {
        client.idle_since.set(Instant::now());
        // Boxed, because it is large.
        Box::pin(request::serve(&client, resolver, taken)).await;
        client.idle_since.set(Instant::now());
    });
}
