//! Sealane with all that it has on by default. For HTTP it is `sealane gateway`, whose API server is
//! a `sealane up` beside it; for TCP it is `sealane up` itself, reached by a node port; for names it is
//! `sealane dns`, for those of Services with such an API server too. Endpoints are hand-written
//! EndpointSlices of a Service without a selector.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use serde_json::json;

use super::{Running, coredns, cpus, endpoints, hosts};
use crate::case::{Case, Variant};
use crate::cluster::{NODE, SERVICES};
use crate::load::{self, Editor, First, Start};
use crate::process::Program;
use crate::services;
use crate::stage::{LOAD_CPU, Stage, write};

/// Endpoints that one EndpointSlice may have.
const SLICE: usize = 1000;

/// Rules of one Ingress.
const RULES: usize = 100;

/// Hosts of one file, which has a limit.
const FILE: usize = 1000;

/// The Ingress that is edited.
const EDITED: &str = "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: edited}\nspec:\n  \
    rules:\n  - {host: edited.test, http: {paths: [{path: /edit-0, pathType: Prefix, backend: {service: \
    {name: backend, port: {number: 80}}}}]}}\n";

/// The example, and its host.
const SHOP: &str = "examples/shop";
const SHOP_HOST: &str = "api.mycompany.com";

/// The node port of TCP cases.
const NODE_PORT: u16 = 30_900;

pub(super) fn start(stage: &Stage, case: Case, variant: &Variant) -> anyhow::Result<Running> {
    if case == Case::Dns {
        return dns(stage, variant);
    }
    if case == Case::DnsForward {
        return forwarder(stage, variant);
    }
    let dir = stage.dir("sealane")?;
    let manifests = dir.join("manifests");
    std::fs::create_dir(&manifests)?;
    write(&manifests, "service.yaml", &service(case, variant))?;
    let hosts: Vec<String> = hosts(variant).collect();
    for (index, hosts) in hosts.chunks(FILE).enumerate() {
        write(
            &manifests,
            &format!("hosts-{index}.yaml"),
            &ingresses(index, hosts),
        )?;
    }
    if case == Case::Edits {
        write(&manifests, "edited.yaml", EDITED)?;
    }
    if variant.tls {
        write(&manifests, "certificate.yaml", &certificate(stage)?)?;
    }
    if case.tcp_port().is_some() {
        let mut program = up(stage, &dir, &cpus(variant), variant.workers)?;
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, NODE_PORT));
        program.listens(addr)?;
        return Ok(Running::alone(addr, program));
    }
    let mut api = up(stage, &dir, &LOAD_CPU.to_string(), 1)?;
    let kubeconfig = dir.join("data/kubeconfig");
    api.until(|| kubeconfig.exists())?;
    let (plain, tls) = (stage.listen(), stage.listen());
    let mut arguments = vec![
        "gateway".to_owned(),
        "--watch-ingress-without-class".to_owned(),
    ];
    let mut option = |name: &str, value: String| arguments.extend([format!("--{name}"), value]);
    option("kubeconfig", kubeconfig.display().to_string());
    option("http", plain.to_string());
    option("https", tls.to_string());
    if variant.tls {
        option("default-ssl-certificate", "default/tls".to_owned());
    }
    option("admin", stage.listen().to_string());
    option("allow-endpoints", "127.0.0.0/8".to_owned());
    option("workers", variant.workers.to_string());
    let path = std::path::absolute(&stage.sealane)?;
    let mut program = Program::start(&cpus(variant), &dir, &path, arguments)?;
    program.listens(plain)?;
    // Files are applied in the order of their names, so the last host may well be there before others.
    for host in (0..variant.hosts).rev().step_by(FILE) {
        program.until(|| load::answers(plain, host))?;
    }
    Ok(Running {
        addr: if variant.tls { tls } else { plain },
        program,
        node: None,
        _helper: Some(api),
        editor: Some(Editor::Kubernetes { kubeconfig }),
    })
}

