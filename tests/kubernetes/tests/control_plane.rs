//! The harness itself: a control plane starts, makes pods of a Deployment, and is gone afterwards.

use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams, PostParams};
use sealane_test_kubernetes::{ControlPlane, Options, Unavailable};
use serde_json::json;

#[tokio::test]
async fn controllers_make_pods_and_everything_ends() -> anyhow::Result<()> {
    let plane = match ControlPlane::start(Options::default()).await? {
        Ok(plane) => plane,
        Err(Unavailable(reason)) => {
            assert_ne!(
                std::env::var("SEALANE_TEST_REQUIRE").as_deref(),
                Ok("all"),
                "{reason}"
            );
            eprintln!("skipped: {reason}");
            return Ok(());
        }
    };
    let deployment: Deployment = serde_json::from_value(json!({
        "metadata": {"name": "web"},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "web", "image": "web"}]},
            },
        },
    }))?;
    let deployments: Api<Deployment> = Api::default_namespaced(plane.client());
    deployments
        .create(&PostParams::default(), &deployment)
        .await?;
    let pods: Api<Pod> = Api::default_namespaced(plane.client());
    let until = Instant::now() + Duration::from_secs(60);
    while pods.list(&ListParams::default()).await?.items.len() < 2 {
        assert!(Instant::now() < until, "no pods");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let addr = plane.api_addr();
    drop(plane);
    assert!(
        std::net::TcpStream::connect(addr).is_err(),
        "something still listens"
    );
    Ok(())
}
