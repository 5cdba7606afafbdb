//! The page of a code, out of the documentation that is in the program.

use super::codes;

/// `docs/check.md`: a section `### SLxxxx` for each code.
const PAGES: &str = include_str!("../../docs/check.md");

/// What a code means, with an example and what to do; `None` if there is no such code.
pub(crate) fn page(id: &str) -> Option<String> {
    let code = codes::find(id)?;
    let text = section(code.id).unwrap_or(code.advice);
    Some(format!("{}: {}\n\n{text}\n", code.id, code.title))
}

/// The text below a code's heading.
pub(super) fn section(id: &str) -> Option<&'static str> {
    let (_, rest) = PAGES.split_once(&format!("\n### {id}: "))?;
    let (_, body) = rest.split_once('\n')?;
    let end = body
        .find("\n## ")
        .into_iter()
        .chain(body.find("\n### "))
        .min();
    Some(body.get(..end.unwrap_or(body.len())).unwrap_or(body).trim())
}

/// Codes that the documentation has a section for, in its order.
#[cfg(test)]
pub(super) fn documented() -> Vec<(&'static str, &'static str)> {
    let headings = PAGES.lines().filter_map(|line| line.strip_prefix("### "));
    headings
        .filter_map(|heading| heading.split_once(": "))
        .collect()
}
