//! TLS, credentials, logs and exec over real connections.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, AttachParams, LogParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::support::*;
use crate::api::credentials::Credentials;
use crate::api::{ApiOptions, ApiServer, serve};
use crate::streams::{
    BoxFuture, ExecOptions, ExecSession, LogOptions, PodKey, PodStreams, StreamError,
};

/// Commands: `cat` copies its input, `fail` writes to both outputs and exits with 7, `size` prints
/// the first terminal size.
struct Agent;

impl PodStreams for Agent {
    fn logs<'a>(
        &'a self,
        pod: PodKey<'a>,
        options: LogOptions,
    ) -> BoxFuture<'a, Result<BoxStream<'static, Bytes>, StreamError>> {
        Box::pin(async move {
            if options.previous {
                return Err(StreamError::BadRequest(format!(
                    "previous terminated container \"{}\" in pod \"{}\" not found",
                    options.container, pod.name
                )));
            }
            let first = format!("{} {:?}\n", options.container, options.tail_lines);
            let lines = stream::iter([Bytes::from(first), Bytes::from_static(b"second\n")]);
            Ok(if options.follow {
                lines.chain(stream::pending()).boxed()
            } else {
                lines.boxed()
            })
        })
    }

    fn exec<'a>(
        &'a self,
        _: PodKey<'a>,
        options: ExecOptions,
    ) -> BoxFuture<'a, Result<ExecSession, StreamError>> {
        Box::pin(async move {
            let (stdin, mut input) = tokio::io::duplex(1024);
            let (mut output, stdout) = tokio::io::duplex(1024);
            let (mut errors, stderr) = tokio::io::duplex(1024);
            let (resize, mut sizes) = mpsc::channel(4);
            let (ended, exit) = oneshot::channel();
            match options.command[0].as_str() {
                "cat" => tokio::spawn(async move {
                    let copied = tokio::io::copy(&mut input, &mut output).await;
                    drop(output);
                    ended.send(i32::from(copied.is_err()))
                }),
                "fail" => tokio::spawn(async move {
                    output.write_all(b"out\n").await.expect("room");
                    errors.write_all(b"err\n").await.expect("room");
                    ended.send(7)
                }),
                "size" => tokio::spawn(async move {
                    let (columns, rows) = sizes.recv().await.expect("a size");
                    let text = format!("{columns}x{rows}");
                    output.write_all(text.as_bytes()).await.expect("room");
                    ended.send(0)
                }),
                other => return Err(StreamError::Internal(format!("no program {other}"))),
            };
            Ok(ExecSession {
                stdin: options.stdin.then(|| Box::pin(stdin) as _),
                stdout: options.stdout.then(|| Box::pin(stdout) as _),
                stderr: options.stderr.then(|| Box::pin(stderr) as _),
                resize,
                exit,
            })
        })
    }
}

/// A server on a loopback port with its kubeconfig.
pub(super) struct Listening {
    pub(super) server: ApiServer,
    pub(super) directory: tempfile::TempDir,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Listening {
    pub(super) async fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let credentials = Credentials::load_or_create(directory.path(), &[]).expect("credentials");
        let server = server_with(ApiOptions {
            token: Some(credentials.token().to_owned()),
            ..ApiOptions::default()
        })
        .await;
        server.set_streams(Arc::new(Agent));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let url = format!("https://{}", listener.local_addr().expect("an address"));
        let path = directory.path().join("kubeconfig");
        credentials.write_kubeconfig(&path, &url).expect("written");
        let shutdown = CancellationToken::new();
        let serving = serve(
            listener,
            credentials.tls(),
            server.clone(),
            shutdown.clone(),
        );
        Self {
            server,
            directory,
            shutdown,
            task: tokio::spawn(serving),
        }
    }

    pub(super) fn kubeconfig(&self) -> std::path::PathBuf {
        self.directory.path().join("kubeconfig")
    }

    async fn config(&self) -> kube::Config {
        let file = Kubeconfig::read_from(self.kubeconfig()).expect("a kubeconfig");
        let options = KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(file, &options);
        config.await.expect("a configuration")
    }

    async fn pods(&self) -> Api<Pod> {
        let client = kube::Client::try_from(self.config().await).expect("a client");
        Api::namespaced(client, "default")
    }

