//! Fills an API server with the objects of a large cluster.

use anyhow::Context as _;
use kube::Client;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::size::Size;

/// Requests at once.
const PARALLEL: usize = 32;

/// Creates namespaces, Services and EndpointSlices.
///
/// # Errors
/// The API server did not take one of them.
pub async fn objects(client: &Client, size: Size) -> anyhow::Result<()> {
    for name in Size::namespaces() {
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        create(client, "/api/v1/namespaces", &object).await?;
    }
    let mut tasks = JoinSet::new();
    for index in 0..size.services {
        if tasks.len() == PARALLEL {
            joined(tasks.join_next().await)?;
        }
        let client = client.clone();
        tasks.spawn(async move {
            let (namespace, _) = Size::service_name(index);
            let path = format!("/api/v1/namespaces/{namespace}/services");
            create(&client, &path, &Size::service(index)).await?;
            let path = format!("/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices");
            create(&client, &path, &size.slice(index)).await
        });
    }
    while let Some(done) = tasks.join_next().await {
        joined(Some(done))?;
    }
    Ok(())
}

/// Creates a Node with the internal address 127.0.0.1, for a program that believes to be on it.
///
/// # Errors
/// The API server did not take it.
pub async fn node(client: &Client, name: &str) -> anyhow::Result<()> {
    let object = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}});
    create(client, "/api/v1/nodes", &object).await?;
    let status = json!({"status": {"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}]}});
    let request = http::Request::patch(format!("/api/v1/nodes/{name}/status"))
        .header("content-type", "application/merge-patch+json");
    let request = request.body(status.to_string().into_bytes())?;
    client
        .request_text(request)
        .await
        .context("the node's status")?;
    Ok(())
}

/// Creates one object.
///
/// # Errors
/// The API server did not take it.
pub async fn create(client: &Client, path: &str, object: &Value) -> anyhow::Result<()> {
    let request = http::Request::post(path).header("content-type", "application/json");
    let request = request.body(object.to_string().into_bytes())?;
    client
        .request_text(request)
        .await
        .context(path.to_owned())?;
    Ok(())
}

fn joined(done: Option<Result<anyhow::Result<()>, tokio::task::JoinError>>) -> anyhow::Result<()> {
    done.context("a task")?.context("a task")?
}
