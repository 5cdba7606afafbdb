//! The life of pods.

use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod, Secret};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::world::{
    Case, Mode, World, condition, container, eventually, exit, last_exit, phase, ready, restarts,
    waiting,
};

const BOTH: &[Mode] = &[Mode::Loopback, Mode::Namespaces];
const NAMESPACES: &[Mode] = &[Mode::Namespaces];
const LOOPBACK: &[Mode] = &[Mode::Loopback];

pub(crate) const ALL: &[Case] = &[
    ("cluster_b1_a_pod_starts_and_goes", BOTH, |w| {
        Box::pin(starts_and_goes(w))
    }),
    ("cluster_b2_end_states", BOTH, |w| Box::pin(end_states(w))),
    ("cluster_b2_a_missing_program", BOTH, |w| {
        Box::pin(missing_program(w))
    }),
    ("cluster_b3_restarts_at_once_then_backs_off", BOTH, |w| {
        Box::pin(restarts_and_backs_off(w))
    }),
    ("cluster_b4_grace_period", BOTH, |w| {
        Box::pin(grace_period(w))
    }),
    ("cluster_b4_pre_stop_comes_first", BOTH, |w| {
        Box::pin(pre_stop(w))
    }),
    ("cluster_b5_init_containers_and_sidecars", BOTH, |w| {
        Box::pin(init_containers(w))
    }),
    ("cluster_b6_images", LOOPBACK, |w| Box::pin(images(w))),
    ("cluster_b6_missing_keys", LOOPBACK, |w| {
        Box::pin(missing_keys(w))
    }),
    ("cluster_b7_readiness", BOTH, |w| Box::pin(readiness(w))),
    ("cluster_b7_liveness", BOTH, |w| Box::pin(liveness(w))),
    ("cluster_b9_environment", NAMESPACES, |w| {
        Box::pin(environment(w))
    }),
    ("cluster_b10_volumes", NAMESPACES, |w| Box::pin(volumes(w))),
    ("cluster_b12_node", LOOPBACK, |w| Box::pin(node(w))),
    ("cluster_b12_restart_of_the_agent", BOTH, |w| {
        Box::pin(agent_restart(w))
    }),
];

async fn starts_and_goes(world: &World) {
    world
        .shell("simple", "exec sleep 1000", json!({}), json!({}))
        .await;
    let pod = world.until("simple", ready).await;
    assert_eq!(phase(&pod), "Running");
    let status = pod.status.clone().unwrap_or_default();
    assert!(
        status.pod_ip.is_some() && status.start_time.is_some(),
        "{status:?}"
    );
    for kind in [
        "PodReadyToStartContainers",
        "Initialized",
        "ContainersReady",
        "PodScheduled",
    ] {
        assert_eq!(condition(&pod, kind).expect(kind).0, "True", "{kind}");
    }
    for (reason, message) in [
        (
            "Pulled",
            "Container image \"shell:1\" already present on machine",
        ),
        ("Created", "Created container: c"),
        ("Started", "Started container c"),
    ] {
        world.event("simple", reason, message).await;
    }
    let took = world.delete("simple").await;
    assert!(took < Duration::from_secs(3), "{took:?}");
    world
        .event("simple", "Killing", "Stopping container c")
        .await;
}

async fn end_states(world: &World) {
    for (name, script, policy, phase_wanted, code, reason) in [
        ("done", "exit 0", "OnFailure", "Succeeded", 0, "Completed"),
        ("failed", "exit 3", "Never", "Failed", 3, "Error"),
        ("killed", "kill -KILL $$$$", "Never", "Failed", 137, "Error"),
    ] {
        let spec = json!({ "restartPolicy": policy });
        world.shell(name, script, json!({}), spec).await;
        let pod = world.until(name, |pod| phase(pod) == phase_wanted).await;
        assert_eq!(exit(&pod), Some((code, reason.to_owned())), "{name}");
        let expected = if code == 0 {
            "PodCompleted"
        } else {
            "PodFailed"
        };
        let ready = condition(&pod, "Ready").expect("a condition");
        assert_eq!(ready, ("False".to_owned(), expected.to_owned()), "{name}");
        world.delete(name).await;
    }
    let spec = json!({ "activeDeadlineSeconds": 1 });
    world
        .shell("late", "exec sleep 1000", json!({}), spec)
        .await;
    let pod = world.until("late", |pod| phase(pod) == "Failed").await;
    let reason = pod.status.and_then(|status| status.reason);
    assert_eq!(reason.as_deref(), Some("DeadlineExceeded"));
}

