//! Failures that are counted for a while and then logged once (`errors { consolidate … }`).

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Failure;
use crate::config::ErrorsSettings;

/// Counts that were begun.
#[derive(Debug, Default)]
pub(super) struct Consolidated(Vec<Count>);

#[derive(Debug)]
struct Count {
    settings: Arc<ErrorsSettings>,
    pattern: usize,
    count: u64,
    until: Instant,
}

impl Consolidated {
    /// Counts a failure, if a pattern is for it. Otherwise, and for the first one if the pattern wants
    /// that shown, it is to be logged as it is.
    pub(super) fn take(&mut self, failure: &Failure, now: Instant) -> bool {
        let patterns = failure.settings.consolidate.iter();
        let mut patterns = patterns.enumerate();
        let fits = |text: &regex::Regex| text.is_match(&failure.message);
        let Some((index, settings)) = patterns.find(|(_, it)| fits(&it.pattern)) else {
            return true;
        };
        let known = self.0.iter_mut().find(|count| {
            count.pattern == index && Arc::ptr_eq(&count.settings, &failure.settings)
        });
        if let Some(known) = known {
            known.count += 1;
            return false;
        }
        self.0.push(Count {
            settings: Arc::clone(&failure.settings),
            pattern: index,
            count: 1,
            until: now + settings.period,
        });
        settings.show_first
    }

    /// When the next line is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.0.iter().map(|count| count.until).min()
    }

    /// The lines that are due; all of them at the end, when there is no time any more.
    pub(super) fn due(&mut self, now: Option<Instant>) -> Vec<String> {
        let is_due = |count: &mut Count| now.is_none_or(|now| count.until <= now);
        let due = self.0.extract_if(.., is_due);
        let lines = due.filter_map(|Count { settings, pattern, count, .. }| {
            let settings = settings.consolidate.get(pattern)?;
            // The only one was shown already.
            if settings.show_first && count == 1 {
                return None;
            }
            let level = settings.level.to_uppercase();
            let (pattern, period) = (settings.pattern.as_str(), text(settings.period));
            Some(format!(
                "[{level}] plugin/errors: {count} errors like '{pattern}' occurred in last {period}"
            ))
        });
        lines.collect()
    }
}

/// A time as Go writes it: `1h0m0s`, `5m0s`, `30s`, `500ms`.
fn text(period: Duration) -> String {
    let seconds = period.as_secs();
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    let rest = (period.as_nanos() - u128::from(seconds / 60 * 60) * 1_000_000_000) as f64 / 1e9;
    match (hours, minutes) {
        (0, 0) if seconds == 0 => format!("{}ms", rest * 1e3),
        (0, 0) => format!("{rest}s"),
        (0, minutes) => format!("{minutes}m{rest}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{rest}s"),
    }
}
