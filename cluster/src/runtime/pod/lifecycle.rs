//! The steps of a pod's life: what to begin next, and how to end.

use std::sync::Arc;
use std::time::Duration;

use kube::ResourceExt as _;
use kube::api::{DeleteParams, Preconditions};
use tokio::sync::watch;
use tokio::time::Instant;

use super::slots::Slot;
use super::supervisor::Supervisor;
use super::{Ending, RETRY, Role, Sandbox, Worker};
use crate::runtime::{describe, volumes};

/// How long sidecars have after the containers have ended by themselves.
const SIDECAR_GRACE: Duration = Duration::from_secs(30);

impl Worker {
    /// Begins what can be begun, ends what has to end.
    pub(super) async fn advance(&mut self) {
        if self.deadline.is_some() || self.slots.finished() {
            self.stop_in_order();
            if self.slots.idle() {
                self.release().await;
            }
            return;
        }
        if self.sandbox.is_none() && !self.attach().await {
            return;
        }
        if !self.volumes_ready && !self.make_volumes().await {
            return;
        }
        if std::mem::take(&mut self.stale) {
            self.refresh_volumes().await;
        }
        self.start_in_order();
    }

    /// Brings changes into volumes. A source that is gone leaves them as they are.
    async fn refresh_volumes(&self) {
        if let Err(error) = Box::pin(volumes::make(&self.ctx, &self.pod, self.ip)).await {
            tracing::debug!(pod = %self.pod.name_any(), %error, "a volume stays as it is");
        }
    }

    /// Whether no container runs or will run.
    pub(super) fn is_over(&self) -> bool {
        (self.deadline.is_some() || self.slots.finished()) && self.slots.idle()
    }

    /// Joins the network, if possible with the address that the pod had.
    async fn attach(&mut self) -> bool {
        let uid = self.pod.uid().unwrap_or_default();
        let network = &self.ctx.network;
        let mut attached = network.attach(&uid, self.ip).await;
        if attached.is_err() && self.ip.is_some() {
            attached = network.attach(&uid, None).await;
        }
        match attached {
            Ok(attachment) => {
                self.ip = Some(attachment.ip);
                self.sandbox = Some(Sandbox {
                    ip: attachment.ip,
                    netns: attachment.netns.map(Arc::new),
                });
                true
            }
            Err(error) => {
                let message = format!("Failed to create pod sandbox: {}", describe(&error));
                self.reporter.warning("FailedCreatePodSandBox", message);
                self.retry = Some(Instant::now() + RETRY);
                false
            }
        }
    }

    async fn make_volumes(&mut self) -> bool {
        match Box::pin(volumes::make(&self.ctx, &self.pod, self.ip)).await {
            Ok(()) => {
                self.volumes_ready = true;
                self.warn_without_mounts();
                true
            }
            Err(error) => {
                self.reporter.warning("FailedMount", error.to_string());
                self.retry = Some(Instant::now() + RETRY);
                false
            }
        }
    }

    /// Without namespaces nothing can be mounted for one container alone.
    fn warn_without_mounts(&self) {
        let here = self.sandbox.as_ref().is_some_and(|s| s.netns.is_none());
        let slots = self.slots.init.iter().chain(&self.slots.main);
        let mut mounts = slots.flat_map(|slot| slot.declared.volume_mounts.iter().flatten());
        if here && let Some(mount) = mounts.next() {
            self.reporter.warning(
                "FailedMount",
                format!(
                    "volume \"{}\" is not mounted at {}: pods without network namespaces have no mounts",
                    mount.name, mount.mount_path
                ),
            );
        }
    }

