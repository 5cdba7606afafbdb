//! Keeps one container going: prepares it, starts it, starts it again (B3).

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container as ContainerApi, ContainerState, ContainerStateRunning, ContainerStateTerminated,
    ContainerStateWaiting, ContainerStatus, Pod,
};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};

use super::{Role, Sandbox};
use crate::controllers::clock::whole_seconds;
use crate::runtime::backoff::Backoff;
use crate::runtime::container::{Container, ContainerSpec, Exit};
use crate::runtime::context::Context;
use crate::runtime::prepare::{self, ImageFault};
use crate::runtime::report::Reporter;
use crate::runtime::runs::{Run, Runs};

/// How long to wait before a missing ConfigMap, Secret or key is looked for again.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Exit code of a container whose program could not be started.
const NOT_STARTED: i32 = 128;

/// What a supervisor tells its pod.
#[derive(Debug)]
pub(super) struct Update {
    pub(super) role: Role,
    pub(super) index: usize,
    pub(super) status: ContainerStatus,
    /// The container will not run again, and nothing of it is left.
    pub(super) done: bool,
}

/// One container's supervisor.
pub(super) struct Supervisor {
    pub(super) ctx: Arc<Context>,
    /// The pod as the API has it, kept up to date.
    pub(super) pod: watch::Receiver<Arc<Pod>>,
    pub(super) sandbox: Sandbox,
    pub(super) role: Role,
    pub(super) index: usize,
    pub(super) declared: Arc<ContainerApi>,
    pub(super) runs: Arc<Runs>,
    pub(super) updates: mpsc::Sender<Update>,
    /// When the container has to be gone; `None` while it may run.
    pub(super) stop: watch::Receiver<Option<Instant>>,
    pub(super) reporter: Reporter,
    pub(super) status: ContainerStatus,
    /// How the run before ended, while another is not yet there.
    pub(super) ended: Option<ContainerStateTerminated>,
}

/// The container has to stop before it was started.
struct Stopped;

impl Supervisor {
    /// Runs the container until it need not run any more.
    pub(super) async fn run(mut self) {
        let mut backoff = Backoff::default();
        loop {
            let begin = Instant::now();
            let Ok(code) = self.once().await else { break };
            if self.stop.borrow().is_some() || !self.restarts(code) {
                break;
            }
            let delay = backoff.after(begin.elapsed());
            if !delay.is_zero() && self.crash_loop(delay).await.is_err() {
                break;
            }
            self.status.restart_count = self.status.restart_count.saturating_add(1);
        }
        if let Some(ended) = self.ended.take() {
            self.status.state = Some(terminated(ended));
        }
        self.status.ready = self.role == Role::Init && self.exit_code() == Some(0);
        self.status.started = Some(false);
        self.tell(true).await;
    }

    /// Whether the container is to be started again after this exit code.
    fn restarts(&self, code: i32) -> bool {
        let pod = self.pod.borrow();
        let policy = pod.spec.as_ref().and_then(|s| s.restart_policy.as_deref());
        self.role.restarts(policy.unwrap_or("Always"), code)
    }

    fn exit_code(&self) -> Option<i32> {
        let state = self.status.state.as_ref()?;
        Some(state.terminated.as_ref()?.exit_code)
    }

    /// One run; gives its exit code.
    async fn once(&mut self) -> Result<i32, Stopped> {
        let command = self.resolve_image().await?;
        let spec = self.prepare(&command).await?;
        let image = self.declared.image.clone().unwrap_or_default();
        let message = format!("Container image {image:?} already present on machine");
        self.reporter.normal("Pulled", message);
        let name = &self.declared.name;
        self.reporter
            .normal("Created", format!("Created container: {name}"));
        match Container::start(&self.ctx.options.init_command, spec).await {
            Ok(container) => {
                self.reporter
                    .normal("Started", format!("Started container {name}"));
                let container = Arc::new(container);
                let exit = Box::pin(self.attend(&container)).await;
                self.runs.ended(&self.declared.name);
                self.record_end(&container, exit).await;
                Ok(exit.code)
            }
            Err(error) => {
                let message = crate::runtime::describe(&error);
                self.reporter.warning("Failed", format!("Error: {message}"));
                self.record_failed_start(message).await;
                Ok(NOT_STARTED)
            }
        }
    }

