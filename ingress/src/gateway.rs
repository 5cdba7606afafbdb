//! The gateway of one worker.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use http::HeaderValue;
use metrics::counter;
use sealane_config::Reader;
use sealane_config::model::ClientAddr;
use sealane_proxy::accept::Fresh;
use sealane_proxy::admission::Place;
use sealane_proxy::http::{ClientStream, Engine, ServerOptions, serve_relayed};
use sealane_proxy::live::UPKEEP;
use sealane_proxy::tcp::{Ends, Passthrough};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::filters::alternative;
use crate::filters::forwarded::Peer;
use crate::filters::mirror::Mirrors;
use crate::guards::basic::Passwords;
use crate::guards::external::answers::Answers;
use crate::guards::external::outside::Outside;
use crate::guards::limits::Limiter;
use crate::handle;
use crate::http3;
use crate::listen::accept_loop;
use crate::metrics::{Metrics, NO_HEADER};
use crate::passthrough;
use crate::plain::Plain;
use crate::proxy_protocol::{self, Header};
use crate::tls;

/// What is configured for the gateway and is not in the snapshot.
#[derive(Clone, Debug)]
pub struct GatewayOptions {
    /// Made once by [`tls::server_config`] and shared by all workers, so that a session can be
    /// resumed on any of them.
    pub tls: Arc<tls::ServerConfigs>,
    /// The port that a redirect to HTTPS names; none is named for 443.
    pub https_port: u16,
    /// How long clients may keep us waiting.
    pub server: ServerOptions,
    /// HTTP/3 is served on that port, and clients of HTTPS are told so.
    pub http3: bool,
    /// What clients have asked for, where routes limit it; one for all workers.
    pub limiter: Limiter,
    /// The passwords that were compared; one for all workers.
    pub passwords: Passwords,
    /// What services said that were asked about requests; one for all workers.
    pub answers: Answers,
    /// Services outside of the cluster that may be asked; one for all workers.
    pub outside: Outside,
}

/// The gateway of one worker. Clones share its state.
#[derive(Clone)]
pub struct Gateway {
    inner: Rc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) reader: Reader,
    pub(crate) engine: Engine,
    pub(crate) options: GatewayOptions,
    /// The options' `server` for clients that have agreed on HTTP/2.
    http2: ServerOptions,
    pub(crate) metrics: Metrics,
    pub(crate) mirrors: Mirrors,
    pub(crate) passthrough: Passthrough,
    /// `Alt-Svc`, if HTTP/3 is served.
    pub(crate) alternative: Option<HeaderValue>,
}

impl Gateway {
    /// A gateway that routes by the snapshots of `reader` and forwards with `engine`.
    pub fn new(reader: Reader, engine: Engine, options: GatewayOptions) -> Self {
        Self {
            inner: Rc::new(Inner {
                passthrough: Passthrough::new(engine.clone()),
                alternative: alternative::field(options.http3, options.https_port),
                http2: ServerOptions {
                    http2_only: true,
                    ..options.server.clone()
                },
                reader,
                engine,
                options,
                metrics: Metrics::default(),
                mirrors: Mirrors::default(),
            }),
        }
    }

    /// Keeps metrics and tables in order until `shutdown`. Run one of these for each gateway.
    pub async fn maintain(&self, shutdown: CancellationToken) {
        let upkeep = async {
            loop {
                tokio::time::sleep(UPKEEP).await;
                self.inner.metrics.upkeep();
                self.inner.passthrough.upkeep();
                self.inner.options.limiter.sweep();
            }
        };
        shutdown.run_until_cancelled(upkeep).await;
    }

    /// Serves plain HTTP, HTTP/1.1 or HTTP/2 with prior knowledge. After `shutdown` nothing is
    /// accepted any more and connections end when their requests are answered; the future resolves
    /// when the last has ended. It is up to the caller to set a deadline, and to wait for
    /// [`Engine::drained`] for upgraded connections.
    ///
    /// Has to run in a [`tokio::task::LocalSet`].
    ///
    /// # Errors
    /// The listener cannot be used any more.
    pub async fn serve_http(
        &self,
        listener: TcpListener,
        shutdown: CancellationToken,
    ) -> io::Result<()> {
        let inner = Rc::clone(&self.inner);
        let admitted = self.inner.engine.connections();
        let port = listener.local_addr()?.port();
        let proxies = Rc::clone(&inner);
        accept_loop(
            listener,
            admitted,
            shutdown,
            move |source| proxies.is_proxy(source),
            move |mut stream, client, place| {
                let inner = Rc::clone(&inner);
                async move {
                    let ends = inner.ends(&mut stream, client, false, &place).await;
                    let peer = match ends {
                        Some((client, dialled)) => {
                            let to = dialled.map_or(port, |dialled| dialled.port());
                            Rc::new(Peer::new(client.ip(), to, false))
                        }
                        None => return,
                    };
                    serve_connection(inner, stream, peer, false, place).await;
                }
            },
        )
        .await
    }

