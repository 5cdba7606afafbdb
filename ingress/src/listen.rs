//! Accepting the gateway's connections.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::join_all;
use sealane_proxy::accept::{Acceptor, Fresh, Listener};
use sealane_proxy::admission::{Connections, Place};
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long clients that wait in the listener's queue at its end may take for their first byte.
const QUEUED: Duration = Duration::from_secs(1);

/// Accepts until `shutdown`, then waits for the connections that it started. One that is not admitted
/// is closed at once; sources of which `is_proxy` holds stand for many clients. Small writes are sent
/// without delay.
///
/// # Errors
/// The listener cannot be used any more.
pub(crate) async fn accept_loop<F, C>(
    listener: TcpListener,
    admitted: &Connections,
    shutdown: CancellationToken,
    is_proxy: impl Fn(IpAddr) -> bool,
    mut connection: F,
) -> io::Result<()>
where
    F: FnMut(Fresh, SocketAddr, Rc<Place>) -> C,
    C: Future<Output = ()> + 'static,
{
    // What is accepted inherits it, without a system call of its own.
    SockRef::from(&listener).set_tcp_nodelay(true)?;
    let connections = TaskTracker::new();
    let mut start = |stream: Fresh, client: SocketAddr| {
        let place = match is_proxy(client.ip()) {
            true => admitted.admit_proxy(client.ip(), &shutdown),
            false => admitted.admit(client.ip(), &shutdown),
        };
        if let Ok(place) = place {
            // Boxed, because it is thousands of bytes, which starting and ending a task move ten times.
            connections.spawn_local(Box::pin(connection(stream, client, Rc::new(place))));
        }
    };
    let mut acceptor = Acceptor::default();
    let listener = Listener::new(listener)?;
    let mut stopped = pin!(shutdown.cancelled());
    loop {
        // In this order, because the other waits in vain most of the time, and for no connection at all
        // where one is there. Accepting pauses after so many, so that the end is seen.
        let accepted = tokio::select! {
            biased;
            accepted = acceptor.accept_fresh(&listener) => accepted,
            () = &mut stopped => break,
        };
        let (stream, client) = accepted?;
        start(stream, client);
    }
    // Closing the listener resets what waits in its queue; those clients were promised service. The
    // kernel is asked, because the runtime may not have heard of them yet.
    let listener = listener.into_std();
    let mut queued = Vec::new();
    while let Ok((stream, client)) = listener.accept() {
        stream.set_nonblocking(true)?;
        queued.push((TcpStream::from_std(stream)?, client));
    }
    drop(listener);
    // Connections that start now end at once unless there is something to read.
    let first_bytes = join_all(queued.iter().map(|(stream, _)| stream.readable()));
    let _in_time = timeout(QUEUED, first_bytes).await;
    for (stream, client) in queued {
        start(stream.into(), client);
    }
    connections.close();
    connections.wait().await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::task::LocalSet;

    use super::*;

    #[tokio::test]
    async fn ingress_small_answers_are_sent_without_delay() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let (told, mut accepted) = tokio::sync::mpsc::channel(1);
        let admitted = Connections::default();
        let nobody = |_| false;
        let serve = accept_loop(
            listener,
            &admitted,
            shutdown.clone(),
            nobody,
            |stream, _, _| {
                let told = told.clone();
                async move {
                    let stream = stream.into_registered().unwrap();
                    told.send(stream.nodelay().unwrap()).await.unwrap();
                }
            },
        );
        let ask = async {
            let _client = TcpStream::connect(addr).await.unwrap();
            let has_no_delay = timeout(Duration::from_secs(10), accepted.recv()).await;
            shutdown.cancel();
            has_no_delay.unwrap()
        };
        let (served, has_no_delay) = LocalSet::new()
            .run_until(async { tokio::join!(serve, ask) })
            .await;
        served.unwrap();
        assert_eq!(has_no_delay, Some(true));
    }
}
