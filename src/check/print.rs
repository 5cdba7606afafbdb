//! Findings for people, by group, and for programs.

use std::fmt::Write as _;
use std::path::Path;

use serde::Serialize;

use super::codes::{Group, Severity};
use super::finding::{Finding, Findings};
use crate::output::{BOLD, DIM, GREEN, RED, RESET, YELLOW};
use crate::state::{Origin, State};

/// Version of the JSON: grows when a field changes its meaning or goes.
const SCHEMA: u32 = 1;

/// The table.
pub(super) fn table(state: &State, findings: &Findings) -> String {
    let mut out = String::new();
    for group in Group::ALL {
        let all = findings
            .iter()
            .filter(|finding| finding.code.group() == group);
        let all: Vec<&Finding> = all.collect();
        let Some(size) = size(state, group, !all.is_empty()) else {
            continue;
        };
        let worst = all.iter().map(|finding| finding.severity).max();
        let (color, mark) = mark(worst);
        line(
            &mut out,
            &format!("{color}{mark}{RESET} {BOLD}{}{RESET}{size}", group.title()),
        );
        for finding in all {
            one(&mut out, finding);
        }
    }
    line(&mut out, "");
    line(&mut out, &summary(state, findings));
    line(&mut out, &next(state, findings));
    out
}

/// The same of a Corefile.
pub(super) fn corefile_table(file: &Path, findings: &Findings) -> String {
    let mut out = String::new();
    let (color, mark) = mark(findings.worst());
    let name = file.display();
    line(
        &mut out,
        &format!("{color}{mark}{RESET} {BOLD}{name}{RESET}"),
    );
    for finding in findings.iter() {
        one(&mut out, finding);
    }
    line(&mut out, "");
    line(&mut out, &format!("{} in the Corefile", counted(findings)));
    let next = match findings.iter().max_by_key(|finding| finding.severity) {
        Some(finding) => format!("sealane explain {}", finding.code.id),
        None => format!("sealane dns -conf {name}"),
    };
    line(&mut out, &format!("next: {next}"));
    out
}

fn line(out: &mut String, text: &str) {
    out.push_str(text);
    out.push('\n');
}

/// What a group is about, and how much there is of it; `None` if it has nothing to say.
fn size(state: &State, group: Group, has_findings: bool) -> Option<String> {
    let objects = &state.objects;
    let tls = objects
        .ingresses
        .iter()
        .filter_map(|ingress| ingress.spec.as_ref()?.tls.as_ref())
        .flatten()
        .count();
    let (count, one, several) = match group {
        Group::Files if !state.origin.is_files() => return has_findings.then(String::new),
        Group::Files => (state.places.manifests().len(), "object", "objects"),
        Group::Services => (services(state), "Service", "Services"),
        Group::Routes if !objects.gateway_api.is_empty() => {
            let count = objects.ingresses.len() + routes(state);
            (count, "Ingress or route", "Ingresses and routes")
        }
        Group::Routes => (objects.ingresses.len(), "Ingress", "Ingresses"),
        Group::Certificates => (tls, "entry of spec.tls", "entries of spec.tls"),
        Group::Annotations | Group::Corefile => return has_findings.then(String::new),
    };
    let noun = if count == 1 { one } else { several };
    (count > 0 || has_findings).then(|| format!("  {DIM}{count} {noun}{RESET}"))
}

/// Services that somebody wrote: those of the API server in memory are nobody's.
fn services(state: &State) -> usize {
    if !state.origin.is_files() {
        return state.objects.services.len();
    }
    let manifests = state.places.manifests().iter();
    manifests
        .filter(|manifest| manifest.text("/kind") == Some("Service"))
        .count()
}

/// Routes of Gateway API.
fn routes(state: &State) -> usize {
    let objects = state.objects.gateway_api.iter();
    let kinds = objects.filter_map(|object| object["kind"].as_str());
    kinds.filter(|kind| kind.ends_with("Route")).count()
}

fn mark(severity: Option<Severity>) -> (&'static str, &'static str) {
    match severity {
        Some(Severity::Error) => (RED, "×"),
        Some(Severity::Warning) => (YELLOW, "‼"),
        Some(Severity::Info) | None => (GREEN, "√"),
    }
}

fn one(out: &mut String, finding: &Finding) {
    let (color, mark) = match finding.severity {
        Severity::Info => (DIM, "i"),
        severity => mark(Some(severity)),
    };
    let mut head = format!(
        "  {color}{mark} {}{RESET} {}",
        finding.code.id, finding.code.title
    );
    if let Some(object) = &finding.object {
        let namespace = object.namespace.as_deref().map(|ns| format!("{ns}/"));
        let namespace = namespace.unwrap_or_default();
        let _ = write!(
            head,
            ": {BOLD}{} {namespace}{}{RESET}",
            object.kind, object.name
        );
    }
    line(out, &head);
    let place = place(finding);
    let at = [place.as_str(), finding.field.as_str()];
    let at: Vec<&str> = at.into_iter().filter(|text| !text.is_empty()).collect();
    if !at.is_empty() {
        line(out, &format!("      {DIM}{}{RESET}", at.join("  ")));
    }
    line(out, &format!("      {}", finding.message));
    if finding.severity > Severity::Info {
        line(out, &format!("      → {}", finding.code.advice));
    }
}

