//! The same requests to a real nginx and to the gateway.
//!
//! The nginx is configured by hand to what ingress-nginx documents for the annotations of an Ingress;
//! the gateway gets the Ingress. Compared are status, place of a redirect, fields of CORS and of
//! authentication, and the request as the backend saw it. A [`Difference`] is meant to be; one that
//! does not occur fails its test, as does one that nobody listed.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use rcgen::SanType;

use sealane_config::model::{GatewaySettings, TrustedProxies};
use sealane_proxy::testing::{Origin, RawClient, RawResponse, Seen};
use serde_json::{Value, json};

use crate::certificates::{Authority, Identity};
use crate::manifests::{self, Manifests};
use crate::support::{Edge, on_worker};

mod access;
mod limits;
mod passwords;
mod proxies;
mod redirects;
mod requests;
mod secured;
mod server;

use server::{Nginx, Setup};

/// An Ingress for host `NAME.test`, and what ingress-nginx makes of it.
struct Case {
    name: &'static str,
    annotations: &'static [(&'static str, &'static str)],
    /// Each `(pathType, path)`.
    paths: &'static [(&'static str, &'static str)],
    /// Directives outside of the server.
    http: &'static str,
    /// Directives in the server; `PROXY` in them passes the request to the backend.
    server: &'static str,
    /// Requests without the line of the host, which is put behind the first.
    requests: Vec<String>,
    /// The same over TLS.
    secured: Vec<String>,
    /// Whether the host has a certificate.
    certificate: bool,
}

impl Default for Case {
    fn default() -> Self {
        Self {
            name: "",
            annotations: &[],
            paths: &[("Prefix", "/")],
            http: "",
            server: "location / { PROXY }",
            requests: Vec::new(),
            secured: Vec::new(),
            certificate: false,
        }
    }
}

/// What is the same for all cases of a test.
#[derive(Default)]
struct Common {
    /// Users and their passwords: for nginx a file of this name, for the gateway a Secret.
    users: &'static [(&'static str, &'static str)],
    /// Whether clients are believed about the one behind them.
    trusted: bool,
}

/// Something in which the gateway is not like nginx.
struct Difference {
    /// The case.
    case: &'static str,
    /// How the request begins; empty: all requests of the case.
    request: &'static str,
    /// What differs: the name of a line of an [`Outcome`].
    what: &'static str,
    /// What nginx does, and what the gateway; empty: nothing of that kind.
    nginx: &'static str,
    ours: &'static str,
    /// Why that is meant to be.
    why: &'static str,
}

/// A request's outcome: what is compared, by name.
type Outcome = BTreeMap<&'static str, String>;

/// `GET`s for these targets.
fn gets(targets: &[&str]) -> Vec<String> {
    let get = |target: &&str| format!("GET {target} HTTP/1.1");
    targets.iter().map(get).collect()
}

/// Runs the cases against both, and fails where they differ and should not, or should and do not.
async fn compare(cases: Vec<Case>, common: Common, differences: &[Difference]) {
    let Some(program) = Nginx::program() else {
        return;
    };
    let run = async {
        let both = Both::start(program, &cases, &common, || Origin::named("web")).await;
        let mut found = Found {
            listed: differences,
            used: BTreeSet::new(),
            surprises: Vec::new(),
        };
        for case in &cases {
            for request in &case.requests {
                let theirs = ask(both.nginx.addr, &both.behind_nginx, case, request).await;
                let ours = ask(both.edge.http, &both.behind_ours, case, request).await;
                found.compare(case, request, &theirs, &ours);
            }
            for request in &case.secured {
                let (theirs, ours) = both.ask_over_tls(case, request).await;
                found.compare(case, &format!("TLS {request}"), &theirs, &ours);
            }
        }
        found.finish();
    };
    on_worker(Box::pin(run)).await;
}

