//! Rows of pods.

use serde_json::{Value, json};

use super::{NOW, conditions, row};

/// A pod with two containers, two init containers if asked for, and the status given.
fn pod(init: usize, status: Value) -> Value {
    let init: Vec<Value> = (0..init)
        .map(|i| json!({"name": format!("i{i}")}))
        .collect();
    json!({
        "metadata": {"name": "p", "creationTimestamp": "2026-11-20T23:59:59Z"},
        "spec": {"nodeName": "ghost", "initContainers": init, "containers": [{"name": "a"}, {"name": "b"}]},
        "status": status,
    })
}

fn waiting(name: &str, reason: &str) -> Value {
    json!({"name": name, "ready": false, "restartCount": 0, "state": {"waiting": {"reason": reason}}})
}

fn running(name: &str, ready: bool) -> Value {
    json!({"name": name, "ready": ready, "restartCount": 0, "state": {"running": {}}})
}

fn ended(name: &str, terminated: Value) -> Value {
    json!({"name": name, "ready": false, "restartCount": 0, "state": {"terminated": terminated}})
}

#[test]
fn cluster_r3_pod_status_column() {
    let done = json!({"exitCode": 0, "reason": "Completed"});
    let error = json!({"exitCode": 1, "reason": "Error"});
    let mut crashed = waiting("a", "CrashLoopBackOff");
    crashed["restartCount"] = json!(5);
    crashed["lastState"] = json!({"terminated": {"finishedAt": "2026-11-20T22:25:00Z"}});
    let mut init_crashed = waiting("i0", "CrashLoopBackOff");
    init_crashed["restartCount"] = json!(2);
    let mut init_error = ended("i0", error.clone());
    init_error["restartCount"] = json!(2);
    let ready = json!([{"type": "Ready", "status": "True"}]);
    let not_ready = json!([{"type": "Ready", "status": "False"}]);

    let cases = [
        (
            "completed",
            0,
            json!({"phase": "Succeeded", "containerStatuses": [ended("a", done.clone()), ended("b", done.clone())]}),
            "0/2",
            "Completed",
            "0",
        ),
        (
            "crash",
            0,
            json!({"phase": "Running", "containerStatuses": [crashed, running("b", true)]}),
            "1/2",
            "CrashLoopBackOff",
            "5 (95m ago)",
        ),
        (
            "creating",
            0,
            json!({"phase": "Pending", "containerStatuses": [waiting("a", "ContainerCreating"), waiting("b", "ContainerCreating")]}),
            "0/2",
            "ContainerCreating",
            "0",
        ),
        (
            "errpull",
            0,
            json!({"phase": "Pending", "containerStatuses": [waiting("a", "ErrImagePull"), waiting("b", "ContainerCreating")]}),
            "0/2",
            "ErrImagePull",
            "0",
        ),
        (
            "evicted",
            0,
            json!({"phase": "Failed", "reason": "Evicted"}),
            "0/2",
            "Evicted",
            "0",
        ),
        (
            "exited",
            0,
            json!({"phase": "Running", "conditions": not_ready, "containerStatuses": [ended("a", done.clone()), running("b", true)]}),
            "1/2",
            "NotReady",
            "0",
        ),
        (
            "exited, rest ready",
            0,
            json!({"phase": "Running", "conditions": ready, "containerStatuses": [ended("a", done.clone()), running("b", true)]}),
            "1/2",
            "Running",
            "0",
        ),
        (
            "exited, rest not ready",
            0,
            json!({"phase": "Running", "containerStatuses": [ended("a", done.clone()), running("b", false)]}),
            "0/2",
            "Completed",
            "0",
        ),
        (
            "failed",
            0,
            json!({"phase": "Failed", "containerStatuses": [ended("a", error), ended("b", done.clone())]}),
            "0/2",
            "Error",
            "0",
        ),
        (
            "gated",
            0,
            json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]}),
            "0/2",
            "SchedulingGated",
            "0",
        ),
        (
            "init0",
            2,
            json!({"phase": "Pending", "initContainerStatuses": [running("i0", false)]}),
            "0/2",
            "Init:0/2",
            "0",
        ),
        (
            "init1",
            2,
            json!({"phase": "Pending", "initContainerStatuses": [ended("i0", done.clone()), waiting("i1", "PodInitializing")]}),
            "0/2",
            "Init:1/2",
            "0",
        ),
        (
            "initcrash",
            2,
            json!({"phase": "Pending", "initContainerStatuses": [init_crashed]}),
            "0/2",
            "Init:CrashLoopBackOff",
            "2",
        ),
        (
            "initdone",
            2,
            json!({"phase": "Pending", "initContainerStatuses": [ended("i0", done.clone()), ended("i1", done.clone())], "containerStatuses": [waiting("a", "PodInitializing"), waiting("b", "PodInitializing")]}),
            "0/2",
            "PodInitializing",
            "0",
        ),
        (
            "initerr",
            2,
            json!({"phase": "Pending", "initContainerStatuses": [init_error]}),
            "0/2",
            "Init:Error",
            "2",
        ),
        (
            "initsignal",
            1,
            json!({"phase": "Pending", "initContainerStatuses": [ended("i0", json!({"exitCode": 137, "signal": 9}))]}),
            "0/2",
            "Init:Signal:9",
            "0",
        ),
        (
            "noreason",
            0,
            json!({"phase": "Failed", "containerStatuses": [ended("a", json!({"exitCode": 3}))]}),
            "0/2",
            "ExitCode:3",
            "0",
        ),
        (
            "oom",
            0,
            json!({"phase": "Running", "containerStatuses": [ended("a", json!({"exitCode": 137, "reason": "OOMKilled"})), running("b", true)]}),
            "1/2",
            "OOMKilled",
            "0",
        ),
        (
            "pending",
            0,
            json!({"phase": "Pending"}),
            "0/2",
            "Pending",
            "0",
        ),
        (
            "running",
            0,
            json!({"phase": "Running", "podIPs": [{"ip": "10.9.9.9"}], "containerStatuses": [running("a", true), running("b", true)]}),
            "2/2",
            "Running",
            "0",
        ),
        (
            "signal",
            0,
            json!({"phase": "Failed", "containerStatuses": [ended("a", json!({"exitCode": 137, "signal": 9}))]}),
            "0/2",
            "Signal:9",
            "0",
        ),
    ];
    for (case, init, status, ready, text, restarts) in cases {
        let row = row("", "pods", &pod(init, status));
        assert_eq!(
            row[..4],
            [json!("p"), json!(ready), json!(text), json!(restarts)],
            "{case}"
        );
    }
}