/// The certificate for all hosts.
fn certificate(stage: &Stage) -> anyhow::Result<String> {
    let [certificate, key] = &stage.identity()?.pem;
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
        "metadata": {"name": "tls", "namespace": "default"},
        "stringData": {"tls.crt": certificate, "tls.key": key},
    });
    Ok(secret.to_string())
}

/// An API server with a case's Services, and the configuration to reach it.
///
/// # Errors
/// It does not start.
pub(super) fn api_with_services(
    stage: &Stage,
    variant: &Variant,
) -> anyhow::Result<(Program, PathBuf)> {
    let dir = stage.dir("api")?;
    let manifests = dir.join("manifests");
    std::fs::create_dir(&manifests)?;
    for (index, text) in services::manifests(variant.hosts).enumerate() {
        write(&manifests, &format!("names-{index}.yaml"), &text)?;
    }
    let mut api = up(stage, &dir, &LOAD_CPU.to_string(), 1)?;
    let kubeconfig = dir.join("data/kubeconfig");
    api.until(|| kubeconfig.exists())?;
    Ok((api, kubeconfig))
}

/// `sealane dns`.
fn dns(stage: &Stage, variant: &Variant) -> anyhow::Result<Running> {
    let (api, kubeconfig) = api_with_services(stage, variant)?;
    let addr = stage.listen();
    let mut program = dns_on(stage, variant, &kubeconfig, addr)?;
    services::wait_until_served(&mut program, addr, variant.hosts)?;
    Ok(Running {
        _helper: Some(api),
        ..Running::alone(addr, program)
    })
}

fn dns_on(
    stage: &Stage,
    variant: &Variant,
    kubeconfig: &Path,
    addr: SocketAddr,
) -> anyhow::Result<Program> {
    let dir = stage.dir("sealane")?;
    let mut arguments = vec!["dns".to_owned()];
    let mut option = |name: &str, value: String| arguments.extend([format!("--{name}"), value]);
    option("kubeconfig", kubeconfig.display().to_string());
    // As a peer, on every address.
    option("dns", format!("0.0.0.0:{}", addr.port()));
    option("admin", stage.listen().to_string());
    option("workers", variant.workers.to_string());
    option("drain-delay", "0".to_owned());
    let path = std::path::absolute(&stage.sealane)?;
    Program::start(&cpus(variant), &dir, &path, arguments)
}

/// Starts `sealane dns` on a real API server.
///
/// # Errors
/// It cannot be started.
pub(super) fn begin_dns(stage: &Stage, variant: &Variant) -> anyhow::Result<(Start, First)> {
    let cluster = stage.cluster(variant)?;
    let kubeconfig = cluster.kubeconfig();
    let addr = stage.listen();
    let start = Start::of(|| dns_on(stage, variant, kubeconfig, addr))?;
    Ok((start, First::name(addr, variant)))
}

/// Starts `sealane node` in the calling thread's namespace.
///
/// # Errors
/// It cannot be started.
pub(super) fn begin_node(stage: &Stage, variant: &Variant) -> anyhow::Result<Start> {
    let cluster = stage.cluster(variant)?;
    let kubeconfig = cluster.kubeconfig();
    let dir = stage.dir("sealane")?;
    let mut arguments = vec!["node".to_owned()];
    let mut option = |name: &str, value: String| arguments.extend([format!("--{name}"), value]);
    option("kubeconfig", kubeconfig.display().to_string());
    option("node-name", NODE.to_owned());
    option("service-cidr", SERVICES.to_owned());
    option("workers", variant.workers.to_string());
    option("drain-delay", "0".to_owned());
    let path = std::path::absolute(&stage.sealane)?;
    Start::of(|| Program::start(&cpus(variant), &dir, &path, arguments))
}

