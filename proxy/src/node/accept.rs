//! Accepting connections and finding out what they are for.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use sealane_config::model::{AppProtocol, Backend, ClientAddr, Protocol, ServiceKey};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;

use super::{Capture, Worker};
use crate::accept::Acceptor;
use crate::connect::tune;
use crate::http::ServiceTarget;
use crate::intercept::{Method, may_be_outside, original_destination};
use crate::tcp::Ends;

/// What a connection is for.
#[derive(Debug)]
pub(super) enum Destination {
    /// A Service port and what it is said to speak.
    Service(ServiceTarget, AppProtocol),
    /// An address outside the cluster.
    Outside(SocketAddr),
    /// The proxy itself, by way of a listener for redirected connections.
    Loop,
    /// A Service port that this client may not dial by this address.
    Filtered(ServiceKey),
    /// Nothing that may be reached through the proxy: one of its own listeners dialled directly, or
    /// an address that is never outside.
    Nowhere,
}

impl Worker {
    /// Accepts until `stop`. Connections that the kernel has accepted by then are taken, too:
    /// closing the listener would reset them.
    pub(super) async fn accept(self: Rc<Self>, listener: TcpListener, stop: CancellationToken) {
        let mut acceptor = Acceptor::default();
        loop {
            let accepted = tokio::select! {
                accepted = acceptor.accept(&listener) => accepted,
                () = stop.cancelled() => break,
            };
            match accepted {
                Ok((stream, client)) => {
                    let slot = Arc::clone(&self.slots).acquire_owned().await;
                    let slot = slot.expect("the slots are never closed");
                    self.admit(stream, client, slot);
                }
                Err(error) => {
                    tracing::error!(%error, "a listener is lost");
                    return;
                }
            }
        }
        let Ok(listener) = listener.into_std() else {
            return;
        };
        while let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned()
            && let Ok((stream, client)) = listener.accept()
        {
            let stream = stream.set_nonblocking(true).map(|()| stream);
            if let Ok(stream) = stream.and_then(TcpStream::from_std) {
                self.admit(stream, client, slot);
            }
        }
    }

    fn admit(self: &Rc<Self>, stream: TcpStream, client: SocketAddr, slot: OwnedSemaphorePermit) {
        let worker = Rc::clone(self);
        let connections = self.engine.connections();
        let Ok(place) = connections.admit(client.ip(), &self.shutdown) else {
            return;
        };
        self.connections.spawn_local(async move {
            worker.handle(stream, ClientAddr(client)).await;
            drop((place, slot));
        });
    }

    async fn handle(&self, stream: TcpStream, client: ClientAddr) {
        let Ok(dialled) = self.dialled(&stream) else {
            return;
        };
        // A connection that is gone already fails at the first read, too.
        let _ = tune(&stream);
        match self.destination(client.0.ip().to_canonical(), dialled) {
            Destination::Service(target, protocol) => {
                let ends = Ends { client, dialled };
                self.serve_service(stream, ends, target, protocol).await;
            }
            Destination::Outside(addr) => self.serve_outside(stream, addr).await,
            Destination::Loop => {
                tracing::debug!(%client, %dialled, "the proxy's own listener was dialled");
                self.serve_loop(stream).await;
            }
            Destination::Filtered(service) => {
                tracing::debug!(%client, %dialled, %service, "not open to this client");
                let _ = stream.set_zero_linger();
            }
            Destination::Nowhere => {
                tracing::debug!(%client, %dialled, "not a destination of the proxy");
                let _ = stream.set_zero_linger();
            }
        }
    }

    /// The address that the client of an accepted connection dialled (proxy I4).
    fn dialled(&self, stream: &TcpStream) -> io::Result<SocketAddr> {
        let local = stream.local_addr()?;
        let redirected = match &self.capture {
            Capture::Transparent(options) => options.method == Method::Redirect,
            Capture::Pod(..) => true,
            Capture::Listeners => false,
        };
        if !redirected {
            return Ok(local);
        }
        match original_destination(stream, local) {
            // Not tracked, so nothing has changed it: a listener of node ports, or one of a pod's
            // proxy that was dialled itself.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(local),
            found => found,
        }
    }

    fn destination(&self, client: IpAddr, dialled: SocketAddr) -> Destination {
        if let Capture::Pod(pod, direction) = &self.capture
            && let Some(destination) = self.pod_destination(pod, *direction, dialled)
        {
            return destination;
        }
        let snapshot = self.reader.load();
        let ip = dialled.ip();
        let Some(found) = self.places.find(&snapshot, dialled, Protocol::Tcp) else {
            return self.no_service(dialled);
        };
        let port = found.port;
        if !self.places.admits(client, ip, &found) {
            return Destination::Filtered(port.service.clone());
        }
        let target = ServiceTarget {
            reader: self.reader.clone(),
            dialled: self.places.dialled(client, ip, found.kind),
            backend: Backend {
                service: port.service.clone(),
                port: port.port,
            },
            fixed: None,
        };
        let protocol = match &self.capture {
            Capture::Pod(pod, _) => pod.spoken(dialled.port(), port.app_protocol),
            Capture::Transparent(_) | Capture::Listeners => port.app_protocol,
        };
        Destination::Service(target, protocol)
    }

    /// Where a connection goes that is for no Service port.
    fn no_service(&self, dialled: SocketAddr) -> Destination {
        match &self.capture {
            Capture::Transparent(options) => {
                let ip = dialled.ip();
                let mut inside = options.pod_cidrs.iter().chain(&options.service_cidrs);
                if !options.egress
                    || options.is_own(ip)
                    || inside.any(|cidr| cidr.contains(&ip))
                    || !may_be_outside(ip)
                {
                    Destination::Nowhere
                } else {
                    Destination::Outside(dialled)
                }
            }
            Capture::Listeners => Destination::Nowhere,
            Capture::Pod(..) => Destination::Outside(dialled),
        }
    }
}