#[test]
fn cluster_r3_deleted_pods_terminate() {
    let mut object = pod(
        0,
        json!({"phase": "Running", "containerStatuses": [running("a", true), running("b", true)]}),
    );
    object["metadata"]["deletionTimestamp"] = json!(NOW);
    assert_eq!(row("", "pods", &object)[1..3], ["2/2", "Terminating"]);
    object["status"] = json!({"phase": "Running", "reason": "NodeLost"});
    assert_eq!(row("", "pods", &object)[1..3], ["0/2", "Unknown"]);
    object["status"] = json!({"phase": "Succeeded"});
    assert_eq!(row("", "pods", &object)[1..3], ["0/2", "Succeeded"]);
}

#[test]
fn cluster_r3_sidecars_count_as_containers() {
    let mut object = pod(
        1,
        json!({
            "phase": "Running",
            "initContainerStatuses": [{"name": "i0", "ready": true, "started": true, "restartCount": 2, "state": {"running": {}}}],
            "containerStatuses": [running("a", true), running("b", true)],
        }),
    );
    object["spec"]["initContainers"][0]["restartPolicy"] = json!("Always");
    assert_eq!(row("", "pods", &object)[1..4], ["3/3", "Running", "2"]);
}

#[test]
fn cluster_r3_wide_pod_cells_and_conditions() {
    let mut object = pod(0, json!({"phase": "Succeeded"}));
    let done = json!([{"type": "Completed", "status": "True", "reason": "Succeeded", "message": "The pod has completed successfully."}]);
    assert_eq!(json!(conditions("", "pods", &object)), done);
    assert_eq!(
        row("", "pods", &object)[4..],
        ["1s", "<none>", "ghost", "<none>", "<none>"]
    );
    object["spec"]["readinessGates"] = json!([{"conditionType": "x"}, {"conditionType": "y"}]);
    object["status"] = json!({"phase": "Running", "podIPs": [{"ip": "10.9.9.9"}], "conditions": [{"type": "y", "status": "True"}]});
    assert_eq!(
        row("", "pods", &object)[5..],
        ["10.9.9.9", "ghost", "<none>", "1/2"]
    );
    assert!(conditions("", "pods", &object).is_empty());
}
