//! Certificates of many hosts that are replaced while clients connect.

use std::sync::Arc;

use sealane_config::model::Certificate;

use crate::support::{Edge, on_worker, prefix};
use crate::tls::{Client, certificate, der};

/// Hosts with a certificate of their own.
const HOSTS: usize = 500;

/// How often all of them are replaced.
const ROUNDS: usize = 5;

#[tokio::test]
async fn reliability_l12_while_500_certificates_rotate_no_handshake_fails_or_gets_an_old_one() {
    on_worker(async {
        let mut edge = Edge::new().await;
        edge.host("", true, vec![prefix("/", "web")]);
        let mut open = Vec::new();
        for round in 0..ROUNDS {
            let new: Vec<Arc<Certificate>> =
                (0..HOSTS).map(|host| certificate(&name(host))).collect();
            // One host a snapshot, as they come from a watch.
            for (host, new) in new.iter().enumerate() {
                let table = &mut edge.world.snapshot.certificates;
                table
                    .exact
                    .insert_mut(Arc::from(name(host)), Arc::clone(new));
                edge.world.publish();
                if host % 25 == 0 {
                    let client = Client::new(&[]);
                    let shown = client.certificate(&edge, &name(host)).await;
                    assert_eq!(shown, *der(&new.key), "{host} in round {round}");
                }
            }
            let client = Client::new(&["http/1.1"]);
            open.push(client.connect(&edge, &name(round)).await);
        }
        // Connections from before are as they were.
        for stream in &mut open {
            let request = b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";
            tokio::io::AsyncWriteExt::write_all(stream, request)
                .await
                .unwrap();
            let mut start = [0; 12];
            tokio::io::AsyncReadExt::read_exact(stream, &mut start)
                .await
                .unwrap();
            // There is no such Service, which the gateway says.
            assert_eq!(&start, b"HTTP/1.1 503");
        }
    })
    .await;
}

fn name(host: usize) -> String {
    format!("h{host}.test")
}