    /// Waits until the image stands for a command.
    async fn resolve_image(&mut self) -> Result<Vec<String>, Stopped> {
        let mut backoff = Backoff::pulling();
        let image = self.declared.image.clone().unwrap_or_default();
        loop {
            let (reason, message) = match prepare::command(&self.ctx, &self.declared) {
                Ok(command) => return Ok(command),
                Err(ImageFault::Invalid(message)) => ("InvalidImageName", message),
                Err(ImageFault::NeverPull(message)) => ("ErrImageNeverPull", message),
                Err(ImageFault::Missing(message)) => ("ErrImagePull", message),
            };
            let delay = backoff.after(Duration::ZERO);
            let pulling = reason == "ErrImagePull";
            if pulling {
                self.reporter
                    .normal("Pulling", format!("Pulling image {image:?}"));
                self.reporter.warning(
                    "Failed",
                    format!("Failed to pull image {image:?}: {message}"),
                );
                self.reporter.warning("Failed", "Error: ErrImagePull");
            } else {
                self.reporter.warning("Failed", format!("Error: {reason}"));
            }
            self.wait_with(reason, message.clone()).await;
            // The reason of the fault is to be seen for a moment, then the one of the delay.
            let shown = delay.min(Duration::from_secs(1));
            self.pause(shown).await?;
            if pulling {
                self.reporter
                    .normal("BackOff", format!("Back-off pulling image {image:?}"));
                let message = format!("Back-off pulling image {image:?}: ErrImagePull: {message}");
                self.wait_with("ImagePullBackOff", message).await;
            }
            self.pause(delay - shown).await?;
        }
    }

    /// Waits until everything that the container refers to is there.
    async fn prepare(&mut self, command: &[String]) -> Result<ContainerSpec, Stopped> {
        let run = u32::try_from(self.status.restart_count).unwrap_or(0);
        loop {
            let pod = Arc::clone(&self.pod.borrow());
            let spec = prepare::spec(&self.ctx, &pod, &self.sandbox, &self.declared, command, run);
            match Box::pin(spec).await {
                Ok(spec) => return Ok(spec),
                Err(error) => {
                    let message = error.to_string();
                    self.reporter.warning("Failed", format!("Error: {message}"));
                    self.wait_with("CreateContainerConfigError", message).await;
                    self.pause(LOOK_AGAIN).await?;
                }
            }
        }
    }

    /// Waits before the next start.
    async fn crash_loop(&mut self, delay: Duration) -> Result<(), Stopped> {
        let pod = Arc::clone(&self.pod.borrow());
        let meta = &pod.metadata;
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let name = format!(
            "{}_{}({})",
            text(&meta.name),
            text(&meta.namespace),
            text(&meta.uid)
        );
        let container = &self.declared.name;
        self.reporter.warning(
            "BackOff",
            format!("Back-off restarting failed container {container} in pod {name}"),
        );
        let message = format!(
            "back-off {} restarting failed container={container} pod={name}",
            go_duration(delay)
        );
        self.wait_with("CrashLoopBackOff", message).await;
        self.pause(delay).await
    }

    /// Sleeps, or is told to stop.
    async fn pause(&mut self, delay: Duration) -> Result<(), Stopped> {
        let mut stop = self.stop.clone();
        tokio::select! {
            () = told_to_stop(&mut stop) => Err(Stopped),
            () = sleep(delay) => Ok(()),
        }
    }

    /// Shows that the container waits, and for what.
    async fn wait_with(&mut self, reason: &str, message: String) {
        if let Some(ended) = &self.ended {
            self.status.last_state = Some(terminated(ended.clone()));
        }
        self.status.state = Some(ContainerState {
            waiting: Some(ContainerStateWaiting {
                reason: Some(reason.to_owned()),
                message: Some(message),
            }),
            ..ContainerState::default()
        });
        self.status.ready = false;
        self.status.started = Some(false);
        self.tell(false).await;
    }

