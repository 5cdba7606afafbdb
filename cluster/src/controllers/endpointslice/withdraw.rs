//! Endpoints that an earlier run of the cluster has left.

use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;

use super::plan::{CONTROLLER, MANAGED_BY};

/// Writes that nobody is behind the endpoints of a node. To be called before the controllers run, when
/// nothing runs on the node: what they write then is of pods that run.
///
/// # Errors
/// The API does not answer, or refuses a change.
pub async fn withdraw_endpoints(client: &Client, node: &str) -> kube::Result<()> {
    let slices: Api<EndpointSlice> = Api::all(client.clone());
    let ours = ListParams::default().labels(&format!("{MANAGED_BY}={CONTROLLER}"));
    for mut slice in slices.list(&ours).await? {
        let mut changed = false;
        for endpoint in &mut slice.endpoints {
            let conditions = endpoint.conditions.get_or_insert_default();
            // Without a word, an endpoint is ready.
            if endpoint.node_name.as_deref() == Some(node) && conditions.ready != Some(false) {
                conditions.ready = Some(false);
                conditions.serving = Some(false);
                changed = true;
            }
        }
        if changed {
            let namespace = slice.namespace().unwrap_or_default();
            let slices: Api<EndpointSlice> = Api::namespaced(client.clone(), &namespace);
            let patch = Patch::Merge(json!({ "endpoints": slice.endpoints }));
            let params = PatchParams::default();
            slices.patch(&slice.name_any(), &params, &patch).await?;
        }
    }
    Ok(())
}
