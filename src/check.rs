//! `sealane check`: what is wrong with manifests or with a cluster's objects, before or after users
//! notice.
//!
//! The problems are those of the compiler that feeds the data plane, those of an API server in memory
//! (files), and what neither can see: a Service that selects nothing, a port that no container has, a
//! route whose Service has no endpoints. Each has a code that never changes its meaning.

mod codes;
mod finding;
mod objects;
mod page;
mod print;
mod routes;
#[cfg(test)]
mod tests;

use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::dns::files::Source;
use crate::exit::{Failure, Finding as Found};
use crate::output::{Format, OutputOptions};
use crate::state::{self, Scope, SourceOptions};

pub(crate) use page::page;

use codes::Severity;
use finding::Findings;

/// Options of `sealane check`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct CheckOptions {
    #[command(flatten)]
    source: SourceOptions,
    /// The namespace to look at; with -f, that of objects which name none [default: the context's]
    #[arg(long, short, value_name = "NAME", conflicts_with = "all_namespaces")]
    namespace: Option<String>,
    /// Look at all namespaces of the cluster
    #[arg(long, short = 'A')]
    all_namespaces: bool,
    /// Look at this Corefile, and at nothing else
    #[arg(long, value_name = "FILE", conflicts_with_all = ["namespace", "all_namespaces"])]
    corefile: Option<PathBuf>,
    /// Skip what is not known in the Corefile, with a warning
    #[arg(long, requires = "corefile")]
    lenient: bool,
    /// Fail for warnings too (exit code 4)
    #[arg(long)]
    strict: bool,
    #[command(flatten)]
    output: OutputOptions,
}

/// Checks, prints what was found, and fails if that is bad enough.
///
/// # Errors
/// The files or the cluster cannot be read; [`Failure::Found`] if there are errors, or warnings that
/// count.
pub(crate) async fn run(options: CheckOptions) -> Result<(), Failure> {
    options.output.set_color();
    let findings = match &options.corefile {
        Some(file) => check_corefile(&options, file)?,
        None => check_objects(&options).await?,
    };
    // A reader that has gone away has read enough.
    let _ = std::io::stdout().flush();
    match findings.worst() {
        Some(Severity::Error) => Err(Failure::Found(Found::Errors)),
        Some(Severity::Warning) if options.strict => Err(Failure::Found(Found::Warnings)),
        Some(Severity::Warning | Severity::Info) | None => Ok(()),
    }
}

/// Checks a Corefile, and prints what was found.
fn check_corefile(options: &CheckOptions, file: &Path) -> Result<Findings, Failure> {
    let source = Source {
        path: file.to_owned(),
        options: sealane_dns::corefile::Options {
            lenient: options.lenient,
            ..sealane_dns::corefile::Options::default()
        },
        compat_coredns: false,
    };
    let loaded = source.load().map_err(|error| {
        let problem = format!("{}: {error}", file.display());
        match error.kind() {
            std::io::ErrorKind::NotFound => Failure::NotFound(problem),
            _ => Failure::Input(vec![problem]),
        }
    })?;
    let findings = Findings::of_corefile(&loaded);
    match options.output.output {
        Format::Table => anstream::print!("{}", print::corefile_table(file, &findings)),
        Format::Json => anstream::println!("{}", print::corefile_json(file, &findings)),
    }
    Ok(findings)
}

/// Checks the objects of files or of a cluster, and prints what was found.
async fn check_objects(options: &CheckOptions) -> Result<Findings, Failure> {
    let scope = if options.all_namespaces {
        Scope::All
    } else {
        Scope::One(options.namespace.clone())
    };
    let state = state::load(&options.source, &scope).await?;
    let findings = Findings::of(&state);
    match options.output.output {
        Format::Table => anstream::print!("{}", print::table(&state, &findings)),
        Format::Json => anstream::println!("{}", print::json(&state, &findings)),
    }
    Ok(findings)
}
