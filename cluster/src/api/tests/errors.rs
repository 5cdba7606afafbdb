//! Error answers, options of writes, dry runs.

use serde_json::{Value, json};

use super::support::*;

#[tokio::test]
async fn cluster_e1_missing_things_are_404() {
    let server = server().await;
    for (path, message, details) in [
        (
            format!("{MAPS}/x"),
            "configmaps \"x\" not found",
            json!({"name": "x", "kind": "configmaps"}),
        ),
        (
            format!("{DEPLOYMENTS}/x"),
            "deployments.apps \"x\" not found",
            json!({"name": "x", "group": "apps", "kind": "deployments"}),
        ),
        (
            "/api/v1/nopes".to_owned(),
            "the server could not find the requested resource",
            json!({}),
        ),
    ] {
        let missing = get(&server, &path).await;
        assert_eq!(
            (missing.code, missing.reason(), missing.message()),
            (404, "NotFound", message)
        );
        assert_eq!(missing.json["details"], details);
        assert_eq!(missing.json["kind"], "Status");
        assert_eq!(missing.json["status"], "Failure");
    }
    assert_eq!(
        get(&server, "/apis/nope/v1/x").await.text,
        "404 page not found\n"
    );
    let nowhere = post(
        &server,
        "/api/v1/namespaces/nope/configmaps",
        config_map("a"),
    )
    .await;
    assert_eq!(
        (nowhere.code, nowhere.message()),
        (404, "namespaces \"nope\" not found")
    );
}

#[tokio::test]
async fn cluster_e2_conflicts() {
    let server = server().await;
    let created = post(&server, MAPS, config_map("a")).await;
    let path = format!("{MAPS}/a");
    let exists = post(&server, MAPS, config_map("a")).await;
    assert_eq!(
        (exists.code, exists.reason(), exists.message()),
        (409, "AlreadyExists", "configmaps \"a\" already exists")
    );
    let mut other = created.json.clone();
    other["metadata"]["uid"] = "deadbeef".into();
    let wrong = put(&server, &path, &other).await;
    assert_eq!((wrong.code, wrong.reason()), (409, "Conflict"));
    let stale = merge(
        &server,
        &path,
        json!({"metadata": {"resourceVersion": "1"}, "data": {"x": "y"}}),
    )
    .await;
    assert_eq!((stale.code, stale.reason()), (409, "Conflict"));
    let uid = merge(&server, &path, json!({"metadata": {"uid": "dead"}})).await;
    assert_eq!((uid.code, uid.reason()), (422, "Invalid"));
    assert!(
        uid.message()
            .contains("metadata.uid: Invalid value: \"dead\": field is immutable")
    );
}

#[tokio::test]
async fn cluster_e3_methods_and_media_types_that_are_refused() {
    let server = server().await;
    post(&server, MAPS, config_map("a")).await;
    let path = format!("{MAPS}/a");
    for (method, path) in [
        ("POST", path.as_str()),
        ("PUT", MAPS),
        ("PATCH", MAPS),
        ("POST", "/api"),
        ("DELETE", "/version"),
    ] {
        let refused = raw(&server, method, path, &[], "{}").await;
        assert_eq!(
            (refused.code, refused.reason()),
            (405, "MethodNotAllowed"),
            "{method} {path}"
        );
    }
    let refused = raw(&server, "GET", MAPS, &[("accept", "text/html")], "").await;
    assert_eq!((refused.code, refused.reason()), (406, "NotAcceptable"));
    let refused = raw(
        &server,
        "POST",
        MAPS,
        &[("content-type", "text/plain")],
        "x",
    )
    .await;
    assert_eq!(
        (refused.code, refused.reason()),
        (415, "UnsupportedMediaType")
    );
    let refused = patch_with(&server, &path, "application/json", json!({})).await;
    assert_eq!(refused.code, 415);
}

#[tokio::test]
async fn cluster_k2_protobuf_is_never_written() {
    let server = server().await;
    post(&server, MAPS, config_map("a")).await;
    for (accept, code) in [
        ("application/vnd.kubernetes.protobuf,application/json", 200),
        ("application/vnd.kubernetes.protobuf, */*", 200),
        ("application/vnd.kubernetes.protobuf", 406),
    ] {
        let answer = raw(&server, "GET", MAPS, &[("accept", accept)], "").await;
        assert_eq!(answer.code, code, "{accept}");
        assert_eq!(
            answer.headers["content-type"], "application/json",
            "{accept}"
        );
    }
}

#[tokio::test]
async fn cluster_e4_bad_bodies_are_400() {
    let server = server().await;
    let named = |extra: Value| {
        let mut map = config_map("a");
        map.as_object_mut()
            .expect("a map")
            .extend(extra.as_object().cloned().unwrap_or_default());
        map.to_string()
    };
    for (name, body, part) in [
        ("empty", String::new(), "(<empty>)"),
        ("no JSON", "{\"a".to_owned(), "({\"a)"),
        ("no map", "[]".to_owned(), "it is not a map"),
        (
            "kind",
            named(json!({"kind": "Secret"})),
            "cannot be handled as a ConfigMap",
        ),
        (
            "version",
            named(json!({"apiVersion": "v2"})),
            "cannot be handled as a ConfigMap",
        ),
        (
            "namespace",
            named(json!({"metadata": {"name": "a", "namespace": "other"}})),
            "the namespace of the provided object does not match",
        ),
        (
            "type",
            named(json!({"data": {"k": 1}})),
            "json: cannot unmarshal number into Go struct field ConfigMap.data of type string",
        ),
    ] {
        let refused = raw(&server, "POST", MAPS, &[], body).await;
        assert_eq!(
            (refused.code, refused.reason()),
            (400, "BadRequest"),
            "{name}: {}",
            refused.text
        );
        assert!(
            refused.message().contains(part),
            "{name}: {}",
            refused.message()
        );
    }
    post(&server, MAPS, config_map("a")).await;
    let renamed = put(&server, &format!("{MAPS}/a"), &config_map("zz")).await;
    assert_eq!(
        renamed.message(),
        "the name of the object (zz) does not match the name on the URL (a)"
    );
}

