//! `hosts [FILE [ZONES…]] { … }`.

use std::time::Duration;

use crate::config::{Fallthrough, HostsSettings};
use crate::corefile::block::Scope;
use crate::corefile::problem::Result;
use crate::corefile::tree::Directive;
use crate::corefile::words::{self, Words};

const KNOWN: &[&str] = &[
    "IP NAME…",
    "fallthrough",
    "fallthrough_unsupported",
    "no_reverse",
    "ttl",
    "reload",
];

/// The file that is read if none is named.
const FILE: &str = "/etc/hosts";

pub(in crate::corefile) fn read(scope: &mut Scope<'_, '_>, directive: &Directive) -> Result<()> {
    let mut words = Words::of(directive);
    let named = words.next();
    let file = scope.path(named.map_or(FILE, |token| &token.text));
    if let Some(token) = named
        && let Err(error) = scope.reading.loader.probe(&file)
    {
        let message = format!("cannot read {} now: {error}", file.display());
        scope.warn(token, message);
    }
    let mut hosts = HostsSettings {
        file: Some(file),
        inline: Vec::new(),
        zones: scope.zones_or_own(words.all())?,
        ttl: 3600,
        no_reverse: false,
        reload: Duration::from_secs(5),
        fallthrough: Fallthrough::No,
    };
    scope.properties(directive, KNOWN, |_, words| {
        match &*words.name.text {
            "fallthrough" => hosts.fallthrough = super::fallthrough(words)?,
            "fallthrough_unsupported" => {
                return Err(words.unsupported("other types have no records here"));
            }
            "no_reverse" => hosts.no_reverse = true,
            "ttl" => hosts.ttl = words::number(words.need("seconds")?, 1..=65535)?,
            "reload" => hosts.reload = words::duration(words.need("a duration")?)?,
            other => {
                let Ok(addr) = other.parse() else {
                    return Ok(false);
                };
                let names = words.some("names")?.map(words::name);
                hosts.inline.push((addr, names.collect::<Result<_>>()?));
            }
        }
        Ok(true)
    });
    scope.plugins.hosts = Some(hosts);
    Ok(())
}
