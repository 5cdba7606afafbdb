//! One exec session between a WebSocket and a command.
//!
//! Output is pumped by tasks into a bounded queue, input by a task out of one, so neither direction
//! can block the other. While the input queue is full no message is read from the client.

use std::pin::Pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::protocol::{CLOSE, Protocol, RESIZE, STATUS, STDERR, STDIN, STDOUT, exit_status};
use crate::streams::{ExecOptions, ExecSession};

/// Chunks that may wait in either direction.
const QUEUE: usize = 16;

/// Largest chunk of output.
const CHUNK: usize = 32 * 1024;

/// Largest message from the client.
const MESSAGE_LIMIT: usize = 4 * 1024 * 1024;

/// Output that is still on its way when the command has ended is awaited this long; a process that
/// the command left behind may hold the output open for ever.
const DRAIN: Duration = Duration::from_secs(2);

/// Time for the client to answer the closing message.
const CLOSING: Duration = Duration::from_secs(5);

type Socket = WebSocketStream<TokioIo<Upgraded>>;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct TerminalSize {
    width: u16,
    height: u16,
}

/// Relays until the command or the client has ended.
pub(super) async fn run(
    upgraded: Upgraded,
    protocol: Protocol,
    options: &ExecOptions,
    mut session: ExecSession,
) {
    let config = WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_LIMIT))
        .max_frame_size(Some(MESSAGE_LIMIT));
    let io = TokioIo::new(upgraded);
    let mut socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await;

    let mut tasks = JoinSet::new();
    let (output, mut outputs) = mpsc::channel(QUEUE);
    for (channel, reader) in [
        (STDOUT, session.stdout.take()),
        (STDERR, session.stderr.take()),
    ] {
        if let Some(reader) = reader {
            tasks.spawn(pump_output(channel, reader, output.clone()));
        }
    }
    drop(output);
    let mut input = session.stdin.take().map(|stdin| {
        let (input, inputs) = mpsc::channel(QUEUE);
        tasks.spawn(pump_input(stdin, inputs));
        input
    });

    if let Err(error) = greet(&mut socket, protocol, options).await {
        tracing::debug!(%error, "exec client went away");
        return;
    }
    let outcome = relay(
        &mut socket,
        protocol,
        &mut session,
        &mut outputs,
        &mut input,
    )
    .await;
    match outcome {
        Ok(Some(code)) => finish(&mut socket, protocol, code).await,
        Ok(None) => {}
        Err(error) => tracing::debug!(%error, "exec client went away"),
    }
}

/// Empty messages tell the client which outputs there are.
async fn greet(
    socket: &mut Socket,
    protocol: Protocol,
    options: &ExecOptions,
) -> Result<(), Error> {
    for (channel, wanted) in [(STDOUT, options.stdout), (STDERR, options.stderr)] {
        if wanted {
            socket.feed(protocol.encode(channel, b"")).await?;
        }
    }
    socket.flush().await
}

/// Until the command ends (`Some` exit code, if known) or the client closes (`None`).
async fn relay(
    socket: &mut Socket,
    protocol: Protocol,
    session: &mut ExecSession,
    outputs: &mut mpsc::Receiver<(u8, Bytes)>,
    input: &mut Option<mpsc::Sender<Bytes>>,
) -> Result<Option<Option<i32>>, Error> {
    let mut ended = None;
    let mut open = true;
    let drain = tokio::time::sleep(Duration::MAX / 4);
    tokio::pin!(drain);
    loop {
        if let Some(code) = ended
            && !open
        {
            return Ok(Some(code));
        }
        let room = input.as_ref().is_none_or(|input| input.capacity() > 0);
        tokio::select! {
            chunk = outputs.recv(), if open => match chunk {
                Some((channel, data)) => socket.send(protocol.encode(channel, &data)).await?,
                None => open = false,
            },
            code = &mut session.exit, if ended.is_none() => {
                ended = Some(code.ok());
                drain.as_mut().reset(tokio::time::Instant::now() + DRAIN);
            }
            () = &mut drain, if ended.is_some() => open = false,
            message = socket.next(), if room => match message {
                Some(Ok(Message::Close(_))) | None => return Ok(None),
                Some(Ok(message)) => receive(protocol, session, input, message),
                Some(Err(error)) => return Err(error),
            },
            () = input_room(input.as_ref()), if !room => {}
        }
    }
}

/// Waits until the input queue has room.
async fn input_room(input: Option<&mpsc::Sender<Bytes>>) {
    if let Some(input) = input {
        // An error means that the command takes no more input; then nothing waits for room.
        let _ = input.reserve().await;
    }
}

fn receive(
    protocol: Protocol,
    session: &ExecSession,
    input: &mut Option<mpsc::Sender<Bytes>>,
    message: Message,
) {
    let Some((channel, data)) = protocol.decode(message) else {
        return;
    };
    match channel {
        STDIN => {
            let closed = input
                .as_ref()
                .is_some_and(|input| !data.is_empty() && input.try_send(data).is_err());
            if closed {
                *input = None;
            }
        }
        CLOSE if data.first() == Some(&STDIN) => *input = None,
        RESIZE => {
            if let Ok(size) = serde_json::from_slice::<TerminalSize>(&data) {
                // A size that finds the queue full is followed by newer ones.
                let _ = session.resize.try_send((size.width, size.height));
            }
        }
        _ => {}
    }
}

async fn pump_output(
    channel: u8,
    mut reader: Pin<Box<dyn AsyncRead + Send>>,
    output: mpsc::Sender<(u8, Bytes)>,
) {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(CHUNK);
        match reader.read_buf(&mut buffer).await {
            Ok(read) if read > 0 => {
                if output
                    .send((channel, buffer.split().freeze()))
                    .await
                    .is_err()
                {
                    return;
                }
            }
            // A terminal reports an error when its last process has gone.
            Ok(_) | Err(_) => return,
        }
    }
}

async fn pump_input(mut stdin: Pin<Box<dyn AsyncWrite + Send>>, mut inputs: mpsc::Receiver<Bytes>) {
    while let Some(data) = inputs.recv().await {
        if stdin.write_all(&data).await.is_err() || stdin.flush().await.is_err() {
            return;
        }
    }
    // The command may have closed its input already.
    let _ = stdin.shutdown().await;
}

async fn finish(socket: &mut Socket, protocol: Protocol, code: Option<i32>) {
    let closing = async {
        if protocol.status {
            let status = exit_status(code).to_string();
            socket
                .send(protocol.encode(STATUS, status.as_bytes()))
                .await?;
        }
        socket
            .close(Some(CloseFrame {
                code: CloseCode::Normal,
                reason: "".into(),
            }))
            .await?;
        while let Some(message) = socket.next().await {
            message?;
        }
        Ok::<(), Error>(())
    };
    match tokio::time::timeout(CLOSING, closing).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "exec client went away at the end"),
        Err(_) => tracing::debug!("exec client did not close"),
    }
}