    pub(super) async fn stop(self) {
        self.shutdown.cancel();
        let stopped = tokio::time::timeout(Duration::from_secs(10), self.task).await;
        stopped.expect("in time").expect("no panic");
    }
}

#[tokio::test]
async fn cluster_t1_only_the_token_opens_the_door() {
    let listening = Listening::start().await;
    let pods = listening.pods().await;
    assert!(pods.list(&Default::default()).await.is_ok());
    for token in [None, Some("wrong".to_owned())] {
        let mut config = listening.config().await;
        config.auth_info.token = token.map(Into::into);
        let client = kube::Client::try_from(config).expect("a client");
        let refused = client.apiserver_version().await.expect_err("no token");
        assert!(
            matches!(refused, kube::Error::Api(status) if status.code == 401 && status.reason == "Unauthorized")
        );
    }
    listening.stop().await;
}

#[tokio::test]
async fn cluster_t1_credentials_are_private_and_stay() {
    use std::os::unix::fs::PermissionsExt;

    let directory = tempfile::tempdir().expect("a directory");
    let first = Credentials::load_or_create(directory.path(), &[]).expect("made");
    let kubeconfig = directory.path().join("kubeconfig");
    first
        .write_kubeconfig(&kubeconfig, "https://127.0.0.1:1")
        .expect("written");
    let second = Credentials::load_or_create(directory.path(), &[]).expect("loaded");
    assert_eq!(
        (first.token(), first.ca_pem()),
        (second.token(), second.ca_pem())
    );
    for file in ["ca.crt", "ca.key", "token", "kubeconfig"] {
        let mode = std::fs::metadata(directory.path().join(file))
            .expect(file)
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    assert!(!format!("{first:?}").contains(first.token()));
}

#[tokio::test]
async fn watches_end_when_the_server_stops() {
    let listening = Listening::start().await;
    let pods = listening.pods().await;
    let mut watch = pods
        .watch(&Default::default(), "0")
        .await
        .expect("a watch")
        .boxed();
    listening.stop().await;
    let end = async { while let Some(Ok(_)) = watch.next().await {} };
    let end = tokio::time::timeout(Duration::from_secs(10), end).await;
    end.expect("the watch has ended");
}

#[tokio::test]
async fn cluster_c12_logs() {
    let server = server().await;
    post(&server, PODS, pod("p")).await;
    let path = format!("{PODS}/p/log");
    let unavailable = get(&server, &path).await;
    assert_eq!(unavailable.code, 503);
    server.set_streams(Arc::new(Agent));
    let log = get(&server, &format!("{path}?tailLines=3")).await;
    assert_eq!(log.headers["content-type"], "text/plain");
    assert_eq!(log.text, "c Some(3)\nsecond\n");
    for (query, code, message) in [
        (
            "?previous=true",
            400,
            "previous terminated container \"c\" in pod \"p\" not found",
        ),
        ("?container=x", 400, "container x is not valid for pod p"),
        (
            "?tailLines=-1",
            422,
            "PodLogOptions \"p\" is invalid: tailLines: Invalid value: -1: must be greater than or equal to 0",
        ),
        (
            "?sinceSeconds=0",
            422,
            "PodLogOptions \"p\" is invalid: sinceSeconds: Invalid value: 0: must be greater than or equal to 1",
        ),
    ] {
        let refused = get(&server, &format!("{path}{query}")).await;
        assert_eq!(
            (refused.code, refused.message()),
            (code, message),
            "{query}"
        );
    }
    let mut two = pod("two");
    two["spec"]["containers"] = json!([{"name": "a", "image": "i"}, {"name": "b", "image": "i"}]);
    post(&server, PODS, two).await;
    let unclear = get(&server, &format!("{PODS}/two/log")).await;
    assert_eq!(
        unclear.message(),
        "a container name must be specified for pod two, choose one of: [a b]"
    );
    assert_eq!(get(&server, &format!("{PODS}/zz/log")).await.code, 404);
}

#[tokio::test]
async fn cluster_c12_logs_are_followed_over_tls() {
    let listening = Listening::start().await;
    post(&listening.server, PODS, pod("p")).await;
    let pods = listening.pods().await;
    let params = LogParams {
        follow: true,
        ..LogParams::default()
    };
    let mut lines = pods.log_stream("p", &params).await.expect("a stream");
    let mut text = vec![0; "c None\nsecond\n".len()];
    futures_util::AsyncReadExt::read_exact(&mut lines, &mut text)
        .await
        .expect("lines");
    assert_eq!(text, b"c None\nsecond\n");
    listening.stop().await;
}

#[tokio::test]
async fn cluster_c13_exec_copies_input_to_output() {
    let listening = Listening::start().await;
    post(&listening.server, PODS, pod("p")).await;
    let pods = listening.pods().await;
    let params = AttachParams::default().stdin(true).stderr(false);
    let mut process = pods.exec("p", ["cat"], &params).await.expect("started");
    let mut stdin = process.stdin().expect("an input");
    let mut stdout = process.stdout().expect("an output");
    let sent: Vec<u8> = (0..200_000_u32).map(|at| (at % 251) as u8).collect();
    let data = sent.clone();
    let writing = tokio::spawn(async move {
        stdin.write_all(&data).await.expect("written");
        stdin.shutdown().await.expect("closed");
    });
    let mut received = Vec::new();
    stdout.read_to_end(&mut received).await.expect("read");
    writing.await.expect("no panic");
    assert!(
        received == sent,
        "{} of {} bytes",
        received.len(),
        sent.len()
    );
    let status = process
        .take_status()
        .expect("a status")
        .await
        .expect("received");
    assert_eq!(status.status.as_deref(), Some("Success"));
    listening.stop().await;
}

#[tokio::test]
async fn cluster_z1_exit_code_and_error_output_are_told() {
    let listening = Listening::start().await;
    post(&listening.server, PODS, pod("p")).await;
    let pods = listening.pods().await;
    let mut process = pods
        .exec("p", ["fail"], &AttachParams::default())
        .await
        .expect("started");
    let (mut out, mut err) = (String::new(), String::new());
    process
        .stdout()
        .expect("an output")
        .read_to_string(&mut out)
        .await
        .expect("read");
    process
        .stderr()
        .expect("an output")
        .read_to_string(&mut err)
        .await
        .expect("read");
    assert_eq!((out.as_str(), err.as_str()), ("out\n", "err\n"));
    let status = process
        .take_status()
        .expect("a status")
        .await
        .expect("received");
    assert_eq!(status.reason.as_deref(), Some("NonZeroExitCode"));
    let causes = status
        .details
        .and_then(|details| details.causes)
        .expect("causes");
    assert_eq!(causes[0].message.as_deref(), Some("7"));
    listening.stop().await;
}

#[tokio::test]
async fn cluster_z1_terminal_sizes_arrive() {
    let listening = Listening::start().await;
    post(&listening.server, PODS, pod("p")).await;
    let pods = listening.pods().await;
    let params = AttachParams::interactive_tty();
    let mut process = pods.exec("p", ["size"], &params).await.expect("started");
    let mut size = process.terminal_size().expect("a terminal");
    let wanted = kube::api::TerminalSize {
        width: 80,
        height: 25,
    };
    futures_util::SinkExt::send(&mut size, wanted)
        .await
        .expect("sent");
    let mut out = String::new();
    process
        .stdout()
        .expect("an output")
        .read_to_string(&mut out)
        .await
        .expect("read");
    assert_eq!(out, "80x25");
    listening.stop().await;
}

#[tokio::test]
async fn cluster_z2_exec_errors_come_before_the_upgrade() {
    let server = server().await;
    server.set_streams(Arc::new(Agent));
    post(&server, PODS, pod("p")).await;
    let path = format!("{PODS}/p/exec?command=cat&stdout=true");
    let plain = get(&server, &path).await;
    assert_eq!(
        (plain.code, plain.message()),
        (400, "Upgrade request required")
    );
    let headers = [("connection", "Upgrade"), ("upgrade", "SPDY/3.1")];
    let spdy = raw(&server, "POST", &path, &headers, "").await;
    assert_eq!(spdy.code, 400);
    assert!(
        spdy.message().starts_with("SPDY is not supported"),
        "{}",
        spdy.message()
    );
    assert_eq!(
        get(&server, &format!("{PODS}/zz/exec?command=cat&stdout=true"))
            .await
            .code,
        404
    );

    let listening = Listening::start().await;
    post(&listening.server, PODS, pod("p")).await;
    let pods = listening.pods().await;
    let missing = pods
        .exec("p", ["cat"], &AttachParams::default().container("x"))
        .await;
    let error = missing.err().expect("refused").to_string();
    assert!(error.contains("400"), "{error}");
    listening.stop().await;
}
