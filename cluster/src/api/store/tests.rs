//! Tests of the store alone.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::*;

fn key(name: &str) -> Key {
    Key::new("configmaps", "default", name)
}

async fn write(store: &Store, name: &str, data: u64) -> u64 {
    let object = json!({"metadata": {"name": name}, "data": data});
    let put = |transaction: &mut Transaction<'_>| Ok(transaction.put(key(name), object));
    let written = store.transact(false, put).await.expect("written");
    let version = written["metadata"]["resourceVersion"]
        .as_str()
        .expect("a version");
    version.parse().expect("a number")
}

async fn remove(store: &Store, name: &str) {
    let end = |transaction: &mut Transaction<'_>| {
        let last = transaction.get(&key(name)).expect("it exists");
        Ok(transaction.remove(key(name), (*last).clone()))
    };
    store.transact(false, end).await.expect("removed");
}

fn data(listing: &Listing) -> Vec<(&str, u64)> {
    let of = |object: &Value| object["data"].as_u64().expect("a number");
    listing
        .items
        .iter()
        .map(|(key, object)| (key.name.as_str(), of(object)))
        .collect()
}

#[tokio::test]
async fn cluster_l1_older_versions_can_be_listed() {
    let store = Store::ephemeral();
    write(&store, "a", 1).await;
    let then = write(&store, "b", 1).await;
    write(&store, "a", 2).await;
    remove(&store, "b").await;
    write(&store, "c", 1).await;
    let past = store
        .list_at("configmaps", Some("default"), then)
        .expect("in the history");
    assert_eq!(data(&past), [("a", 1), ("b", 1)]);
    let now = store.list("configmaps", None);
    assert_eq!(data(&now), [("a", 2), ("c", 1)]);
    assert_eq!(now.revision, then + 3);
    assert!(store.list_at("configmaps", None, 0).is_none());
}

#[tokio::test]
async fn cluster_v5_large_objects_that_change_all_the_time_shorten_the_history() {
    let store = Store::ephemeral();
    let first = write(&store, "a", 1).await;
    let mut last = first;
    for _ in 0..70 {
        let object = json!({"metadata": {"name": "a"}, "data": "x".repeat(1 << 20)});
        let put = |transaction: &mut Transaction<'_>| Ok(transaction.put(key("a"), object));
        store.transact(false, put).await.expect("written");
        last += 1;
    }
    let recent = store.list_at("configmaps", None, last - 10);
    assert!(recent.is_some(), "64 MiB of changes are there");
    let older = store.list_at("configmaps", None, first);
    assert!(older.is_none(), "and not more");
}

#[tokio::test]
async fn cluster_w1_one_counter_and_failed_or_dry_transactions_change_nothing() {
    let store = Store::ephemeral();
    let first = write(&store, "a", 1).await;
    let refused = store
        .transact(false, |transaction| {
            transaction.put(key("b"), json!({}));
            Err::<(), _>(ApiError::bad_request("no"))
        })
        .await;
    assert!(refused.is_err());
    let dry = store
        .transact(true, |transaction| Ok(transaction.put(key("b"), json!({}))))
        .await;
    assert!(dry.is_ok());
    assert!(store.get(&key("b")).is_none());
    assert_eq!(write(&store, "c", 1).await, first + 1);
}

#[tokio::test]
async fn cluster_v5_acknowledged_writes_survive_and_versions_go_on() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("store.redb");
    let store = Store::open(&file).expect("opens");
    write(&store, "a", 1).await;
    write(&store, "b", 1).await;
    remove(&store, "b").await;
    let last = write(&store, "a", 7).await;
    drop(store);
    let store = Store::open(&file).expect("opens again");
    assert_eq!(data(&store.list("configmaps", None)), [("a", 7)]);
    assert!(store.revision() > last);
    assert!(
        store
            .watch("configmaps", None, WatchFrom::After(last))
            .is_none()
    );
    assert!(write(&store, "c", 1).await > last);
}

#[tokio::test]
async fn acknowledged_writes_are_in_the_file_without_a_clean_end() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("store.redb");
    let store = Store::open(&file).expect("opens");
    write(&store, "a", 1).await;
    let copy = directory.path().join("copy.redb");
    std::fs::copy(&file, &copy).expect("copied as a crash would leave it");
    let after = Store::open(&copy).expect("opens after a crash");
    assert_eq!(data(&after.list("configmaps", None)), [("a", 1)]);
}

#[tokio::test]
async fn a_store_in_use_is_its_own_error() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("store.redb");
    let store = Store::open(&file).expect("opens");
    assert!(matches!(Store::open(&file), Err(StoreError::InUse(_))));
    drop(store);
    assert!(Store::open(&file).is_ok());
    std::fs::write(directory.path().join("bad.redb"), b"not a database").expect("written");
    let bad = Store::open(&directory.path().join("bad.redb"));
    assert!(matches!(bad, Err(StoreError::Open { .. })));
}

#[tokio::test]
async fn watchers_miss_nothing_while_many_write_to_disk() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Store::open(&directory.path().join("store.redb")).expect("opens");
    let mut watch = store
        .watch("configmaps", None, WatchFrom::Existing)
        .expect("a watch");
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..20_u64 {
        let store = store.clone();
        writers.spawn(async move {
            for data in 0..10 {
                write(&store, &format!("w{writer}"), data).await;
            }
        });
    }
    let mut versions = Vec::new();
    while versions.len() < 200 {
        let event = tokio::time::timeout(Duration::from_secs(30), watch.events.recv()).await;
        versions.push(event.expect("in time").expect("open").revision);
    }
    let first = versions[0];
    assert_eq!(versions, (first..first + 200).collect::<Vec<_>>());
    while let Some(done) = writers.join_next().await {
        done.expect("no panic");
    }
}

#[tokio::test(start_paused = true)]
async fn cluster_v5_history_is_kept_for_five_minutes() {
    let store = Store::ephemeral();
    let first = write(&store, "a", 1).await;
    tokio::time::advance(Duration::from_secs(299)).await;
    write(&store, "a", 2).await;
    let early = store.watch("configmaps", None, WatchFrom::After(first - 1));
    assert_eq!(early.expect("still known").backlog.len(), 2);
    tokio::time::advance(Duration::from_secs(2)).await;
    write(&store, "a", 3).await;
    assert!(
        store
            .watch("configmaps", None, WatchFrom::After(first - 1))
            .is_none()
    );
    let later = store
        .watch("configmaps", None, WatchFrom::After(first))
        .expect("known");
    let versions: Vec<u64> = later.backlog.iter().map(|event| event.revision).collect();
    assert_eq!(versions, [first + 1, first + 2]);
}

#[tokio::test]
async fn events_share_the_stored_object() {
    let store = Store::ephemeral();
    let mut watch = store
        .watch("configmaps", None, WatchFrom::Now)
        .expect("a watch");
    write(&store, "a", 1).await;
    let event = watch.events.recv().await.expect("an event");
    let stored = store.get(&key("a")).expect("stored");
    assert!(Arc::ptr_eq(&event.object, &stored));
}

#[tokio::test]
async fn the_file_is_private() {
    use std::os::unix::fs::PermissionsExt;

    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("store.redb");
    let store = Store::open(&file).expect("opens");
    write(&store, "a", 1).await;
    let mode = std::fs::metadata(&file)
        .expect("it is there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}