/// Both, each in front of a backend of its own.
struct Both {
    nginx: Nginx,
    behind_nginx: Origin,
    edge: Edge,
    behind_ours: Origin,
}

impl Both {
    /// Starts both in front of backends of one kind.
    async fn start<B: Future<Output = Origin>>(
        program: &str,
        cases: &[Case],
        common: &Common,
        backend: impl Fn() -> B,
    ) -> Self {
        let (behind_nginx, behind_ours) = (backend().await, backend().await);
        let identity = Authority::new("authority").vouch_as("of all hosts", |params| {
            let names = cases.iter().map(|case| host(case).try_into().unwrap());
            params.subject_alt_names = names.map(SanType::DnsName).collect();
        });
        let nginx = Nginx::start(Setup {
            program,
            backend: behind_nginx.addr,
            http: cases.iter().map(|case| case.http).collect(),
            servers: cases.iter().map(|c| (host(c), c.server)).collect(),
            users: common.users,
            trusted: common.trusted,
            identity: &identity,
        })
        .await;
        let mut edge = Edge::with_https_port(443).await;
        let mut manifests = Manifests::compat();
        manifests.service("web", behind_ours.addr);
        for case in cases {
            manifests.object(ingress(case));
        }
        for (name, users) in common.users {
            manifests.secret(name, Some(&[("auth", users)]));
        }
        let Identity { pem, key } = identity;
        manifests.secret(CERTIFICATE, Some(&[("tls.crt", &pem), ("tls.key", &key)]));
        manifests.publish(&mut edge);
        if common.trusted {
            edge.world.snapshot.gateway = Arc::new(believing());
            edge.world.publish();
        }
        Self {
            nginx,
            behind_nginx,
            edge,
            behind_ours,
        }
    }

    /// What nginx and the gateway answer over TLS.
    async fn ask_over_tls(&self, case: &Case, request: &str) -> (Outcome, Outcome) {
        let theirs = secured::way(self.nginx.secured, &host(case)).await;
        let ours = secured::way(self.edge.https, &host(case)).await;
        let mut theirs = ask(theirs, &self.behind_nginx, case, request).await;
        let mut ours = ask(ours, &self.behind_ours, case, request).await;
        name_port(&mut theirs, self.nginx.secured);
        name_port(&mut ours, self.edge.https);
        (theirs, ours)
    }
}

/// Name of the Secret with the certificate.
const CERTIFICATE: &str = "certificate";

/// The Ingress of a case.
fn ingress(case: &Case) -> Value {
    let paths: Vec<_> = case.paths.iter().map(|(k, p)| (*k, *p, "web")).collect();
    let mut ingress = manifests::ingress(case.name, case.annotations, &host(case), &paths);
    if case.certificate {
        ingress["spec"]["tls"] = json!([{"hosts": [host(case)], "secretName": CERTIFICATE}]);
    }
    ingress
}

/// What `use-forwarded-headers` makes of whoever is on this machine.
fn believing() -> GatewaySettings {
    GatewaySettings {
        proxies: TrustedProxies {
            networks: [IpAddr::V4(Ipv4Addr::LOCALHOST).into()].into(),
            forwarded: true,
            appends: false,
            ..TrustedProxies::default()
        },
        ..GatewaySettings::default()
    }
}

/// What was found to differ.
struct Found<'a> {
    listed: &'a [Difference],
    used: BTreeSet<usize>,
    surprises: Vec<String>,
}

