//! Logs and commands, as the API server asks for them.

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::LogParams;
use sealane_cluster::streams::{ExecOptions, PodKey, PodStreams as _, StreamError};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::world::{Case, Mode, World, eventually, ready, waiting};

const BOTH: &[Mode] = &[Mode::Loopback, Mode::Namespaces];

pub(crate) const ALL: &[Case] = &[
    ("cluster_c12_logs_follow_and_previous", BOTH, |w| {
        Box::pin(logs(w))
    }),
    ("cluster_z1_exec", BOTH, |w| Box::pin(exec(w))),
];

async fn logs(world: &World) {
    world
        .shell(
            "talker",
            "for i in 1 2 3; do echo line $i; sleep 0.1; done",
            json!({}),
            json!({ "restartPolicy": "Never" }),
        )
        .await;
    let started = |pod: &Pod| {
        !waiting(pod).starts_with("Container")
            && pod.status.as_ref().is_some_and(|s| s.pod_ip.is_some())
    };
    world.until("talker", started).await;
    let follow = LogParams {
        follow: true,
        ..LogParams::default()
    };
    let text = eventually("a log", async || {
        let pods = world.api::<Pod>();
        let mut stream = pods.log_stream("talker", &follow).await.ok()?;
        let mut text = String::new();
        futures_util::AsyncReadExt::read_to_string(&mut stream, &mut text)
            .await
            .ok()?;
        Some(text)
    })
    .await;
    assert_eq!(text, "line 1\nline 2\nline 3\n");
    let tail = LogParams {
        tail_lines: Some(1),
        ..LogParams::default()
    };
    let text = world
        .api::<Pod>()
        .logs("talker", &tail)
        .await
        .expect("a log");
    assert_eq!(text, "line 3\n");

    let file = world.dir.path().join("count");
    let script = format!(
        "echo x >> {0}; wc -l < {0}; [ $(wc -l < {0}) -gt 1 ] && exec sleep 1000; exit 1",
        file.display()
    );
    world.shell("again", &script, json!({}), json!({})).await;
    world
        .until("again", |pod| {
            ready(pod) && super::world::restarts(pod) == 1
        })
        .await;
    let previous = LogParams {
        previous: true,
        ..LogParams::default()
    };
    let text = world
        .api::<Pod>()
        .logs("again", &previous)
        .await
        .expect("a log");
    assert_eq!(text.trim(), "1");
    eventually("the current run's", async || {
        (world.log("again").await.trim() == "2").then_some(())
    })
    .await;
}

async fn exec(world: &World) {
    world
        .shell(
            "shell",
            "exec sleep 1000",
            json!({ "env": [{ "name": "X", "value": "y" }] }),
            json!({}),
        )
        .await;
    let pod = world.until("shell", ready).await;
    let uid = pod.uid().expect("a uid");
    let key = PodKey {
        namespace: "default",
        name: "shell",
        uid: &uid,
    };
    let options = |command: &[&str], stdin| ExecOptions {
        container: "c".to_owned(),
        command: command.iter().map(|word| (*word).to_owned()).collect(),
        stdin,
        stdout: true,
        stderr: true,
        tty: false,
    };
    let script = ["sh", "-c", "cat; echo $X; echo oops >&2; exit 7"];
    let mut session = match world.agent.exec(key, options(&script, true)).await {
        Ok(session) => session,
        Err(error) => panic!("{error}"),
    };
    let mut stdin = session.stdin.take().expect("input");
    stdin.write_all(b"hello\n").await.expect("written");
    stdin.shutdown().await.expect("closed");
    drop(stdin);
    let (mut out, mut err) = (String::new(), String::new());
    let mut stdout = session.stdout.take().expect("output");
    let mut stderr = session.stderr.take().expect("errors");
    stdout.read_to_string(&mut out).await.expect("output");
    stderr.read_to_string(&mut err).await.expect("errors");
    assert_eq!((out.as_str(), err.as_str()), ("hello\ny\n", "oops\n"));
    assert_eq!(session.exit.await, Ok(7));

    let gone = PodKey { uid: "none", ..key };
    let refused = world.agent.exec(gone, options(&["true"], false)).await;
    assert!(matches!(
        refused,
        Err(StreamError::BadRequest(_) | StreamError::NotFound(_))
    ));
    let mut lines = world
        .agent
        .logs(key, Default::default())
        .await
        .err()
        .into_iter();
    assert!(lines.next().is_some(), "a container has to be named");
}
