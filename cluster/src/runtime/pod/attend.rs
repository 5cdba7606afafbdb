//! Attends to a container that runs: its hooks, its probes, its end (B4, B7).

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Lifecycle, LifecycleHandler};
use rustix::process::Signal;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::departure;
use super::supervisor::{Supervisor, told_to_stop};
use crate::runtime::container::{Container, ExecOutcome, Exit};
use crate::runtime::probe::{self, Kind, Target};

/// What is left for the program when a hook took all of the grace period.
const LAST_CHANCE: Duration = Duration::from_secs(2);

/// Verdicts of probes that can wait.
const VERDICTS: usize = 4;

/// Longest time for a hook outside of the grace period.
const HOOK_LIMIT: Duration = Duration::from_secs(600);

/// The grace period of a pod that does not say.
const DEFAULT_GRACE: i64 = 30;

impl Supervisor {
    /// Stays with a container until it has ended.
    pub(super) async fn attend(&mut self, container: &Arc<Container>) -> Exit {
        self.record_start(container);
        if let Some(exit) = self.post_start(container).await {
            return exit;
        }
        let (verdicts, mut heard) = mpsc::channel(VERDICTS);
        let mut probes = JoinSet::new();
        if self.declared.startup_probe.is_some() {
            self.spawn_probe(&mut probes, Kind::Startup, container, &verdicts);
            self.status.started = Some(false);
            self.status.ready = false;
        } else {
            self.begin(&mut probes, container, &verdicts);
        }
        self.tell(false).await;
        let mut stop = self.stop.clone();
        loop {
            let verdict = tokio::select! {
                exit = container.wait() => return exit,
                () = told_to_stop(&mut stop) => {
                    drop(probes);
                    let name = &self.declared.name;
                    self.reporter.normal("Killing", format!("Stopping container {name}"));
                    return self.terminate(container, None).await;
                }
                verdict = heard.recv() => verdict,
            };
            match verdict {
                Some((Kind::Startup, true)) => {
                    self.begin(&mut probes, container, &verdicts);
                    self.tell(false).await;
                }
                Some((Kind::Readiness, ready)) => {
                    if self.status.ready != ready {
                        self.status.ready = ready;
                        self.tell(false).await;
                    }
                }
                Some((kind, false)) => {
                    drop(probes);
                    return self.fail(container, kind).await;
                }
                Some((Kind::Liveness, true)) | None => {}
            }
        }
    }

    /// The container has started: now readiness and liveness count.
    fn begin(
        &mut self,
        probes: &mut JoinSet<()>,
        container: &Arc<Container>,
        verdicts: &mpsc::Sender<(Kind, bool)>,
    ) {
        self.status.started = Some(true);
        self.status.ready = self.declared.readiness_probe.is_none();
        self.spawn_probe(probes, Kind::Readiness, container, verdicts);
        self.spawn_probe(probes, Kind::Liveness, container, verdicts);
    }

    fn spawn_probe(
        &self,
        probes: &mut JoinSet<()>,
        kind: Kind,
        container: &Arc<Container>,
        verdicts: &mpsc::Sender<(Kind, bool)>,
    ) {
        let declared = match kind {
            Kind::Startup => &self.declared.startup_probe,
            Kind::Readiness => &self.declared.readiness_probe,
            Kind::Liveness => &self.declared.liveness_probe,
        };
        if let Some(declared) = declared.clone() {
            let target = self.target(container);
            let run = probe::run(
                kind,
                declared,
                target,
                self.reporter.clone(),
                verdicts.clone(),
            );
            probes.spawn(run);
        }
    }

    fn target(&self, container: &Arc<Container>) -> Target {
        Target {
            ip: self.sandbox.ip,
            declared: Arc::clone(&self.declared),
            container: Arc::clone(container),
        }
    }

    /// Ends a container whose probe failed for good.
    async fn fail(&mut self, container: &Arc<Container>, kind: Kind) -> Exit {
        let name = &self.declared.name;
        let word = kind.word();
        self.reporter.normal(
            "Killing",
            format!("Container {name} failed {word} probe, will be restarted"),
        );
        let probe = match kind {
            Kind::Startup => &self.declared.startup_probe,
            Kind::Readiness | Kind::Liveness => &self.declared.liveness_probe,
        };
        let own = probe
            .as_ref()
            .and_then(|probe| probe.termination_grace_period_seconds);
        let grace = own.unwrap_or_else(|| self.grace());
        let grace = Duration::from_secs(u64::try_from(grace).unwrap_or(0));
        self.terminate(container, Some(Instant::now() + grace))
            .await
    }

