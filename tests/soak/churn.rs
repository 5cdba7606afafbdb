//! Endpoints of a Service that become ready and not ready all the time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Client;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tokio::task::JoinSet;

/// Slices, and endpoints of each.
const SLICES: usize = 50;
const ENDPOINTS: u32 = 20;

/// Endpoint updates; they end with this value.
pub(crate) struct Churn {
    updates: Arc<AtomicU64>,
    failed: Arc<AtomicU64>,
    _tasks: JoinSet<()>,
}

impl Churn {
    /// Makes a Service without a selector whose slices nobody else writes, and changes `rate`
    /// endpoints a second, a slice at a time.
    pub(crate) async fn start(client: Client, rate: u32) -> anyhow::Result<Self> {
        let services: Api<Service> = Api::default_namespaced(client.clone());
        let service = json!({
            "metadata": {"name": "churn"},
            "spec": {"ports": [{"name": "http", "port": 80}]}
        });
        let service: Service = serde_json::from_value(service)?;
        services.create(&PostParams::default(), &service).await?;
        let slices: Api<EndpointSlice> = Api::default_namespaced(client);
        for number in 0..SLICES {
            let slice = json!({
                "metadata": {
                    "name": name(number),
                    "labels": {"kubernetes.io/service-name": "churn"}
                },
                "addressType": "IPv4",
                "ports": [{"name": "http", "port": 80}],
                "endpoints": endpoints(number, 0)
            });
            let slice: EndpointSlice = serde_json::from_value(slice)?;
            slices.create(&PostParams::default(), &slice).await?;
        }
        let (updates, failed) = (Arc::default(), Arc::default());
        let mut tasks = JoinSet::new();
        let period = Duration::from_secs(1) * ENDPOINTS * SLICES as u32 / rate.max(1);
        for number in 0..SLICES {
            let (slices, updates) = (slices.clone(), Arc::clone(&updates));
            let failed = Arc::clone(&failed);
            tasks.spawn(update(slices, number, period, updates, failed));
        }
        Ok(Self {
            updates,
            failed,
            _tasks: tasks,
        })
    }

    /// Endpoints changed, and writes that failed, so far.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let updates = self.updates.load(Ordering::Relaxed) * u64::from(ENDPOINTS);
        (updates, self.failed.load(Ordering::Relaxed))
    }
}

async fn update(
    slices: Api<EndpointSlice>,
    number: usize,
    period: Duration,
    updates: Arc<AtomicU64>,
    failed: Arc<AtomicU64>,
) {
    tokio::time::sleep(period.mul_f64(number as f64 / SLICES as f64)).await;
    let mut times = tokio::time::interval(period);
    for round in 1.. {
        times.tick().await;
        let patch = Patch::Merge(json!({"endpoints": endpoints(number, round)}));
        let params = PatchParams::default();
        let count = match slices.patch(&name(number), &params, &patch).await {
            Ok(_) => &updates,
            Err(_) => &failed,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

fn name(number: usize) -> String {
    format!("churn-{number}")
}

/// All of them change from round to round.
fn endpoints(slice: usize, round: u32) -> Vec<Value> {
    let endpoint = |number: u32| {
        let ready = (number + round).is_multiple_of(2);
        json!({
            "addresses": [format!("10.244.{}.{}", 100 + slice, number + 1)],
            "conditions": {"ready": ready}
        })
    };
    (0..ENDPOINTS).map(endpoint).collect()
}
