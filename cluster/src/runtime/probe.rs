//! Probes (B7): asks a container whether it has started, is ready, is alive.
//!
//! Rules: the first attempt comes `initialDelaySeconds` after the container's start, the next every
//! `periodSeconds`; the verdict changes after `successThreshold` or `failureThreshold` equal results
//! in a row. An attempt that could not be made at all counts as none.
//!
//! Until a container is ready for the first time, a readiness probe is also tried out of turn, so that
//! a pod does not wait a whole period after its program has come up (API reference,
//! `Container.readinessProbe` and `Probe.periodSeconds`: "may be executed at times other than the
//! configured periodSeconds interval"). What fails out of turn neither counts nor makes an event.

mod grpc;
mod http;
#[cfg(test)]
mod tests;
mod tls;

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container as ContainerApi, HTTPGetAction, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep, timeout};

use super::container::{Container, ExecOutcome};
use super::report::Reporter;

/// How long after a first failed attempt a readiness probe is tried out of turn; doubles each time.
const FIRST_EARLY: Duration = Duration::from_millis(50);
/// The longest delay before an attempt out of turn: even an exec probe is cheap once a second.
const LONGEST_EARLY: Duration = Duration::from_secs(1);

/// What a probe decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Whether the other two may begin; failing for good restarts the container.
    Startup,
    /// Whether the container takes part in its Services.
    Readiness,
    /// Whether the container has to be restarted.
    Liveness,
}

impl Kind {
    fn title(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Readiness => "Readiness",
            Self::Liveness => "Liveness",
        }
    }

    /// As in "failed liveness probe".
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Startup => "startup",
            Self::Readiness => "readiness",
            Self::Liveness => "liveness",
        }
    }
}

/// One attempt's result; the texts are for the pod's events.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Attempt {
    Success,
    /// A success that somebody should look at.
    Warning(String),
    Failure(String),
    /// Nothing was learnt.
    Unknown(String),
}

/// Times and thresholds of a probe.
#[derive(Clone, Copy, Debug)]
struct Settings {
    delay: Duration,
    period: Duration,
    timeout: Duration,
    success: u32,
    failure: u32,
}

impl Settings {
    fn of(probe: &Probe) -> Self {
        let or = |value: Option<i32>, default: u32| {
            let value = value.and_then(|value| u32::try_from(value).ok());
            value.filter(|value| *value > 0).unwrap_or(default)
        };
        let seconds = |value| Duration::from_secs(u64::from(value));
        Self {
            delay: seconds(or(probe.initial_delay_seconds, 0)),
            period: seconds(or(probe.period_seconds, 10)),
            timeout: seconds(or(probe.timeout_seconds, 1)),
            success: or(probe.success_threshold, 1),
            failure: or(probe.failure_threshold, 3),
        }
    }
}

/// Counts equal results in a row.
#[derive(Debug, Default)]
struct Streak {
    last: Option<bool>,
    length: u32,
}

impl Streak {
    /// The verdict, if this result is one more of enough.
    fn count(&mut self, result: bool, settings: &Settings) -> Option<bool> {
        if self.last == Some(result) {
            self.length = self.length.saturating_add(1);
        } else {
            self.last = Some(result);
            self.length = 1;
        }
        let needed = if result {
            settings.success
        } else {
            settings.failure
        };
        (self.length >= needed).then_some(result)
    }
}

/// What is probed.
#[derive(Clone)]
pub(super) struct Target {
    /// The pod's address.
    pub(super) ip: IpAddr,
    /// The container as it is declared, for the names of its ports.
    pub(super) declared: Arc<ContainerApi>,
    /// The container that runs.
    pub(super) container: Arc<Container>,
}

/// Probes until the verdict makes an end of it: a startup probe after any verdict, a liveness probe
/// after a failure, a readiness probe never.
pub(super) async fn run(
    kind: Kind,
    probe: Probe,
    target: Target,
    reporter: Reporter,
    verdicts: mpsc::Sender<(Kind, bool)>,
) {
    let settings = Settings::of(&probe);
    let attempt = || Box::pin(attempt(&probe, &target, settings.timeout));
    let tell = |attempt: &Attempt| report(kind, attempt, &reporter);
    repeat(kind, settings, attempt, tell, verdicts).await;
}

