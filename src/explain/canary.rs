//! A rule's own backends and its canary: which of them takes a request.

use http::HeaderMap;
use sealane_config::Snapshot;
use sealane_config::model::{Canary, RouteRule};
use sealane_ingress::canary::{self, By};

use super::backends::Shares;
use super::model::{Mark, Phase, Trail};
use super::url::End;

/// Whoever may take the request, and what it comes to.
pub(super) fn explain(
    trail: &mut Trail,
    snapshot: &Snapshot,
    rule: &RouteRule,
    (headers, secure): (&HeaderMap, bool),
) -> End {
    let Some(canary) = &rule.canary else {
        return Shares::of(trail, snapshot, rule, secure).end();
    };
    let source = &canary.rule.source;
    let what = format!("the canary {}/{}", source.namespace, source.name);
    let mut step = |mark, why: String| {
        let step = trail.step(Phase::Backend, mark, what.clone(), why);
        step.of(source, &canary.rule.field);
    };
    if !canary::serves(snapshot, canary) {
        step(
            Mark::Rejected,
            "it cannot be served, or has no ready endpoint".into(),
        );
        return Shares::of(trail, snapshot, rule, secure).end();
    }
    match canary::asked(rule, canary, headers) {
        Some((true, by)) => {
            step(Mark::Chosen, format!("{} asks for it", name(canary, by)));
            Shares::of(trail, snapshot, &canary.rule, secure).end()
        }
        Some((false, by)) => {
            step(
                Mark::Rejected,
                format!("{} keeps it away", name(canary, by)),
            );
            Shares::of(trail, snapshot, rule, secure).end()
        }
        None => {
            let (weight, total) = (canary.share.weight, canary.share.total);
            let share = format!("{weight} of {total} requests, at random");
            step(Mark::Note, share);
            let end = Shares::of(trail, snapshot, rule, secure).end();
            if weight == 0 {
                return end;
            }
            let other = Shares::of(trail, snapshot, &canary.rule, secure).end();
            End {
                summary: format!(
                    "{}; {weight} of {total} requests: {}",
                    end.summary, other.summary
                ),
                ..end
            }
        }
    }
}

/// What of the request decided.
fn name(canary: &Canary, by: By) -> String {
    let share = &canary.share;
    match (by, &share.header, &share.cookie) {
        (By::Session, _, _) => "the session".to_owned(),
        (By::Header, Some(header), _) => format!("the field {}", header.name),
        (By::Cookie, _, Some(cookie)) => format!("the cookie {cookie}"),
        (By::Header | By::Cookie, _, _) => "the request".to_owned(),
    }
}
