//! A backend that ends TLS itself.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::certificates::Authority;

const PROXY: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// Both addresses that a PROXY header has.
pub(super) type Announced = (SocketAddr, SocketAddr);

/// A backend that speaks HTTP over TLS, and says whose certificate the client has shown. The path
/// `/late` it answers when the client has ended its stream.
pub(super) struct Backend {
    pub(super) addr: SocketAddr,
    pub(super) certificate: CertificateDer<'static>,
    /// Who was announced, of each connection.
    pub(super) announced: Arc<Mutex<Vec<Option<Announced>>>>,
}

impl Backend {
    pub(super) async fn start(clients: &Authority) -> Self {
        let own = Authority::new("Backends").vouch("backend");
        let chain: Vec<CertificateDer<'static>> =
            CertificateDer::pem_slice_iter(own.pem.as_bytes())
                .collect::<Result<_, _>>()
                .unwrap();
        let certificate = chain[0].clone();
        let mut roots = RootCertStore::empty();
        let authority = CertificateDer::from_pem_slice(clients.pem.as_bytes()).unwrap();
        roots.add(authority).unwrap();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                .allow_unauthenticated()
                .build()
                .unwrap();
        let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).unwrap();
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let announced = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&announced);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, seen) = (acceptor.clone(), Arc::clone(&seen));
                tokio::spawn(async move {
                    // What a client breaks off is its own business.
                    let _ = serve(stream, acceptor, &seen).await;
                });
            }
        });
        Self {
            addr,
            certificate,
            announced,
        }
    }

    pub(super) fn connections(&self) -> usize {
        self.announced.lock().unwrap().len()
    }
}

async fn serve(
    mut stream: TcpStream,
    acceptor: TlsAcceptor,
    seen: &Mutex<Vec<Option<Announced>>>,
) -> io::Result<()> {
    let mut first = [0; 1];
    stream.peek(&mut first).await?;
    let announced = match first[0] {
        b'\r' => Some(read_header(&mut stream).await?),
        _ => None,
    };
    seen.lock().unwrap().push(announced);
    let mut stream = acceptor.accept(stream).await?;
    let who = match stream.get_ref().1.peer_certificates() {
        Some(_) => "somebody known",
        None => "nobody",
    };
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    if head.starts_with(b"GET /late ") {
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await?;
    }
    let length = who.len();
    let answer =
        format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{who}");
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await
}

/// A PROXY header of version 2 for TCP, without extensions.
async fn read_header(stream: &mut TcpStream) -> io::Result<Announced> {
    let mut fixed = [0; 16];
    stream.read_exact(&mut fixed).await?;
    assert_eq!((&fixed[..12], fixed[12]), (&PROXY[..], 0x21));
    let mut ips = Vec::new();
    for _ in 0..2 {
        ips.push(match fixed[13] {
            0x11 => IpAddr::from(stream.read_u32().await?.to_be_bytes()),
            0x21 => IpAddr::from(stream.read_u128().await?.to_be_bytes()),
            other => panic!("family {other}"),
        });
    }
    let size = if fixed[13] == 0x11 { 12 } else { 36 };
    assert_eq!(u16::from_be_bytes([fixed[14], fixed[15]]), size);
    let (source, destination) = (stream.read_u16().await?, stream.read_u16().await?);
    Ok(((ips[0], source).into(), (ips[1], destination).into()))
}
