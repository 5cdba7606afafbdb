//! The gateway as `sealane gateway` runs it: one worker, with everything on that is on by default.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};

use sealane_bench_micro::{World, host};
use sealane_config::snapshot;
use sealane_ingress::{Answers, Gateway, GatewayOptions, Limiter, Outside, Passwords, tls};
use sealane_proxy::connect::Connector;
use sealane_proxy::http::{Engine, EngineOptions, ServerOptions};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::runtime::LocalOptions;
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
        .build_local(LocalOptions::default())?;
    let shutdown = CancellationToken::new();
    let end = shutdown.clone();
    std::thread::spawn(move || {
        // It ends, or is broken, with the process that has started this one.
        let _ = std::io::stdin().read(&mut [0]);
        end.cancel();
    });
    runtime.block_on(runtime.spawn_local(run(backend, shutdown)))?
}

async fn run(backend: SocketAddr, shutdown: CancellationToken) -> anyhow::Result<()> {
    let (mut publisher, reader) = snapshot::channel();
    publisher.publish(world(backend)?.snapshot());
    let options = GatewayOptions {
        tls: tls::server_config(reader.clone(), tls::self_signed()?)?,
        https_port: 443,
        server: ServerOptions::default(),
        http3: false,
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
fn world(backend: SocketAddr) -> anyhow::Result<World> {
    let mut world = World::new()?;
    world.service("web", Ipv4Addr::new(10, 96, 0, 7))?;
    world.endpoints("web", &[backend])?;
    for number in 0..HOSTS {
        world.ingress(&host(number), "/", "web", json!({}))?;
    }
    let annotations = json!({
        "nginx.ingress.kubernetes.io/enable-cors": "true",
        "nginx.ingress.kubernetes.io/use-regex": "true",
        "nginx.ingress.kubernetes.io/rewrite-target": "/$2",
    });
    world.ingress(FILTERED, "/shop(/|$)(.*)", "web", annotations)?;
    Ok(world)
}
