//! What the controllers make of an API that refuses requests, loses its answers or is slow to show
//! what was written.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, Uri};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet};
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::client::Body;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;

use super::support::{Cluster, eventually};
use super::workloads::{
    deployment, is_rolled_out, messages, replica_set, service, status, template,
};
use crate::api::{ApiBody, ApiServer};

/// Delay of a late watch event.
const LATE: Duration = Duration::from_millis(50);

/// What happens to a request.
pub(super) enum Fate {
    /// It is answered as usual.
    Pass,
    /// It is a watch, and every event comes late.
    Delay,
    /// It is carried out, but its answer is lost.
    Lose,
    /// It is refused with this code, reason and message.
    Refuse(u16, &'static str, &'static str),
}

/// Decides by method, path and query.
pub(super) type Decide = dyn Fn(&Method, &Uri) -> Fate + Send + Sync;

/// A server with faults.
#[derive(Clone)]
pub(super) struct Faulty {
    server: ApiServer,
    decide: Arc<Decide>,
}

impl Faulty {
    pub(super) fn client(server: &ApiServer, decide: Arc<Decide>) -> kube::Client {
        let server = server.clone();
        kube::Client::new(Self { server, decide }, "default")
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

type Answer = Response<UnsyncBoxBody<Bytes, BoxError>>;

fn failure(code: u16, reason: &str, message: &str) -> Answer {
    let status = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure",
        "reason": reason, "message": message, "code": code });
    let body = Full::new(Bytes::from(status.to_string()));
    Response::builder().status(code).body(boxed(body)).unwrap()
}

fn boxed<B>(body: B) -> UnsyncBoxBody<Bytes, BoxError>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    body.map_err(Into::into).boxed_unsync()
}

fn late(body: ApiBody) -> UnsyncBoxBody<Bytes, BoxError> {
    let frames = futures_util::stream::unfold(body, |mut body| async move {
        let frame = body.frame().await?;
        tokio::time::sleep(LATE).await;
        Some((frame, body))
    });
    boxed(StreamBody::new(frames))
}

impl tower::Service<Request<Body>> for Faulty {
    type Response = Answer;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Answer, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let fate = (self.decide)(request.method(), request.uri());
        let server = self.server.clone();
        Box::pin(async move {
            Ok(match fate {
                Fate::Pass => server.respond(request).await.map(boxed),
                Fate::Delay => server.respond(request).await.map(late),
                Fate::Lose => {
                    drop(server.respond(request).await);
                    failure(500, "InternalError", "the answer was lost")
                }
                Fate::Refuse(code, reason, message) => failure(code, reason, message),
            })
        })
    }
}

#[tokio::test]
async fn cluster_a3_rollouts_converge_though_every_third_write_fails() {
    let random = Mutex::new(StdRng::seed_from_u64(7));
    let decide = move |method: &Method, uri: &Uri| {
        if method == Method::GET || uri.path().ends_with("/events") {
            return Fate::Pass;
        }
        match random.lock().unwrap().random_range(0..9) {
            0 => Fate::Lose,
            1 => Fate::Refuse(500, "InternalError", "no"),
            2 => Fate::Refuse(409, "Conflict", "the object has been modified"),
            _ => Fate::Pass,
        }
    };
    let cluster = Cluster::with(|server| Faulty::client(server, Arc::new(decide))).await;
    cluster.add_agent().await;
    cluster.create::<Service>(service()).await;
    cluster.create::<Deployment>(deployment(5)).await;
    let first = |status: &DeploymentStatus| is_rolled_out(status, 5);
    eventually("rolled out", first, || status(&cluster)).await;
    cluster
        .patch::<Deployment>("web", json!({ "spec": { "template": template("i:2") } }))
        .await;
    let second = |status: &DeploymentStatus| {
        is_rolled_out(status, 5) && status.observed_generation >= Some(2)
    };
    eventually("rolled out again", second, || status(&cluster)).await;
    eventually(
        "five pods",
        |pods: &Vec<Pod>| pods.len() == 5,
        || cluster.pods(),
    )
    .await;
    let five = |addresses: &Vec<String>| addresses.len() == 5;
    eventually("five addresses", five, || cluster.ready_addresses("web")).await;
    assert_eq!(
        cluster.names::<ReplicaSet>().await.len(),
        2,
        "one for each template"
    );
}

