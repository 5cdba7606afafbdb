use std::net::Ipv4Addr;

use serde_json::{Value, json};

use super::*;

fn container(name: &str, state: Value) -> ContainerStatus {
    let mut status = json!({
        "name": name, "image": "i", "imageID": "", "ready": false, "restartCount": 0,
        "state": state,
    });
    if !state["running"].is_null() {
        status["ready"] = true.into();
        status["started"] = true.into();
    }
    serde_json::from_value(status).unwrap()
}

fn waiting() -> Value {
    json!({ "waiting": { "reason": "ContainerCreating" } })
}

fn running() -> Value {
    json!({ "running": {} })
}

fn exited(code: i32) -> Value {
    json!({ "terminated": { "exitCode": code } })
}

fn pod() -> Pod {
    serde_json::from_value(
        json!({ "metadata": { "name": "p", "generation": 3 }, "spec": { "containers": [] } }),
    )
    .unwrap()
}

struct Case<'a> {
    init: &'a [ContainerStatus],
    main: &'a [ContainerStatus],
    sidecars: &'a [String],
    finished: bool,
}

fn status(pod: &Pod, case: &Case<'_>, failure: Option<&(String, String)>) -> PodStatus {
    compute(&Observed {
        pod,
        ip: Some(Ipv4Addr::LOCALHOST.into()),
        host_ip: Ipv4Addr::LOCALHOST.into(),
        init: case.init,
        main: case.main,
        sidecars: case.sidecars,
        finished: case.finished,
        written: None,
        failure,
        since: Timestamp::UNIX_EPOCH,
        now: Timestamp::from_second(100).unwrap(),
    })
}

fn find<'a>(status: &'a PodStatus, kind: &str) -> &'a PodCondition {
    let conditions = status.conditions.as_ref().unwrap();
    conditions.iter().find(|c| c.type_ == kind).unwrap()
}

#[test]
fn cluster_b1_phase_and_conditions_of_a_start() {
    let order: Vec<String> = status(&pod(), &case(&[], &[]), None)
        .conditions
        .unwrap()
        .into_iter()
        .map(|condition| condition.type_)
        .collect();
    assert_eq!(order, CONDITIONS);

    let main = [container("a", waiting()), container("b", running())];
    let starting = status(&pod(), &case(&[], &main), None);
    assert_eq!(starting.phase.as_deref(), Some("Pending"));
    let ready = find(&starting, "Ready");
    assert_eq!(ready.status, "False");
    assert_eq!(ready.reason.as_deref(), Some("ContainersNotReady"));
    let message = "containers with unready status: [a]";
    assert_eq!(ready.message.as_deref(), Some(message));
    assert_eq!(ready.observed_generation, Some(3));
    assert_eq!(find(&starting, "Initialized").status, "True");

    let main = [container("a", running()), container("b", running())];
    let up = status(&pod(), &case(&[], &main), None);
    assert_eq!(up.phase.as_deref(), Some("Running"));
    for kind in CONDITIONS {
        assert_eq!(find(&up, kind).status, "True", "{kind}");
    }
}

fn case<'a>(init: &'a [ContainerStatus], main: &'a [ContainerStatus]) -> Case<'a> {
    Case {
        init,
        main,
        sidecars: &[],
        finished: false,
    }
}

#[test]
fn cluster_b1_init_containers_hold_the_pod_back() {
    let init = [container("i1", exited(0)), container("i2", running())];
    let main = [container("a", waiting())];
    let status = status(&pod(), &case(&init, &main), None);
    assert_eq!(status.phase.as_deref(), Some("Pending"));
    let initialized = find(&status, "Initialized");
    assert_eq!(initialized.status, "False");
    let reason = "ContainersNotInitialized";
    assert_eq!(initialized.reason.as_deref(), Some(reason));
    let message = "containers with incomplete status: [i2]";
    assert_eq!(initialized.message.as_deref(), Some(message));
}

#[test]
fn cluster_b5_a_sidecar_has_to_be_started_and_ready() {
    let sidecars = ["side".to_owned()];
    let main = [container("a", running())];
    let mut side = container("side", running());
    side.ready = false;
    let init = [side];
    let with = |finished| Case {
        init: &init,
        main: &main,
        sidecars: &sidecars,
        finished,
    };
    let up = status(&pod(), &with(false), None);
    assert_eq!(find(&up, "Initialized").status, "True");
    assert_eq!(find(&up, "Ready").status, "False");
    assert_eq!(up.phase.as_deref(), Some("Running"));
}

