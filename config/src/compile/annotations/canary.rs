//! Canaries: which share of another Ingress' requests this one takes.

use std::str::FromStr;
use std::sync::Arc;

use http::HeaderName;

use super::{PREFIX, Reader};
use crate::compile::path;
use crate::model::{CanaryHeader, CanaryShare, HeaderPattern, HeaderTest};

/// What a share is out of, at least.
const TOTAL: u32 = 100;

/// What is written about a canary, before all of it is known.
#[derive(Debug, Default)]
pub(super) struct Written {
    pub(super) enabled: bool,
    header: Option<HeaderName>,
    value: Option<Arc<str>>,
    pattern: Option<HeaderTest>,
    cookie: Option<Arc<str>>,
    weight: Option<u32>,
    total: Option<u32>,
    /// The annotations besides `canary` itself.
    names: Vec<String>,
}

pub(super) fn is(name: &str) -> bool {
    name == "canary" || name.starts_with("canary-")
}

/// A canary's own word counts for this annotation; for all others that of the Ingress that it is the
/// canary of.
pub(super) fn is_own(name: &str) -> bool {
    is(name)
        || super::affinity::is(name)
        || super::balance::is_choice(name)
        || super::SNIPPETS.contains(&name)
}

impl Reader<'_> {
    pub(super) fn canary(&mut self, name: &str, value: &str) {
        if name == "canary" {
            self.canary.enabled = self.switch(name, value, false);
            return;
        }
        match name {
            "canary-by-header" => {
                self.canary.header = self.or_report(name, header_name(value));
            }
            "canary-by-header-value" => {
                self.canary.value = (!value.is_empty()).then(|| value.into());
            }
            "canary-by-header-pattern" => {
                let pattern = self.or_report_as(name, pattern(value), "it matches nothing");
                self.canary.pattern = Some(pattern.unwrap_or(HeaderTest::Never));
            }
            "canary-by-cookie" => {
                self.canary.cookie = self.or_report(name, super::token(value));
            }
            "canary-weight" => self.canary.weight = self.or_report(name, number(value)),
            "canary-weight-total" => self.canary.total = self.or_report(name, total(value)),
            _ => {
                self.unknown.push(format!("{PREFIX}{name}"));
                return;
            }
        }
        self.canary.names.push(format!("{PREFIX}{name}"));
    }

    /// Which requests the Ingress takes, if it is a canary.
    pub(super) fn canary_share(&mut self) -> Option<Arc<CanaryShare>> {
        let written = std::mem::take(&mut self.canary);
        if !written.enabled {
            self.report(
                "without effect, because `canary` is not true",
                &written.names,
            );
            return None;
        }
        let test = match (written.value, written.pattern) {
            (Some(value), _) => Some(HeaderTest::Value(value)),
            (None, pattern) => pattern,
        };
        if written.header.is_none() && test.is_some() {
            let of_header = |name: &String| name.contains("canary-by-header-");
            let names: Vec<String> = written.names.into_iter().filter(of_header).collect();
            self.report(
                "without effect, because no `canary-by-header` names a field",
                &names,
            );
        }
        Some(Arc::new(CanaryShare {
            header: written.header.map(|name| CanaryHeader {
                name,
                test: test.unwrap_or(HeaderTest::AlwaysOrNever),
            }),
            cookie: written.cookie,
            weight: written.weight.unwrap_or(0),
            total: written.total.unwrap_or(TOTAL),
            ignores_sessions: false,
        }))
    }
}

fn header_name(text: &str) -> Result<HeaderName, String> {
    HeaderName::from_str(text).map_err(|_bad| format!("`{text}` is not the name of a header field"))
}

/// Unlike paths, values are compared with their case, and anywhere in them.
fn pattern(text: &str) -> Result<HeaderTest, String> {
    let regex = path::regex(text, false);
    let regex = regex.map_err(|error| format!("`{text}` is not a regular expression: {error}"))?;
    Ok(HeaderTest::Pattern(HeaderPattern(Arc::new(regex))))
}

fn number(text: &str) -> Result<u32, String> {
    text.parse()
        .map_err(|_bad| format!("`{text}` is not a number of requests"))
}

fn total(text: &str) -> Result<u32, String> {
    let total = number(text)?;
    if total < TOTAL {
        return Err(format!("{total} is below {TOTAL}"));
    }
    Ok(total)
}