async fn repeat<F: Future<Output = Attempt>>(
    kind: Kind,
    settings: Settings,
    mut attempt: impl FnMut() -> F,
    tell: impl Fn(&Attempt),
    verdicts: mpsc::Sender<(Kind, bool)>,
) {
    let mut ticks = interval_at(Instant::now() + settings.delay, settings.period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut streak = Streak::default();
    let mut early = None;
    let mut eager = kind == Kind::Readiness;
    loop {
        let in_turn = due(&mut ticks, early).await;
        let attempt = attempt().await;
        let result = match attempt {
            Attempt::Success | Attempt::Warning(_) => Some(true),
            Attempt::Failure(_) => Some(false),
            Attempt::Unknown(_) => None,
        };
        eager &= result != Some(true);
        early = eager.then(|| {
            early.map_or(FIRST_EARLY, |delay: Duration| {
                (delay * 2).min(LONGEST_EARLY)
            })
        });
        if !in_turn && result != Some(true) {
            continue;
        }
        tell(&attempt);
        let Some(result) = result else { continue };
        if let Some(result) = streak.count(result, &settings) {
            let over = kind == Kind::Startup || (kind == Kind::Liveness && !result);
            if verdicts.send((kind, result)).await.is_err() || over {
                return;
            }
        }
    }
}

/// Waits for the next attempt's time; false if that is one out of turn.
async fn due(ticks: &mut Interval, early: Option<Duration>) -> bool {
    let Some(early) = early else {
        ticks.tick().await;
        return true;
    };
    tokio::select! {
        biased;
        _ = ticks.tick() => true,
        () = sleep(early) => false,
    }
}

fn report(kind: Kind, attempt: &Attempt, reporter: &Reporter) {
    let title = kind.title();
    match attempt {
        Attempt::Success => {}
        Attempt::Warning(text) => {
            reporter.warning("ProbeWarning", format!("{title} probe warning: {text}"));
        }
        Attempt::Failure(text) => {
            reporter.warning("Unhealthy", format!("{title} probe failed: {text}"));
        }
        Attempt::Unknown(text) => {
            let message = format!("{title} probe errored and resulted in unknown state: {text}");
            reporter.warning("Unhealthy", message);
        }
    }
}

async fn attempt(probe: &Probe, target: &Target, limit: Duration) -> Attempt {
    if let Some(action) = &probe.exec {
        let command = action.command.as_deref().unwrap_or_default();
        return match target.container.run_probe(command, limit).await {
            ExecOutcome::Exited(0, _) => Attempt::Success,
            ExecOutcome::Exited(_, output) => Attempt::Failure(output),
            ExecOutcome::TimedOut => Attempt::Failure(format!(
                "command timed out: {:?} timed out after {}s",
                command.join(" "),
                limit.as_secs()
            )),
            ExecOutcome::Failed(message) => Attempt::Unknown(message),
        };
    }
    if let Some(action) = &probe.http_get {
        return match request(action, target) {
            Ok(request) => Box::pin(http::probe(&request, limit)).await,
            Err(message) => Attempt::Unknown(message),
        };
    }
    if let Some(action) = &probe.tcp_socket {
        return match address(action.host.as_deref(), &action.port, target).await {
            Ok(address) => match connect(address, limit).await {
                Ok(_stream) => Attempt::Success,
                Err(message) => Attempt::Failure(message),
            },
            Err(message) => Attempt::Unknown(message),
        };
    }
    if let Some(action) = &probe.grpc {
        let Ok(port) = u16::try_from(action.port) else {
            return Attempt::Unknown(format!("invalid port number: {}", action.port));
        };
        let service = action.service.as_deref().unwrap_or_default();
        return grpc::probe((target.ip, port).into(), service, limit).await;
    }
    Attempt::Unknown("missing probe handler".to_owned())
}

/// The hook's or probe's request, ready to send.
fn request(action: &HTTPGetAction, target: &Target) -> Result<http::Request, String> {
    let host = action.host.clone().filter(|host| !host.is_empty());
    let headers = action.http_headers.iter().flatten();
    Ok(http::Request {
        tls: action.scheme.as_deref() == Some("HTTPS"),
        host: host.unwrap_or_else(|| target.ip.to_string()),
        port: port(&action.port, &target.declared)?,
        path: action.path.clone().unwrap_or_default(),
        headers: headers
            .map(|header| (header.name.clone(), header.value.clone()))
            .collect(),
    })
}

/// Sends a lifecycle hook's request; any answer below 400 is good.
pub(super) async fn http_hook(
    action: &HTTPGetAction,
    target: &Target,
    limit: Duration,
) -> Result<(), String> {
    let request = request(action, target)?;
    match Box::pin(http::probe(&request, limit)).await {
        Attempt::Success | Attempt::Warning(_) => Ok(()),
        Attempt::Failure(message) | Attempt::Unknown(message) => Err(message),
    }
}

/// A port by number, or by its name among the container's.
fn port(port: &IntOrString, container: &ContainerApi) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => name.parse().ok().or_else(|| {
            let mut ports = container.ports.iter().flatten();
            ports
                .find(|port| port.name.as_ref() == Some(name))
                .map(|port| port.container_port)
        }),
    };
    number
        .and_then(|number| u16::try_from(number).ok())
        .filter(|number| *number > 0)
        .ok_or_else(|| match port {
            IntOrString::Int(number) => format!("invalid port number: {number}"),
            IntOrString::String(name) => format!("couldn't find port named {name:?}"),
        })
}

async fn address(
    host: Option<&str>,
    number: &IntOrString,
    target: &Target,
) -> Result<SocketAddr, String> {
    let port = port(number, &target.declared)?;
    let host = host.filter(|host| !host.is_empty());
    lookup(host, target.ip, port).await
}

/// The first address of a host, or the pod's.
async fn lookup(host: Option<&str>, ip: IpAddr, port: u16) -> Result<SocketAddr, String> {
    let Some(host) = host else {
        return Ok((ip, port).into());
    };
    let found = tokio::net::lookup_host((host, port)).await;
    let mut found = found.map_err(|error| format!("dial tcp: lookup {host}: {error}"))?;
    found
        .next()
        .ok_or_else(|| format!("dial tcp: lookup {host}: no such host"))
}

/// Opens a connection; the error is in the words that kubelets use.
async fn connect(address: SocketAddr, limit: Duration) -> Result<TcpStream, String> {
    match timeout(limit, TcpStream::connect(address)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(format!("dial tcp {address}: connect: {}", reason(&error))),
        Err(_elapsed) => Err(format!("dial tcp {address}: i/o timeout")),
    }
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::ConnectionReset => "connection reset by peer".to_owned(),
        io::ErrorKind::HostUnreachable => "no route to host".to_owned(),
        io::ErrorKind::NetworkUnreachable => "network is unreachable".to_owned(),
        _ => error.to_string(),
    }
}
