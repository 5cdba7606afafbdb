//! The report for people and for programs.

use std::fmt::Write as _;

use serde::Serialize;

use super::report::{Note, Report, Subject, Verdict};
use crate::output::{BOLD, DIM, GREEN, RED, RESET, YELLOW};

/// Version of the JSON: grows when a field changes its meaning or goes.
const SCHEMA: u32 = 1;

/// The table.
pub(super) fn table(report: &Report) -> String {
    let mut out = String::new();
    for line in &report.unreadable {
        let _ = writeln!(out, "{RED}×{RESET} {line}");
    }
    for ingress in &report.ingresses {
        one(&mut out, "Ingress", ingress);
    }
    if let Some(settings) = &report.settings {
        one(&mut out, "ConfigMap", settings);
    }
    let _ = writeln!(out, "\n{}\nnext: {}", summary(report), next(report));
    out
}

fn one(out: &mut String, kind: &str, subject: &Subject) {
    let (color, mark, verdict) = marked(subject.verdict);
    // Writing to a String cannot fail.
    let _ = writeln!(
        out,
        "{color}{mark}{RESET} {BOLD}{kind} {}/{}{RESET}  {verdict}",
        subject.namespace, subject.name
    );
    for note in &subject.notes {
        of(out, note);
    }
}

fn of(out: &mut String, note: &Note) {
    let (color, mark, _) = match note.verdict {
        Verdict::AsBefore => (DIM, "i", ""),
        verdict => marked(verdict),
    };
    let place = note.file.as_ref().map(|file| match note.line {
        Some(line) => format!("  {}:{line}", file.display()),
        None => format!("  {}", file.display()),
    });
    let place = place.unwrap_or_default();
    let _ = writeln!(
        out,
        "  {color}{mark}{RESET} {}{DIM}{place}{RESET}",
        note.field
    );
    let _ = writeln!(out, "      {}", note.message);
    for instead in &note.instead {
        let _ = writeln!(out, "      → {instead}");
    }
}

fn marked(verdict: Verdict) -> (&'static str, &'static str, &'static str) {
    match verdict {
        Verdict::AsBefore => (GREEN, "√", "as before"),
        Verdict::Differs => (YELLOW, "‼", "differs"),
        Verdict::Refused => (RED, "×", "refused"),
    }
}

fn summary(report: &Report) -> String {
    let count = report.ingresses.len();
    let noun = if count == 1 { "Ingress" } else { "Ingresses" };
    let (color, ..) = marked(report.worst());
    let mut text = format!(
        "{color}{count} {noun} of ingress-nginx: {} as before, {} differ, {} refused{RESET}",
        report.count(Verdict::AsBefore),
        report.count(Verdict::Differs),
        report.count(Verdict::Refused)
    );
    if report.others > 0 {
        let _ = write!(
            text,
            "; {} of other controllers are left alone",
            report.others
        );
    }
    if !report.unreadable.is_empty() {
        let _ = write!(text, "; {} could not be read", report.unreadable.len());
    }
    text
}

fn next(report: &Report) -> &'static str {
    match report.worst() {
        _ if report.ingresses.is_empty() => {
            "name the class with --ingress-class, or look at all namespaces with -A"
        }
        Verdict::AsBefore => {
            "sealane gateway --ingress-class-controller k8s.io/ingress-nginx, beside ingress-nginx"
        }
        Verdict::Differs | Verdict::Refused => {
            "mend what is refused first; docs/migrate.md tells more"
        }
    }
}

/// The JSON; `docs/migrate.md` describes it.
pub(super) fn json(report: &Report) -> String {
    let all = Json {
        version: SCHEMA,
        summary: Summary {
            as_before: report.count(Verdict::AsBefore),
            differs: report.count(Verdict::Differs),
            refused: report.count(Verdict::Refused),
            others: report.others,
            unreadable: report.unreadable.len(),
        },
        verdict: report.worst(),
        ingresses: &report.ingresses,
        config_map: report.settings.as_ref(),
        unreadable: &report.unreadable,
    };
    serde_json::to_string_pretty(&all).unwrap_or_default()
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Json<'a> {
    version: u32,
    verdict: Verdict,
    summary: Summary,
    ingresses: &'a [Subject],
    config_map: Option<&'a Subject>,
    unreadable: &'a [String],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Summary {
    as_before: usize,
    differs: usize,
    refused: usize,
    others: usize,
    unreadable: usize,
}