impl Found<'_> {
    fn compare(&mut self, case: &Case, request: &str, theirs: &Outcome, ours: &Outcome) {
        // The request as the backend saw it, if both passed it on.
        for (what, theirs) in theirs {
            let Some(ours) = ours.get(what).filter(|ours| *ours != theirs) else {
                continue;
            };
            let listed = self.listed.iter().position(|difference| {
                (difference.case, difference.what) == (case.name, what)
                    && request.starts_with(difference.request)
                    && (difference.nginx, difference.ours) == (theirs, ours)
            });
            if let Some(index) = listed {
                self.used.insert(index);
                continue;
            }
            let begin: String = request.chars().take(60).collect();
            let case = case.name;
            self.surprises.push(format!(
                "{case}: {begin:?}: {what}: nginx {theirs:?}, here {ours:?}"
            ));
        }
    }

    fn finish(self) {
        assert!(self.surprises.is_empty(), "{}", self.surprises.join("\n"));
        for (index, unused) in self.listed.iter().enumerate() {
            let (case, request, what, why) = (unused.case, unused.request, unused.what, unused.why);
            assert!(
                self.used.contains(&index),
                "{case}: {request}: {what} does not differ as listed ({why})"
            );
        }
    }
}

fn host(case: &Case) -> String {
    format!("{}.test", case.name)
}

/// Sends one request on a connection of its own.
async fn ask(addr: SocketAddr, backend: &Origin, case: &Case, request: &str) -> Outcome {
    let before = backend.hits();
    let request = match request.split_once('\n') {
        _ if request.contains("\nHost:") => request.to_owned(),
        Some((line, rest)) => format!("{line}\nHost: {}\n{rest}", host(case)),
        None => format!("{request}\nHost: {}", host(case)),
    };
    let mut client = RawClient::connect(addr).await;
    client
        .send(request.replace('\n', "\r\n") + "\r\n\r\n")
        .await;
    let is_head = request.starts_with("HEAD");
    let answer = client.try_response(is_head).await.expect("an answer");
    let mut outcome = of_answer(&answer);
    let seen = backend.seen();
    outcome.insert("passed on", (seen.len() - before).to_string());
    if let Some(seen) = seen.get(before) {
        of_backend(seen, &mut outcome);
    }
    name_port(&mut outcome, addr);
    outcome
}

/// Each listener has a port of its own.
fn name_port(outcome: &mut Outcome, addr: SocketAddr) {
    let port = addr.port().to_string();
    for value in outcome.values_mut() {
        if *value == port {
            "its port".clone_into(value);
        }
    }
}

fn of_answer(answer: &RawResponse) -> Outcome {
    let fields = [
        "access-control-allow-credentials",
        "access-control-allow-headers",
        "access-control-allow-methods",
        "access-control-allow-origin",
        "access-control-expose-headers",
        "access-control-max-age",
        "location",
        "vary",
        "www-authenticate",
    ];
    let fields = fields.map(|name| (name, answer.header(name).to_owned()));
    let status = ("status", answer.status.to_string());
    fields.into_iter().chain([status]).collect()
}

/// Adds the request as the backend saw it.
fn of_backend(seen: &Seen, outcome: &mut Outcome) {
    let fields = [
        "authorization",
        "connection",
        "host",
        "keep-alive",
        "proxy",
        "proxy-connection",
        "te",
        "user-agent",
        "x-custom",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-port",
        "x-forwarded-prefix",
        "x-forwarded-proto",
        "x-forwarded-scheme",
        "x-original-forwarded-for",
        "x-original-forwarded-host",
        "x-real-ip",
        "x-scheme",
        "x_under",
    ];
    // Several fields of a name are one list (RFC 9110, 5.3).
    let list = |name| {
        let values = seen.headers.get_all(name).iter();
        let values: Vec<&str> = values.map(|value| value.to_str().unwrap()).collect();
        (name, values.join(", "))
    };
    outcome.extend(fields.map(list));
    let id = seen.header("x-request-id");
    let is_new = id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit());
    let id = if is_new { "32 digits" } else { id };
    outcome.insert("x-request-id", id.to_owned());
    outcome.insert("method", seen.method.to_string());
    outcome.insert("target", seen.target.clone());
    outcome.insert("version", format!("{:?}", seen.version));
    let body = seen.body.as_ref().map_or_else(
        || "cut off".to_owned(),
        |body| format!("{} bytes", body.len()),
    );
    outcome.insert("body", body);
}
