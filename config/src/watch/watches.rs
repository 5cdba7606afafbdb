//! The tasks that watch, one a kind, and one for each Secret and ConfigMap that is named.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Pod, Secret, Service};
use k8s_openapi::api::discovery::v1;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use kube::Client;
use rustls::crypto::CryptoProvider;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};

use super::WatchOptions;
use super::custom::Custom;
use super::follow::Follower;
use super::source::Source;
use super::wire::Decode;
use crate::compile::{
    Change, ClassRecord, Compiler, ConfigMapRecord, Delta, IngressRecord, Names, NodeRecord,
    ObjectKey, PodRecord, SecretRecord, ServiceRecord, SliceRecord,
};
use crate::staleness::Staleness;

/// Pods that have not ended.
const PODS_THAT_RUN: &str = "status.phase!=Succeeded,status.phase!=Failed,status.phase!=Unknown";

fn set_staleness(kind: &'static str, age: Duration) {
    metrics::gauge!("sealane_config_staleness_seconds", "kind" => kind).set(age.as_secs_f64());
}

/// The tasks that watch. They end when this is dropped.
pub(super) struct Watches {
    client: Client,
    sender: mpsc::Sender<Change>,
    tasks: JoinSet<()>,
    staleness: Staleness,
    /// The kinds that have a gauge of their staleness.
    measured: Vec<&'static str>,
    /// The kinds that are listed completely.
    kinds: Vec<&'static str>,
    secrets: Referred,
    config_maps: Referred,
    provider: Arc<CryptoProvider>,
}

impl Watches {
    /// Starts the watches on whole kinds. Those on Secrets follow references as they come.
    pub(super) fn start(
        client: Client,
        sender: mpsc::Sender<Change>,
        staleness: Staleness,
        options: &WatchOptions,
    ) -> Self {
        let mut watches = Self {
            client,
            sender,
            tasks: JoinSet::new(),
            staleness,
            measured: Vec::new(),
            kinds: Vec::new(),
            secrets: Referred::default(),
            config_maps: Referred::default(),
            provider: Arc::new(rustls::crypto::aws_lc_rs::default_provider()),
        };
        let source = Source::all::<Service>;
        watches.follow(
            source("Service").labelled(&options.labels),
            |key, service, names| Some(ServiceRecord::read(key, service, names)),
            Change::Services,
        );
        let source = Source::all::<v1::EndpointSlice>;
        let source = source("EndpointSlice").labelled(&options.labels);
        watches.follow(source, SliceRecord::read, Change::Slices);
        if let Some(node) = &options.node {
            let source = Source::one::<Node>("Node", &ObjectKey::new("", node));
            watches.follow(
                source,
                |key, node, names| Some(NodeRecord::read(key, node, names)),
                Change::Nodes,
            );
        }
        if options.names {
            let source = Source::all::<Namespace>;
            watches.follow(
                source("Namespace").labelled(&options.namespace_labels),
                |_, _: Namespace, _| Some(()),
                Change::Namespaces,
            );
        }
        if options.pods {
            let source = Source::all::<Pod>("Pod");
            watches.follow(
                source.labelled(&options.labels).with_fields(PODS_THAT_RUN),
                |_, pod, _| PodRecord::read(pod),
                Change::Pods,
            );
        }
        if options.ingress.is_some() {
            watches.follow_ingresses();
        }
        watches
    }