#[tokio::test]
async fn cluster_e6_field_validation_ignores_warns_or_refuses() {
    let server = server().await;
    let body = r#"{"metadata": {"name": "NAME"}, "dat": {}, "foo": 1, "data": {"a": "1"}, "data": {"a": "2"}}"#;
    for (query, code, warnings) in [
        ("", 201, 3),
        ("?fieldValidation=Warn", 201, 3),
        ("?fieldValidation=Ignore", 201, 0),
        ("?fieldValidation=Strict", 400, 0),
        ("?fieldValidation=Foo", 422, 0),
        ("?dryRun=Foo", 422, 0),
    ] {
        let name = format!("n{}", query.len());
        let answer = raw(
            &server,
            "POST",
            &format!("{MAPS}{query}"),
            &[],
            body.replace("NAME", &name),
        )
        .await;
        assert_eq!(answer.code, code, "{query}: {}", answer.text);
        let sent: Vec<_> = answer.headers.get_all("warning").iter().collect();
        assert_eq!(sent.len(), warnings, "{query}: {sent:?}");
        if warnings > 0 {
            assert_eq!(sent[0], "299 - \"unknown field \\\"dat\\\"\"");
            assert!(
                answer.json.get("dat").is_none(),
                "unknown fields are dropped"
            );
        }
    }
    let strict = raw(
        &server,
        "POST",
        &format!("{MAPS}?fieldValidation=Strict"),
        &[],
        body,
    )
    .await;
    assert_eq!(
        strict.message(),
        "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: \
         unknown field \"dat\", unknown field \"foo\", duplicate field \"data\""
    );
}

#[tokio::test]
async fn cluster_e5_invalid_objects_name_their_fields() {
    let server = server().await;
    let nameless = post(&server, MAPS, json!({})).await;
    assert_eq!(
        nameless.message(),
        "ConfigMap \"\" is invalid: metadata.name: Required value: name or generateName is required"
    );
    let invalid = post(
        &server,
        DEPLOYMENTS,
        json!({"metadata": {"name": "d"}, "spec": {}}),
    )
    .await;
    assert_eq!((invalid.code, invalid.reason()), (422, "Invalid"));
    assert!(
        invalid
            .message()
            .starts_with("Deployment.apps \"d\" is invalid: [spec.selector: Required value, "),
        "{}",
        invalid.message()
    );
    assert_eq!(invalid.json["details"]["group"], "apps");
    assert_eq!(
        invalid.json["details"]["causes"][0],
        json!({"reason": "FieldValueRequired", "message": "Required value", "field": "spec.selector"})
    );
}

#[tokio::test]
async fn cluster_c6_dry_runs_answer_as_real_and_persist_nothing() {
    let server = server().await;
    post(&server, MAPS, config_map("a")).await;
    let before = server.store().revision();
    let created = post(&server, &format!("{SERVICES}?dryRun=All"), service("s")).await;
    assert_eq!(created.code, 201, "{}", created.text);
    assert!(created.json["spec"]["clusterIP"].is_string());
    let patched = merge(
        &server,
        &format!("{MAPS}/a?dryRun=All"),
        json!({"data": {"x": "y"}}),
    )
    .await;
    assert_eq!(patched.json["data"]["x"], "y");
    assert_eq!(
        delete(&server, &format!("{MAPS}/a?dryRun=All"), Value::Null)
            .await
            .code,
        200
    );
    assert_eq!(server.store().revision(), before);
    assert_eq!(get(&server, &format!("{SERVICES}/s")).await.code, 404);
}

#[tokio::test]
async fn cluster_k1_protobuf_bodies() {
    let server = server().await;
    let hex = "6b3873000a0f0a02763112094e616d657370616365121b0a130a036c616212001a0022002a0032003800420012001a020a001a002200";
    let body: Vec<u8> = (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex"))
        .collect();
    let headers = [
        ("content-type", "application/vnd.kubernetes.protobuf"),
        (
            "accept",
            "application/vnd.kubernetes.protobuf,application/json",
        ),
    ];
    let path = "/api/v1/namespaces?fieldManager=kubectl-create&fieldValidation=Strict";
    let created = raw(&server, "POST", path, &headers, body).await;
    assert_eq!(created.code, 201, "{}", created.text);
    assert_eq!(created.json["metadata"]["name"], "lab");
    assert_eq!(created.json["status"]["phase"], "Active");
    let broken = raw(&server, "POST", path, &headers, &b"k8s\0\xff\xff"[..]).await;
    assert_eq!((broken.code, broken.reason()), (400, "BadRequest"));
}

#[tokio::test]
async fn cluster_t9_large_bodies_are_413() {
    let server = server().await;
    let large = raw(&server, "POST", MAPS, &[], vec![b' '; 3 * 1024 * 1024 + 1]).await;
    assert_eq!(
        (large.code, large.reason(), large.message()),
        (
            413,
            "RequestEntityTooLarge",
            "Request entity too large: limit is 3145728"
        )
    );
}
