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
    async fn brief(&mut self) -> String {
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
    assert_eq!(existing.brief().await, "ADDED a");
    assert_eq!(existing.brief().await, "ADDED b");
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
        assert_eq!(lines.brief().await, "MODIFIED a");
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
    assert_eq!(lines.brief().await, "ADDED a");
    assert_eq!(lines.brief().await, "MODIFIED a");
    let gone = lines.next().await.expect("an event");
    assert_eq!(gone["type"], "DELETED");
    assert_eq!(gone["object"]["metadata"]["labels"]["p"], "1");
    assert_eq!(
        gone["object"]["metadata"]["resourceVersion"],
        left.version()
    );
}