async fn missing_program(world: &World) {
    let more = json!({ "command": ["no-such-program"] });
    world.shell("badcmd", "", more, json!({})).await;
    let started = |pod: &Pod| last_exit(pod) == Some((128, "StartError".to_owned()));
    let pod = world.until("badcmd", started).await;
    assert_eq!(phase(&pod), "Running");
    let part = "exec: \"no-such-program\": executable file not found in $PATH";
    world.event("badcmd", "Failed", part).await;
    world
        .until("badcmd", |pod| waiting(pod) == "CrashLoopBackOff")
        .await;
    world.delete("badcmd").await;
}

async fn restarts_and_backs_off(world: &World) {
    world
        .shell("crash", "echo run $HOSTNAME; exit 1", json!({}), json!({}))
        .await;
    let pod = world
        .until("crash", |pod| waiting(pod) == "CrashLoopBackOff")
        .await;
    assert_eq!(restarts(&pod), 1);
    assert_eq!(last_exit(&pod), Some((1, "Error".to_owned())));
    assert_eq!(phase(&pod), "Running");
    world
        .event(
            "crash",
            "BackOff",
            "Back-off restarting failed container c in pod crash_default(",
        )
        .await;
    // The second start comes ten seconds after the end of the first restart.
    world.until("crash", |pod| restarts(pod) == 2).await;
    let took = world.delete("crash").await;
    assert!(took < Duration::from_secs(3), "{took:?}");
}

async fn grace_period(world: &World) {
    let script = "trap '' TERM; echo up; while :; do sleep 0.1; done";
    let spec = json!({ "terminationGracePeriodSeconds": 1 });
    world.shell("deaf", script, json!({}), spec).await;
    world.until("deaf", ready).await;
    eventually("its output", async || {
        world.log("deaf").await.contains("up").then_some(())
    })
    .await;
    let took = world.delete("deaf").await;
    assert!(took >= Duration::from_secs(1), "{took:?}");
    assert!(took < Duration::from_secs(4), "{took:?}");
}

async fn pre_stop(world: &World) {
    let file = world.dir.path().join("hook");
    let hook = format!("echo hook > {}", file.display());
    let script = format!(
        "trap 'echo term >> {}; exit 0' TERM; while :; do sleep 0.1; done",
        file.display()
    );
    let more = json!({ "lifecycle": { "preStop": { "exec": { "command": ["sh", "-c", hook] } } } });
    world.shell("hooked", &script, more, json!({})).await;
    world.until("hooked", ready).await;
    world.delete("hooked").await;
    let text = std::fs::read_to_string(file).expect("the hook's file");
    assert_eq!(text, "hook\nterm\n");
}

async fn init_containers(world: &World) {
    let init = |name: &str, script: &str| json!({ "name": name, "image": "shell:1", "command": ["sh", "-c", script] });
    let mut side = init("side", "exec sleep 1000");
    side["restartPolicy"] = "Always".into();
    let spec = json!({
        "restartPolicy": "Never",
        "initContainers": [init("first", "echo one"), side, init("last", "sleep 0.2")],
    });
    world.shell("inits", "sleep 1", json!({}), spec).await;
    world
        .until("inits", |pod| {
            phase(pod) == "Pending" && waiting(pod) == "PodInitializing"
        })
        .await;
    let pod = world
        .until("inits", |pod| phase(pod) == "Running" && ready(pod))
        .await;
    let inits = pod
        .status
        .and_then(|status| status.init_container_statuses)
        .expect("statuses");
    let code = |index: usize| Some(inits[index].state.as_ref()?.terminated.as_ref()?.exit_code);
    assert_eq!((code(0), code(1), code(2)), (Some(0), None, Some(0)));
    assert_eq!(inits[1].started, Some(true));
    // The end of the container is the end of the sidecar, and of the pod.
    world.until("inits", |pod| phase(pod) == "Succeeded").await;

    // A sidecar that ends before its startup probe succeeds has not started.
    let at = |name: &str| world.dir.path().join(name).display().to_string();
    let (tried, order) = (at("tried"), at("order"));
    let script = format!(
        "[ -e {tried} ] || {{ touch {tried}; exit 3; }}; sleep 0.3; echo side >> {order}; exec sleep 1000"
    );
    let mut side = init("side", &script);
    side["restartPolicy"] = "Always".into();
    side["startupProbe"] = json!({ "exec": { "command": ["test", "-e", order] }, "periodSeconds": 1, "failureThreshold": 60 });
    let spec = json!({ "restartPolicy": "Never", "initContainers": [side] });
    let main = format!("echo main >> {order}");
    world.shell("crashes", &main, json!({}), spec).await;
    world
        .until("crashes", |pod| phase(pod) == "Succeeded")
        .await;
    let text = std::fs::read_to_string(&order).expect("the file of the order");
    assert_eq!(text, "side\nmain\n");

    let spec = json!({ "restartPolicy": "Never", "initContainers": [init("bad", "exit 2")] });
    world.shell("badinit", "echo never", json!({}), spec).await;
    let pod = world.until("badinit", |pod| phase(pod) == "Failed").await;
    assert_eq!(waiting(&pod), "PodInitializing");
}

