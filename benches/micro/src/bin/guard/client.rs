//! Clients that ask one question after the other.

use std::net::SocketAddr;

use anyhow::{Context as _, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::Case;
use crate::gateway::{FILTERED, HOST};

/// Sends so many requests and reads their answers.
pub(crate) async fn ask(case: Case, gateway: SocketAddr, requests: u64) -> anyhow::Result<()> {
    if case == Case::Connection {
        for _ in 0..requests {
            connection(connect(gateway).await?).await?;
        }
        return Ok(());
    }
    let stream = connect(gateway).await?;
    match case {
        Case::Relay | Case::Connection => http1(stream, HOST, "/", requests).await,
        Case::Filters => http1(stream, FILTERED, "/shop/a/b", requests).await,
        Case::Http2 => http2(stream, requests).await,
    }
}

async fn connect(gateway: SocketAddr) -> anyhow::Result<TcpStream> {
    let stream = TcpStream::connect(gateway).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// As `curl` asks.
fn request(host: &str, path: &str, more: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: guard/1.0\r\nAccept: */*\r\n\
         Origin: https://app.example.test\r\n{more}\r\n"
    )
}

/// One request, and the end of the connection.
async fn connection(mut stream: TcpStream) -> anyhow::Result<()> {
    let request = request(HOST, "/", "Connection: close\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::with_capacity(4096);
    stream.read_to_end(&mut answer).await?;
    if !answer.starts_with(b"HTTP/1.1 200 ") || !is_whole(&answer) {
        bail!("answered {}", String::from_utf8_lossy(&answer));
    }
    Ok(())
}

async fn http1(mut stream: TcpStream, host: &str, path: &str, requests: u64) -> anyhow::Result<()> {
    let request = request(host, path, "");
    let mut answer = Vec::with_capacity(4096);
    for _ in 0..requests {
        stream.write_all(request.as_bytes()).await?;
        answer.clear();
        while !is_whole(&answer) {
            let read = stream.read_buf(&mut answer).await?;
            ensure!(read > 0, "the gateway has closed the connection");
        }
        if !answer.starts_with(b"HTTP/1.1 200 ") {
            bail!("answered {}", String::from_utf8_lossy(&answer));
        }
    }
    Ok(())
}

/// The head, and the hundred bytes of the backend's body.
fn is_whole(answer: &[u8]) -> bool {
    let end = answer.windows(4).position(|it| it == b"\r\n\r\n");
    end.is_some_and(|end| answer.len() >= end + 4 + 100)
}

async fn http2(stream: TcpStream, requests: u64) -> anyhow::Result<()> {
    let (mut sender, connection) = h2::client::handshake(stream).await?;
    let connection = tokio::spawn(connection);
    for _ in 0..requests {
        let request = http::Request::get(format!("http://{HOST}/"))
            .header("user-agent", "guard/1.0")
            .header("accept", "*/*")
            .body(())?;
        let (answer, _) = sender.send_request(request, true)?;
        let answer = answer.await?;
        ensure!(answer.status() == 200, "answered {answer:?}");
        let mut body = answer.into_body();
        let mut length = 0;
        while let Some(data) = body.data().await {
            let data = data?;
            length += data.len();
            body.flow_control().release_capacity(data.len())?;
        }
        ensure!(length == 100, "a body of {length} bytes");
        sender = sender.ready().await.context("the gateway said goodbye")?;
    }
    drop(sender);
    connection.abort();
    Ok(())
}
