//! The Corefile: CoreDNS's configuration file, with its directives, defaults and ranges.
//!
//! Reading goes in steps: words ([`token`]), blocks and lines with everything imported ([`tree`]),
//! then each directive into settings ([`directive`]), then what only the blocks together show
//! ([`reach`]). Nothing here reads a file by itself: that is a [`Loader`]'s, so that tests and a
//! fuzzer need none.
//!
//! What is not known is refused, with the place and what is known instead: a Corefile that is not
//! understood must not be served in part. All that is wrong is reported at once.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

mod block;
mod directive;
mod key;
mod problem;
mod reach;
#[cfg(test)]
mod tests;
mod token;
mod tree;
mod words;

pub use block::KNOWN as DIRECTIVES;
use block::{Reading, Scope};
pub use problem::{Problem, ProblemKind};
pub use token::Place;

use crate::config::{DnsConfig, Scheme, ServerBlock};
use crate::name::Name;

/// Where a Corefile's surroundings come from.
pub trait Loader {
    /// The text of a file that is part of the configuration: a change of it is one of the
    /// configuration.
    ///
    /// # Errors
    /// It cannot be read.
    fn read(&self, path: &Path) -> io::Result<String>;

    /// Whether a file that is read later on can be read.
    ///
    /// # Errors
    /// It cannot.
    fn probe(&self, path: &Path) -> io::Result<()> {
        self.read(path).map(drop)
    }

    /// The files whose path matches a pattern with one `*` or `?`, in order.
    ///
    /// # Errors
    /// A directory cannot be read; one that does not exist has no files.
    fn glob(&self, pattern: &Path) -> io::Result<Vec<PathBuf>>;

    /// An environment variable.
    fn env(&self, name: &str) -> Option<String>;

    /// The addresses of a network interface, if there is one of this name.
    fn interface(&self, name: &str) -> Option<Vec<IpAddr>>;

    /// The addresses at which this host is reached from others.
    fn addresses(&self) -> Vec<IpAddr>;

    /// The name of this host.
    fn host_name(&self) -> String;
}

/// How a Corefile is read.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Directives and properties that are not known are skipped with a warning.
    pub lenient: bool,
    /// The port of keys without one (`-dns.port`).
    pub dns_port: u16,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            lenient: false,
            dns_port: Scheme::Dns.port(),
        }
    }
}

/// A Corefile that can be served.
#[derive(Clone, Debug)]
pub struct Corefile {
    /// What it says.
    pub config: DnsConfig,
    /// What is probably not meant.
    pub warnings: Vec<Problem>,
}

type Warnings = Vec<Problem>;

/// Reads a Corefile.
///
/// # Errors
/// Everything that is wrong with it, at least one problem.
pub fn parse(
    text: &str,
    file: &str,
    loader: &dyn Loader,
    options: Options,
) -> Result<Corefile, Vec<Problem>> {
    let mut warnings = Vec::new();
    let blocks =
        tree::blocks(text, file, loader, &mut warnings).map_err(|problem| vec![problem])?;
    let mut problems = Vec::new();
    let mut config = DnsConfig::default();
    let mut reading = Reading {
        loader,
        warnings: &mut warnings,
        problems: &mut problems,
        lenient: options.lenient,
        reload: &mut config.reload,
    };
    for block in &blocks {
        let mut keys = Vec::new();
        for key in &block.keys {
            match key::keys(key, options.dns_port) {
                Ok(more) => keys.extend(more),
                Err(problem) => reading.report(problem),
            }
        }
        let zones: Vec<Name> = keys.iter().map(|key| key.zone.clone()).collect();
        let (plugins, bind) = Scope::read(block, &zones, &mut reading);
        let place = block.keys.first().map(|key| key.place.to_string());
        config.blocks.push(Arc::new(ServerBlock {
            place: place.unwrap_or_default(),
            keys,
            bind,
            plugins,
        }));
    }
    if blocks.is_empty() {
        problems.push(Problem {
            kind: ProblemKind::Syntax,
            place: Place {
                file: file.into(),
                line: 1,
            },
            message: "there is no server block, such as '.:53 { … }'".to_owned(),
        });
    }
    reach::check(&config, &blocks, &mut problems, &mut warnings);
    match problems.is_empty() {
        true => Ok(Corefile { config, warnings }),
        false => Err(problems),
    }
}