    /// Notes that the container runs; its readiness is not yet known.
    pub(super) fn record_start(&mut self, container: &Arc<Container>) {
        if let Some(ended) = self.ended.take() {
            self.status.last_state = Some(terminated(ended));
        }
        let number = u32::try_from(self.status.restart_count).unwrap_or(0);
        self.status.container_id = Some(self.container_id());
        self.status.state = Some(ContainerState {
            running: Some(ContainerStateRunning {
                started_at: Some(whole_seconds(container.started_at())),
            }),
            ..ContainerState::default()
        });
        self.forget_old_logs(number);
        self.runs.set(
            &self.declared.name,
            Run {
                number,
                container: Some(Arc::clone(container)),
                tail: Some(container.log()),
            },
        );
    }

    /// Only the logs of this run and the one before are kept.
    fn forget_old_logs(&self, number: u32) {
        let Some(old) = number.checked_sub(2) else {
            return;
        };
        let directory = self.ctx.log_dir(&self.pod.borrow(), &self.declared.name);
        let file = crate::runtime::logs::file(&directory, old);
        // Most runs are not rotated; what is not there need not be removed.
        let _ = std::fs::remove_file(file.with_extension("log.1"));
        let _ = std::fs::remove_file(file);
    }

    fn container_id(&self) -> String {
        let pod = self.pod.borrow();
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let run = self.status.restart_count;
        format!("sealane://{uid}/{}/{run}", self.declared.name)
    }

    async fn record_end(&mut self, container: &Container, exit: Exit) {
        let reason = if exit.code == 0 { "Completed" } else { "Error" };
        self.end(ContainerStateTerminated {
            exit_code: exit.code,
            reason: Some(reason.to_owned()),
            started_at: Some(whole_seconds(container.started_at())),
            finished_at: Some(whole_seconds(exit.finished_at)),
            container_id: Some(self.container_id()),
            ..ContainerStateTerminated::default()
        })
        .await;
    }

    async fn end(&mut self, ended: ContainerStateTerminated) {
        self.status.state = Some(terminated(ended.clone()));
        self.ended = Some(ended);
        self.status.ready = false;
        self.status.started = Some(false);
        self.tell(false).await;
    }

    async fn record_failed_start(&mut self, message: String) {
        let now = whole_seconds(Timestamp::now());
        let ended = ContainerStateTerminated {
            exit_code: NOT_STARTED,
            reason: Some("StartError".to_owned()),
            message: Some(message.clone()),
            started_at: Some(whole_seconds(Timestamp::UNIX_EPOCH)),
            finished_at: Some(now),
            container_id: Some(self.container_id()),
            ..ContainerStateTerminated::default()
        };
        if self.restarts(NOT_STARTED) {
            self.ended = Some(ended);
            self.wait_with("RunContainerError", message).await;
        } else {
            self.end(ended).await;
        }
    }

    /// Tells the pod. A pod that is gone needs no news.
    pub(super) async fn tell(&self, done: bool) {
        let update = Update {
            role: self.role,
            index: self.index,
            status: self.status.clone(),
            done,
        };
        let _ = self.updates.send(update).await;
    }
}

/// Waits until there is a time by which everything has to end.
pub(super) async fn told_to_stop(stop: &mut watch::Receiver<Option<Instant>>) {
    // Without a sender there is nobody left who could want it to go on.
    drop(stop.wait_for(Option::is_some).await);
}

fn terminated(ended: ContainerStateTerminated) -> ContainerState {
    ContainerState {
        terminated: Some(ended),
        ..ContainerState::default()
    }
}

/// Whole seconds as the API's messages have them: `10s`, `2m40s`, `5m0s`.
fn go_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match (seconds / 60, seconds % 60) {
        (0, seconds) => format!("{seconds}s"),
        (minutes, seconds) => format!("{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cluster_b3_delays_in_messages() {
        for (seconds, expected) in [(10, "10s"), (160, "2m40s"), (300, "5m0s")] {
            assert_eq!(go_duration(Duration::from_secs(seconds)), expected);
        }
    }
}
