//! Lists and watches.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::support::*;
use crate::api::{ApiBody, ApiServer};

/// A watch whose lines are read one by one.
struct Lines {
    body: ApiBody,
    buffer: Vec<u8>,
}

impl Lines {
    async fn open(server: &ApiServer, path: &str) -> Self {
        let response = send(server, "GET", path, &[], "").await;
        assert_eq!(response.status(), 200);
        Self {
            body: response.into_body(),
            buffer: Vec::new(),
        }
    }

    async fn chunk(&mut self) -> Option<Bytes> {
        let frame = tokio::time::timeout(Duration::from_secs(600), self.body.frame()).await;
        let frame = frame.expect("a line within the deadline")?;
        Some(frame.expect("infallible").into_data().expect("data"))
    }

    /// The next event; `None` at the end of the stream.
    async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(at) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=at).collect();
                return Some(serde_json::from_slice(&line).expect("a line of JSON"));
            }
            let chunk = self.chunk().await?;
            self.buffer.extend_from_slice(&chunk);
        }
    }

    /// Type and name of the next event.
    async fn short(&mut self) -> String {
        match self.next().await {
            Some(event) => format!(
                "{} {}",
                event["type"].as_str().unwrap_or("?"),
                event["object"]["metadata"]["name"].as_str().unwrap_or("-")
            ),
            None => "end".to_owned(),
        }
    }
}

#[tokio::test]
async fn cluster_v1_watch_shows_existing_then_live_changes() {
    let server = server().await;
    post(&server, MAPS, config_map("b")).await;
    post(&server, MAPS, config_map("a")).await;
    let version = get(&server, MAPS).await.version().to_owned();

    let mut existing = Lines::open(&server, &format!("{MAPS}?watch=true")).await;
    assert_eq!(existing.short().await, "ADDED a");
    assert_eq!(existing.short().await, "ADDED b");
    let mut after = Lines::open(
        &server,
        &format!("{MAPS}?watch=1&resourceVersion={version}"),
    )
    .await;

    merge(&server, &format!("{MAPS}/a"), json!({"data": {"k": "w"}})).await;
    merge(&server, &format!("{MAPS}/a"), json!({"data": {"k": "w"}})).await;
    let deleted = delete(&server, &format!("{MAPS}/a"), Value::Null).await;
    assert_eq!(deleted.code, 200, "{}", deleted.text);
    for lines in [&mut existing, &mut after] {
        assert_eq!(lines.short().await, "MODIFIED a");
        let gone = lines.next().await.expect("an event");
        assert_eq!(gone["type"], "DELETED");
        assert_eq!(gone["object"]["data"]["k"], "w");
        let last: u64 = gone["object"]["metadata"]["resourceVersion"]
            .as_str()
            .expect("a version")
            .parse()
            .expect("a number");
        assert_eq!(last, server.store().revision());
    }
}

#[tokio::test]
async fn cluster_v1_objects_enter_and_leave_a_selector() {
    let server = server().await;
    let path = format!("{MAPS}/a");
    let mut lines = Lines::open(&server, &format!("{MAPS}?watch=true&labelSelector=p%3D1")).await;
    post(&server, MAPS, config_map("a")).await;
    merge(&server, &path, json!({"metadata": {"labels": {"p": "1"}}})).await;
    merge(&server, &path, json!({"data": {"x": "y"}})).await;
    let left = merge(&server, &path, json!({"metadata": {"labels": {"p": "2"}}})).await;
    assert_eq!(lines.short().await, "ADDED a");
    assert_eq!(lines.short().await, "MODIFIED a");
    let gone = lines.next().await.expect("an event");
    assert_eq!(gone["type"], "DELETED");
    assert_eq!(gone["object"]["metadata"]["labels"]["p"], "1");
    assert_eq!(
        gone["object"]["metadata"]["resourceVersion"],
        left.version()
    );
}

#[tokio::test]
async fn cluster_v2_initial_events_end_with_a_bookmark() {
    let server = server().await;
    post(&server, MAPS, config_map("a")).await;
    let query = "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut lines = Lines::open(&server, &format!("{MAPS}?{query}")).await;
    assert_eq!(lines.short().await, "ADDED a");
    let mark = lines.next().await.expect("a bookmark");
    let version = server.store().revision().to_string();
    assert_eq!(
        mark,
        json!({"type": "BOOKMARK", "object": {"kind": "ConfigMap", "apiVersion": "v1", "metadata": {
            "resourceVersion": version, "annotations": {"k8s.io/initial-events-end": "true"}}}})
    );
    let mut empty = Lines::open(
        &server,
        &format!("/api/v1/namespaces/default/secrets?{query}&resourceVersion=0"),
    )
    .await;
    assert_eq!(empty.short().await, "BOOKMARK -");
    let mut plain = Lines::open(
        &server,
        &format!("{MAPS}?watch=true&allowWatchBookmarks=true"),
    )
    .await;
    assert_eq!(plain.short().await, "ADDED a");
    assert_eq!(plain.short().await, "BOOKMARK -");
}

