//! The same over UDP: each datagram is answered with one that says who answers and what it saw.

use std::net::SocketAddr;

use anyhow::Context as _;
use serde_json::json;
use tokio::net::UdpSocket;

use super::Workload;

/// No datagram is larger.
const LARGEST: usize = 64 * 1024;

/// A socket for datagrams.
///
/// # Errors
/// The address cannot be bound.
pub(super) async fn bind(address: SocketAddr) -> anyhow::Result<UdpSocket> {
    let socket = UdpSocket::bind(address).await;
    socket.with_context(|| format!("cannot listen on {address} for datagrams"))
}

/// Answers for as long as the future is polled.
pub(super) async fn serve(socket: UdpSocket, workload: &Workload) {
    let mut content = vec![0; LARGEST];
    loop {
        let (length, client) = match socket.recv_from(&mut content).await {
            Ok(received) => received,
            // An answer met a closed port.
            Err(error) => {
                tracing::debug!(%error, "nothing received");
                continue;
            }
        };
        let seen = json!({
            "pod": workload.pod,
            "image": workload.image,
            "tag": workload.tag(),
            "client": client.to_string(),
            "body": String::from_utf8_lossy(&content[..length]),
        });
        let answer = format!("{seen}\n");
        if let Err(error) = socket.send_to(answer.as_bytes(), client).await {
            tracing::debug!(%error, %client, "not answered");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;

    #[tokio::test]
    async fn a_datagram_is_answered_with_who_and_what() {
        let workload = Workload {
            pod: "pod-1".to_owned(),
            image: "sealane/echo:2.0".to_owned(),
            healthy: AtomicBool::new(true),
            ready: AtomicBool::new(true),
        };
        let server = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        client.connect(server.local_addr().unwrap()).await.unwrap();
        client.send(b"hello").await.unwrap();
        let mut answer = [0; 512];
        let length = tokio::select! {
            () = serve(server, &workload) => unreachable!("it serves for ever"),
            length = client.recv(&mut answer) => length.unwrap(),
        };
        let answer: serde_json::Value = serde_json::from_slice(&answer[..length]).unwrap();
        let expected = json!({
            "pod": "pod-1",
            "image": "sealane/echo:2.0",
            "tag": "2.0",
            "client": client.local_addr().unwrap().to_string(),
            "body": "hello",
        });
        assert_eq!(answer, expected);
    }
}
