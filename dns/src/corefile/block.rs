//! From the lines of a server block to the settings of its plugins.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::problem::{Problem, ProblemKind, Result};
use super::token::{Place, Token};
use super::tree::{Block, Directive};
use super::words::Words;
use super::{Loader, Warnings, directive};
use crate::config::{Plugins, Reload};
use crate::name::Name;

/// Directives that are understood.
pub const KNOWN: &[&str] = &[
    "acl",
    "any",
    "autopath",
    "bind",
    "bufsize",
    "cache",
    "cancel",
    "chaos",
    "compat",
    "debug",
    "errors",
    "forward",
    "health",
    "hosts",
    "import",
    "kubernetes",
    "loadbalance",
    "local",
    "log",
    "loop",
    "metadata",
    "minimal",
    "multisocket",
    "nsid",
    "pprof",
    "prometheus",
    "ratelimit",
    "ready",
    "reload",
    "rewrite",
    "root",
    "template",
    "timeouts",
    "tls",
    "whoami",
];

/// Directives that may stand in a block once only.
const ONCE: &[&str] = &[
    "autopath",
    "bufsize",
    "cache",
    "chaos",
    "errors",
    "hosts",
    "kubernetes",
    "loadbalance",
    "loop",
    "multisocket",
    "nsid",
    "prometheus",
    "ratelimit",
    "ready",
    "reload",
    "root",
    "tls",
];

/// What CoreDNS has and this server has not, with what to do instead.
const UNSUPPORTED: &[(&str, &str)] = &[
    (
        "auto",
        "serve zone files with another server and forward to it",
    ),
    ("azure", "forward the zone to Azure's resolvers"),
    ("clouddns", "forward the zone to Google's resolvers"),
    (
        "dns64",
        "take it out, or have a network that translates answer for it",
    ),
    ("dnssec", "answers are not signed here"),
    ("dnstap", "use 'log' or the metrics"),
    ("erratic", "it is for tests of clients only"),
    ("etcd", "forward the zone to a server that reads etcd"),
    (
        "file",
        "serve the zone with another server and forward to it",
    ),
    ("geoip", "take it out"),
    ("grpc", "forward over tls:// or https://"),
    ("grpc_server", "serve tls:// or https://"),
    ("header", "take it out"),
    ("https3", "serve https:// or quic://"),
    (
        "k8s_external",
        "forward the zone to the server that knows external names",
    ),
    ("nomad", "forward the zone to a server that knows Nomad"),
    (
        "on",
        "start what has to run beside this server by other means",
    ),
    ("proxyproto", "take it out"),
    ("route53", "forward the zone to Amazon's resolvers"),
    (
        "secondary",
        "serve the zone with another server and forward to it",
    ),
    ("shed", "take it out: overload is always shed here"),
    ("sign", "answers are not signed here"),
    ("trace", "use 'log' or the metrics"),
    ("transfer", "zone transfers are refused here"),
    ("tsig", "take it out"),
    (
        "view",
        "give the names that differ zones or ports of their own",
    ),
];

/// What is read while a file is.
pub(super) struct Reading<'a> {
    pub(super) loader: &'a dyn Loader,
    pub(super) warnings: &'a mut Warnings,
    pub(super) problems: &'a mut Vec<Problem>,
    /// What is not known is skipped with a warning.
    pub(super) lenient: bool,
    /// The first `reload` of the file.
    pub(super) reload: &'a mut Option<Reload>,
}

/// What is read while a block is.
pub(super) struct Scope<'r, 'a> {
    pub(super) reading: &'r mut Reading<'a>,
    /// The zones of the block.
    pub(super) zones: &'r [Name],
    /// Where relative paths start.
    root: PathBuf,
    pub(super) plugins: Plugins,
    pub(super) bind: Vec<IpAddr>,
}

impl Reading<'_> {
    /// Notes that something is wrong, or that it is skipped.
    pub(super) fn report(&mut self, problem: Problem) {
        if self.lenient && problem.kind.is_skipped_when_lenient() {
            self.warnings.push(Problem {
                message: format!("{}; skipped", problem.message),
                ..problem
            });
        } else {
            self.problems.push(problem);
        }
    }
}

impl<'r, 'a> Scope<'r, 'a> {
    /// Reads the lines of a block whose keys are these zones.
    pub(super) fn read(
        block: &Block,
        zones: &'r [Name],
        reading: &'r mut Reading<'a>,
    ) -> (Plugins, Vec<IpAddr>) {
        let mut scope = Self {
            reading,
            zones,
            root: PathBuf::new(),
            plugins: Plugins::default(),
            bind: Vec::new(),
        };
        let mut seen: HashMap<&str, &Place> = HashMap::new();
        // Where relative paths start has to be known before they are read.
        let is_root = |directive: &&Directive| directive.name.text == "root";
        let roots = block.directives.iter().filter(is_root);
        let others = block.directives.iter().filter(|it| !is_root(it));
        for directive in roots.chain(others) {
            let name = directive.name.text.as_str();
            let read = match seen.insert(name, &directive.name.place) {
                Some(first) if ONCE.contains(&name) => Err(directive.name.bad(format!(
                    "'{name}' is there twice in this block, first at {first}; remove one of them"
                ))),
                _ => scope.directive(directive),
            };
            if let Err(problem) = read {
                scope.reading.report(problem);
            }
        }
        scope.complete();
        (scope.plugins, scope.bind)
    }

