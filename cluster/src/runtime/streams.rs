//! Logs and commands for the API server ([`PodStreams`]), which lives on other threads.
//!
//! Commands have to be started by the agent's own thread, since they end with the thread that started
//! them; so requests go there over a bounded queue.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use tokio::sync::oneshot;

use super::NodeAgent;
use super::context::Context;
use super::logs::{self, LogTail};
use super::runs::Runs;
use crate::streams::{
    BoxFuture, ExecOptions, ExecSession, LogOptions, PodKey, PodStreams, StreamError,
};

/// Whose container it is.
struct Asked {
    namespace: String,
    name: String,
    uid: String,
}

/// A log file, and its end while it is written.
type Log = (PathBuf, Option<LogTail>);

/// What is asked of the agent's thread.
pub(super) struct Request {
    pod: Asked,
    ask: Ask,
}

enum Ask {
    Logs(LogOptions, oneshot::Sender<Result<Log, StreamError>>),
    Exec(
        ExecOptions,
        oneshot::Sender<Result<ExecSession, StreamError>>,
    ),
}

impl Request {
    /// The pod's uid.
    pub(super) fn uid(&self) -> &str {
        &self.pod.uid
    }

    /// Answers with what the pod's worker knows.
    pub(super) fn answer(self, ctx: &Context, runs: Option<Arc<Runs>>) {
        let Self { pod, ask } = self;
        match ask {
            Ask::Logs(options, reply) => {
                // Whoever asked may have gone.
                let _ = reply.send(find_log(ctx, &pod, &options, runs.as_deref()));
            }
            Ask::Exec(options, reply) => {
                let container = runs
                    .and_then(|runs| runs.get(&options.container))
                    .and_then(|run| run.container);
                tokio::spawn(async move {
                    let answer = match container {
                        Some(container) => Box::pin(container.exec(options)).await,
                        None => Err(StreamError::BadRequest(format!(
                            "container not found (\"{}\")",
                            options.container
                        ))),
                    };
                    let _ = reply.send(answer);
                });
            }
        }
    }
}

fn find_log(
    ctx: &Context,
    pod: &Asked,
    options: &LogOptions,
    runs: Option<&Runs>,
) -> Result<Log, StreamError> {
    let Asked {
        namespace,
        name,
        uid,
    } = pod;
    let container = &options.container;
    let directory = logs::directory(&ctx.options.data_dir, namespace, name, uid, container);
    let Some(run) = runs.and_then(|runs| runs.get(container)) else {
        return Err(StreamError::BadRequest(format!(
            "container \"{container}\" in pod \"{name}\" is waiting to start: ContainerCreating"
        )));
    };
    if !options.previous {
        return Ok((logs::file(&directory, run.number), run.tail));
    }
    let previous = run.number.checked_sub(1);
    let path = previous.map(|number| logs::file(&directory, number));
    match path.filter(|path| path.exists()) {
        Some(path) => Ok((path, None)),
        None => Err(StreamError::BadRequest(format!(
            "previous terminated container \"{container}\" in pod \"{name}\" not found"
        ))),
    }
}

impl NodeAgent {
    async fn ask<T>(
        &self,
        pod: PodKey<'_>,
        ask: impl FnOnce(oneshot::Sender<Result<T, StreamError>>) -> Ask,
    ) -> Result<T, StreamError> {
        let ended = || StreamError::Internal("the node agent has ended".to_owned());
        let (reply, answer) = oneshot::channel();
        let request = Request {
            pod: Asked {
                namespace: pod.namespace.to_owned(),
                name: pod.name.to_owned(),
                uid: pod.uid.to_owned(),
            },
            ask: ask(reply),
        };
        if self.requests.send(request).await.is_err() {
            return Err(ended());
        }
        answer.await.unwrap_or_else(|_gone| Err(ended()))
    }
}

impl PodStreams for NodeAgent {
    fn logs<'a>(
        &'a self,
        pod: PodKey<'a>,
        options: LogOptions,
    ) -> BoxFuture<'a, Result<BoxStream<'static, Bytes>, StreamError>> {
        Box::pin(async move {
            let asked = options.clone();
            let (path, tail) = self.ask(pod, |reply| Ask::Logs(asked, reply)).await?;
            logs::read(path, options, tail)
                .await
                .map_err(|error| StreamError::Internal(format!("cannot read the log: {error}")))
        })
    }

    fn exec<'a>(
        &'a self,
        pod: PodKey<'a>,
        options: ExecOptions,
    ) -> BoxFuture<'a, Result<ExecSession, StreamError>> {
        Box::pin(self.ask(pod, |reply| Ask::Exec(options, reply)))
    }
}