fn place(finding: &Finding) -> String {
    match &finding.place {
        Some((file, Some(line))) => format!("{}:{line}", file.display()),
        Some((file, None)) => file.display().to_string(),
        None => String::new(),
    }
}

/// How many errors and warnings there are.
fn counted(findings: &Findings) -> String {
    let count = |severity, noun: &str| {
        let count = findings.count(severity);
        let plural = if count == 1 { "" } else { "s" };
        format!("{count} {noun}{plural}")
    };
    let found = format!(
        "{}, {}",
        count(Severity::Error, "error"),
        count(Severity::Warning, "warning")
    );
    let (color, _) = mark(findings.worst());
    format!("{color}{found}{RESET}")
}

fn summary(state: &State, findings: &Findings) -> String {
    let found = counted(findings);
    let source = match &state.origin {
        Origin::Files { .. } => "the files".to_owned(),
        Origin::Cluster {
            url,
            namespace: None,
        } => format!("the cluster at {url}"),
        Origin::Cluster {
            url,
            namespace: Some(namespace),
        } => format!("namespace {namespace} of the cluster at {url} (-A: all namespaces)"),
    };
    format!("{found} in {source}")
}

fn next(state: &State, findings: &Findings) -> String {
    let worst = findings.worst();
    let worst = findings
        .iter()
        .find(|finding| Some(finding.severity) == worst);
    let command = match (worst, &state.origin) {
        (Some(finding), _) if finding.severity > Severity::Info => {
            format!("sealane explain {}", finding.code.id)
        }
        (_, Origin::Files { .. }) => "sealane up -f PATH".to_owned(),
        (_, Origin::Cluster { .. }) => "sealane explain URL".to_owned(),
    };
    format!("next: {command}")
}

/// The JSON; `docs/check.md` describes it.
pub(super) fn json(state: &State, findings: &Findings) -> String {
    report(
        match &state.origin {
            Origin::Files { .. } => Source::Files {
                objects: state.places.manifests().len(),
            },
            Origin::Cluster { url, namespace } => Source::Cluster {
                url,
                namespace: namespace.as_deref(),
            },
        },
        findings,
    )
}

/// The same of a Corefile.
pub(super) fn corefile_json(file: &Path, findings: &Findings) -> String {
    report(Source::Corefile { file }, findings)
}

fn report(source: Source<'_>, findings: &Findings) -> String {
    let report = Report {
        version: SCHEMA,
        source,
        summary: Summary {
            errors: findings.count(Severity::Error),
            warnings: findings.count(Severity::Warning),
            infos: findings.count(Severity::Info),
        },
        findings: findings.iter().map(JsonFinding::of).collect(),
    };
    serde_json::to_string_pretty(&report).unwrap_or_default()
}

#[derive(Serialize)]
struct Report<'a> {
    version: u32,
    source: Source<'a>,
    summary: Summary,
    findings: Vec<JsonFinding<'a>>,
}

#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Source<'a> {
    Files {
        objects: usize,
    },
    Corefile {
        file: &'a Path,
    },
    Cluster {
        url: &'a str,
        namespace: Option<&'a str>,
    },
}

#[derive(Serialize)]
struct Summary {
    errors: usize,
    warnings: usize,
    infos: usize,
}

#[derive(Serialize)]
struct JsonFinding<'a> {
    code: &'static str,
    severity: Severity,
    title: &'static str,
    object: Option<JsonObject<'a>>,
    field: Option<&'a str>,
    file: Option<&'a Path>,
    line: Option<u64>,
    message: &'a str,
    advice: &'static str,
}

#[derive(Serialize)]
struct JsonObject<'a> {
    kind: &'a str,
    namespace: Option<&'a str>,
    name: &'a str,
}

impl<'a> JsonFinding<'a> {
    fn of(finding: &'a Finding) -> Self {
        let place = finding.place.as_ref();
        Self {
            code: finding.code.id,
            severity: finding.severity,
            title: finding.code.title,
            object: finding.object.as_ref().map(|object| JsonObject {
                kind: &object.kind,
                namespace: object.namespace.as_deref(),
                name: &object.name,
            }),
            field: Some(finding.field.as_str()).filter(|field| !field.is_empty()),
            file: place.map(|(file, _)| file.as_path()),
            line: place.and_then(|(_, line)| *line),
            message: &finding.message,
            advice: finding.code.advice,
        }
    }
}
