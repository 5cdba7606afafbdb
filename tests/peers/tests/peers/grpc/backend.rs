//! A gRPC server whose clients say what it should do.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{Buf, BufMut, Bytes};
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt, stream};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder, Streaming};
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::server::Grpc;
use tonic::{Code, Request, Response, Status};

/// Messages are bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

/// A running server.
pub(super) struct Backend {
    pub(super) addr: SocketAddr,
    state: Arc<State>,
    /// No more connections are accepted; then that was done; then those that there are are told to
    /// go away and finish their streams.
    close: CancellationToken,
    closed: CancellationToken,
    retire: CancellationToken,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct State {
    /// Tells the backends of a test apart.
    name: usize,
    calls: AtomicUsize,
    /// Calls that their clients gave up.
    cancelled: AtomicUsize,
}

impl Backend {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let state = Arc::new(State {
            name: addr.port().into(),
            ..State::default()
        });
        let [close, closed, retire] = [(); 3].map(|()| CancellationToken::new());
        let (shared, token) = (Arc::clone(&state), retire.clone());
        let (stop, stopped) = (close.clone(), closed.clone());
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Some(Ok((stream, _))) = stop.run_until_cancelled(listener.accept()).await {
                connections.spawn(serve(stream, Arc::clone(&shared), token.clone()));
            }
            drop(listener);
            stopped.cancel();
            while connections.join_next().await.is_some() {}
        });
        Self {
            addr,
            state,
            close,
            closed,
            retire,
            task,
        }
    }

    pub(super) fn name(&self) -> usize {
        self.state.name
    }

    pub(super) fn calls(&self) -> usize {
        self.state.calls.load(Ordering::Relaxed)
    }

    pub(super) fn cancelled(&self) -> usize {
        self.state.cancelled.load(Ordering::Relaxed)
    }

    /// Accepts no more connections and says GOAWAY on those that there are, as a server does that
    /// is about to end.
    pub(super) async fn retire(&self) {
        self.close.cancel();
        // What is in the listener's queue when it is closed is reset.
        self.closed.cancelled().await;
        self.retire.cancel();
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(stream: TcpStream, state: Arc<State>, retire: CancellationToken) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let state = Arc::clone(&state);
        async move { Ok::<_, Infallible>(answer(&state, request).await) }
    });
    let connection =
        http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        // How a connection ends is seen by the other side.
        _ = connection.as_mut() => return,
        () = retire.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

async fn answer(state: &Arc<State>, request: http::Request<Incoming>) -> http::Response<Body> {
    state.calls.fetch_add(1, Ordering::Relaxed);
    let mut grpc = Grpc::new(Raw);
    let name = state.name;
    let call = Call::new(state);
    match request.uri().path() {
        "/peers.Echo/Unary" => {
            let work = tower::service_fn(move |request| unary(name, request));
            let response = grpc.unary(work, request).await;
            call.finished();
            response
        }
        "/peers.Echo/Up" => {
            let work = tower::service_fn(move |request| up(name, request));
            let response = grpc.client_streaming(work, request).await;
            call.finished();
            response
        }
        "/peers.Echo/Down" => {
            let mut call = Some(call);
            let work = tower::service_fn(move |request| down(name, request, call.take()));
            grpc.server_streaming(work, request).await
        }
        "/peers.Echo/Both" => {
            let mut call = Some(call);
            let work = tower::service_fn(move |request| both(name, request, call.take()));
            grpc.streaming(work, request).await
        }
        other => Status::unimplemented(other).into_http(),
    }
}

/// A call that counts as cancelled unless it is finished.
struct Call(Option<Arc<State>>);

impl Call {
    fn new(state: &Arc<State>) -> Self {
        Self(Some(Arc::clone(state)))
    }

    fn finished(mut self) {
        self.0 = None;
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if let Some(state) = self.0.take() {
            state.cancelled.fetch_add(1, Ordering::Relaxed);
        }
    }
}

type Answers = BoxStream<'static, Result<Bytes, Status>>;

fn from<T>(name: usize, message: T) -> Response<T> {
    let mut response = Response::new(message);
    let name = name.to_string().parse().unwrap();
    response.metadata_mut().insert("backend", name);
    response
}

/// Echoes; `fail CODE` fails, `hang` never ends.
async fn unary(name: usize, request: Request<Bytes>) -> Result<Response<Bytes>, Status> {
    let asked = request.metadata().get("echo-this").cloned();
    let ask = request.into_inner();
    let text = std::str::from_utf8(&ask).unwrap_or_default();
    if let Some(code) = text.strip_prefix("fail ") {
        return Err(failure(code.parse().unwrap()));
    }
    if text == "hang" {
        std::future::pending::<()>().await;
    }
    let mut response = from(name, ask);
    if let Some(value) = asked {
        response.metadata_mut().insert("echo-this", value);
    }
    Ok(response)
}

/// What a backend fails with when it is told to.
pub(super) fn failure(code: i32) -> Status {
    let mut metadata = MetadataMap::new();
    metadata.insert("reason", "told to".parse().unwrap());
    metadata.insert_bin("detail-bin", MetadataValue::from_bytes(&[0, 255, 7]));
    let message = format!("code {code}: 100 % „wanted“");
    let details = Bytes::from_static(b"\x08\x01 details");
    Status::with_details_and_metadata(Code::from_i32(code), message, details, metadata)
}

/// Sends `COUNT SIZE` messages, or without end if COUNT is 0; then fails if a CODE follows.
async fn down(
    name: usize,
    request: Request<Bytes>,
    call: Option<Call>,
) -> Result<Response<Answers>, Status> {
    let text = String::from_utf8(request.into_inner().to_vec()).unwrap();
    let numbers: Vec<usize> = text.split(' ').map(|n| n.parse().unwrap()).collect();
    let (count, size) = (numbers[0], numbers[1]);
    let end = numbers.get(2).map(|code| failure(*code as i32));
    let total = if count == 0 { usize::MAX } else { count };
    let messages = stream::iter(0..total).then(move |number| async move {
        if count == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        Ok(Bytes::from(vec![number as u8; size]))
    });
    let messages = messages.chain(stream::iter(end.map(Err)));
    Ok(from(name, until_finished(messages.boxed(), call)))
}

/// Counts messages and bytes.
async fn up(name: usize, request: Request<Streaming<Bytes>>) -> Result<Response<Bytes>, Status> {
    let (mut count, mut bytes) = (0, 0);
    let mut messages = request.into_inner();
    while let Some(message) = messages.try_next().await? {
        count += 1;
        bytes += message.len();
    }
    Ok(from(name, Bytes::from(format!("{count} {bytes}"))))
}

/// Echoes every message as it comes.
async fn both(
    name: usize,
    request: Request<Streaming<Bytes>>,
    call: Option<Call>,
) -> Result<Response<Answers>, Status> {
    let messages = request.into_inner().boxed();
    Ok(from(name, until_finished(messages, call)))
}

/// Knows whether a stream came to its end.
fn until_finished(messages: Answers, call: Option<Call>) -> Answers {
    let state = (messages, call);
    stream::unfold(state, |(mut messages, mut call)| async move {
        let next = messages.next().await;
        if matches!(next, None | Some(Err(_)))
            && let Some(call) = call.take()
        {
            // A client that went away ends its stream with an error, too.
            match next {
                Some(Err(ref status)) if status.code() == Code::Cancelled => drop(call),
                _ => call.finished(),
            }
        }
        next.map(|message| (message, (messages, call)))
    })
    .boxed()
}
