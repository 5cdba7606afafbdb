//! What runs in pods: a server that says who it is, which port was dialled and by whom, for lines,
//! HTTP/1.1 and datagrams.

use std::io;
use std::net::{Ipv6Addr, SocketAddr};

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufStream};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use super::net::Place;

/// Ports of the server.
pub(super) const PORTS: [u16; 2] = [8000, 8001];

/// Serves in a place, on both families, until the runtime ends.
pub(super) fn serve(name: &'static str, place: &Place) {
    for port in PORTS {
        let (tcp, udp) = place.namespace.run(move || {
            let addr = (Ipv6Addr::UNSPECIFIED, port);
            let tcp = std::net::TcpListener::bind(addr).unwrap();
            tcp.set_nonblocking(true).unwrap();
            let udp = std::net::UdpSocket::bind(addr).unwrap();
            udp.set_nonblocking(true).unwrap();
            (tcp, udp)
        });
        let tcp = TcpListener::from_std(tcp).unwrap();
        let udp = UdpSocket::from_std(udp).unwrap();
        tokio::spawn(async move {
            while let Ok((stream, client)) = tcp.accept().await {
                let said = said(name, port, client);
                tokio::spawn(async move { answer(stream, &said).await });
            }
        });
        tokio::spawn(async move {
            let mut buffer = [0; 2048];
            loop {
                // An error is about an earlier answer that nobody took.
                if let Ok((_, client)) = udp.recv_from(&mut buffer).await {
                    let said = said(name, port, client);
                    let _ = udp.send_to(said.as_bytes(), client).await;
                }
            }
        });
    }
}

fn said(name: &str, port: u16, client: SocketAddr) -> String {
    let client = SocketAddr::new(client.ip().to_canonical(), client.port());
    format!("{name} {port} {client}")
}

/// Answers requests and lines, whatever comes, until the client ends the connection.
async fn answer(stream: TcpStream, said: &str) -> io::Result<()> {
    let mut stream = BufStream::new(stream);
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        if line.starts_with("GET ") {
            let mut header = String::new();
            while stream.read_line(&mut header).await? > 2 {
                header.clear();
            }
            let length = said.len();
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n");
            stream.write_all(head.as_bytes()).await?;
            stream.write_all(said.as_bytes()).await?;
        } else {
            stream.write_all(format!("{said}\n").as_bytes()).await?;
        }
        stream.flush().await?;
    }
}
