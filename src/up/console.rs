//! What `sealane up` says while it starts, and the summary when pods are ready.
//!
//! Talk goes to standard error, the summary to standard output. Colour and the moving line only on
//! a terminal.

use std::io::{IsTerminal as _, Write as _};
use std::time::Instant;

use serde::Serialize;

use super::settings::Output;
use super::status::{NotReady, Progress, Route};

const BOLD: &str = "\x1b[1m";
const GREEN: &str = "\x1b[32m";
const YELLOW: &str = "\x1b[33m";
const RESET: &str = "\x1b[0m";

/// The console of one `up`.
#[derive(Debug)]
pub(crate) struct Console {
    started: Instant,
    quiet: bool,
    output: Output,
    /// A moving progress line is on the terminal.
    moving: Option<String>,
    terminal: bool,
}

/// What the summary tells.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Summary {
    /// All pods are ready.
    pub(crate) ready: bool,
    /// Seconds from the start of the command to this summary.
    pub(crate) seconds: f64,
    /// The gateway's HTTP address.
    pub(crate) http: String,
    /// The gateway's HTTPS address.
    pub(crate) https: String,
    /// The Kubernetes API.
    pub(crate) api: String,
    /// DNS, UDP and TCP.
    pub(crate) dns: String,
    /// The admin listener.
    pub(crate) admin: String,
    /// The kubeconfig file.
    pub(crate) kubeconfig: String,
    /// What can be reached from the host.
    pub(crate) routes: Vec<Route>,
    /// What is not ready, and why.
    pub(crate) not_ready: Vec<NotReady>,
}

impl Console {
    /// A console; the clock of the summary starts at `started`.
    pub(crate) fn new(quiet: bool, output: Output, started: Instant) -> Self {
        Self {
            started,
            quiet,
            output,
            moving: None,
            terminal: std::io::stderr().is_terminal(),
        }
    }

    /// Seconds since the start.
    pub(crate) fn seconds(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    /// A step is done.
    pub(crate) fn step(&mut self, what: &str, detail: &str) {
        self.clear();
        if !self.talks() {
            return;
        }
        anstream::eprintln!(
            "{GREEN}✓{RESET} {what:<16} {detail}  {:.2}s",
            self.seconds()
        );
    }

    /// Something that people should know, not fatal.
    pub(crate) fn warn(&mut self, message: &str) {
        self.clear();
        if !self.quiet {
            anstream::eprintln!("{YELLOW}!{RESET} {message}");
        }
    }

    /// How far the pods are; a line that replaces itself on a terminal, a line a change elsewhere.
    pub(crate) fn progress(&mut self, progress: &Progress) {
        if !self.talks() {
            return;
        }
        let line = progress.to_string();
        if self.moving.as_ref() == Some(&line) {
            return;
        }
        self.clear();
        if self.terminal {
            anstream::eprint!("  {line}");
            let _ = std::io::stderr().flush();
        } else {
            anstream::eprintln!("  {line}");
        }
        self.moving = Some(line);
    }

    /// The summary, once.
    pub(crate) fn summary(&mut self, summary: &Summary) {
        self.clear();
        match self.output {
            Output::Json => {
                if let Ok(text) = serde_json::to_string(summary) {
                    anstream::println!("{text}");
                }
            }
            Output::Table if !self.quiet => anstream::print!("{}", table(summary)),
            Output::Table => {}
        }
        let _ = std::io::stdout().flush();
    }

    fn talks(&self) -> bool {
        !self.quiet && self.output == Output::Table
    }

    fn clear(&mut self) {
        if self.moving.take().is_some() && self.terminal {
            anstream::eprint!("\r\x1b[K");
        }
    }
}

fn table(summary: &Summary) -> String {
    let mut lines = vec![String::new()];
    if !summary.routes.is_empty() {
        let width = |of: fn(&Route) -> &str| {
            let longest = summary.routes.iter().map(|route| of(route).chars().count());
            longest.max().unwrap_or(0).min(60)
        };
        let (url, to) = (width(|r| &r.url).max(3), width(|r| &r.service).max(7));
        lines.push(format!(
            "  {BOLD}{:<url$}  {:<to$}  TRY{RESET}",
            "URL", "SERVICE"
        ));
        for route in &summary.routes {
            lines.push(format!(
                "  {:<url$}  {:<to$}  {}",
                route.url, route.service, route.command
            ));
        }
        lines.push(String::new());
    }
    for (name, value) in [
        ("gateway", format!("{}  {}", summary.http, summary.https)),
        (
            "DNS",
            format!(
                "{0}   dig @{1} -p {2} NAME.NAMESPACE.svc.cluster.local",
                summary.dns,
                summary.dns.rsplit_once(':').map_or("", |(ip, _)| ip),
                summary.dns.rsplit_once(':').map_or("", |(_, port)| port)
            ),
        ),
        (
            "kubeconfig",
            format!("{0}   export KUBECONFIG={0}", summary.kubeconfig),
        ),
        ("admin", format!("{}/readyz  /metrics", summary.admin)),
    ] {
        lines.push(format!("  {BOLD}{name:<10}{RESET}  {value}"));
    }
    lines.push(String::new());
    for not_ready in &summary.not_ready {
        lines.push(format!("{YELLOW}!{RESET} {not_ready}"));
    }
    lines.push(if summary.ready {
        format!("{GREEN}Ready in {:.1} s.{RESET} Ctrl-C stops everything.", summary.seconds)
    } else {
        format!(
            "{YELLOW}Not everything is ready after {:.1} s{RESET}; the rest goes on. Ctrl-C stops everything.",
            summary.seconds
        )
    });
    lines.push(String::new());
    lines.join("\n")
}