    /// Fills in what the `kubernetes` plugin has from other lines.
    fn complete(&mut self) {
        if let Some(kubernetes) = &mut self.plugins.kubernetes {
            let settings = Arc::make_mut(kubernetes);
            settings.compat_coredns = self.plugins.compat_coredns;
            settings.own_addresses = match self.bind.is_empty() {
                true => self.reading.loader.addresses(),
                false => self.bind.clone(),
            };
        }
    }

    fn directive(&mut self, directive: &Directive) -> Result<()> {
        let name = directive.name.text.as_str();
        if KNOWN.contains(&name)
            && let Some(brace) = &directive.nested
        {
            let message = format!("'{name}' has no braces within its braces");
            return Err(brace.problem(ProblemKind::Syntax, message));
        }
        match name {
            "acl" => directive::acl::read(self, directive),
            "any" => self.flag(directive, |plugins| &mut plugins.any),
            "autopath" => directive::autopath(self, directive),
            "bind" => directive::bind(self, directive),
            "bufsize" => directive::bufsize(self, directive),
            "cache" => directive::cache::read(self, directive),
            "chaos" => directive::chaos(self, directive),
            "compat" => directive::compat(self, directive),
            "debug" => self.flag(directive, |plugins| &mut plugins.debug),
            "errors" => directive::observe::errors(self, directive),
            "forward" => directive::forward::read(self, directive),
            "health" => directive::observe::health(self, directive),
            "hosts" => directive::hosts::read(self, directive),
            "kubernetes" => directive::kubernetes::read(self, directive),
            "loadbalance" => directive::loadbalance(self, directive),
            "local" => directive::local(self, directive),
            "log" => directive::observe::log(self, directive),
            "loop" => self.flag(directive, |plugins| &mut plugins.loop_detection),
            "minimal" => self.flag(directive, |plugins| &mut plugins.minimal),
            "multisocket" => directive::multisocket(self, directive),
            "nsid" => directive::nsid(self, directive),
            "prometheus" => directive::observe::prometheus(self, directive),
            "ratelimit" => directive::ratelimit::read(self, directive),
            "ready" => directive::observe::ready(self, directive),
            "reload" => directive::reload(self, directive),
            "rewrite" => directive::rewrite::read(self, directive),
            "root" => self.set_root(directive),
            "template" => directive::template::read(self, directive),
            "timeouts" => directive::timeouts(self, directive),
            "tls" => directive::tls(self, directive),
            "whoami" => self.flag(directive, |plugins| &mut plugins.whoami),
            "metadata" | "pprof" | "cancel" | "https" | "quic" => {
                let message = format!("'{name}' has no effect here and can be removed");
                self.warn(&directive.name, message);
                Ok(())
            }
            _ => Err(unknown(directive)),
        }
    }

    /// A directive without anything behind it.
    fn flag(&mut self, directive: &Directive, place: fn(&mut Plugins) -> &mut bool) -> Result<()> {
        Words::of(directive).end()?;
        self.properties(directive, &[], |_, _| Ok(false));
        *place(&mut self.plugins) = true;
        Ok(())
    }

    fn set_root(&mut self, directive: &Directive) -> Result<()> {
        self.root =
            Words::of(directive).only("a directory", |token| Ok(token.text.clone().into()))?;
        Ok(())
    }

    /// A path of the file, from the block's root.
    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.root.join(Path::new(path))
    }

    /// Zones as given, or those of the block.
    pub(super) fn zones_or_own<'t>(
        &self,
        given: impl ExactSizeIterator<Item = &'t Token>,
    ) -> Result<Vec<Name>> {
        match given.len() {
            0 => Ok(self.zones.to_vec()),
            _ => super::words::zones(given),
        }
    }

    /// Reads the lines in the braces of a directive; `read` says whether it knows the property.
    /// Everything that is wrong is reported, and the other lines are read all the same.
    pub(super) fn properties<'d>(
        &mut self,
        directive: &'d Directive,
        known: &[&str],
        mut read: impl FnMut(&mut Self, &mut Words<'d>) -> Result<bool>,
    ) {
        for line in &directive.lines {
            let mut words = Words::of_line(directive, line);
            let outcome = match read(self, &mut words) {
                Ok(true) => words.end(),
                Ok(false) => Err(words.unknown(directive, known)),
                Err(problem) => Err(problem),
            };
            if let Err(problem) = outcome {
                self.reading.report(problem);
            }
        }
    }

    /// Warns of something that changes nothing.
    pub(super) fn warn(&mut self, token: &Token, message: impl Into<String>) {
        let problem = token.problem(ProblemKind::NoEffect, message);
        self.reading.warnings.push(problem);
    }
}

fn unknown(directive: &Directive) -> Problem {
    let name = directive.name.text.as_str();
    match UNSUPPORTED.iter().find(|(other, _)| *other == name) {
        Some((_, advice)) => directive.name.problem(
            ProblemKind::Unsupported,
            format!("'{name}' is not supported: {advice}"),
        ),
        None => directive.name.problem(
            ProblemKind::Unknown,
            format!(
                "unknown directive '{name}'; known are: {}",
                KNOWN.join(", ")
            ),
        ),
    }
}
