//! `sealane migrate ingress-nginx`: what becomes of the Ingresses of ingress-nginx when a gateway of
//! ours takes its place. Nothing is changed.
//!
//! The Ingresses are compiled as by that gateway, so what it would report is what is said here; texts
//! about what differs and what to do come from [`sealane_config::ingress_nginx`]. Secrets are not read.

mod print;
mod report;
mod routes;
mod snippet;

use std::io::Write as _;

use crate::exit::{Failure, Finding};
use crate::output::{Format, OutputOptions};
use crate::state::{self, Scope, SourceOptions};

use report::{Report, Verdict};

/// Options of `sealane migrate`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct MigrateOptions {
    #[command(subcommand)]
    from: From,
}

/// What is left behind.
#[derive(Clone, Debug, clap::Subcommand)]
enum From {
    /// Say which Ingresses of ingress-nginx would be served as before, and what to do about the others
    #[command(after_help = crate::cli::MIGRATE_EXAMPLES)]
    IngressNginx(Box<IngressNginx>),
}

/// Options of `sealane migrate ingress-nginx`.
#[derive(Clone, Debug, clap::Args)]
struct IngressNginx {
    #[command(flatten)]
    source: SourceOptions,
    /// The namespace to look at; with -f, that of objects which name none [default: the context's]
    #[arg(long, short, value_name = "NAME", conflicts_with = "all_namespaces")]
    namespace: Option<String>,
    /// Look at all namespaces of the cluster
    #[arg(long, short = 'A')]
    all_namespaces: bool,
    /// The class of ingress-nginx, where no IngressClass says so
    #[arg(long, default_value = "nginx", value_name = "NAME")]
    ingress_class: String,
    /// Ingresses that name no class are ingress-nginx's, too
    #[arg(long)]
    watch_ingress_without_class: bool,
    #[command(flatten)]
    output: OutputOptions,
}

/// Prints the report, and fails if not everything would be served as before.
///
/// # Errors
/// The files or the cluster cannot be read; [`Failure::Found`] if something differs or is refused.
pub(crate) async fn run(options: MigrateOptions) -> Result<(), Failure> {
    let From::IngressNginx(options) = options.from;
    options.output.set_color();
    let scope = if options.all_namespaces {
        Scope::All
    } else {
        Scope::One(options.namespace.clone())
    };
    let mut state = state::load(&options.source, &scope).await?;
    state.take_over(&options.ingress_class, options.watch_ingress_without_class);
    let report = Report::of(&state, options.watch_ingress_without_class);
    match options.output.output {
        Format::Table => anstream::print!("{}", print::table(&report)),
        Format::Json => anstream::println!("{}", print::json(&report)),
    }
    // A reader that has gone away has read enough.
    let _ = std::io::stdout().flush();
    match report.worst() {
        Verdict::Refused => Err(Failure::Found(Finding::Errors)),
        Verdict::Differs => Err(Failure::Found(Finding::Warnings)),
        Verdict::AsBefore => Ok(()),
    }
}