    /// Serves HTTPS: HTTP/2 or HTTP/1.1, as negotiated. Otherwise as [`Self::serve_http`].
    ///
    /// # Errors
    /// The listener cannot be used any more.
    pub async fn serve_https(
        &self,
        listener: TcpListener,
        shutdown: CancellationToken,
    ) -> io::Result<()> {
        let inner = Rc::clone(&self.inner);
        let admitted = self.inner.engine.connections();
        let port = listener.local_addr()?.port();
        let proxies = Rc::clone(&inner);
        accept_loop(
            listener,
            admitted,
            shutdown,
            move |source| proxies.is_proxy(source),
            move |mut stream, client, place| {
                let inner = Rc::clone(&inner);
                async move {
                    let ends = inner.ends(&mut stream, client, true, &place).await;
                    let Some((client, dialled)) = ends else {
                        return;
                    };
                    // The handshake is waited for anyhow.
                    let Ok(stream) = stream.into_registered() else {
                        return;
                    };
                    let accepted = tokio::select! {
                        accepted = Box::pin(tls::accept(&inner.options.tls, stream)) => accepted,
                        () = place.end().cancelled() => return,
                    };
                    match accepted {
                        Some(tls::Accepted::Session(stream)) => {
                            let to = dialled.map_or(port, |dialled| dialled.port());
                            let mut peer = Peer::new(client.ip(), to, true);
                            peer.session = Some(Rc::new(tls::Session::of(stream.get_ref().1)));
                            let http2_only = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                            serve_connection(inner, stream, Rc::new(peer), http2_only, place).await;
                        }
                        Some(tls::Accepted::Passthrough(stream, hello, rule)) => {
                            // Fails only on a connection that is gone anyhow.
                            let Some(dialled) = dialled.or_else(|| stream.local_addr().ok()) else {
                                return;
                            };
                            let client = ClientAddr(client);
                            let ends = Ends { client, dialled };
                            let relayed = passthrough::serve(&inner, stream, hello, &rule, ends);
                            // Boxed, because few connections are.
                            Box::pin(relayed).await;
                        }
                        None => {}
                    }
                }
            },
        )
        .await
    }
}

impl Gateway {
    /// Serves a part of what comes to the socket of HTTP/3. After `shutdown` no connection is
    /// accepted any more, and those that are open end when their requests are answered. The future
    /// resolves when the last has ended, on whichever worker.
    ///
    /// Has to run in a [`tokio::task::LocalSet`].
    ///
    /// # Errors
    /// The socket cannot be used any more, or TLS cannot be set up.
    pub async fn serve_http3(
        &self,
        share: http3::Share,
        shutdown: CancellationToken,
    ) -> io::Result<()> {
        http3::serve(Rc::clone(&self.inner), share, shutdown).await
    }
}

impl Inner {
    /// A trusted proxy has this address.
    pub(crate) fn is_proxy(&self, source: IpAddr) -> bool {
        self.reader.load().gateway.proxies.contains(source)
    }

    /// The client of a connection, and where it connected to if it came through a proxy that says so;
    /// `None` if one was to say so, and did not.
    async fn ends(
        &self,
        stream: &mut Fresh,
        client: SocketAddr,
        secure: bool,
        place: &Place,
    ) -> Option<(SocketAddr, Option<SocketAddr>)> {
        let is_announced = {
            let settings = &self.reader.load().gateway;
            let listeners = settings.proxy_protocol;
            let is_on = if secure {
                listeners.https
            } else {
                listeners.http
            };
            is_on && settings.proxies.contains(client.ip())
        };
        if !is_announced {
            return Some((client, None));
        }
        Box::pin(announced(stream.registered().ok()?, client, place)).await
    }
}

/// The client, and where it connected to, of a connection that begins with a PROXY header. `None`:
/// there is no such header, and so no knowing who the client is.
async fn announced(
    stream: &mut TcpStream,
    proxy: SocketAddr,
    place: &Place,
) -> Option<(SocketAddr, Option<SocketAddr>)> {
    let read = proxy_protocol::read(stream);
    let header = tokio::select! {
        header = timeout(proxy_protocol::DEADLINE, read) => header,
        () = place.end().cancelled() => return None,
    };
    match header {
        Ok(Ok(Header::Local)) => Some((proxy, None)),
        Ok(Ok(Header::Proxied {
            source,
            destination,
        })) => Some((source, Some(destination))),
        Ok(Err(error)) => {
            tracing::debug!(%proxy, "connection closed: {error}");
            counter!(NO_HEADER, "reason" => "bad").increment(1);
            None
        }
        Err(_elapsed) => {
            tracing::debug!(%proxy, "connection closed: its PROXY header did not come in time");
            counter!(NO_HEADER, "reason" => "late").increment(1);
            None
        }
    }
}

/// Serves a connection. Not an `async fn`, which would keep its arguments twice for as long as the
/// connection lives.
fn serve_connection<I>(
    inner: Rc<Inner>,
    stream: I,
    peer: Rc<Peer>,
    http2_only: bool,
    place: Rc<Place>,
) -> impl Future<Output = ()>
where
    I: ClientStream + Send + 'static,
{
    let gateway = Rc::clone(&inner);
    let plain = Plain {
        gateway: Rc::clone(&inner),
        peer: Rc::clone(&peer),
        place: Rc::clone(&place),
    };
    let end = Rc::clone(&place).into();
    let handler = move |request| {
        place.used();
        handle::handle(Rc::clone(&gateway), Rc::clone(&peer), request)
    };
    async move {
        let server = match http2_only {
            true => &inner.http2,
            false => &inner.options.server,
        };
        let relayed = (&inner.engine, &plain);
        serve_relayed(stream, server, relayed, handler, end).await;
    }
}