#[tokio::test]
async fn cluster_a1_refused_pods_show_in_status_and_events_and_are_not_stormed() {
    let tries = Arc::new(AtomicUsize::new(0));
    let counted = tries.clone();
    let quota = "pods \"rs-x\" is forbidden: exceeded quota: q";
    let decide = move |method: &Method, uri: &Uri| {
        if method == Method::POST && uri.path().ends_with("/pods") {
            counted.fetch_add(1, Ordering::Relaxed);
            return Fate::Refuse(403, "Forbidden", quota);
        }
        Fate::Pass
    };
    let cluster = Cluster::with(|server| Faulty::client(server, Arc::new(decide))).await;
    cluster.create::<ReplicaSet>(replica_set(100)).await;
    let condition = |set: &ReplicaSet| {
        let status = set.status.clone().unwrap_or_default();
        let condition = status.conditions?.into_iter().next()?;
        Some((condition.type_, condition.reason?, condition.message?))
    };
    let failed = eventually(
        "a condition",
        |set| condition(set).is_some(),
        || async { cluster.api::<ReplicaSet>().get("rs").await.unwrap() },
    )
    .await;
    let expected = ("ReplicaFailure", "FailedCreate", quota);
    let expected = (
        expected.0.to_owned(),
        expected.1.to_owned(),
        expected.2.to_owned(),
    );
    assert_eq!(condition(&failed), Some(expected));
    let events = eventually(
        "an event",
        |events: &Vec<String>| !events.is_empty(),
        || messages(&cluster, "FailedCreate"),
    )
    .await;
    assert_eq!(events, [format!("Error creating: {quota}")]);
    let tries = tries.load(Ordering::Relaxed);
    assert!(
        tries <= 12,
        "{tries} requests though the first batch was refused"
    );
}

#[tokio::test]
async fn cluster_a3_nothing_is_created_twice_while_the_watch_is_late() {
    let creations = Arc::new(AtomicUsize::new(0));
    let counted = creations.clone();
    let decide = move |method: &Method, uri: &Uri| {
        let path = uri.path();
        if !path.ends_with("/pods") && !path.ends_with("/endpointslices") {
            return Fate::Pass;
        }
        if method == Method::POST {
            counted.fetch_add(1, Ordering::Relaxed);
        }
        let watch = uri
            .query()
            .is_some_and(|query| query.contains("watch=true"));
        if watch { Fate::Delay } else { Fate::Pass }
    };
    let cluster = Cluster::with(|server| Faulty::client(server, Arc::new(decide))).await;
    cluster.add_agent().await;
    cluster.create::<ReplicaSet>(replica_set(5)).await;
    let slice = || async { cluster.names::<EndpointSlice>().await.len() };
    cluster.create::<Service>(service()).await;
    eventually("a slice", |slices| *slices == 1, slice).await;
    for label in ["a", "b", "c"] {
        let patch = json!({ "metadata": { "labels": { "l": label } } });
        cluster.patch::<ReplicaSet>("rs", patch.clone()).await;
        cluster.patch::<Service>("web", patch).await;
        tokio::task::yield_now().await;
    }
    let five = |addresses: &Vec<String>| addresses.len() == 5;
    eventually("five addresses", five, || cluster.ready_addresses("web")).await;
    assert_eq!(cluster.names::<Pod>().await.len(), 5);
    assert_eq!(
        creations.load(Ordering::Relaxed),
        6,
        "five pods and one slice"
    );
}
