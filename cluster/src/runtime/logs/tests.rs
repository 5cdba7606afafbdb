use std::time::Duration;

use futures_util::StreamExt as _;

use super::*;
use crate::streams::LogOptions;

async fn all(path: &Path, options: LogOptions) -> String {
    let stream = read(path.to_owned(), options, None).await.unwrap();
    let bytes: Vec<bytes::Bytes> = stream.collect().await;
    String::from_utf8(bytes.concat()).unwrap()
}

fn log() -> (tempfile::TempDir, PathBuf, LogWriter) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c/0.log");
    let writer = LogWriter::create(&path).unwrap();
    (dir, path, writer)
}

#[tokio::test]
async fn cluster_c12_tail_since_timestamps_and_limit_choose_what_is_sent() {
    let (_dir, path, mut writer) = log();
    for line in ["one", "two"] {
        writer.line("stdout", 'F', line.as_bytes()).unwrap();
    }
    let between = jiff::Timestamp::now();
    writer.line("stderr", 'P', b"thr").unwrap();
    writer.line("stderr", 'F', b"ee").unwrap();
    let options = LogOptions::default;
    for (name, options, expected) in [
        ("everything", options(), "one\ntwo\nthree\n"),
        (
            "tail",
            LogOptions {
                tail_lines: Some(3),
                ..options()
            },
            "two\nthree\n",
        ),
        (
            "tail of nothing",
            LogOptions {
                tail_lines: Some(0),
                ..options()
            },
            "",
        ),
        (
            "since",
            LogOptions {
                since: Some(between),
                ..options()
            },
            "three\n",
        ),
        (
            "limit",
            LogOptions {
                limit_bytes: Some(5),
                ..options()
            },
            "one\nt",
        ),
    ] {
        assert_eq!(all(&path, options).await, expected, "{name}");
    }
    let stamped = all(
        &path,
        LogOptions {
            timestamps: true,
            tail_lines: Some(1),
            ..options()
        },
    )
    .await;
    let (time, text) = stamped.split_once(' ').unwrap();
    assert_eq!(text, "ee\n");
    assert!(time.parse::<jiff::Timestamp>().unwrap() >= between);
}

#[tokio::test]
async fn cluster_c12_following_goes_on_until_the_writer_is_gone() {
    let (_dir, path, mut writer) = log();
    writer.line("stdout", 'F', b"before").unwrap();
    let options = LogOptions {
        follow: true,
        tail_lines: Some(1),
        ..LogOptions::default()
    };
    let mut stream = read(path, options, Some(writer.tail())).await.unwrap();
    assert_eq!(stream.next().await.unwrap(), "before\n");
    let next = tokio::time::timeout(Duration::from_millis(20), stream.next()).await;
    assert!(next.is_err(), "nothing was written");
    writer.line("stdout", 'F', b"after").unwrap();
    assert_eq!(stream.next().await.unwrap(), "after\n");
    writer.size = MAX_FILE;
    writer.line("stdout", 'F', b"in a new file").unwrap();
    assert_eq!(stream.next().await.unwrap(), "in a new file\n");
    drop(writer);
    assert_eq!(stream.next().await, None);
}

#[tokio::test]
async fn output_is_split_into_lines_and_parts() {
    let (_dir, path, writer) = log();
    let mut tail = writer.tail();
    let long = "x".repeat(MAX_LINE + 3);
    let output = format!("a\n\n{long}\nlast");
    writer.pump(
        Some(io::Cursor::new(output.clone())),
        None::<tokio::io::Empty>,
    );
    while tail.0.changed().await.is_ok() {}
    assert_eq!(
        all(&path, LogOptions::default()).await,
        format!("{output}\n")
    );
}
