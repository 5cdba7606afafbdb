//! `acl [ZONES…] { ACTION [type TYPES…] [net NETWORKS…] }`.

use std::net::IpAddr;

use hickory_proto::rr::RecordType;

use crate::config::{AclAction, AclRule};
use crate::corefile::block::Scope;
use crate::corefile::problem::Result;
use crate::corefile::token::Token;
use crate::corefile::tree::Directive;
use crate::corefile::words::{self, Words};

const KNOWN: &[&str] = &["allow", "block", "filter", "drop"];

pub(in crate::corefile) fn read(scope: &mut Scope<'_, '_>, directive: &Directive) -> Result<()> {
    let zones = scope.zones_or_own(directive.args.iter())?;
    let mut rules = Vec::new();
    scope.properties(directive, KNOWN, |_, words| {
        let action = match words.name.text.to_ascii_lowercase().as_str() {
            "allow" => AclAction::Allow,
            "block" => AclAction::Block,
            "filter" => AclAction::Filter,
            "drop" => AclAction::Drop,
            _ => return Ok(false),
        };
        let mut rule = AclRule {
            zones: zones.clone(),
            action,
            types: Vec::new(),
            clients: Vec::new(),
        };
        while let Some(section) = words.next() {
            match section.text.to_ascii_lowercase().as_str() {
                "type" => rule.types = types(words)?,
                "net" => rule.clients = clients(words)?,
                other => {
                    let message = format!("'{other}' is out of place; 'type' or 'net' comes here");
                    return Err(section.bad(message));
                }
            }
        }
        rules.push(rule);
        Ok(true)
    });
    scope.plugins.acl.extend(rules);
    Ok(())
}

/// The words up to the next section; `None` if one of them stands for all there are.
fn section<'a>(words: &mut Words<'a>, what: &str) -> Result<Option<Vec<&'a Token>>> {
    let mut tokens = vec![words.need(what)?];
    while let Some(next) = words.peek()
        && !matches!(next.text.to_ascii_lowercase().as_str(), "type" | "net")
    {
        tokens.extend(words.next());
    }
    Ok((!tokens.iter().any(|token| token.text == "*")).then_some(tokens))
}

fn types(words: &mut Words<'_>) -> Result<Vec<RecordType>> {
    let tokens = section(words, "record types or '*' after 'type'")?;
    let tokens = tokens.unwrap_or_default().into_iter();
    tokens.map(words::record_type).collect()
}

fn clients(words: &mut Words<'_>) -> Result<Vec<(IpAddr, u8)>> {
    let tokens = section(words, "networks or '*' after 'net'")?;
    tokens
        .unwrap_or_default()
        .into_iter()
        .map(network)
        .collect()
}

/// A CIDR, or an address for itself alone.
pub(super) fn network(token: &Token) -> Result<(IpAddr, u8)> {
    let (addr, prefix) = match token.text.split_once('/') {
        Some((addr, prefix)) => (addr, Some(prefix)),
        None => (&*token.text, None),
    };
    let network = addr.parse::<IpAddr>().ok().and_then(|addr| {
        let width = if addr.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Some(width), |prefix| prefix.parse().ok());
        Some((addr, prefix.filter(|&prefix| prefix <= width)?))
    });
    let text = &token.text;
    network.ok_or_else(|| token.bad(format!("'{text}' is no network such as 10.0.0.0/8")))
}
