//! `healthCheckNodePort`: a load balancer asks on it whether this node has ready endpoints of one
//! Service with `externalTrafficPolicy: Local`, and how many, which is the node's share of traffic.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use http::HeaderValue;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use sealane_config::Snapshot;
use sealane_config::model::ServiceKey;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Health, RETRY, verdict};
use crate::admin::{self, Answer};

/// Publications within this time are looked at together.
const GATHER: Duration = Duration::from_millis(200);

/// How long the API server may take for an Event.
const PATIENCE: Duration = Duration::from_secs(10);

/// The name under which we write Events.
const CONTROLLER: &str = "sealane.dev/node";

/// Opens and closes listeners as Services ask for them; ends when nothing is published any more.
pub(super) async fn follow(health: Health, client: Client) {
    let mut listeners = Listeners {
        events: Recorder::new(client, Reporter::from(CONTROLLER)),
        health,
        open: HashMap::new(),
    };
    let mut reader = listeners.health.0.reader.clone();
    loop {
        let wanted = wanted(&reader.load());
        let is_complete = listeners.update(&wanted).await;
        let again = async {
            if is_complete {
                std::future::pending::<()>().await;
            }
            sleep(RETRY).await;
        };
        tokio::select! {
            published = reader.changed() => if published.is_none() { return },
            () = again => {}
        }
        sleep(GATHER).await;
    }
}

/// The Services that have such a port.
fn wanted(snapshot: &Snapshot) -> BTreeMap<u16, ServiceKey> {
    let ports = snapshot.health_ports.iter();
    ports
        .map(|(port, service)| (*port, service.clone()))
        .collect()
}

/// A Service's listener; `None` if it could not be had, which was told.
type Open = (ServiceKey, Option<DropGuard>);

struct Listeners {
    health: Health,
    events: Recorder,
    open: HashMap<u16, Open>,
}

impl Listeners {
    /// Says whether all are there.
    async fn update(&mut self, wanted: &BTreeMap<u16, ServiceKey>) -> bool {
        self.open
            .retain(|port, (service, _)| wanted.get(port) == Some(service));
        for (port, service) in wanted {
            let known = self.open.get(port);
            if known.is_some_and(|(_, listening)| listening.is_some()) {
                continue;
            }
            let listening = match listen(*port).await {
                Ok(listener) => Some(self.serve(listener, service.clone())),
                Err(error) => {
                    if known.is_none() {
                        self.tell(service, *port, &error);
                    }
                    None
                }
            };
            self.open.insert(*port, (service.clone(), listening));
        }
        self.open.values().all(|(_, listening)| listening.is_some())
    }

    fn serve(&self, listener: TcpListener, service: ServiceKey) -> DropGuard {
        let (health, stop) = (self.health.clone(), CancellationToken::new());
        let respond = move |_, _| {
            let answer = respond(&health, &service);
            async move { answer }
        };
        let (guard, accepting) = (stop.clone().drop_guard(), admin::accept(listener, respond));
        tokio::spawn(async move { stop.run_until_cancelled(accepting).await });
        guard
    }

    /// Says on the Service why its load balancer will not find this node.
    fn tell(&self, service: &ServiceKey, port: u16, error: &io::Error) {
        tracing::warn!(%service, port, %error, "cannot listen on a healthCheckNodePort");
        let events = self.events.clone();
        let event = Event {
            type_: EventType::Warning,
            reason: "FailedToStartServiceHealthcheck".to_owned(),
            note: Some(format!(
                "node {} failed to start healthcheck {service:?} on port {port}: {error}",
                nix::unistd::gethostname().unwrap_or_default().display(),
                service = service.to_string(),
            )),
            action: "Listen".to_owned(),
            secondary: None,
        };
        let regarding = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Service".to_owned()),
            namespace: Some(service.namespace.to_string()),
            name: Some(service.name.to_string()),
            ..ObjectReference::default()
        };
        tokio::spawn(async move {
            match timeout(PATIENCE, events.publish(&event, &regarding)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, "cannot write an Event"),
                Err(_elapsed) => tracing::warn!("the API server takes no Event"),
            }
        });
    }
}

/// On all addresses of both families, as far as the node has them.
async fn listen(port: u16) -> io::Result<TcpListener> {
    let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    match TcpListener::bind(any).await {
        Err(error) if error.raw_os_error() == Some(nix::libc::EAFNOSUPPORT) => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await
        }
        bound => bound,
    }
}

pub(super) fn respond(health: &Health, service: &ServiceKey) -> Answer {
    let snapshot = health.0.reader.load();
    let count = snapshot
        .services
        .get(service)
        .map_or(0, |it| it.local_ready());
    let is_alive = health.is_alive();
    let body = json!({
        "service": {"namespace": &*service.namespace, "name": &*service.name},
        "localEndpoints": count,
        "serviceProxyHealthy": is_alive,
    });
    let mut answer = verdict(count > 0 && is_alive, &body);
    answer
        .headers_mut()
        .insert("x-load-balancing-endpoint-weight", HeaderValue::from(count));
    answer
}
