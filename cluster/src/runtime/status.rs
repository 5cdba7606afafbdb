//! A pod's status, computed from its containers' (B1, B2).
//!
//! Phase: `Pending` until every container was started once, then `Running`; `Succeeded` or `Failed`
//! once no container will run again, `Failed` if any ended with another code than 0. Conditions that
//! others set (readiness gates) are kept.

#[cfg(test)]
mod tests;

use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, HostIP, Pod, PodCondition, PodIP, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::controllers::clock::whole_seconds;

/// The conditions that the agent sets, in the order of the API's answers.
const CONDITIONS: [&str; 5] = [
    "PodReadyToStartContainers",
    "Initialized",
    "Ready",
    "ContainersReady",
    "PodScheduled",
];

/// What the agent knows of a pod.
pub(super) struct Observed<'a> {
    /// The pod as the API has it.
    pub(super) pod: &'a Pod,
    /// Its address, once it has one.
    pub(super) ip: Option<IpAddr>,
    /// The node's address.
    pub(super) host_ip: IpAddr,
    /// Of the init containers, in the order of the spec.
    pub(super) init: &'a [ContainerStatus],
    /// Of the containers, in the order of the spec.
    pub(super) main: &'a [ContainerStatus],
    /// Names of the init containers that are sidecars.
    pub(super) sidecars: &'a [String],
    /// No container runs or will run again.
    pub(super) finished: bool,
    /// The status that the agent wrote last; it may be newer than the pod's.
    pub(super) written: Option<&'a PodStatus>,
    /// Why the pod as a whole failed: reason and message.
    pub(super) failure: Option<&'a (String, String)>,
    /// When the agent saw the pod first.
    pub(super) since: Timestamp,
    /// Now.
    pub(super) now: Timestamp,
}

/// The status to write.
pub(super) fn compute(observed: &Observed<'_>) -> PodStatus {
    let phase = phase(observed);
    let ip = observed.ip.map(|ip| ip.to_string());
    let host_ip = observed.host_ip.to_string();
    let (reason, message) = observed.failure.cloned().unzip();
    let before = observed.written.or(observed.pod.status.as_ref());
    let some = |list: &[ContainerStatus]| (!list.is_empty()).then(|| list.to_vec());
    PodStatus {
        phase: Some(phase.to_owned()),
        conditions: Some(conditions(observed, phase)),
        reason,
        message,
        host_ip: Some(host_ip.clone()),
        host_ips: Some(vec![HostIP { ip: host_ip }]),
        pod_ips: ip.clone().map(|ip| vec![PodIP { ip }]),
        pod_ip: ip,
        start_time: before
            .and_then(|status| status.start_time.clone())
            .or_else(|| Some(whole_seconds(observed.since))),
        init_container_statuses: some(observed.init),
        container_statuses: some(observed.main),
        observed_generation: observed.pod.metadata.generation,
        ..PodStatus::default()
    }
}

fn phase(observed: &Observed<'_>) -> &'static str {
    if observed.finished {
        if observed.failure.is_some() {
            return "Failed";
        }
        let codes = || observed.main.iter().map(ended);
        if codes().all(|code| code == Some(0)) {
            return "Succeeded";
        }
        let init_failed = observed
            .init
            .iter()
            .filter(|status| !is_sidecar(observed, status))
            .any(|status| ended(status).is_some_and(|code| code != 0));
        if init_failed || codes().all(|code| code.is_some()) {
            return "Failed";
        }
    }
    let was_started =
        |status: &ContainerStatus| running(status) || ended(status).is_some() || last_ended(status);
    if initialized(observed).is_empty() && observed.main.iter().all(was_started) {
        "Running"
    } else {
        "Pending"
    }
}

fn running(status: &ContainerStatus) -> bool {
    status
        .state
        .as_ref()
        .is_some_and(|state| state.running.is_some())
}

/// The exit code of a container that does not run.
fn ended(status: &ContainerStatus) -> Option<i32> {
    let state = status.state.as_ref()?;
    Some(state.terminated.as_ref()?.exit_code)
}

fn last_ended(status: &ContainerStatus) -> bool {
    status
        .last_state
        .as_ref()
        .is_some_and(|state| state.terminated.is_some())
}

fn is_sidecar(observed: &Observed<'_>, status: &ContainerStatus) -> bool {
    observed.sidecars.contains(&status.name)
}

/// Names of the init containers that are not done: sidecars have to be started, others to have
/// succeeded.
fn initialized<'a>(observed: &Observed<'a>) -> Vec<&'a str> {
    // Containers start when that is so. A sidecar that ends later has started all the same; one that
    // keeps ending before it has, has not.
    let begun =
        |status: &ContainerStatus| running(status) || ended(status).is_some() || last_ended(status);
    let begun = observed.main.iter().any(begun);
    let done = |status: &ContainerStatus| {
        if is_sidecar(observed, status) {
            status.started == Some(true) || begun
        } else {
            ended(status) == Some(0)
        }
    };
    let missing = observed.init.iter().filter(|status| !done(status));
    missing.map(|status| status.name.as_str()).collect()
}

