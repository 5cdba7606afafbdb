//! The node as the API has it: the Node object with its conditions, and its Lease (B12).

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::context::Context;
use crate::controllers::clock::whole_seconds;

/// How often the Lease is renewed (the kubelet's own interval).
const RENEW: Duration = Duration::from_secs(10);

/// How long a Lease holds, seconds.
const LEASE_SECONDS: i32 = 40;

/// The node's conditions are written every so many renewals: five minutes.
const HEARTBEAT: u32 = 30;

/// Most pods on a node.
const MAX_PODS: u32 = 110;

/// Registers the node and keeps it alive until shut down.
pub(super) async fn keep(ctx: Arc<Context>, shutdown: CancellationToken) {
    let mut ticks = interval(RENEW);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut registered, mut beats) = (false, 0_u32);
    let since = Timestamp::now();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = ticks.tick() => {}
        }
        if !registered || beats.is_multiple_of(HEARTBEAT) {
            match Box::pin(register(&ctx, since)).await {
                Ok(()) => registered = true,
                Err(error) => {
                    tracing::warn!(%error, "cannot register the node");
                    ticks.reset_after(Duration::from_secs(1));
                    continue;
                }
            }
        }
        beats = beats.wrapping_add(1);
        if let Err(error) = Box::pin(renew(&ctx)).await {
            tracing::warn!(%error, "cannot renew the node's lease");
        }
    }
}

async fn register(ctx: &Context, since: Timestamp) -> Result<(), kube::Error> {
    let name = &ctx.options.node_name;
    let api: Api<Node> = Api::all(ctx.client.clone());
    let node = Node {
        metadata: kube::api::ObjectMeta {
            name: Some(name.clone()),
            labels: Some(labels(name)),
            ..Default::default()
        },
        ..Node::default()
    };
    match api.create(&PostParams::default(), &node).await {
        Ok(_) => {}
        Err(kube::Error::Api(error)) if error.code == 409 => {}
        Err(error) => return Err(error),
    }
    let patch = Patch::Merge(json!({ "status": status(ctx, since) }));
    api.patch_status(name, &PatchParams::default(), &patch)
        .await
        .map(drop)
}

fn labels(name: &str) -> std::collections::BTreeMap<String, String> {
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    [
        ("kubernetes.io/hostname", name),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", arch),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into()
}

fn status(ctx: &Context, since: Timestamp) -> Value {
    let now = whole_seconds(Timestamp::now());
    let since = whole_seconds(since);
    let condition = |kind: &str, status: &str, reason: &str, message: &str| {
        json!({
            "type": kind, "status": status, "reason": reason, "message": message,
            "lastHeartbeatTime": now, "lastTransitionTime": since,
        })
    };
    let capacity = json!({
        "cpu": ctx.machine.cpus.to_string(),
        "memory": format!("{}Ki", ctx.machine.memory / 1024),
        "pods": MAX_PODS.to_string(),
    });
    let system = rustix::system::uname();
    let text = |part: &std::ffi::CStr| part.to_string_lossy().into_owned();
    let kubelet = ctx.options.kubelet;
    // An API server takes a node's host name before its addresses
    // (--kubelet-preferred-address-types), and pods' addresses may be out of its reach.
    let host = kubelet.map_or_else(|| ctx.options.node_name.clone(), |at| at.ip().to_string());
    json!({
        "addresses": [
            { "type": "InternalIP", "address": ctx.options.node_ip },
            { "type": "Hostname", "address": host },
        ],
        "daemonEndpoints": kubelet.map(|at| json!({ "kubeletEndpoint": { "Port": at.port() } })),
        "capacity": capacity,
        "allocatable": capacity,
        "conditions": [
            condition("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
            condition("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
            condition("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
            condition("Ready", "True", "KubeletReady", "the node agent runs"),
        ],
        "nodeInfo": {
            "machineID": "", "systemUUID": "", "bootID": "",
            "kernelVersion": text(system.release()),
            "osImage": "Linux",
            "containerRuntimeVersion": concat!("sealane://", env!("CARGO_PKG_VERSION")),
            "kubeletVersion": concat!("v", env!("CARGO_PKG_VERSION"), "+sealane"),
            "kubeProxyVersion": "",
            "operatingSystem": "linux",
            "architecture": labels("")["kubernetes.io/arch"],
        },
    })
}

/// Renews the Lease, making it first if there is none.
async fn renew(ctx: &Context) -> Result<(), kube::Error> {
    let name = &ctx.options.node_name;
    let api: Api<Lease> = Api::namespaced(ctx.client.clone(), "kube-node-lease");
    let spec = json!({
        "holderIdentity": name,
        "leaseDurationSeconds": LEASE_SECONDS,
        "renewTime": format!("{:.6}", Timestamp::now()),
    });
    let patch = Patch::Merge(json!({ "spec": spec }));
    match api.patch(name, &PatchParams::default(), &patch).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(error)) if error.code == 404 => {
            let lease = json!({ "metadata": { "name": name }, "spec": spec });
            let lease = serde_json::from_value(lease).map_err(kube::Error::SerdeError)?;
            api.create(&PostParams::default(), &lease).await.map(drop)
        }
        Err(error) => Err(error),
    }
}
