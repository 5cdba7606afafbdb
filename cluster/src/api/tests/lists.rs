//! Lists.

use serde_json::Value;

use super::support::*;

fn names(answer: &Answer) -> Vec<&str> {
    let items = answer.json["items"].as_array().expect("items");
    items
        .iter()
        .filter_map(|item| item["metadata"]["name"].as_str())
        .collect()
}

async fn with_maps(count: usize) -> crate::api::ApiServer {
    let server = server().await;
    for at in 0..count {
        post(&server, MAPS, config_map(&format!("c{at}"))).await;
    }
    server
}

#[tokio::test]
async fn cluster_l1_pages_are_of_one_snapshot() {
    let server = with_maps(5).await;
    let first = get(&server, &format!("{MAPS}?limit=2")).await;
    assert_eq!(names(&first), ["c0", "c1"]);
    assert!(
        first.json["items"][0].get("kind").is_none(),
        "items carry no type"
    );
    assert_eq!(first.json["metadata"]["remainingItemCount"], 3);
    let token = first.json["metadata"]["continue"]
        .as_str()
        .expect("a token")
        .to_owned();

    post(&server, MAPS, config_map("c22")).await;
    delete(&server, &format!("{MAPS}/c3"), Value::Null).await;
    let second = get(&server, &format!("{MAPS}?limit=2&continue={token}")).await;
    assert_eq!(names(&second), ["c2", "c3"]);
    assert_eq!(second.version(), first.version());
    let token = second.json["metadata"]["continue"]
        .as_str()
        .expect("a token")
        .to_owned();
    let third = get(&server, &format!("{MAPS}?limit=2&continue={token}")).await;
    assert_eq!(names(&third), ["c4"]);
    assert!(third.json["metadata"].get("continue").is_none());
    assert!(third.json["metadata"].get("remainingItemCount").is_none());

    let selected = get(
        &server,
        &format!("{MAPS}?limit=1&fieldSelector=metadata.name!=c0"),
    )
    .await;
    assert_eq!(names(&selected), ["c1"]);
    assert!(
        selected.json["metadata"]
            .get("remainingItemCount")
            .is_none()
    );
    let any = get(&server, &format!("{MAPS}?limit=2&resourceVersion=0")).await;
    assert_eq!(names(&any).len(), 5);
    let both = get(
        &server,
        &format!("{MAPS}?continue={token}&resourceVersion=5"),
    )
    .await;
    assert_eq!(
        (both.code, both.message()),
        (
            400,
            "specifying resource version is not allowed when using continue"
        )
    );
    let bad = get(&server, &format!("{MAPS}?continue=%C3%87")).await;
    assert_eq!(bad.code, 400);
    assert!(
        bad.message()
            .starts_with("invalid continue token: continue key is not valid")
    );
}

#[tokio::test(start_paused = true)]
async fn cluster_l2_resource_versions_of_lists() {
    let server = with_maps(2).await;
    let version = get(&server, MAPS).await.version().to_owned();
    post(&server, MAPS, config_map("c2")).await;
    let exact = get(
        &server,
        &format!("{MAPS}?resourceVersion={version}&resourceVersionMatch=Exact"),
    )
    .await;
    assert_eq!(
        (names(&exact), exact.version()),
        (vec!["c0", "c1"], version.as_str())
    );
    let newer = get(&server, &format!("{MAPS}?resourceVersion={version}")).await;
    assert_eq!(names(&newer), ["c0", "c1", "c2"]);
    for (query, code, reason) in [
        ("resourceVersionMatch=Exact", 422, "Invalid"),
        (
            "resourceVersion=0&resourceVersionMatch=Exact",
            422,
            "Invalid",
        ),
        (
            "resourceVersion=2&resourceVersionMatch=Nearly",
            422,
            "Invalid",
        ),
        (
            "resourceVersion=0&resourceVersionMatch=Exact&sendInitialEvents=true",
            422,
            "Invalid",
        ),
        ("resourceVersion=abc", 400, "BadRequest"),
        ("resourceVersion=99999999", 504, "Timeout"),
        ("resourceVersion=0&limit=x", 400, "BadRequest"),
    ] {
        let refused = get(&server, &format!("{MAPS}?{query}")).await;
        assert_eq!(
            (refused.code, refused.reason()),
            (code, reason),
            "{query}: {}",
            refused.text
        );
    }
    let future = get(&server, &format!("{MAPS}/c0?resourceVersion=99999999")).await;
    assert_eq!(future.code, 504);
    assert_eq!(
        future.json["details"]["causes"][0]["reason"],
        "ResourceVersionTooLarge"
    );
    assert_eq!(future.json["details"]["retryAfterSeconds"], 1);
}