/// Names of the containers that are not ready: sidecars count, other init containers do not.
fn unready<'a>(observed: &Observed<'a>) -> Vec<&'a str> {
    let sidecars = observed
        .init
        .iter()
        .filter(|status| is_sidecar(observed, status));
    sidecars
        .chain(observed.main)
        .filter(|status| !status.ready)
        .map(|status| status.name.as_str())
        .collect()
}

/// True, or false with a reason and a message.
type Verdict = Result<(), (&'static str, String)>;

fn conditions(observed: &Observed<'_>, phase: &str) -> Vec<PodCondition> {
    let terminal = match phase {
        "Succeeded" => Some("PodCompleted"),
        "Failed" => Some("PodFailed"),
        _ => None,
    };
    let network = match observed.ip {
        Some(_) if terminal.is_none() => Ok(()),
        _ => Err(("", String::new())),
    };
    let names = |what: &str, names: &[&str]| {
        format!("containers with {what} status: [{}]", names.join(" "))
    };
    let missing = initialized(observed);
    let init: Verdict = if missing.is_empty() {
        Ok(())
    } else {
        let message = names("incomplete", &missing);
        Err(("ContainersNotInitialized", message))
    };
    let unready = unready(observed);
    let containers: Verdict = match terminal {
        Some(reason) => Err((reason, String::new())),
        None if unready.is_empty() => Ok(()),
        None => Err(("ContainersNotReady", names("unready", &unready))),
    };
    let ready = containers.clone().and_then(|()| gates(observed.pod));
    let verdicts = [network, init, ready, containers, Ok(())];
    let api = observed.pod.status.as_ref();
    let of = |status: Option<&'_ PodStatus>| status.and_then(|s| s.conditions.clone());
    let others = of(api).unwrap_or_default();
    let before = of(observed.written.or(api)).unwrap_or_default();
    let mut conditions: Vec<PodCondition> = CONDITIONS
        .into_iter()
        .zip(verdicts)
        .map(|(kind, verdict)| condition(observed, kind, verdict, &before))
        .collect();
    let others = others
        .into_iter()
        .filter(|condition| !CONDITIONS.contains(&condition.type_.as_str()));
    conditions.extend(others);
    conditions
}

fn condition(
    observed: &Observed<'_>,
    kind: &str,
    verdict: Verdict,
    before: &[PodCondition],
) -> PodCondition {
    let status = if verdict.is_ok() { "True" } else { "False" };
    let (reason, message) = verdict.err().unzip();
    let since = before
        .iter()
        .find(|condition| condition.type_ == kind && condition.status == status)
        .and_then(|condition| condition.last_transition_time.clone());
    let now: Time = whole_seconds(observed.now);
    PodCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: reason.filter(|text| !text.is_empty()).map(Into::into),
        message: message.filter(|text| !text.is_empty()),
        last_transition_time: Some(since.unwrap_or(now)),
        observed_generation: observed.pod.metadata.generation,
        ..PodCondition::default()
    }
}

/// Whether all readiness gates are open (KEP-580).
fn gates(pod: &Pod) -> Verdict {
    let gates = pod
        .spec
        .iter()
        .filter_map(|spec| spec.readiness_gates.as_ref());
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_deref());
    for gate in gates.flatten() {
        let kind = &gate.condition_type;
        let found = conditions
            .unwrap_or_default()
            .iter()
            .find(|condition| condition.type_ == *kind);
        let message = match found {
            None => {
                format!("corresponding condition of pod readiness gate \"{kind}\" does not exist.")
            }
            Some(condition) if condition.status == "True" => continue,
            Some(condition) => format!(
                "the status of pod readiness gate \"{kind}\" is not \"True\", but {}",
                condition.status
            ),
        };
        return Err(("ReadinessGatesNotReady", message));
    }
    Ok(())
}
