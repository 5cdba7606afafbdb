//! Several `sealane gateway` on one real API server: one writes status, and the next takes over.

use std::path::Path;
use std::time::{Duration, Instant};

use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use kube::Api;
use kube::api::PostParams;
use nix::sys::signal::Signal;
use sealane_test_kubernetes::{ControlPlane, Options, Process, Unavailable};
use serde_json::json;

use crate::support::{DEADLINE, skip};

/// How long a crash may leave the others without a leader.
const HAND_OVER: Duration = Duration::from_secs(15);

const LOOK: Duration = Duration::from_millis(20);

struct World {
    plane: ControlPlane,
    ingresses: Api<Ingress>,
}

impl World {
    async fn start() -> Option<Self> {
        let options = Options {
            controllers: false,
            ..Options::default()
        };
        let plane = match ControlPlane::start(options).await.unwrap() {
            Ok(plane) => plane,
            Err(Unavailable(reason)) => {
                skip(&reason);
                return None;
            }
        };
        let classes: Api<IngressClass> = Api::all(plane.client());
        let class =
            json!({"metadata": {"name": "sealane"}, "spec": {"controller": "sealane.dev/ingress"}});
        let class = serde_json::from_value(class).unwrap();
        classes
            .create(&PostParams::default(), &class)
            .await
            .unwrap();
        Some(Self {
            ingresses: Api::default_namespaced(plane.client()),
            plane,
        })
    }

    /// A gateway that publishes an address of its own, which shows who wrote.
    fn gateway(&self, name: &str, address: &str) -> Process {
        let kubeconfig = self
            .plane
            .user_kubeconfig(name, Some("system:masters"))
            .unwrap();
        let kubeconfig = kubeconfig.display().to_string();
        let arguments = [
            "gateway",
            "--kubeconfig",
            &kubeconfig,
            "--http",
            "127.0.0.1:0",
            "--https",
            "127.0.0.1:0",
            "--admin",
            "127.0.0.1:0",
            "--lease",
            "default/sealane-gateway",
            "--publish-address",
            address,
            "--drain-delay",
            "0",
        ];
        let log = self.plane.directory().join(format!("{name}.log"));
        let binary = Path::new(env!("CARGO_BIN_EXE_sealane"));
        Process::start(binary, arguments.map(ToOwned::to_owned), &log).unwrap()
    }

    async fn ingress(&self, name: &str) {
        let backend = json!({"service": {"name": "web", "port": {"number": 80}}});
        let object = json!({"metadata": {"name": name}, "spec": {"ingressClassName": "sealane",
            "rules": [{"host": format!("{name}.test"), "http": {"paths": [
                {"path": "/", "pathType": "Prefix", "backend": backend}]}}]}});
        let object = serde_json::from_value(object).unwrap();
        self.ingresses
            .create(&PostParams::default(), &object)
            .await
            .unwrap();
    }

    async fn status(&self, name: &str) -> Option<String> {
        let ingress = self.ingresses.get(name).await.unwrap();
        let balancer = ingress.status?.load_balancer?;
        balancer.ingress?.into_iter().next()?.ip
    }

    async fn until_status(&self, name: &str, expected: &str, limit: Duration) -> Duration {
        let start = Instant::now();
        loop {
            let status = self.status(name).await;
            if status.as_deref() == Some(expected) {
                return start.elapsed();
            }
            assert!(
                start.elapsed() < limit,
                "{name}: {status:?}, not {expected}"
            );
            tokio::time::sleep(LOOK).await;
        }
    }

    /// For a while nobody touches an Ingress.
    async fn stays(&self, name: &str, period: Duration) {
        let version = async || {
            let ingress = self.ingresses.get(name).await.unwrap();
            ingress.metadata.resource_version.unwrap()
        };
        let before = version().await;
        let until = Instant::now() + period;
        while Instant::now() < until {
            assert_eq!(version().await, before, "{name} was written again");
            tokio::time::sleep(10 * LOOK).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ingress_i21_of_two_gateways_one_writes_and_a_kill_hands_over() {
    let Some(world) = World::start().await else {
        return;
    };
    world.ingress("first").await;
    let a = world.gateway("gateway-a", "203.0.113.1");
    world.until_status("first", "203.0.113.1", DEADLINE).await;
    let b = world.gateway("gateway-b", "203.0.113.2");
    world.stays("first", Duration::from_secs(5)).await;
    a.kill();
    world.ingress("second").await;
    let took = world.until_status("second", "203.0.113.2", HAND_OVER).await;
    eprintln!("killed: the other writes within {took:?}");

    let c = world.gateway("gateway-c", "203.0.113.3");
    world.stays("second", Duration::from_secs(5)).await;
    // SIGTERM: what it held is free at once.
    drop(b);
    world.ingress("third").await;
    let took = world.until_status("third", "203.0.113.3", HAND_OVER).await;
    eprintln!("ended: the other writes within {took:?}");
    assert!(took < Duration::from_secs(5), "{took:?}");
    drop(c);
}

#[tokio::test(flavor = "multi_thread")]
async fn reliability_f4_f32_a_gateway_that_was_stopped_does_not_write_when_it_wakes() {
    let Some(world) = World::start().await else {
        return;
    };
    world.ingress("it").await;
    let a = world.gateway("gateway-a", "203.0.113.1");
    world.until_status("it", "203.0.113.1", DEADLINE).await;
    let _b = world.gateway("gateway-b", "203.0.113.2");
    world.stays("it", Duration::from_secs(3)).await;
    a.signal(Signal::SIGSTOP).unwrap();
    // The next leader publishes another address, and the first one must not put its own back.
    world.until_status("it", "203.0.113.2", HAND_OVER).await;
    world.stays("it", Duration::from_secs(15)).await;
    a.signal(Signal::SIGCONT).unwrap();
    world.stays("it", Duration::from_secs(10)).await;
}