#[tokio::test]
async fn cluster_e7_lists_older_than_the_history_are_410() {
    let server = server().await;
    let expired = get(
        &server,
        &format!(
            "{MAPS}?resourceVersion=0&continue={}",
            "eyJydiI6MCwibmFtZXNwYWNlIjoiIiwibmFtZSI6IiJ9"
        ),
    )
    .await;
    assert_eq!(
        (expired.code, expired.reason()),
        (410, "Expired"),
        "{}",
        expired.text
    );
}

#[tokio::test]
async fn cluster_f1_f2_lists_are_selected_by_fields_and_labels() {
    let server = server().await;
    for name in ["a", "b"] {
        post(&server, PODS, pod(name)).await;
    }
    for (query, expected) in [
        ("labelSelector=app%3Da", vec!["a"]),
        ("labelSelector=app+in+(a,b)", vec!["a", "b"]),
        ("labelSelector=!app", vec![]),
        (
            "fieldSelector=status.phase%3DPending,metadata.name!%3Da",
            vec!["b"],
        ),
        ("fieldSelector=spec.nodeName%3D", vec!["a", "b"]),
    ] {
        assert_eq!(
            names(&get(&server, &format!("{PODS}?{query}")).await),
            expected,
            "{query}"
        );
    }
    assert_eq!(
        get(&server, &format!("{PODS}?fieldSelector=data.x=1"))
            .await
            .code,
        400
    );
    let all = get(&server, "/api/v1/pods").await;
    assert_eq!(names(&all), ["a", "b"]);
    let nowhere = get(&server, "/api/v1/namespaces/nope/pods").await;
    assert_eq!((nowhere.code, names(&nowhere).len()), (200, 0));
}

#[tokio::test]
async fn cluster_r1_tables_have_columns_rows_and_metadata() {
    let server = server().await;
    post(&server, PODS, pod("a")).await;
    let accept = [(
        "accept",
        "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
    )];
    let table = raw(&server, "GET", &format!("{PODS}?limit=500"), &accept, "").await;
    assert_eq!(table.json["kind"], "Table");
    assert_eq!(table.json["columnDefinitions"][0]["name"], "Name");
    assert_eq!(table.json["rows"][0]["cells"][0], "a");
    assert_eq!(
        table.json["rows"][0]["object"]["kind"],
        "PartialObjectMetadata"
    );
    assert_eq!(table.json["rows"][0]["object"]["metadata"]["name"], "a");
    assert!(!table.version().is_empty());
    let one = raw(
        &server,
        "GET",
        &format!("{PODS}/a?includeObject=Object"),
        &accept,
        "",
    )
    .await;
    assert_eq!(one.json["rows"][0]["object"]["kind"], "Pod");
    let none = raw(
        &server,
        "GET",
        &format!("{PODS}?includeObject=None"),
        &accept,
        "",
    )
    .await;
    assert!(
        none.json["rows"][0]
            .get("object")
            .is_none_or(Value::is_null)
    );

    let accept = [(
        "accept",
        "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
    )];
    let list = raw(&server, "GET", PODS, &accept, "").await;
    assert_eq!(list.json["kind"], "PartialObjectMetadataList");
    assert!(list.json["items"][0].get("spec").is_none());
    let yaml = raw(
        &server,
        "GET",
        &format!("{PODS}/a"),
        &[("accept", "application/yaml")],
        "",
    )
    .await;
    assert!(yaml.text.contains("kind: Pod"), "{}", yaml.text);
}