async fn images(world: &World) {
    let pod = |name: &str, container: serde_json::Value| json!({ "metadata": { "name": name }, "spec": { "containers": [container], "restartPolicy": "Never", "nodeName": "node" } });
    world
        .create::<Pod>(pod(
            "greeter",
            json!({ "name": "c", "image": "greeter:2", "args": ["$(HOSTNAME)"] }),
        ))
        .await;
    world
        .until("greeter", |pod| phase(pod) == "Succeeded")
        .await;
    assert_eq!(world.log("greeter").await, "hello greeter\n");

    world
        .create::<Pod>(pod(
            "unknown",
            json!({ "name": "c", "image": "shop/api:1" }),
        ))
        .await;
    world
        .until("unknown", |pod| waiting(pod) == "ErrImagePull")
        .await;
    let pulling = world
        .until("unknown", |pod| waiting(pod) == "ImagePullBackOff")
        .await;
    assert_eq!(phase(&pulling), "Pending");
    world
        .event("unknown", "Failed", "--image 'shop/api:*=COMMAND'")
        .await;
    let took = world.delete("unknown").await;
    assert!(took < Duration::from_secs(3), "{took:?}");

    let never = json!({ "name": "c", "image": "shop/api:1", "imagePullPolicy": "Never" });
    world.create::<Pod>(pod("never", never)).await;
    world
        .until("never", |pod| waiting(pod) == "ErrImageNeverPull")
        .await;
    world
        .create::<Pod>(pod("invalid", json!({ "name": "c", "image": "No Image" })))
        .await;
    world
        .until("invalid", |pod| waiting(pod) == "InvalidImageName")
        .await;
}

async fn missing_keys(world: &World) {
    let more = json!({ "env": [{ "name": "X", "valueFrom": { "configMapKeyRef": { "name": "later", "key": "x" } } }] });
    world
        .shell("keys", "echo $X; exec sleep 1000", more, json!({}))
        .await;
    let pod = world
        .until("keys", |pod| waiting(pod) == "CreateContainerConfigError")
        .await;
    let message = container(&pod).state.and_then(|s| s.waiting?.message);
    assert_eq!(message.as_deref(), Some("configmap \"later\" not found"));
    let map = json!({ "metadata": { "name": "later" }, "data": { "x": "found" } });
    world.create::<ConfigMap>(map).await;
    world.until("keys", ready).await;
    eventually("its output", async || {
        (world.log("keys").await == "found\n").then_some(())
    })
    .await;
}

async fn readiness(world: &World) {
    let flag = world.dir.path().join("flag");
    let probe = json!({
        "exec": { "command": ["test", "-e", flag.to_string_lossy()] },
        "periodSeconds": 1, "failureThreshold": 1,
    });
    let more = json!({ "readinessProbe": probe });
    world
        .shell("probed", "exec sleep 1000", more, json!({}))
        .await;
    let pod = world.until("probed", |pod| phase(pod) == "Running").await;
    assert!(!ready(&pod), "no probe has succeeded yet");
    world
        .event("probed", "Unhealthy", "Readiness probe failed")
        .await;
    std::fs::write(&flag, "").expect("a file");
    world.until("probed", ready).await;
    std::fs::remove_file(&flag).expect("the file");
    let pod = world.until("probed", |pod| !ready(pod)).await;
    assert_eq!(restarts(&pod), 0);
}

async fn liveness(world: &World) {
    let flag = world.dir.path().join("dead");
    let probe = json!({
        "exec": { "command": ["test", "!", "-e", flag.to_string_lossy()] },
        "periodSeconds": 1, "failureThreshold": 1,
    });
    let more = json!({ "livenessProbe": probe, "startupProbe": { "exec": { "command": ["true"] }, "periodSeconds": 1 } });
    world
        .shell(
            "lively",
            "trap 'exit 0' TERM; while :; do sleep 0.1; done",
            more,
            json!({}),
        )
        .await;
    world.until("lively", ready).await;
    std::fs::write(&flag, "").expect("a file");
    world
        .event(
            "lively",
            "Killing",
            "Container c failed liveness probe, will be restarted",
        )
        .await;
    std::fs::remove_file(&flag).expect("the file");
    let pod = world
        .until("lively", |pod| restarts(pod) >= 1 && ready(pod))
        .await;
    assert_eq!(last_exit(&pod).map(|(code, _)| code), Some(0));
}