#[test]
fn cluster_b5_a_sidecar_that_ends_before_it_is_started_keeps_the_others_waiting() {
    let sidecars = ["side".to_owned()];
    let mut side = container("side", exited(3));
    side.started = Some(false);
    side.restart_count = 2;
    let init = [side];
    for (name, main, initialized, phase) in [
        ("nothing else was begun", waiting(), "False", "Pending"),
        ("the container runs", running(), "True", "Running"),
        ("the container has ended", exited(0), "True", "Running"),
    ] {
        let main = [container("a", main)];
        let case = Case {
            init: &init,
            main: &main,
            sidecars: &sidecars,
            finished: false,
        };
        let status = status(&pod(), &case, None);
        assert_eq!(find(&status, "Initialized").status, initialized, "{name}");
        assert_eq!(status.phase.as_deref(), Some(phase), "{name}");
    }
}

#[test]
fn cluster_b2_end_states() {
    let failure = ("DeadlineExceeded".to_owned(), "too long".to_owned());
    for (name, codes, finished, failure, phase, reason) in [
        (
            "all ended well",
            [0, 0],
            true,
            None,
            "Succeeded",
            "PodCompleted",
        ),
        ("one failed", [0, 2], true, None, "Failed", "PodFailed"),
        (
            "to be restarted",
            [0, 2],
            false,
            None,
            "Running",
            "ContainersNotReady",
        ),
        (
            "deadline",
            [0, 0],
            true,
            Some(&failure),
            "Failed",
            "PodFailed",
        ),
    ] {
        let main = codes.map(|code| container("c", exited(code)));
        let mut case = case(&[], &main);
        case.finished = finished;
        let status = status(&pod(), &case, failure);
        assert_eq!(status.phase.as_deref(), Some(phase), "{name}");
        let ready = find(&status, "Ready");
        assert_eq!(ready.reason.as_deref(), Some(reason), "{name}");
        let expected = failure.map(|(reason, _)| reason.as_str());
        assert_eq!(status.reason.as_deref(), expected, "{name}");
    }
}

#[test]
fn cluster_b2_a_failed_init_container_fails_the_pod() {
    let init = [container("i", exited(1))];
    let main = [container("c", waiting())];
    let mut case = case(&init, &main);
    case.finished = true;
    let status = status(&pod(), &case, None);
    assert_eq!(status.phase.as_deref(), Some("Failed"));
}

#[test]
fn cluster_b1_transition_times_and_foreign_conditions_stay() {
    let mut pod = pod();
    let main = [container("a", running())];
    let mut before = status(&pod, &case(&[], &main), None);
    let conditions = before.conditions.as_mut().unwrap();
    for condition in conditions.iter_mut() {
        condition.last_transition_time = Some(Time(Timestamp::from_second(7).unwrap()));
    }
    conditions.push(PodCondition {
        type_: "example.com/x".into(),
        status: "True".into(),
        ..PodCondition::default()
    });
    pod.status = Some(before);
    let main = [container("a", waiting())];
    let after = status(&pod, &case(&[], &main), None);
    let seconds = |kind| {
        find(&after, kind)
            .last_transition_time
            .as_ref()
            .unwrap()
            .0
            .as_second()
    };
    assert_eq!(seconds("Initialized"), 7);
    assert_eq!(seconds("Ready"), 100);
    assert_eq!(find(&after, "example.com/x").status, "True");
}

#[test]
fn cluster_b8_readiness_gates() {
    let main = [container("a", running())];
    for (condition, expected) in [
        (
            None,
            Some("corresponding condition of pod readiness gate \"g\" does not exist."),
        ),
        (
            Some("False"),
            Some("the status of pod readiness gate \"g\" is not \"True\", but False"),
        ),
        (Some("True"), None),
    ] {
        let conditions: Vec<Value> = condition
            .map(|status| json!({ "type": "g", "status": status }))
            .into_iter()
            .collect();
        let pod: Pod = serde_json::from_value(json!({
            "spec": { "containers": [], "readinessGates": [{ "conditionType": "g" }] },
            "status": { "conditions": conditions },
        }))
        .unwrap();
        let status = status(&pod, &case(&[], &main), None);
        let ready = find(&status, "Ready");
        assert_eq!(ready.message.as_deref(), expected);
        assert_eq!(ready.status == "True", expected.is_none());
        assert_eq!(find(&status, "ContainersReady").status, "True");
    }
}
