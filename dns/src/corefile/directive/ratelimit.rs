//! `ratelimit PER_SECOND [BURST] { exempt NETWORKS…; over truncate|drop }`, our own.

use std::sync::Arc;

use super::acl;
use crate::corefile::block::Scope;
use crate::corefile::problem::Result;
use crate::corefile::tree::Directive;
use crate::corefile::words::{self, Words};
use crate::limit::{ClientLimit, ClientRates, OverLimit};

/// Most queries a second, and at once.
const MOST: u32 = 1_000_000;

pub(in crate::corefile) fn read(scope: &mut Scope<'_, '_>, directive: &Directive) -> Result<()> {
    let mut words = Words::of(directive);
    let per_second = words::number(words.need("queries a second")?, 1..=MOST)?;
    let burst = match words.next() {
        Some(token) => words::number(token, 1..=MOST)?,
        None => per_second,
    };
    words.end()?;
    let mut limit = ClientLimit {
        per_second,
        burst,
        over: OverLimit::default(),
        exempt: Vec::new(),
    };
    scope.properties(directive, &["exempt", "over"], |_, words| {
        match words.name.text.as_str() {
            "exempt" => {
                for token in words.some("networks")? {
                    limit.exempt.push(acl::network(token)?);
                }
            }
            "over" => {
                limit.over =
                    words.only("'truncate' or 'drop'", |token| match token.text.as_str() {
                        "truncate" => Ok(OverLimit::Truncate),
                        "drop" => Ok(OverLimit::Drop),
                        other => {
                            let message = format!("'{other}' is neither 'truncate' nor 'drop'");
                            Err(token.bad(message))
                        }
                    })?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    });
    scope.plugins.client_limit = Some(Arc::new(ClientRates::new(limit)));
    Ok(())
}
