//! What the API says of a node's pods when an agent starts: that those are ready that an earlier one ran.
//! They ended with it, and until they run again nobody should send them requests or count them.
//!
//! Kubernetes' node lifecycle controller does the same to the pods of a node that is gone.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;

use crate::controllers::clock::whole_seconds;

/// Writes that no pod of the node is ready. To be called before [`super::NodeAgent::run`], after which
/// they are as ready as they are.
///
/// # Errors
/// The API does not answer, or refuses a change.
pub async fn withdraw_readiness(client: &Client, node: &str) -> kube::Result<()> {
    let pods: Api<Pod> = Api::all(client.clone());
    let here = ListParams::default().fields(&format!("spec.nodeName={node}"));
    for pod in pods.list(&here).await? {
        let Some(status) = pod.status.as_ref().and_then(withdrawn) else {
            continue;
        };
        let namespace = pod.namespace().unwrap_or_default();
        let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
        // The uid makes the patch miss another pod of the same name.
        let patch = json!({ "metadata": { "uid": pod.uid() }, "status": status });
        let (patch, params) = (Patch::Merge(patch), PatchParams::default());
        match pods.patch_status(&pod.name_any(), &params, &patch).await {
            Err(kube::Error::Api(gone)) if gone.code == 404 || gone.code == 409 => {}
            patched => drop(patched?),
        }
    }
    Ok(())
}

/// The lists of a status that change; `None` if it does not say that anything is ready.
fn withdrawn(status: &PodStatus) -> Option<PodStatus> {
    let mut changed = PodStatus {
        conditions: status.conditions.clone(),
        container_statuses: status.container_statuses.clone(),
        init_container_statuses: status.init_container_statuses.clone(),
        ..PodStatus::default()
    };
    let now = whole_seconds(Timestamp::now());
    let mut was_ready = false;
    for condition in changed.conditions.iter_mut().flatten() {
        let says_so = matches!(condition.type_.as_str(), "Ready" | "ContainersReady");
        if says_so && condition.status == "True" {
            was_ready = true;
            condition.status = "False".to_owned();
            condition.reason = Some("ContainersNotReady".to_owned());
            condition.message = Some("the node has started anew".to_owned());
            condition.last_transition_time = Some(now.clone());
        }
    }
    let init = changed.init_container_statuses.iter_mut().flatten();
    let main = changed.container_statuses.iter_mut().flatten();
    for container in init.chain(main) {
        let runs = container
            .state
            .as_ref()
            .is_some_and(|state| state.running.is_some());
        if runs && container.ready {
            was_ready = true;
            container.ready = false;
            container.started = Some(false);
        }
    }
    was_ready.then_some(changed)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn status(ready: &str, container: bool, state: &str) -> PodStatus {
        serde_json::from_value(json!({
            "phase": "Running",
            "conditions": [
                { "type": "Initialized", "status": "True" },
                { "type": "Ready", "status": ready },
                { "type": "ContainersReady", "status": ready },
            ],
            "containerStatuses": [{
                "name": "c", "image": "i", "imageID": "", "restartCount": 3, "ready": container,
                "started": container, "state": { state: {} },
            }],
        }))
        .unwrap()
    }

    #[test]
    fn readiness_is_taken_back_and_nothing_else() {
        let changed = withdrawn(&status("True", true, "running")).unwrap();
        let changed = serde_json::to_value(changed).unwrap();
        let of = |pointer: &str| changed.pointer(pointer).cloned().unwrap_or(Value::Null);
        for (pointer, expected) in [
            ("/conditions/0/status", json!("True")),
            ("/conditions/1/status", json!("False")),
            ("/conditions/2/status", json!("False")),
            ("/containerStatuses/0/ready", json!(false)),
            ("/containerStatuses/0/started", json!(false)),
            ("/containerStatuses/0/restartCount", json!(3)),
            ("/phase", Value::Null),
        ] {
            assert_eq!(of(pointer), expected, "{pointer}");
        }
        for (what, status) in [
            ("not ready", status("False", false, "running")),
            (
                "an init container that is done",
                status("False", true, "terminated"),
            ),
            ("nothing was said", PodStatus::default()),
        ] {
            assert_eq!(withdrawn(&status), None, "{what}");
        }
    }
}