    fn grace(&self) -> i64 {
        let pod = self.pod.borrow();
        let grace = pod
            .spec
            .as_ref()
            .and_then(|spec| spec.termination_grace_period_seconds);
        grace.unwrap_or(DEFAULT_GRACE)
    }

    /// Runs the hook after the start; a failure ends the container.
    async fn post_start(&mut self, container: &Arc<Container>) -> Option<Exit> {
        let hook = hook(self.declared.lifecycle.as_ref(), |l| l.post_start.as_ref())?;
        let mut stop = self.stop.clone();
        let failed = tokio::select! {
            result = self.run_hook(&hook, container, HOOK_LIMIT) => result.err(),
            exit = container.wait() => return Some(exit),
            () = told_to_stop(&mut stop) => None,
        };
        let message = failed?;
        self.reporter.warning(
            "FailedPostStartHook",
            format!("PostStartHook failed: {message}"),
        );
        self.reporter.normal("Killing", "FailedPostStartHook");
        let grace = Duration::from_secs(u64::try_from(self.grace()).unwrap_or(0));
        let exit = self
            .terminate(container, Some(Instant::now() + grace))
            .await;
        Some(exit)
    }

    /// Ends a container: the hook, TERM, and KILL at the deadline, which is that of the pod's end if
    /// that comes earlier than `own`.
    async fn terminate(&mut self, container: &Arc<Container>, own: Option<Instant>) -> Exit {
        let mut least = None;
        if let Some(hook) = hook(self.declared.lifecycle.as_ref(), |l| l.pre_stop.as_ref()) {
            let result = tokio::select! {
                result = self.run_hook(&hook, container, HOOK_LIMIT) => result,
                exit = container.wait() => return exit,
                () = self.expired(own, None) => {
                    least = Some(Instant::now() + LAST_CHANCE);
                    Err("the grace period is over".to_owned())
                }
            };
            if let Err(message) = result {
                self.reporter.warning(
                    "FailedPreStopHook",
                    format!("PreStopHook failed: {message}"),
                );
            }
        } else if own.is_none() && self.pod.borrow().metadata.deletion_timestamp.is_some() {
            tokio::select! {
                () = departure::let_go(self.ctx.options.traffic.as_ref(), self.sandbox.ip) => {}
                exit = container.wait() => return exit,
                () = self.expired(own, None) => {}
            }
        }
        container.signal(Signal::TERM);
        tokio::select! {
            exit = container.wait() => return exit,
            () = self.expired(own, least) => {}
        }
        container.kill();
        container.wait().await
    }

    /// Waits for the end of the grace period, which may be cut short meanwhile.
    async fn expired(&self, own: Option<Instant>, least: Option<Instant>) {
        let mut stop = self.stop.clone();
        loop {
            let pods = *stop.borrow_and_update();
            let deadline = own.into_iter().chain(pods).min();
            let deadline = deadline.max(least);
            let over = async {
                match deadline {
                    Some(deadline) => sleep_until(deadline).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                () = over => return,
                changed = stop.changed() => {
                    if changed.is_err() {
                        // The pod's worker is gone, and with it whoever could grant more time.
                        return;
                    }
                }
            }
        }
    }

    async fn run_hook(
        &self,
        hook: &LifecycleHandler,
        container: &Arc<Container>,
        limit: Duration,
    ) -> Result<(), String> {
        if let Some(action) = &hook.exec {
            let command = action.command.as_deref().unwrap_or_default();
            return match container.run_probe(command, limit).await {
                ExecOutcome::Exited(0, _) => Ok(()),
                ExecOutcome::Exited(code, output) => Err(format!(
                    "command {:?} exited with {code}: {output}",
                    command.join(" ")
                )),
                ExecOutcome::TimedOut => Err("the command took too long".to_owned()),
                ExecOutcome::Failed(message) => Err(message),
            };
        }
        if let Some(action) = &hook.http_get {
            return probe::http_hook(action, &self.target(container), limit).await;
        }
        if let Some(action) = &hook.sleep {
            sleep(Duration::from_secs(
                u64::try_from(action.seconds).unwrap_or(0),
            ))
            .await;
        }
        Ok(())
    }
}

fn hook(
    lifecycle: Option<&Lifecycle>,
    which: impl Fn(&Lifecycle) -> Option<&LifecycleHandler>,
) -> Option<LifecycleHandler> {
    lifecycle.and_then(which).cloned()
}