    /// The kinds that are listed completely.
    pub(super) fn kinds(&self) -> HashSet<&'static str> {
        self.kinds.iter().copied().collect()
    }

    fn follow_ingresses(&mut self) {
        let source = Source::all::<Ingress>;
        self.follow(
            source("Ingress"),
            |key, ingress, _| Some(IngressRecord::read(key, ingress)),
            Change::Ingresses,
        );
        let source = Source::all::<IngressClass>;
        self.follow(
            source("IngressClass"),
            |_, class, _| Some(ClassRecord::read(class)),
            Change::Classes,
        );
        self.kinds.extend(super::custom::kinds());
        let custom = Custom::new(
            self.client.clone(),
            self.sender.clone(),
            self.staleness.clone(),
        );
        self.tasks.spawn(custom.run());
    }

    fn follow<K, R>(
        &mut self,
        source: Source,
        read: fn(&ObjectKey, K, &mut Names) -> Option<R>,
        wrap: fn(Delta<R>) -> Change,
    ) where
        K: Decode + Send + 'static,
        R: Send + 'static,
    {
        self.kinds.push(source.kind());
        let follower = Follower {
            contact: self.staleness.add(source.kind()),
            client: self.client.clone(),
            source,
            read,
            wrap,
            sender: self.sender.clone(),
            names: Names::default(),
        };
        self.tasks.spawn(follower.run());
    }

    /// Sets the gauges.
    pub(super) fn measure_staleness(&mut self) {
        let ages = self.staleness.ages();
        for kind in &self.measured {
            if !ages.iter().any(|(watched, _)| watched == kind) {
                set_staleness(kind, Duration::ZERO);
            }
        }
        self.measured = ages.iter().map(|(kind, _)| *kind).collect();
        for (kind, age) in ages {
            set_staleness(kind, age);
        }
    }

    /// Starts and ends watches on Secrets and ConfigMaps as references come and go.
    pub(super) fn follow_references(&mut self, compiler: &Compiler) {
        // Those that were aborted: others end with the process only.
        while self.tasks.try_join_next().is_some() {}
        if self.secrets.turns(compiler.secrets_version()) {
            for (key, reference) in self.secrets.keep(compiler.secrets()) {
                let task = self.follow_secret(key.clone());
                self.secrets.tasks.insert(key, (reference, task));
            }
        }
        if self.config_maps.turns(compiler.config_maps_version()) {
            for (key, reference) in self.config_maps.keep(compiler.config_maps()) {
                let task = self.follow_config_map(key.clone());
                self.config_maps.tasks.insert(key, (reference, task));
            }
        }
    }

    fn follow_secret(&mut self, key: ObjectKey) -> AbortHandle {
        let provider = Arc::clone(&self.provider);
        let follower = Follower {
            contact: self.staleness.add("Secret"),
            client: self.client.clone(),
            source: Source::one::<Secret>("Secret", &key),
            read: move |key: &ObjectKey, secret: Secret, _: &mut Names| {
                Some(SecretRecord::read(key, secret, &provider))
            },
            wrap: move |delta| Change::Secret(key.clone(), delta),
            sender: self.sender.clone(),
            names: Names::default(),
        };
        self.tasks.spawn(follower.run())
    }
    fn follow_config_map(&mut self, key: ObjectKey) -> AbortHandle {
        let follower = Follower {
            contact: self.staleness.add("ConfigMap"),
            client: self.client.clone(),
            source: Source::one::<ConfigMap>("ConfigMap", &key),
            read: |_: &ObjectKey, map: ConfigMap, _: &mut Names| Some(ConfigMapRecord::read(map)),
            wrap: move |delta| Change::ConfigMap(key.clone(), delta),
            sender: self.sender.clone(),
            names: Names::default(),
        };
        self.tasks.spawn(follower.run())
    }
}

/// The watches on objects of one kind that are named, each restricted to its name.
#[derive(Default)]
struct Referred {
    /// By the number of the reference.
    tasks: HashMap<ObjectKey, (u64, AbortHandle)>,
    version: Option<u64>,
}

impl Referred {
    /// Whether references changed since the last call.
    fn turns(&mut self, version: u64) -> bool {
        self.version.replace(version) != Some(version)
    }

    /// Ends the watches that are not wanted any more; returns those that are to be started.
    fn keep<'a>(
        &mut self,
        wanted: impl Iterator<Item = (&'a ObjectKey, u64)>,
    ) -> Vec<(ObjectKey, u64)> {
        let wanted: HashMap<&ObjectKey, u64> = wanted.collect();
        self.tasks.retain(|key, (reference, task)| {
            let is_wanted = wanted.get(key) == Some(reference);
            if !is_wanted {
                task.abort();
            }
            is_wanted
        });
        let new = wanted
            .into_iter()
            .filter(|(key, _)| !self.tasks.contains_key(*key));
        new.map(|(key, reference)| (key.clone(), reference))
            .collect()
    }
}