/// Starts `sealane up` with the example of the README, which has nothing of an earlier one.
///
/// # Errors
/// It cannot be started.
pub(super) fn begin_up(stage: &Stage, variant: &Variant) -> anyhow::Result<(Start, First)> {
    let dir = stage.dir("shop")?;
    let mut arguments = vec!["up".to_owned(), "--quiet".to_owned()];
    let mut option = |name: &str, value: String| arguments.extend([format!("--{name}"), value]);
    let shop = std::path::absolute(SHOP)?;
    option("filename", shop.display().to_string());
    option("data-dir", dir.join("data").display().to_string());
    let http = stage.listen();
    option("http", http.to_string());
    for name in ["https", "dns", "api", "admin"] {
        option(name, stage.listen().to_string());
    }
    let path = std::path::absolute(&stage.sealane)?;
    let start = Start::of(|| Program::start(&cpus(variant), &dir, &path, arguments))?;
    Ok((start, First::Request(http, SHOP_HOST, "/api")))
}

/// `sealane dns` with the Corefile of the other server.
fn forwarder(stage: &Stage, variant: &Variant) -> anyhow::Result<Running> {
    let addr = stage.listen();
    let dir = stage.dir("sealane-dns")?;
    write(&dir, "Corefile", &coredns::forwarding(stage, addr)?)?;
    let admin = stage.listen().to_string();
    let workers = variant.workers.to_string();
    let arguments = [
        "dns",
        "--conf",
        "Corefile",
        "--admin",
        &admin,
        "--workers",
        &workers,
    ];
    let path = std::path::absolute(&stage.sealane)?;
    let mut program = Program::start(&cpus(variant), &dir, &path, arguments)?;
    program.listens(addr)?;
    Ok(Running::alone(addr, program))
}

fn up(stage: &Stage, dir: &Path, cpus: &str, workers: usize) -> anyhow::Result<Program> {
    let mut arguments: Vec<String> = ["up", "--quiet", "--ephemeral", "--pod-network", "loopback"]
        .map(str::to_owned)
        .into();
    let mut option = |name: &str, value: String| arguments.extend([format!("--{name}"), value]);
    option("filename", dir.join("manifests").display().to_string());
    option("data-dir", dir.join("data").display().to_string());
    for name in ["http", "https", "dns", "api", "admin"] {
        option(name, stage.listen().to_string());
    }
    option("workers", workers.to_string());
    let path = std::path::absolute(&stage.sealane)?;
    Program::start(cpus, dir, &path, arguments)
}

/// The Service and its endpoints.
fn service(case: Case, variant: &Variant) -> String {
    let ends = endpoints(case, variant);
    let port = ends.first().map_or(0, SocketAddr::port);
    let (kind, protocol) = match case.tcp_port() {
        Some(_) => (
            format!("type: NodePort\n  ports: [{{port: 80, nodePort: {NODE_PORT}"),
            "kubernetes.io/tcp",
        ),
        None => ("ports: [{port: 80".to_owned(), "http"),
    };
    let mut text = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: backend}}\nspec:\n  {kind}, appProtocol: {protocol}, targetPort: {port}}}]\n"
    );
    for (index, ends) in ends.chunks(SLICE).enumerate() {
        let _ = write!(
            text,
            "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: backend-{index}\n  \
             labels: {{kubernetes.io/service-name: backend}}\naddressType: IPv4\n\
             ports: [{{port: {port}, appProtocol: {protocol}}}]\nendpoints:\n"
        );
        for end in ends {
            let _ = writeln!(text, "  - {{addresses: [{}]}}", end.ip());
        }
    }
    text
}

/// Ingresses for some hosts.
fn ingresses(file: usize, hosts: &[String]) -> String {
    let mut text = String::new();
    for (index, hosts) in hosts.chunks(RULES).enumerate() {
        let _ = write!(
            text,
            "---\napiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{name: backend-{file}-{index}}}\nspec:\n  rules:\n"
        );
        for host in hosts {
            let _ = writeln!(
                text,
                "  - {{host: {host}, http: {{paths: [{{path: /, pathType: Prefix, backend: {{service: {{name: backend, port: {{number: 80}}}}}}}}]}}}}"
            );
        }
    }
    text
}