async fn environment(world: &World) {
    world
        .create::<Secret>(
            json!({ "metadata": { "name": "creds" }, "stringData": { "key": "s3cret" } }),
        )
        .await;
    let more = json!({
        "env": [
            { "name": "ME", "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } },
            { "name": "IP", "valueFrom": { "fieldRef": { "fieldPath": "status.podIP" } } },
            { "name": "KEY", "valueFrom": { "secretKeyRef": { "name": "creds", "key": "key" } } },
            { "name": "ALL", "value": "$(ME)/$(KEY)" },
        ],
    });
    let script = "echo $ME $IP $ALL $KUBERNETES_SERVICE_HOST $SEALANE_IMAGE; hostname; cat /etc/hosts | tail -n 1";
    world
        .shell("env", script, more, json!({ "restartPolicy": "Never" }))
        .await;
    let pod = world.until("env", |pod| phase(pod) == "Succeeded").await;
    let ip = pod
        .status
        .and_then(|status| status.pod_ip)
        .expect("an address");
    let log = world.log("env").await;
    let expected = format!("env {ip} env/s3cret 10.96.0.1 shell:1\nenv\n{ip}\tenv\n");
    assert_eq!(log, expected);
}

async fn volumes(world: &World) {
    world
        .create::<ConfigMap>(
            json!({ "metadata": { "name": "files" }, "data": { "a.conf": "one" } }),
        )
        .await;
    let more = json!({ "volumeMounts": [
        { "name": "config", "mountPath": "/etc/shop-config", "readOnly": true },
        { "name": "shared", "mountPath": "/shared-data" },
    ] });
    let init = json!({
        "name": "i", "image": "shell:1", "command": ["sh", "-c", "echo from-init > /shared-data/x"],
        "volumeMounts": [{ "name": "shared", "mountPath": "/shared-data" }],
    });
    let spec = json!({
        "initContainers": [init],
        "volumes": [
            { "name": "config", "configMap": { "name": "files" } },
            { "name": "shared", "emptyDir": {} },
        ],
    });
    let script = "cat /etc/shop-config/a.conf /shared-data/x; \
        while ! grep -q two /etc/shop-config/a.conf; do sleep 0.1; done; echo changed; exec sleep 1000";
    world.shell("vols", script, more, spec).await;
    world.until("vols", ready).await;
    eventually("the files", async || {
        (world.log("vols").await == "onefrom-init\n").then_some(())
    })
    .await;
    let patch = Patch::Merge(json!({ "data": { "a.conf": "two" } }));
    let maps = world.api::<ConfigMap>();
    maps.patch("files", &PatchParams::default(), &patch)
        .await
        .expect("a patch");
    eventually("the change", async || {
        world.log("vols").await.contains("changed").then_some(())
    })
    .await;
}

async fn node(world: &World) {
    let nodes: Api<Node> = Api::all(world.client.clone());
    let status = eventually("the node's status", async || {
        let node = nodes.get_opt("node").await.expect("an answer")?;
        node.status.filter(|status| status.conditions.is_some())
    })
    .await;
    let ready = status
        .conditions
        .iter()
        .flatten()
        .find(|c| c.type_ == "Ready");
    assert_eq!(ready.map(|c| c.status.as_str()), Some("True"));
    let capacity = status.capacity.unwrap_or_default();
    assert!(
        ["cpu", "memory", "pods"]
            .iter()
            .all(|name| capacity.contains_key(*name))
    );
    let leases: Api<k8s_openapi::api::coordination::v1::Lease> =
        Api::namespaced(world.client.clone(), "kube-node-lease");
    let lease = eventually("a lease", async || {
        leases.get_opt("node").await.expect("an answer")
    })
    .await;
    let holder = lease.spec.and_then(|spec| spec.holder_identity);
    assert_eq!(holder.as_deref(), Some("node"));
}

async fn agent_restart(world: &World) {
    let agent = world.second_agent("second");
    let spec = json!({ "nodeName": "second" });
    world
        .shell("survivor", "exec sleep 1000", json!({}), spec)
        .await;
    let before = world.until("survivor", ready).await;
    let ip = |pod: &Pod| pod.status.as_ref().and_then(|status| status.pod_ip.clone());
    world.end_agent(agent).await;
    let agent = world.second_agent("second");
    let after = world
        .until("survivor", |pod| ready(pod) && restarts(pod) == 1)
        .await;
    assert_eq!(ip(&after), ip(&before));
    world.delete("survivor").await;
    world.end_agent(agent).await;
}