#[tokio::test]
async fn cluster_k5_initial_events_are_honoured_or_refused() {
    let server = server().await;
    for (query, code) in [
        ("watch=true&sendInitialEvents=true", 422),
        (
            "watch=true&sendInitialEvents=true&resourceVersionMatch=Exact",
            422,
        ),
        ("watch=true&resourceVersionMatch=NotOlderThan", 422),
        (
            "sendInitialEvents=true&resourceVersionMatch=NotOlderThan",
            422,
        ),
        ("watch=true&resourceVersion=abc", 500),
    ] {
        assert_eq!(
            get(&server, &format!("{MAPS}?{query}")).await.code,
            code,
            "{query}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn cluster_v3_bookmarks_and_the_end_of_a_watch() {
    let server = server().await;
    let version = get(&server, MAPS).await.version().to_owned();
    let query = format!("watch=true&allowWatchBookmarks=true&resourceVersion={version}");
    let mut lines = Lines::open(&server, &format!("{MAPS}?{query}&timeoutSeconds=90")).await;
    post(&server, PODS, pod("p")).await;
    let start = tokio::time::Instant::now();
    let mark = lines.next().await.expect("a bookmark");
    assert_eq!(
        (start.elapsed().as_secs(), mark["type"].as_str()),
        (60, Some("BOOKMARK"))
    );
    assert_eq!(
        mark["object"]["metadata"]["resourceVersion"],
        server.store().revision().to_string()
    );
    assert_eq!(lines.short().await, "BOOKMARK -");
    assert_eq!(start.elapsed().as_secs(), 88);
    assert_eq!(lines.short().await, "end");
    assert_eq!(start.elapsed().as_secs(), 90);

    let mut quiet = Lines::open(
        &server,
        &format!("{MAPS}?watch=true&resourceVersion={version}&timeoutSeconds=1"),
    )
    .await;
    assert_eq!(quiet.short().await, "end");
}

#[tokio::test]
async fn cluster_v4_table_watch_has_columns_once() {
    let server = server().await;
    post(&server, MAPS, config_map("a")).await;
    post(&server, MAPS, config_map("b")).await;
    let headers = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let response = send(&server, "GET", &format!("{MAPS}?watch=true"), &headers, "").await;
    let mut lines = Lines {
        body: response.into_body(),
        buffer: Vec::new(),
    };
    let first = lines.next().await.expect("an event");
    assert!(first["object"]["columnDefinitions"].is_array());
    assert_eq!(
        first["object"]["rows"][0]["object"]["kind"],
        "PartialObjectMetadata"
    );
    let second = lines.next().await.expect("an event");
    assert!(second["object"]["columnDefinitions"].is_null());
    assert_eq!(second["object"]["rows"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn cluster_v1_watch_of_one_object_and_the_old_path() {
    let server = server().await;
    post(&server, MAPS, config_map("a")).await;
    post(&server, MAPS, config_map("b")).await;
    for path in [
        format!("{MAPS}?watch=true&fieldSelector=metadata.name%3Db&resourceVersion=0"),
        format!("{MAPS}/b?watch=true"),
        "/api/v1/watch/namespaces/default/configmaps/b".to_owned(),
    ] {
        assert_eq!(
            Lines::open(&server, &path).await.short().await,
            "ADDED b",
            "{path}"
        );
    }
}

#[tokio::test]
async fn cluster_e7_watch_from_a_forgotten_version_gets_one_error_event() {
    let server = server().await;
    let mut lines = Lines::open(&server, &format!("{MAPS}?watch=true&resourceVersion=0&sendInitialEvents=false&resourceVersionMatch=NotOlderThan&timeoutSeconds=1")).await;
    assert_eq!(lines.short().await, "end", "from now on");

    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("store.redb");
    let open = || {
        ApiServer::new(
            crate::api::Store::open(&file).expect("opens"),
            crate::api::ApiOptions::default(),
        )
    };
    let before = open();
    before.bootstrap().await.expect("bootstrap");
    let version = get(&before, MAPS).await.version().to_owned();
    drop(before);
    let after = open();
    let mut lines = Lines::open(
        &after,
        &format!("{MAPS}?watch=true&resourceVersion={version}"),
    )
    .await;
    let error = lines.next().await.expect("an event");
    assert_eq!(error["type"], "ERROR");
    assert_eq!(
        (&error["object"]["code"], &error["object"]["reason"]),
        (&json!(410), &json!("Expired"))
    );
    let message = error["object"]["message"].as_str().expect("a message");
    assert!(
        message.starts_with(&format!("too old resource version: {version} (")),
        "{message}"
    );
    assert_eq!(lines.short().await, "end");
}

#[tokio::test]
async fn cluster_v5_a_watcher_that_falls_behind_is_told() {
    let server = server().await;
    let mut lines = Lines::open(&server, &format!("{MAPS}?watch=true")).await;
    post(&server, MAPS, config_map("a")).await;
    assert_eq!(lines.short().await, "ADDED a");
    for at in 0..5_000 {
        merge(
            &server,
            &format!("{MAPS}/a"),
            json!({"data": {"k": at.to_string()}}),
        )
        .await;
    }
    let mut last = lines.next().await.expect("an event");
    while last["type"] == "MODIFIED" {
        last = lines.next().await.expect("an event before the end");
    }
    assert_eq!(
        (&last["type"], &last["object"]["code"]),
        (&json!("ERROR"), &json!(410))
    );
    assert_eq!(lines.short().await, "end");
}

#[tokio::test]
async fn cluster_v1_kube_watcher_follows() {
    use futures_util::TryStreamExt;
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::runtime::{WatchStreamExt, watcher};

    let server = server().await;
    post(&server, MAPS, config_map("a")).await;
    for config in [
        watcher::Config::default(),
        watcher::Config::default().streaming_lists(),
    ] {
        let api: kube::Api<ConfigMap> = kube::Api::namespaced(server.client(), "default");
        let mut events = Box::pin(watcher(api, config).applied_objects());
        let mut next = async || {
            let event = tokio::time::timeout(Duration::from_secs(10), events.try_next()).await;
            event
                .expect("in time")
                .expect("no error")
                .expect("an object")
        };
        assert_eq!(next().await.metadata.name.as_deref(), Some("a"));
        let value = server.store().revision().to_string();
        merge(&server, &format!("{MAPS}/a"), json!({"data": {"k": value}})).await;
        assert_eq!(next().await.data.expect("data")["k"], value);
    }
}
