//! The containers of a pod, as its worker sees them.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus,
    Pod, PodStatus,
};
use tokio::sync::watch;
use tokio::time::Instant;

use super::Role;
use crate::runtime::runs::{Run, Runs};

/// Exit code of a container of which nobody knows how it ended.
const UNKNOWN: i32 = 137;

/// One container.
pub(super) struct Slot {
    pub(super) role: Role,
    pub(super) declared: Arc<Container>,
    pub(super) status: ContainerStatus,
    /// How the run before the agent's own start ended.
    pub(super) ended: Option<ContainerStateTerminated>,
    /// Says when it has to be gone; there once its supervisor was started.
    pub(super) stop: Option<watch::Sender<Option<Instant>>>,
    /// It will not run (again), and its supervisor has ended.
    pub(super) done: bool,
    /// It was started once, its startup probe included: a sidecar that ends later keeps nobody from
    /// starting.
    pub(super) passed: bool,
}

/// All containers.
pub(super) struct Slots {
    pub(super) init: Vec<Slot>,
    pub(super) main: Vec<Slot>,
}

impl Slots {
    /// The containers of a pod; what its status says of earlier runs counts.
    pub(super) fn of(pod: &Pod, runs: &Runs) -> Self {
        let Some(spec) = &pod.spec else {
            return Self {
                init: Vec::new(),
                main: Vec::new(),
            };
        };
        let has_init = spec.init_containers.as_ref().is_some_and(|i| !i.is_empty());
        let waiting = if has_init {
            "PodInitializing"
        } else {
            "ContainerCreating"
        };
        let policy = spec.restart_policy.as_deref().unwrap_or("Always");
        let before = pod.status.as_ref();
        let over = ended(pod);
        let slot = |role, declared: &Container| {
            let mut slot = Slot::new(role, declared, waiting);
            slot.done = over;
            if let Some(known) = before.and_then(|status| known(status, &declared.name)) {
                slot.resume(known, policy, runs);
            }
            slot
        };
        let init = spec.init_containers.iter().flatten().map(|declared| {
            let sidecar = declared.restart_policy.as_deref() == Some("Always");
            let role = if sidecar { Role::Sidecar } else { Role::Init };
            slot(role, declared)
        });
        Self {
            init: init.collect(),
            main: spec
                .containers
                .iter()
                .map(|c| slot(Role::Main, c))
                .collect(),
        }
    }

    /// What a supervisor reports.
    pub(super) fn update(&mut self, role: Role, index: usize, status: ContainerStatus, done: bool) {
        let slots = match role {
            Role::Main => &mut self.main,
            Role::Init | Role::Sidecar => &mut self.init,
        };
        if let Some(slot) = slots.get_mut(index) {
            slot.passed |= status.started == Some(true);
            slot.status = status;
            slot.done = done;
        }
    }

    /// Whether no supervisor is at work.
    pub(super) fn idle(&self) -> bool {
        self.all().all(|slot| slot.stop.is_none() || slot.done)
    }

    /// Whether the pod has nothing more to run: all containers are done, or an init container failed.
    pub(super) fn finished(&self) -> bool {
        self.main.iter().all(|slot| slot.done) || self.init_failed()
    }

    /// Whether an init container ended without success, for good.
    pub(super) fn init_failed(&self) -> bool {
        let mut init = self.init.iter().filter(|slot| slot.role == Role::Init);
        init.any(|slot| slot.done && slot.exit_code() != Some(0))
    }

    pub(super) fn init_statuses(&self) -> Vec<ContainerStatus> {
        self.init.iter().map(|slot| slot.status.clone()).collect()
    }

    pub(super) fn main_statuses(&self) -> Vec<ContainerStatus> {
        self.main.iter().map(|slot| slot.status.clone()).collect()
    }

    /// Names of the sidecars.
    pub(super) fn sidecars(&self) -> Vec<String> {
        let sidecars = self.init.iter().filter(|slot| slot.role == Role::Sidecar);
        sidecars.map(|slot| slot.declared.name.clone()).collect()
    }

    fn all(&self) -> impl Iterator<Item = &Slot> {
        self.init.iter().chain(&self.main)
    }
}

impl Slot {
    fn new(role: Role, declared: &Container, reason: &str) -> Self {
        let status = ContainerStatus {
            name: declared.name.clone(),
            image: declared.image.clone().unwrap_or_default(),
            image_id: String::new(),
            ready: false,
            started: Some(false),
            restart_count: 0,
            state: Some(ContainerState {
                waiting: Some(ContainerStateWaiting {
                    reason: Some(reason.to_owned()),
                    message: None,
                }),
                ..ContainerState::default()
            }),
            ..ContainerStatus::default()
        };
        Self {
            role,
            declared: Arc::new(declared.clone()),
            status,
            ended: None,
            stop: None,
            done: false,
            passed: false,
        }
    }

    /// The exit code, while it does not run.
    pub(super) fn exit_code(&self) -> Option<i32> {
        let state = self.status.state.as_ref()?;
        Some(state.terminated.as_ref()?.exit_code)
    }

    /// Goes on from what an earlier agent wrote (B12): a container that ran has been restarted; one
    /// that ended for good stays so.
    fn resume(&mut self, known: &ContainerStatus, policy: &str, runs: &Runs) {
        let state = known.state.as_ref();
        let last = known.last_state.as_ref();
        let terminated = |state: Option<&ContainerState>| state.and_then(|s| s.terminated.clone());
        let running = state.is_some_and(|state| state.running.is_some());
        let ended = terminated(state).or_else(|| {
            if running {
                Some(lost(known))
            } else {
                terminated(last)
            }
        });
        let Some(ended) = ended else { return };
        let run = Run {
            number: u32::try_from(known.restart_count).unwrap_or(0),
            container: None,
            tail: None,
        };
        runs.set(&self.declared.name, run);
        let over = self.done || !self.role.restarts(policy, ended.exit_code);
        if over {
            self.status = known.clone();
            self.status.state = Some(ContainerState {
                terminated: Some(ended),
                ..ContainerState::default()
            });
            self.status.ready = self.role == Role::Init && self.exit_code() == Some(0);
            self.done = true;
            return;
        }
        self.status.restart_count = known.restart_count.saturating_add(1);
        self.status.last_state = Some(ContainerState {
            terminated: Some(ended.clone()),
            ..ContainerState::default()
        });
        self.ended = Some(ended);
    }
}

/// Whether the pod had come to its end before this agent saw it: then it stays as it is.
pub(super) fn ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

fn known<'a>(status: &'a PodStatus, name: &str) -> Option<&'a ContainerStatus> {
    let init = status.init_container_statuses.iter().flatten();
    let mut all = init.chain(status.container_statuses.iter().flatten());
    all.find(|known| known.name == name)
}

/// The end of a container that ran when the agent before this one ended.
fn lost(known: &ContainerStatus) -> ContainerStateTerminated {
    let running = known
        .state
        .as_ref()
        .and_then(|state| state.running.as_ref());
    ContainerStateTerminated {
        exit_code: UNKNOWN,
        reason: Some("ContainerStatusUnknown".to_owned()),
        message: Some("The container ended with the node agent that ran it".to_owned()),
        started_at: running.and_then(|running| running.started_at.clone()),
        container_id: known.container_id.clone(),
        ..ContainerStateTerminated::default()
    }
}
