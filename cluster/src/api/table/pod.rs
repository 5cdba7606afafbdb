//! Rows of pods.
//!
//! The status column says in one word what holds a pod back. It starts as the phase (or the
//! status reason, such as `Evicted`) and is overruled in this order: scheduling gates; the first
//! init container that has not finished; the first container that waits or has ended; deletion.
//! The container nearest the head of the list wins, so the list is walked from its end.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::age::{short, since, time};
use super::format::{NONE, or};
use crate::api::json::{flag, list, number, text};

/// Restarts of some containers and when the last one ended.
#[derive(Clone, Copy, Default)]
struct Restarts {
    count: i64,
    last: Option<Timestamp>,
}

impl Restarts {
    fn add(&mut self, status: &Value) {
        self.count += number(status, "/restartCount");
        self.last = self
            .last
            .max(time(status, "/lastState/terminated/finishedAt"));
    }

    fn text(self, now: Timestamp) -> String {
        match self.last {
            Some(last) if self.count != 0 => {
                let ago = short(now.as_second() - last.as_second());
                format!("{} ({ago} ago)", self.count)
            }
            _ => self.count.to_string(),
        }
    }
}

/// What a pod's containers add up to.
struct Summary {
    ready: usize,
    total: usize,
    status: String,
    restarts: Restarts,
}

/// Cells of a pod's row.
pub(super) fn cells(pod: &Value, now: Timestamp) -> Vec<Value> {
    let summary = summarise(pod);
    vec![
        json!(text(pod, "/metadata/name")),
        json!(format!("{}/{}", summary.ready, summary.total)),
        json!(summary.status),
        json!(summary.restarts.text(now)),
        json!(since(pod, "/metadata/creationTimestamp", now)),
        json!(or(text(pod, "/status/podIPs/0/ip"), NONE)),
        json!(or(text(pod, "/spec/nodeName"), NONE)),
        json!(or(text(pod, "/status/nominatedNodeName"), NONE)),
        json!(readiness_gates(pod)),
    ]
}

/// A row condition for pods that have ended, so that clients can leave them out.
pub(super) fn conditions(pod: &Value) -> Vec<Value> {
    let (reason, message) = match text(pod, "/status/phase") {
        "Succeeded" => ("Succeeded", "The pod has completed successfully."),
        "Failed" => ("Failed", "The pod failed."),
        _ => return Vec::new(),
    };
    vec![json!({"type": "Completed", "status": "True", "reason": reason, "message": message})]
}

fn summarise(pod: &Value) -> Summary {
    let phase = text(pod, "/status/phase");
    let mut summary = Summary {
        ready: 0,
        total: list(pod, "/spec/containers").len() + sidecars(pod).count(),
        status: or(text(pod, "/status/reason"), phase).to_owned(),
        restarts: Restarts::default(),
    };
    let scheduled = condition(pod, "PodScheduled");
    if scheduled.is_some_and(|c| text(c, "/reason") == "SchedulingGated") {
        "SchedulingGated".clone_into(&mut summary.status);
    }

    let mut sidecar_restarts = Restarts::default();
    let initializing = init_containers(pod, &mut summary, &mut sidecar_restarts);
    let initialized = condition(pod, "Initialized").is_some_and(is_true);
    if !initializing || initialized {
        summary.restarts = sidecar_restarts;
        containers(pod, &mut summary);
    }

    if super::deleting(pod) {
        if text(pod, "/status/reason") == "NodeLost" {
            "Unknown".clone_into(&mut summary.status);
        } else if !matches!(phase, "Succeeded" | "Failed") {
            "Terminating".clone_into(&mut summary.status);
        }
    }
    summary
}

/// Counts the init containers up to the first that still has to finish, and names it. True if
/// there is one.
fn init_containers(pod: &Value, summary: &mut Summary, sidecar_restarts: &mut Restarts) -> bool {
    let total = list(pod, "/spec/initContainers").len();
    for (index, status) in list(pod, "/status/initContainerStatuses")
        .iter()
        .enumerate()
    {
        summary.restarts.add(status);
        let sidecar = sidecars(pod).any(|c| text(c, "/name") == text(status, "/name"));
        if sidecar {
            sidecar_restarts.add(status);
        }
        let terminated = status.pointer("/state/terminated");
        if terminated.is_some_and(|t| number(t, "/exitCode") == 0) {
            continue;
        }
        if sidecar && flag(status, "/started") {
            summary.ready += usize::from(flag(status, "/ready"));
            continue;
        }
        let waiting = text(status, "/state/waiting/reason");
        summary.status = if let Some(terminated) = terminated {
            format!("Init:{}", ended(terminated))
        } else if !matches!(waiting, "" | "PodInitializing") {
            format!("Init:{waiting}")
        } else {
            format!("Init:{index}/{total}")
        };
        return true;
    }
    false
}

fn containers(pod: &Value, summary: &mut Summary) {
    let mut running = false;
    for status in list(pod, "/status/containerStatuses").iter().rev() {
        summary.restarts.add(status);
        let waiting = text(status, "/state/waiting/reason");
        if !waiting.is_empty() {
            waiting.clone_into(&mut summary.status);
        } else if let Some(terminated) = status.pointer("/state/terminated") {
            summary.status = ended(terminated);
        } else if flag(status, "/ready") && status.pointer("/state/running").is_some() {
            running = true;
            summary.ready += 1;
        }
    }
    if summary.status == "Completed" && running {
        let ready = condition(pod, "Ready").is_some_and(is_true);
        let status = if ready { "Running" } else { "NotReady" };
        status.clone_into(&mut summary.status);
    }
}

/// Why a container ended.
fn ended(terminated: &Value) -> String {
    match (text(terminated, "/reason"), number(terminated, "/signal")) {
        ("", 0) => format!("ExitCode:{}", number(terminated, "/exitCode")),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

/// Init containers that keep running (KEP-753).
fn sidecars(pod: &Value) -> impl Iterator<Item = &Value> {
    list(pod, "/spec/initContainers")
        .iter()
        .filter(|container| text(container, "/restartPolicy") == "Always")
}

fn condition<'a>(pod: &'a Value, type_: &str) -> Option<&'a Value> {
    list(pod, "/status/conditions")
        .iter()
        .find(|condition| text(condition, "/type") == type_)
}

fn is_true(condition: &Value) -> bool {
    text(condition, "/status") == "True"
}

fn readiness_gates(pod: &Value) -> String {
    let gates = list(pod, "/spec/readinessGates");
    if gates.is_empty() {
        return NONE.to_owned();
    }
    let open = gates
        .iter()
        .filter(|gate| condition(pod, text(gate, "/conditionType")).is_some_and(is_true))
        .count();
    format!("{open}/{}", gates.len())
}
