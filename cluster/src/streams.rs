//! What the API server asks of the node agent: logs and exec.
//!
//! On a cluster the API server reaches the kubelet over HTTPS for these; here it calls the agent
//! that registered itself.

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot};

/// A boxed future, so that the trait can be used as an object.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Query of `GET /api/v1/namespaces/{namespace}/pods/{name}/log` (API reference, `PodLogOptions`).
#[derive(Clone, Debug, Default)]
pub struct LogOptions {
    /// The container.
    pub container: String,
    /// Stay open and send new lines as they come.
    pub follow: bool,
    /// The run before the current one.
    pub previous: bool,
    /// Only the last lines.
    pub tail_lines: Option<u64>,
    /// Only lines since then.
    pub since: Option<jiff::Timestamp>,
    /// An RFC 3339 time stamp before each line.
    pub timestamps: bool,
    /// At most this many bytes.
    pub limit_bytes: Option<u64>,
}

/// Query of `…/exec` (API reference, `PodExecOptions`).
#[derive(Clone, Debug, Default)]
pub struct ExecOptions {
    /// The container.
    pub container: String,
    /// Program and arguments.
    pub command: Vec<String>,
    /// The client sends standard input.
    pub stdin: bool,
    /// The client wants standard output.
    pub stdout: bool,
    /// The client wants standard error (never with a terminal).
    pub stderr: bool,
    /// Run it on a pseudo-terminal.
    pub tty: bool,
}

/// A command that runs in a container.
pub struct ExecSession {
    /// Its standard input; dropping it ends the input.
    pub stdin: Option<Pin<Box<dyn AsyncWrite + Send>>>,
    /// Its standard output, or the terminal's output.
    pub stdout: Option<Pin<Box<dyn AsyncRead + Send>>>,
    /// Its standard error.
    pub stderr: Option<Pin<Box<dyn AsyncRead + Send>>>,
    /// New terminal sizes: columns, rows.
    pub resize: mpsc::Sender<(u16, u16)>,
    /// The exit code, 128 + signal if a signal ended it. Dropping the session ends the command.
    pub exit: oneshot::Receiver<i32>,
}

/// Why a stream could not be opened; the message is shown to the user of kubectl as it is.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The request cannot be fulfilled as it was put (400).
    #[error("{0}")]
    BadRequest(String),
    /// The pod is not known to the agent (404).
    #[error("{0}")]
    NotFound(String),
    /// Something failed on our side (500).
    #[error("{0}")]
    Internal(String),
}

/// The node agent as the API server sees it. The pod is given by namespace, name and uid.
pub trait PodStreams: Send + Sync {
    /// The container's log as bytes.
    fn logs<'a>(
        &'a self,
        pod: PodKey<'a>,
        options: LogOptions,
    ) -> BoxFuture<'a, Result<BoxStream<'static, Bytes>, StreamError>>;

    /// Runs a command in a container.
    fn exec<'a>(
        &'a self,
        pod: PodKey<'a>,
        options: ExecOptions,
    ) -> BoxFuture<'a, Result<ExecSession, StreamError>>;
}

/// Which pod.
#[derive(Clone, Copy, Debug)]
pub struct PodKey<'a> {
    /// Namespace.
    pub namespace: &'a str,
    /// Name.
    pub name: &'a str,
    /// `metadata.uid`.
    pub uid: &'a str,
}
