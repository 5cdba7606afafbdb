//! An explanation for people.

use super::model::{Explanation, Mark, Outcome, Step};
use crate::output::{BOLD, DIM, GREEN, RED, RESET, YELLOW};

/// Width of the column that says what is decided.
const WIDTH: usize = 12;

/// The table.
pub(super) fn table(explanation: &Explanation) -> String {
    let mut out = format!("{BOLD}{}{RESET}\n", explanation.query);
    if !explanation.source.is_empty() {
        out.push_str(&format!("{DIM}from {}{RESET}\n", explanation.source));
    }
    out.push('\n');
    let mut before = None;
    for step in &explanation.steps {
        let title = match before {
            Some(phase) if phase == step.phase => "",
            _ => step.phase.title(),
        };
        before = Some(step.phase);
        one(&mut out, title, step);
    }
    let (color, mark) = match explanation.outcome {
        Outcome::Served => (GREEN, "√"),
        Outcome::Redirected => (GREEN, "→"),
        Outcome::NotFound => (YELLOW, "∅"),
        Outcome::Error => (RED, "×"),
    };
    out.push_str(&format!("\n{color}{mark} {}{RESET}\n", explanation.summary));
    out
}

fn one(out: &mut String, title: &str, step: &Step) {
    let (color, mark) = match step.mark {
        Mark::Chosen => (GREEN, "√"),
        Mark::Rejected => (DIM, "-"),
        Mark::Failed => (RED, "×"),
        Mark::Note => ("", "i"),
    };
    out.push_str(&format!(
        "{title:<WIDTH$}{color}{mark}{RESET} {}",
        printable(&step.what)
    ));
    if !step.why.is_empty() {
        out.push_str(&format!("  {DIM}{}{RESET}", printable(&step.why)));
    }
    out.push('\n');
    let origin = origin(step);
    if !origin.is_empty() {
        out.push_str(&format!("{:WIDTH$}  {DIM}{origin}{RESET}\n", ""));
    }
}

/// Object, field and place.
fn origin(step: &Step) -> String {
    let Some(object) = &step.object else {
        return String::new();
    };
    let name = match object.namespace.as_str() {
        "" => format!("{} {}", object.kind, object.name),
        namespace => format!("{} {namespace}/{}", object.kind, object.name),
    };
    // What stands in the line above need not be said again.
    let mut parts: Vec<String> = (step.what != name).then_some(name).into_iter().collect();
    parts.extend(step.field.clone());
    if let (Some(file), Some(line)) = (&step.file, step.line) {
        parts.push(format!("{}:{line}", file.display()));
    }
    printable(&parts.join("  "))
}

/// What came from elsewhere must not steer the terminal.
fn printable(text: &str) -> String {
    if !text.contains(char::is_control) {
        return text.to_owned();
    }
    let escape = |c: char| match c.is_control() {
        true => c.escape_default().to_string(),
        false => c.to_string(),
    };
    text.chars().map(escape).collect()
}
