//! Load by full TLS handshakes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::crypto::aws_lc_rs::kx_group::X25519;
use rustls::pki_types::ServerName;
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::connections::{LAST, check};
use super::{Served, block_on, repeat};
use crate::gate::Gate;
use crate::stage::Identity;

/// `clients` that connect, shake hands without a ticket, ask once and read to the end, over and over.
/// All servers can do X25519, so that is what clients offer.
///
/// # Errors
/// A handshake failed, or an answer was not a good one.
pub(crate) fn handshakes(
    addr: SocketAddr,
    clients: usize,
    identity: &Identity,
    time: Duration,
    gate: &Gate,
) -> anyhow::Result<Served> {
    let connector = TlsConnector::from(Arc::new(client(identity)?));
    let name = ServerName::try_from("host-0.test")?;
    let request = move || {
        let (connector, name) = (connector.clone(), name.clone());
        async move {
            let stream = TcpStream::connect(addr).await?;
            stream.set_nodelay(true)?;
            let mut stream = connector.connect(name, stream).await?;
            stream.write_all(LAST).await?;
            let mut answer = Vec::with_capacity(1024);
            stream.read_to_end(&mut answer).await?;
            check(&answer)
        }
    };
    block_on(repeat(clients, time, gate, request))
}

/// TLS 1.3, nothing remembered from one connection to the next.
fn client(identity: &Identity) -> anyhow::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots
        .add(identity.certificate.clone())
        .context("the certificate made for the comparison")?;
    let mut provider = aws_lc_rs::default_provider();
    provider.kx_groups = vec![X25519];
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(config)
}
