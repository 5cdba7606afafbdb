//! What only the blocks together show: two that want the same names, and what no query gets to.
//!
//! Blocks compete for a name if they listen at the same port in the same way, and one of them at
//! every address or both at the same one. A name then goes to the longest zone.

use std::net::IpAddr;

use super::Warnings;
use super::problem::{Problem, ProblemKind};
use super::token::Token;
use super::tree::{Block, Directive};
use crate::config::{DnsConfig, Plugins, ServerBlock, ServerKey};
use crate::name::Name;

/// Looks for overlaps and for what cannot be reached. `tree` are the blocks as they were written.
pub(super) fn check(
    config: &DnsConfig,
    tree: &[Block],
    problems: &mut Vec<Problem>,
    warnings: &mut Warnings,
) {
    overlaps(config, tree, problems);
    for (block, written) in config.blocks.iter().zip(tree) {
        let Some(key) = written.keys.first() else {
            continue;
        };
        if !answers(&block.plugins) {
            let message = "nothing in this block answers, so every query is refused; \
                           add forward, kubernetes or hosts";
            warnings.push(key.problem(ProblemKind::NoEffect, message));
        }
        if block.plugins.loop_detection && block.plugins.forward.is_empty() {
            let message = "'loop' has no effect without 'forward'";
            let line = written.line("loop").unwrap_or(key);
            warnings.push(line.problem(ProblemKind::NoEffect, message));
        }
        forwards(block, written, warnings);
        for (plugin, zone) in zones(&block.plugins) {
            if let Some(message) = unreachable(config, block, zone) {
                let line = written.line(plugin).unwrap_or(key);
                let message = format!("'{plugin}' of {zone} is never asked: {message}");
                warnings.push(line.problem(ProblemKind::Unreachable, message));
            }
        }
    }
}

impl Block {
    fn lines<'a>(&'a self, directive: &'a str) -> impl Iterator<Item = &'a Directive> {
        let lines = self.directives.iter();
        lines.filter(move |line| line.name.text == directive)
    }

    fn line<'a>(&'a self, directive: &'a str) -> Option<&'a Token> {
        self.lines(directive).next().map(|line| &line.name)
    }
}

/// The addresses of a block; `None` is every one.
fn addresses(block: &ServerBlock) -> Vec<Option<IpAddr>> {
    match block.bind.is_empty() {
        true => vec![None],
        false => block.bind.iter().copied().map(Some).collect(),
    }
}

/// Both listen at an address for which they compete.
fn share_an_address(one: &ServerBlock, other: &ServerBlock) -> bool {
    let others = addresses(other);
    addresses(one).iter().any(|one| {
        let mut others = others.iter();
        others.any(|other| one == other || one.is_none() || other.is_none())
    })
}

/// The keys are reached in the same way.
fn same_port(one: &ServerKey, other: &ServerKey) -> bool {
    one.port == other.port && one.scheme == other.scheme
}

/// Two keys for the same zone at the same place.
fn overlaps(config: &DnsConfig, tree: &[Block], problems: &mut Vec<Problem>) {
    let mut before: Vec<(&ServerBlock, &ServerKey)> = Vec::new();
    for (block, written) in config.blocks.iter().zip(tree) {
        for key in &block.keys {
            let same = |(other, taken): &&(&ServerBlock, &ServerKey)| {
                taken == &key && share_an_address(block, other)
            };
            if let Some((other, _)) = before.iter().find(same) {
                let message = format!(
                    "{} at port {} is served already by the block at {}; give one of them another \
                     zone, port or 'bind'",
                    key.zone, key.port, other.place
                );
                if let Some(token) = written.keys.first() {
                    problems.push(token.problem(ProblemKind::Overlap, message));
                }
            } else {
                before.push((block, key));
            }
        }
    }
}

fn answers(plugins: &Plugins) -> bool {
    plugins.kubernetes.is_some()
        || plugins.hosts.is_some()
        || plugins.chaos.is_some()
        || plugins.whoami
        || plugins.local
        || plugins.any
        || !plugins.forward.is_empty()
        || !plugins.template.is_empty()
        || !plugins.acl.is_empty()
}

/// A forward that has everything leaves nothing to those behind it.
fn forwards(block: &ServerBlock, written: &Block, warnings: &mut Warnings) {
    let forwards = &block.plugins.forward;
    // A line that could not be read is missing here; then its place is not known either.
    if written.lines("forward").count() != forwards.len() {
        return;
    }
    for (index, (forward, line)) in forwards.iter().zip(written.lines("forward")).enumerate() {
        let taken = forwards[..index].iter().find(|before| {
            let has_all = forward.from.is_within(&before.from) && before.except.is_empty();
            has_all && before.next.is_empty() && !before.next_on_nodata
        });
        if let Some(before) = taken {
            let message = format!(
                "this 'forward' is never asked: the one for {} before it has all its names",
                before.from
            );
            warnings.push(line.name.problem(ProblemKind::Unreachable, message));
        }
    }
}

/// The zones of plugins that have some of their own.
fn zones(plugins: &Plugins) -> Vec<(&'static str, &Name)> {
    let mut zones: Vec<(&'static str, &Name)> = Vec::new();
    if let Some(kubernetes) = &plugins.kubernetes {
        zones.extend(kubernetes.zones.iter().map(|zone| ("kubernetes", zone)));
    }
    if let Some(hosts) = &plugins.hosts {
        zones.extend(hosts.zones.iter().map(|zone| ("hosts", zone)));
    }
    if let Some(cache) = &plugins.cache {
        zones.extend(cache.zones.iter().map(|zone| ("cache", zone)));
    }
    for template in &plugins.template {
        zones.extend(template.zones.iter().map(|zone| ("template", zone)));
    }
    for forward in &plugins.forward {
        zones.push(("forward", &forward.from));
    }
    zones
}

/// Why no query for a zone gets to the block, if none does.
fn unreachable(config: &DnsConfig, block: &ServerBlock, zone: &Name) -> Option<String> {
    // A plugin's zone may be wider than the block: then the block's names are all within it.
    let fits = |key: &&ServerKey| zone.is_within(&key.zone) || key.zone.is_within(zone);
    let fitting: Vec<&ServerKey> = block.keys.iter().filter(fits).collect();
    if fitting.is_empty() {
        return Some("the zone is outside of the block's".to_owned());
    }
    let mut winner = None;
    for key in fitting {
        let longer = config.blocks.iter().find(|other| {
            !std::ptr::eq(&raw const ***other, block)
                && share_an_address(block, other)
                && other.keys.iter().any(|taken| {
                    same_port(taken, key)
                        && zone.is_within(&taken.zone)
                        && taken.zone.is_within(&key.zone)
                        && taken.zone != key.zone
                })
        });
        winner = Some(longer?);
    }
    winner.map(|other| format!("the block at {} has the longer zone", other.place))
}
