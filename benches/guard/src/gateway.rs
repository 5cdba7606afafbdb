//! The gateway as `sealane gateway` runs it: one worker, with everything on that is on by default.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};

use sealane_config::compile::{
    Change, ClassRecord, Compiler, Delta, IngressRecord, Names, ObjectKey, ServiceRecord,
    SliceRecord,
};
use sealane_config::defaults::INGRESS_CONTROLLER;
use sealane_config::snapshot;
use sealane_ingress::{Answers, Gateway, GatewayOptions, Limiter, Outside, Passwords, tls};
use sealane_proxy::connect::Connector;
use sealane_proxy::http::{Engine, EngineOptions, ServerOptions};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::LocalSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A host of the first rule, whose requests are relayed.
pub(crate) const HOST: &str = "host-500.example.test";

/// A host whose requests go through filters.
pub(crate) const FILTERED: &str = "filtered.example.test";

const HOSTS: usize = 1000;

/// Prints the gateway's address and serves until the standard input ends.
pub(crate) fn serve(backend: SocketAddr) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let shutdown = CancellationToken::new();
    let end = shutdown.clone();
    std::thread::spawn(move || {
        // It ends, or is broken, with the process that has started this one.
        let _ = std::io::stdin().read(&mut [0]);
        end.cancel();
    });
    runtime.block_on(LocalSet::new().run_until(run(backend, shutdown)))
}

async fn run(backend: SocketAddr, shutdown: CancellationToken) -> anyhow::Result<()> {
    let (mut publisher, reader) = snapshot::channel();
    let mut snapshot = compile(backend)?.build(Instant::now(), 0).snapshot;
    snapshot.synced = true;
    publisher.publish(snapshot);
    let options = GatewayOptions {
        tls: tls::server_config(reader.clone(), tls::self_signed()?)?,
        https_port: 443,
        server: ServerOptions::default(),
        limiter: Limiter::default(),
        passwords: Passwords::default(),
        answers: Answers::default(),
        outside: Outside::new(&[], None),
    };
    let engine = Engine::new(Connector::Direct, EngineOptions::default());
    let gateway = Gateway::new(reader, engine, options);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    println!("{}", listener.local_addr()?);
    std::io::stdout().flush()?;
    gateway.serve_http(listener, shutdown).await?;
    Ok(())
}

/// A thousand hosts with a rule each, and one with annotations.
fn compile(backend: SocketAddr) -> anyhow::Result<Box<Compiler>> {
    let mut compiler = Box::new(Compiler::new(Default::default(), None));
    let mut names = Names::default();
    let now = Instant::now();
    let class: k8s_openapi::api::networking::v1::IngressClass = object(json!({
        "metadata": {"name": "sealane"},
        "spec": {"controller": INGRESS_CONTROLLER},
    }))?;
    let class = ClassRecord::read(class);
    let set = Delta::Set(ObjectKey::new("", "sealane"), Ok(Some(class)));
    compiler.apply(Change::Classes(set), now);
    let key = ObjectKey::new("default", "web");
    let service = object(json!({
        "metadata": {"namespace": "default", "name": "web"},
        "spec": {"clusterIP": "10.96.0.7", "ports": [{"port": 80}]},
    }))?;
    let service = ServiceRecord::read(&key, service, &mut names);
    compiler.apply(
        Change::Services(Delta::Set(key.clone(), Ok(Some(service)))),
        now,
    );
    let slice = object(json!({
        "metadata": {"namespace": "default", "name": "web", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [backend.ip()], "conditions": {"ready": true}}],
        "ports": [{"port": backend.port(), "protocol": "TCP", "name": ""}],
    }))?;
    let slice = SliceRecord::read(&key, slice, &mut names);
    compiler.apply(Change::Slices(Delta::Set(key, Ok(slice))), now);
    for number in 0..HOSTS {
        let host = format!("host-{number}.example.test");
        ingress(&mut compiler, &host, "/", json!({}))?;
    }
    let annotations = json!({
        "nginx.ingress.kubernetes.io/enable-cors": "true",
        "nginx.ingress.kubernetes.io/use-regex": "true",
        "nginx.ingress.kubernetes.io/rewrite-target": "/$2",
    });
    ingress(&mut compiler, FILTERED, "/shop(/|$)(.*)", annotations)?;
    Ok(compiler)
}

fn ingress(
    compiler: &mut Compiler,
    host: &str,
    path: &str,
    annotations: Value,
) -> anyhow::Result<()> {
    let key = ObjectKey::new("default", host);
    let ingress = object(json!({
        "metadata": {"namespace": "default", "name": host, "annotations": annotations},
        "spec": {"ingressClassName": "sealane", "rules": [{"host": host, "http": {"paths": [{
            "path": path, "pathType": "ImplementationSpecific",
            "backend": {"service": {"name": "web", "port": {"number": 80}}},
        }]}}]},
    }))?;
    let record = IngressRecord::read(&key, ingress);
    let set = Delta::Set(key, Ok(Some(record)));
    compiler.apply(Change::Ingresses(set), Instant::now());
    Ok(())
}

fn object<T: DeserializeOwned>(value: Value) -> anyhow::Result<T> {
    Ok(serde_json::from_value(value)?)
}
