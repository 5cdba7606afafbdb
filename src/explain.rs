//! `sealane explain`: why a request, a connection or a name goes where it goes.
//!
//! The question is put to the code that serves traffic (`ingress::decide`, `dns::lookup`, the
//! balancer's view of endpoints), with a snapshot of files, of a cluster or of a running instance.
//! The answer is every decision in order, with the object, and the line, that it follows from.

mod backends;
mod canary;
mod endpoints;
mod live;
mod model;
mod name;
mod query;
mod render;
mod service;
mod url;

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use sealane_config::{Reader, Snapshot};
use sealane_dns::{DnsConfig, DnsSettings};

use crate::exit::{Failure, Finding};
use crate::output::{Format, OutputOptions};
use crate::serve::workers::Work;
use crate::state::{self, Origin, Scope, SourceOptions, State};

pub(crate) use live::ADMIN_FILE;

use model::{Explanation, Outcome};
use name::Resolver;
use query::{Details, Query};

/// Options of `sealane explain`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ExplainOptions {
    /// A URL, a Service (NAMESPACE/NAME, NAMESPACE/NAME:PORT, svc/NAME), a DNS name, an address, or a
    /// code of `check`
    #[arg(value_name = "URL|SERVICE|NAME|CODE")]
    target: String,
    #[command(flatten)]
    source: SourceOptions,
    /// Ask the running instance whose admin listener is here
    #[arg(long, value_name = "ADDRESS", conflicts_with_all = ["filename", "kubeconfig", "context"])]
    admin: Option<SocketAddr>,
    /// Method of the request
    #[arg(long, short = 'X')]
    method: Option<String>,
    /// A field of the request, as in 'Host: example.com' (repeatable)
    #[arg(long = "header", short = 'H', value_name = "FIELD")]
    headers: Vec<String>,
    /// Address of the client that sends the request, for access lists [default: 127.0.0.1]
    #[arg(long, value_name = "IP")]
    client: Option<IpAddr>,
    /// The namespace of svc/NAME; with -f, also of objects that name none [default: default]
    #[arg(long, short)]
    namespace: Option<String>,
    /// Record type of a DNS name [default: A]
    #[arg(long = "type", short = 't')]
    record_type: Option<String>,
    /// The namespace of the pod that asks for a DNS name: its search path is tried
    #[arg(long, value_name = "NAMESPACE")]
    from_namespace: Option<String>,
    #[command(flatten)]
    output: OutputOptions,
}

/// Explains, prints, and fails if it would not be served.
///
/// # Errors
/// The question cannot be understood or the state not be read; [`Failure::Found`] for what would not
/// be served.
pub(crate) async fn run(options: ExplainOptions) -> Result<(), Failure> {
    options.output.set_color();
    if let Some(page) = code_page(&options.target) {
        anstream::print!("{}", page?);
        return Ok(());
    }
    let details = Details {
        method: options.method.clone(),
        headers: options.headers.clone(),
        client: options.client,
        namespace: options.namespace.clone(),
        record_type: options.record_type.clone(),
        from_namespace: options.from_namespace.clone(),
    };
    // Read here as well, so that a bad question is an error before anything is asked.
    let question = Query::parse(&options.target, &details);
    let question = question.map_err(|error| Failure::Input(vec![error]))?;
    let explanation = match live::instance(&options).await {
        Some(addr) => {
            let encoded = Query::encode(&options.target, &details);
            live::ask(addr, &encoded).await?
        }
        None => from_state(&options, &question).await?,
    };
    match options.output.output {
        Format::Table => anstream::print!("{}", render::table(&explanation)),
        Format::Json => {
            let text = serde_json::to_string_pretty(&explanation);
            anstream::println!("{}", text.unwrap_or_default());
        }
    }
    // A reader that has gone away has read enough.
    let _ = std::io::stdout().flush();
    match explanation.outcome {
        Outcome::Served | Outcome::Redirected => Ok(()),
        Outcome::NotFound => Err(Failure::Found(Finding::Nothing)),
        Outcome::Error => Err(Failure::Found(Finding::Errors)),
    }
}

/// The page of a code, if it is a code that is asked for.
fn code_page(target: &str) -> Option<Result<String, Failure>> {
    let digits = target.get(..2).filter(|sl| sl.eq_ignore_ascii_case("SL"));
    let digits = digits.and_then(|_| target.get(2..))?;
    if digits.len() != 4 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let unknown = || {
        let text = format!("there is no code {target}; `sealane check` prints those that it finds");
        Failure::NotFound(text)
    };
    Some(crate::check::page(target).ok_or_else(unknown))
}