    /// Starts the next init container, or all containers once those are done.
    fn start_in_order(&mut self) {
        for index in 0..self.slots.init.len() {
            let slot = &self.slots.init[index];
            let passed = match slot.role {
                Role::Sidecar => slot.passed,
                Role::Init | Role::Main => slot.done && slot.exit_code() == Some(0),
            };
            let begun = slot.stop.is_some() || slot.done;
            if !begun {
                self.start(Role::Init, index);
            }
            if !passed {
                return;
            }
        }
        for index in 0..self.slots.main.len() {
            let slot = &self.slots.main[index];
            if slot.stop.is_none() && !slot.done {
                self.start(Role::Main, index);
            }
        }
    }

    fn start(&mut self, list: Role, index: usize) {
        let Some(sandbox) = self.sandbox.clone() else {
            return;
        };
        let slots = match list {
            Role::Main => &mut self.slots.main,
            Role::Init | Role::Sidecar => &mut self.slots.init,
        };
        let slot: &mut Slot = &mut slots[index];
        let (stop, stopped) = watch::channel(None);
        slot.stop = Some(stop);
        let supervisor = Supervisor {
            ctx: Arc::clone(&self.ctx),
            pod: self.pods.clone(),
            sandbox,
            role: slot.role,
            index,
            declared: Arc::clone(&slot.declared),
            runs: Arc::clone(&self.runs),
            updates: self.sender.clone(),
            stop: stopped,
            reporter: self
                .reporter
                .of_container(slot.role.list(), &slot.declared.name),
            status: slot.status.clone(),
            ended: slot.ended.take(),
        };
        tokio::spawn(supervisor.run());
    }

    /// Ends containers and running init containers at once, then sidecars, the last one first.
    fn stop_in_order(&mut self) {
        let deadline = self
            .deadline
            .unwrap_or_else(|| Instant::now() + SIDECAR_GRACE);
        let at_work = |slot: &Slot| slot.stop.is_some() && !slot.done;
        let first = |slot: &&Slot| slot.role != Role::Sidecar && at_work(slot);
        let all = self.slots.main.iter().chain(&self.slots.init);
        let mut waiting = false;
        for slot in all.filter(first) {
            waiting = true;
            if self.deadline.is_some() || self.slots.init_failed() {
                stop(slot, deadline);
            }
        }
        let killed = self.ending == Some(Ending::Gone);
        for slot in self.slots.init.iter().rev().filter(|slot| at_work(slot)) {
            if waiting && !killed {
                return;
            }
            stop(slot, deadline);
            waiting = true;
        }
    }

    /// Gives the address back; its containers are gone.
    async fn release(&mut self) {
        if self.sandbox.take().is_some() {
            let uid = self.pod.uid().unwrap_or_default();
            self.ctx.network.detach(&uid).await;
        }
    }

    /// The last step; `false` if it has to be tried again.
    pub(super) async fn leave(&mut self) -> bool {
        self.release().await;
        if self.ending == Some(Ending::Leaving) {
            return true;
        }
        if self.ending == Some(Ending::Deleted) && !self.delete().await {
            self.retry = Some(Instant::now() + RETRY);
            return false;
        }
        let directory = self.ctx.pod_dir(&self.pod);
        if let Err(error) = tokio::fs::remove_dir_all(&directory).await
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(%error, directory = %directory.display(), "cannot remove a pod's files");
        }
        true
    }

    /// Takes the pod out of the API, unless it is another one of that name by now.
    async fn delete(&self) -> bool {
        let params = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions {
                uid: self.pod.uid(),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        match self.api().delete(&self.pod.name_any(), &params).await {
            Ok(_) => true,
            Err(kube::Error::Api(error)) if error.code == 404 || error.code == 409 => true,
            Err(error) => {
                tracing::warn!(pod = %self.pod.name_any(), %error, "cannot delete a pod");
                false
            }
        }
    }
}

/// Says when a container has to be gone; a later time than it knows changes nothing.
fn stop(slot: &Slot, deadline: Instant) {
    if let Some(stop) = &slot.stop {
        stop.send_if_modified(|known| {
            let nearer = known.is_none_or(|known| deadline < known);
            if nearer {
                *known = Some(deadline);
            }
            nearer
        });
    }
}
