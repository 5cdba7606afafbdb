//! Kinds that come and go: those of Gateway API are watched while the API server serves them.
//!
//! Which it serves is in its discovery documents, which every user may read, so that this takes no
//! privilege beyond those on the kinds themselves; they are asked for every [`PERIOD`]. A kind that may
//! not be listed is left alone, and so is everything else when only this fails.
//!
//! When a CustomResourceDefinition is deleted, its objects are deleted one by one first, and the watch
//! says so. That the kind is gone only ends the watch, and is believed when it was seen twice: an API
//! server that has just started may not know all of its kinds yet.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use kube::Client;
use kube::api::ListParams;
use kube::core::Request;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::follow::Follower;
use super::source::Source;
use crate::compile::gateway_api::{
    ApiChange, ApiRecord, GROUP, GatewayClassSpec, GatewaySpec, GrpcRouteSpec, HttpRouteSpec,
    Object, ReferenceGrantSpec, Spec,
};
use crate::compile::{Change, Delta, Names};
use crate::staleness::Staleness;

/// How often is asked which kinds are served.
const PERIOD: Duration = Duration::from_secs(2);

/// How long one request may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Status codes.
const FORBIDDEN: u16 = 403;
const NOT_FOUND: u16 = 404;

/// A kind, and what to do with it.
struct Kind {
    kind: &'static str,
    plural: &'static str,
    version: &'static str,
    follow: fn(&Custom) -> AbortOnDropHandle<()>,
    /// A list without objects of it.
    none: fn() -> [ApiChange; 2],
}

impl Kind {
    const fn of<S: Spec>(
        follow: fn(&Custom) -> AbortOnDropHandle<()>,
        none: fn() -> [ApiChange; 2],
    ) -> Self {
        Self {
            kind: S::KIND,
            plural: S::PLURAL,
            version: S::VERSION,
            follow,
            none,
        }
    }

    fn path(&self) -> String {
        format!("/apis/{GROUP}/{}/{}", self.version, self.plural)
    }
}

const KINDS: [Kind; 5] = [
    Kind::of::<GatewayClassSpec>(
        |custom| custom.follow(ApiChange::Classes),
        || [Delta::ListBegin, Delta::ListEnd].map(ApiChange::Classes),
    ),
    Kind::of::<GatewaySpec>(
        |custom| custom.follow(ApiChange::Gateways),
        || [Delta::ListBegin, Delta::ListEnd].map(ApiChange::Gateways),
    ),
    Kind::of::<HttpRouteSpec>(
        |custom| custom.follow(ApiChange::HttpRoutes),
        || [Delta::ListBegin, Delta::ListEnd].map(ApiChange::HttpRoutes),
    ),
    Kind::of::<GrpcRouteSpec>(
        |custom| custom.follow(ApiChange::GrpcRoutes),
        || [Delta::ListBegin, Delta::ListEnd].map(ApiChange::GrpcRoutes),
    ),
    Kind::of::<ReferenceGrantSpec>(
        |custom| custom.follow(ApiChange::Grants),
        || [Delta::ListBegin, Delta::ListEnd].map(ApiChange::Grants),
    ),
];

/// The kinds; of each one something is said before the first snapshot, if only that it is not there.
pub(super) fn kinds() -> impl Iterator<Item = &'static str> {
    KINDS.iter().map(|kind| kind.kind)
}

/// Version and resource name of what is served.
type Served = HashSet<(String, String)>;

/// What is known of a kind.
enum Watched {
    /// Not served, or not ours to list.
    No,
    /// Followed; how often in a row it was not found among the served ones.
    Yes(AbortOnDropHandle<()>, u8),
}

/// The task that starts and ends the watches. They end when it does.
pub(super) struct Custom {
    client: Client,
    sender: mpsc::Sender<Change>,
    staleness: Staleness,
    watched: HashMap<&'static str, Watched>,
    /// Kinds of which was said that they may not be listed.
    refused: HashSet<&'static str>,
    is_failing: bool,
}

impl Custom {
    pub(super) fn new(client: Client, sender: mpsc::Sender<Change>, staleness: Staleness) -> Self {
        Self {
            client,
            sender,
            staleness,
            watched: HashMap::new(),
            refused: HashSet::new(),
            is_failing: false,
        }
    }

    /// Runs until the receiver of the changes is gone.
    pub(super) async fn run(mut self) {
        while !self.sender.is_closed() {
            match timeout(PATIENCE, self.discover()).await {
                Ok(Ok(served)) => {
                    self.is_failing = false;
                    self.update(&served).await;
                }
                Ok(Err(kube::Error::Api(status))) if status.code == FORBIDDEN => {
                    self.failed("forbidden; the role needs system:discovery");
                    self.update(&Served::new()).await;
                }
                Ok(Err(error)) => self.failed(&error.to_string()),
                Err(_elapsed) => self.failed("the API server says nothing"),
            }
            tokio::time::sleep(PERIOD).await;
        }
    }