/// Explains from files or a cluster.
async fn from_state(options: &ExplainOptions, question: &Query) -> Result<Explanation, Failure> {
    // What a request meets may be in any namespace; files have one for objects that name none.
    let scope = match &options.namespace {
        Some(namespace) if !options.source.filename.is_empty() => {
            Scope::One(Some(namespace.clone()))
        }
        _ => Scope::All,
    };
    let state = state::load(&options.source, &scope).await?;
    let resolv_conf = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let upstreams = sealane_dns::upstreams_from_resolv_conf(&resolv_conf, &[]);
    let config = DnsConfig::cluster(DnsSettings::default(), upstreams);
    let resolver = Resolver {
        config: &config,
        knows_upstreams: state.origin.is_files(),
    };
    let mut explanation = explain(&state.snapshot, resolver, HTTPS_PORT, question);
    explanation.source = match &state.origin {
        Origin::Files { .. } => {
            "files; cluster IPs and pod addresses are examples, and pods are taken as ready"
                .to_owned()
        }
        Origin::Cluster { url, .. } => {
            format!("the cluster at {url}, listed just now; ejected endpoints are not known")
        }
    };
    place(&mut explanation, &state);
    Ok(explanation)
}

/// The port that a redirect names where no listener says otherwise.
const HTTPS_PORT: u16 = 443;

/// Adds file and line to the steps that follow from an object of a file.
fn place(explanation: &mut Explanation, state: &State) {
    for step in &mut explanation.steps {
        let Some(object) = &step.object else { continue };
        let field = step.field.as_deref().unwrap_or_default();
        let object = (&*object.kind, &*object.namespace, &*object.name);
        if let Some((file, line)) = state.places.find(object, field) {
            step.file = Some(file);
            step.line = Some(line);
        }
    }
}

/// Puts a question to a snapshot. No I/O.
pub(crate) fn explain(
    snapshot: &Snapshot,
    resolver: Resolver<'_>,
    https_port: u16,
    question: &Query,
) -> Explanation {
    match question {
        Query::Url(query) => url::explain(snapshot, query, https_port),
        Query::Service(query) => service::explain(snapshot, query),
        Query::Name(query) => name::explain(snapshot, resolver, query),
    }
}

/// Answers questions about the snapshot that a process serves.
#[derive(Clone, Debug)]
pub(crate) struct Explainer {
    /// The snapshots.
    pub(crate) reader: Reader,
    /// What the DNS server does, if the process is one.
    pub(crate) dns: Option<Arc<DnsConfig>>,
    /// The port that redirects to HTTPS name, if the process is a gateway.
    pub(crate) https_port: Option<u16>,
}

impl Explainer {
    /// For what workers do.
    pub(crate) fn of(work: &Work) -> Self {
        Self {
            reader: work.reader.clone(),
            dns: work.dns.as_ref().map(|dns| Arc::clone(&dns.config)),
            https_port: work.gateway.as_ref().map(|gateway| gateway.https_port),
        }
    }

    /// Answers a query string as of [`Query::encode`]: an [`Explanation`] in JSON.
    ///
    /// # Errors
    /// One line that says what is wrong with the question. Nothing of a Secret but its name is in
    /// either.
    pub(crate) fn answer(&self, query: &str) -> Result<String, String> {
        let question = Query::decode(query)?;
        let snapshot = self.reader.load();
        let mut explanation = match &question {
            Query::Url(query) => {
                let port = self.https_port.ok_or("this process is no gateway")?;
                url::explain(&snapshot, query, port)
            }
            Query::Service(query) => service::explain(&snapshot, query),
            Query::Name(query) => {
                let config = self.dns.as_ref().ok_or("this process is no DNS server")?;
                let resolver = Resolver {
                    config,
                    knows_upstreams: true,
                };
                name::explain(&snapshot, resolver, query)
            }
        };
        explanation.source = match snapshot.synced {
            true => format!("a running instance, snapshot {}", snapshot.generation),
            false => "a running instance that has not read the cluster's state yet".to_owned(),
        };
        serde_json::to_string(&explanation).map_err(|error| error.to_string())
    }
}
