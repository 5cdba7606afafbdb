//! One connection: a task that sends queries as they come and hands out replies as they come.

use std::cell::Cell;
use std::collections::HashMap;
use std::io;
use std::rc::{Rc, Weak};
use std::time::Duration;

use bytes::{Buf, BufMut, BytesMut};
use futures_util::StreamExt;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};
use tokio_util::codec::{FramedRead, LengthDelimitedCodec};

use super::{IN_FLIGHT, Open, Pool};
use crate::answer::Answer;
use crate::forward::exchange::Asked;
use crate::forward::liveness::Liveness;
use crate::reply::ReplyError;

/// Queries that wait to be written.
const QUEUE: usize = 32;
/// Ids remembered for queries, those included for which nobody waits any more.
const MAX_PENDING: usize = 4 * IN_FLIGHT;

/// A query for a connection. The sender is dropped if the connection breaks.
pub(super) struct Submitted {
    pub(super) asked: Asked,
    pub(super) edns: bool,
    pub(super) reply: oneshot::Sender<Result<Answer, ReplyError>>,
}

/// A connection as those see it who use it.
#[derive(Debug)]
pub(super) struct Connection {
    queries: mpsc::Sender<Submitted>,
    pub(super) since: Instant,
    max_age: Duration,
    pub(super) max_idle: usize,
    pub(super) liveness: Liveness,
    open: Cell<bool>,
}

impl Connection {
    /// Starts to connect. Queries can be submitted at once.
    pub(super) fn open(open: Open, pool: &Rc<Pool>) -> Rc<Self> {
        let (sender, queries) = mpsc::channel(QUEUE);
        let settings = &open.links.settings;
        let connection = Rc::new(Self {
            queries: sender,
            since: Instant::now(),
            max_age: settings.max_age,
            max_idle: settings.max_idle_connections,
            liveness: Liveness::new(),
            open: Cell::new(false),
        });
        let (weak, pool) = (Rc::downgrade(&connection), Rc::downgrade(pool));
        tokio::task::spawn_local(async move {
            let addr = open.upstream.target.addr;
            let result = run(open, queries, &weak, &pool).await;
            if let Some(connection) = weak.upgrade() {
                connection.liveness.retire();
            }
            if let Err(error) = result {
                tracing::debug!(upstream = %addr, %error, "connection to an upstream");
            }
        });
        connection
    }

    /// Hands a query to the task. `false` if it has ended.
    pub(super) async fn submit(&self, query: Submitted) -> bool {
        self.queries.send(query).await.is_ok()
    }

    pub(super) fn was_open(&self) -> bool {
        self.open.get()
    }

    pub(super) fn takes_queries(&self, now: Instant) -> bool {
        let young = self.max_age.is_zero() || now.duration_since(self.since) < self.max_age;
        young && self.liveness.is_alive() && !self.queries.is_closed()
    }
}

async fn run(
    open: Open,
    queries: mpsc::Receiver<Submitted>,
    connection: &Weak<Connection>,
    pool: &Weak<Pool>,
) -> io::Result<()> {
    let stream = open.links.connect(&open.upstream).await?;
    let expire = open.links.settings.expire;
    let shared = (connection, pool);
    match &open.tls {
        None => {
            drop(open);
            serve(stream, queries, shared, expire).await
        }
        Some(tls) => {
            let stream = tls.connector().connect(tls.name.clone(), stream).await?;
            drop(open);
            serve(stream, queries, shared, expire).await
        }
    }
}

/// Queries that were sent, by id.
#[derive(Default)]
struct Pending {
    by_id: HashMap<u16, (Asked, oneshot::Sender<Result<Answer, ReplyError>>)>,
    answered: usize,
}

impl Pending {
    /// Remembers a query and appends its frame to `out`.
    fn add(&mut self, query: Submitted, out: &mut BytesMut) {
        if self.by_id.len() >= MAX_PENDING {
            self.by_id.retain(|_, (_, reply)| !reply.is_closed());
        }
        let id = loop {
            let id = rand::random();
            if !self.by_id.contains_key(&id) {
                break id;
            }
        };
        let name = query.asked.key.name.clone();
        let message = query.asked.encode(id, name, query.edns);
        out.put_u16(message.len() as u16);
        out.put_slice(&message);
        self.by_id.insert(id, (query.asked, query.reply));
    }

    /// Gives a reply to who waits for it. What is no reply to a query of ours is ignored.
    fn resolve(&mut self, message: &[u8]) {
        let Some(id) = message.first_chunk().copied().map(u16::from_be_bytes) else {
            return;
        };
        let Some((asked, reply)) = self.by_id.remove(&id) else {
            return;
        };
        match asked.parse(message, id) {
            Err(ReplyError::NotOurs) => {
                self.by_id.insert(id, (asked, reply));
            }
            parsed => {
                self.answered += 1;
                // Who asked may have found an answer elsewhere.
                let _ = reply.send(parsed);
            }
        }
    }

    fn is_owed(&self) -> bool {
        let mut replies = self.by_id.values();
        replies.any(|(_, reply)| !reply.is_closed())
    }
}

/// Works until the connection breaks, was idle for `expire` or is let go.
async fn serve<S: AsyncRead + AsyncWrite>(
    stream: S,
    mut queries: mpsc::Receiver<Submitted>,
    (connection, pool): (&Weak<Connection>, &Weak<Pool>),
    expire: Duration,
) -> io::Result<()> {
    if let Some(connection) = connection.upgrade() {
        connection.open.set(true);
    }
    let (read, mut write) = tokio::io::split(stream);
    let codec = LengthDelimitedCodec::builder()
        .length_field_type::<u16>()
        .new_codec();
    let mut messages = FramedRead::new(read, codec);
    let mut out = BytesMut::new();
    let mut pending = Pending::default();
    let mut idle_at = Instant::now() + expire;
    let mut wanted = true;
    while wanted || pending.is_owed() {
        tokio::select! {
            query = queries.recv(), if wanted => match query {
                Some(query) => {
                    pending.add(query, &mut out);
                    idle_at = Instant::now() + expire;
                }
                None => wanted = false,
            },
            written = write.write(&out), if !out.is_empty() => {
                match written? {
                    0 => return Err(io::ErrorKind::WriteZero.into()),
                    count => out.advance(count),
                }
                // TLS keeps what it has encrypted until it is told that this is all.
                if out.is_empty() {
                    write.flush().await?;
                }
            }
            message = messages.next() => match message {
                Some(message) => {
                    pending.resolve(&message?);
                    idle_at = Instant::now() + expire;
                    if let Some(connection) = connection.upgrade() {
                        connection.liveness.heard();
                    }
                }
                None => {
                    let serial = pending.answered == 1 && pending.is_owed();
                    if let (true, Some(pool)) = (serial, pool.upgrade()) {
                        pool.hung_up_after_one();
                    }
                    return Ok(());
                }
            },
            () = sleep_until(idle_at), if !pending.is_owed() => return Ok(()),
        }
    }
    Ok(())
}