    /// Says the first time that it is not known which kinds are served.
    fn failed(&mut self, why: &str) {
        if !std::mem::replace(&mut self.is_failing, true) {
            tracing::warn!("whether {GROUP} is served is not known, trying again: {why}");
        }
    }

    async fn discover(&self) -> Result<Served, kube::Error> {
        let versions: HashSet<&str> = KINDS.iter().map(|kind| kind.version).collect();
        let mut served = Served::new();
        for version in versions {
            let group_version = format!("{GROUP}/{version}");
            let found = self.client.list_api_group_resources(&group_version).await;
            let resources = match found {
                Ok(found) => found.resources,
                Err(kube::Error::Api(status)) if status.code == NOT_FOUND => continue,
                Err(error) => return Err(error),
            };
            let names = resources.into_iter().map(|resource| resource.name);
            served.extend(names.map(|name| (version.to_owned(), name)));
        }
        Ok(served)
    }

    /// Starts and ends watches.
    async fn update(&mut self, served: &Served) {
        for kind in &KINDS {
            let is_served = served.contains(&(kind.version.to_owned(), kind.plural.to_owned()));
            let before = self.watched.remove(kind.kind);
            let now = match (before, is_served) {
                (Some(Watched::Yes(task, _)), true) => Watched::Yes(task, 0),
                (Some(Watched::Yes(task, 0)), false) => Watched::Yes(task, 1),
                (Some(Watched::Yes(task, _)), false) => {
                    task.abort();
                    // It may be in the middle of a last change: nothing may come after ours.
                    let _ = task.await;
                    self.none(kind).await;
                    tracing::info!("{} is not served any more", kind.kind);
                    Watched::No
                }
                (Some(Watched::No), false) => Watched::No,
                (None, false) => {
                    self.none(kind).await;
                    Watched::No
                }
                (before, true) => match self.may_list(kind).await {
                    Some(true) => {
                        tracing::info!("{} is served: watching it", kind.kind);
                        Watched::Yes((kind.follow)(self), 0)
                    }
                    Some(false) => {
                        if before.is_none() {
                            self.none(kind).await;
                        }
                        Watched::No
                    }
                    // To be asked again, as if for the first time if it was.
                    None => match before {
                        Some(before) => before,
                        None => continue,
                    },
                },
            };
            self.watched.insert(kind.kind, now);
        }
    }

    async fn none(&self, kind: &Kind) {
        for change in (kind.none)() {
            // Nobody is left to tell at the end.
            let _ = self.sender.send(Change::GatewayApi(change)).await;
        }
    }

    /// Whether our role lets us list a kind; `None` if that cannot be found out.
    async fn may_list(&mut self, kind: &Kind) -> Option<bool> {
        let request = Request::new(kind.path());
        let request = request.list(&ListParams::default().limit(1)).ok()?;
        let answer = self.client.request::<Box<RawValue>>(request);
        match timeout(PATIENCE, answer).await.ok()? {
            Ok(_) => {
                self.refused.remove(kind.kind);
                Some(true)
            }
            Err(kube::Error::Api(status)) if status.code == FORBIDDEN => {
                if self.refused.insert(kind.kind) {
                    tracing::warn!(
                        "{}s are served but not watched: the role needs list and watch on {}.{GROUP} ({})",
                        kind.kind,
                        kind.plural,
                        status.message
                    );
                }
                Some(false)
            }
            Err(kube::Error::Api(status)) if status.code == NOT_FOUND => Some(false),
            Err(_) => None,
        }
    }

    fn follow<S>(&self, wrap: fn(Delta<ApiRecord<S>>) -> ApiChange) -> AbortOnDropHandle<()>
    where
        S: Spec + DeserializeOwned + Send + Sync + 'static,
    {
        let follower = Follower {
            contact: self.staleness.add(S::KIND),
            client: self.client.clone(),
            source: Source::all::<Object<S>>(S::KIND),
            read: |_: &_, object: Object<S>, _: &mut Names| Some(ApiRecord::read(object)),
            wrap: move |delta| Change::GatewayApi(wrap(delta)),
            sender: self.sender.clone(),
            names: Names::default(),
        };
        AbortOnDropHandle::new(tokio::spawn(follower.run::<Object<S>, ApiRecord<S>>()))
    }
}
