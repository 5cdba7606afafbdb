//! Discovery, OpenAPI, version, health.

use serde_json::{Value, json};

use super::support::*;

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";

#[tokio::test]
async fn cluster_t5_aggregated_discovery_with_etag() {
    let server = server().await;
    for path in ["/api", "/apis"] {
        let found = raw(&server, "GET", path, &[("accept", AGGREGATED)], "").await;
        assert_eq!(found.json["kind"], "APIGroupDiscoveryList");
        assert_eq!(
            found.headers["content-type"],
            "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
        );
        let etag = found.headers["etag"].to_str().expect("text").to_owned();
        let headers = [("accept", AGGREGATED), ("if-none-match", etag.as_str())];
        let same = raw(&server, "GET", path, &headers, "").await;
        assert_eq!((same.code, same.text.as_str()), (304, ""));
    }
    let core = raw(&server, "GET", "/api", &[("accept", AGGREGATED)], "").await;
    let resources = core.json["items"][0]["versions"][0]["resources"]
        .as_array()
        .expect("resources");
    let pods = resources
        .iter()
        .find(|r| r["resource"] == "pods")
        .expect("pods");
    assert_eq!(pods["shortNames"], json!(["po"]));
    assert_eq!(pods["categories"], json!(["all"]));
    assert_eq!(pods["scope"], "Namespaced");
    assert_eq!(pods["responseKind"]["kind"], "Pod");
    assert!(
        pods["subresources"]
            .as_array()
            .expect("subresources")
            .iter()
            .any(|s| s["subresource"] == "log")
    );
}

#[tokio::test]
async fn cluster_t5_legacy_discovery() {
    let server = server().await;
    assert_eq!(get(&server, "/api").await.json["versions"], json!(["v1"]));
    let groups = get(&server, "/apis").await;
    let autoscaling = groups.json["groups"]
        .as_array()
        .expect("groups")
        .iter()
        .find(|g| g["name"] == "autoscaling")
        .expect("autoscaling");
    assert_eq!(
        autoscaling["preferredVersion"]["groupVersion"],
        "autoscaling/v2"
    );
    assert_eq!(get(&server, "/apis/apps").await.json["kind"], "APIGroup");
    let list = get(&server, "/api/v1").await;
    assert_eq!(
        (
            list.json["kind"].as_str(),
            list.json["groupVersion"].as_str()
        ),
        (Some("APIResourceList"), Some("v1"))
    );
    let scale = get(&server, "/apis/apps/v1").await;
    let scale = scale.json["resources"]
        .as_array()
        .expect("resources")
        .iter()
        .find(|r| r["name"] == "deployments/scale")
        .cloned();
    assert_eq!(scale.expect("scale")["kind"], "Scale");
}

#[tokio::test]
async fn cluster_k3_openapi_tells_what_can_be_patched() {
    let server = server().await;
    let index = get(&server, "/openapi/v3").await;
    let paths = index.json["paths"].as_object().expect("paths");
    for path in ["api/v1", "apis/apps/v1", "apis/autoscaling/v1"] {
        let url = paths[path]["serverRelativeURL"].as_str().expect("a url");
        let document = get(&server, url).await;
        assert_eq!(document.code, 200);
        let patches: Vec<&Value> = document.json["paths"]
            .as_object()
            .expect("paths")
            .values()
            .map(|item| &item["patch"])
            .collect();
        assert!(patches.iter().all(|patch| {
            patch["x-kubernetes-group-version-kind"]["kind"].is_string()
                && patch["parameters"]
                    .as_array()
                    .is_some_and(|p| p.iter().any(|p| p["name"] == "fieldValidation"))
        }));
    }
    assert_eq!(get(&server, "/openapi/v2").await.code, 404);
}

#[tokio::test]
async fn cluster_t7_version_and_health() {
    let server = server().await;
    let version = get(&server, "/version?timeout=5s").await;
    assert_eq!(
        (
            version.json["major"].as_str(),
            version.json["minor"].as_str()
        ),
        (Some("1"), Some("34"))
    );
    assert!(
        version.json["gitVersion"]
            .as_str()
            .is_some_and(|v| v.starts_with("v1.34."))
    );
    for path in ["/healthz", "/livez", "/readyz"] {
        let health = get(&server, path).await;
        assert_eq!((health.code, health.text.as_str()), (200, "ok"));
        assert_eq!(health.headers["content-type"], "text/plain; charset=utf-8");
    }
    assert!(
        get(&server, "/readyz?verbose")
            .await
            .text
            .ends_with("readyz check passed\n")
    );
}

#[tokio::test]
async fn cluster_t8_openapi_urls_carry_the_hash_of_their_document() {
    let server = server().await;
    let index = get(&server, "/openapi/v3").await;
    let paths = index.json["paths"].as_object().expect("paths");
    assert!(paths.contains_key("apis/discovery.k8s.io/v1"));
    for (path, entry) in paths {
        let url = entry["serverRelativeURL"].as_str().expect("a url");
        let (location, hash) = url.split_once("?hash=").expect("a hash");
        assert_eq!(location, format!("/openapi/v3/{path}"));
        let document = get(&server, url).await;
        assert_eq!(document.headers["etag"], format!("\"{hash}\""));
    }
}
