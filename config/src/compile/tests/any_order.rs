//! Any sequence of events ends where compiling the final set from nothing does.
//!
//! Few names and many collisions, so that objects meet: two Services that want one address, slices
//! that take endpoints from each other, Ingresses with the same host and path. What depends on history
//! by design is part of the model: an object that cannot be decoded counts as its last good version,
//! and a certificate whose Secret is no good now may be the one that was served before.

mod objects;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::networking::v1 as networking;
use proptest::prelude::*;
use serde::de::DeserializeOwned;
use serde_json::Value;

use self::objects::{Kind, NAMES, SecretVersion, key, object, variants};
use super::world::{EPOCH, World};
use crate::Snapshot;
use crate::compile::endpoint_slice::EndpointSlice;
use crate::compile::gateway_api::{ApiChange, ApiRecord, Object};
use crate::compile::{
    Change, ClassRecord, Decoded, Delta, IngressRecord, Names, NodeRecord, ObjectKey, SecretRecord,
    ServiceRecord, SliceRecord,
};
use crate::defaults::SLICE_MOVE_GRACE;
use crate::model::Certificate;

/// Something that happens.
#[derive(Clone, Debug)]
enum Step {
    /// An object is added or changed.
    Put(Kind, usize, usize),
    /// An object is changed to something that cannot be decoded.
    Garble(Kind, usize),
    Delete(Kind, usize),
    /// An object comes, changes or goes while nobody watches: the next list of the kind says so.
    Miss(Kind, usize, Option<usize>),
    /// The kind is listed again, page by page.
    List(Kind),
    /// A list breaks off after some of the objects.
    BreakOff(Kind, usize),
    Secret(usize, SecretVersion),
    /// Milliseconds pass.
    Wait(u64),
    Build,
}

/// An object as the API server has it, and as it was last told of.
#[derive(Clone, Copy, Debug, Default)]
struct Version {
    /// The last variant that we were told of and that could be decoded.
    good: Option<usize>,
    now: Now,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Now {
    #[default]
    Gone,
    Garbled,
    Good(usize),
}

/// The API server's state, and a compiler that is told of it.
struct Mirror {
    world: World,
    objects: BTreeMap<(Kind, usize), Version>,
    /// Kinds of which something was missed.
    missed: BTreeSet<Kind>,
    secrets: [SecretVersion; NAMES],
    /// The references that were followed, as the watches do it.
    followed: HashMap<ObjectKey, u64>,
    last: Vec<String>,
}

impl Mirror {
    fn new() -> Self {
        let mut world = World::on_node();
        world.delete_class("ours");
        Self {
            world,
            objects: BTreeMap::new(),
            missed: BTreeSet::new(),
            secrets: [SecretVersion::Gone; NAMES],
            followed: HashMap::new(),
            last: canonical(&Snapshot::default()),
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Put(kind, name, variant) => {
                let variant = variant % variants(*kind);
                let version = self.objects.entry((*kind, *name)).or_default();
                version.good = Some(variant);
                version.now = Now::Good(variant);
                self.tell(*kind, *name);
            }
            Step::Garble(kind, name) => {
                let version = self.objects.entry((*kind, *name)).or_default();
                version.now = Now::Garbled;
                self.tell(*kind, *name);
            }
            Step::Delete(kind, name) => {
                self.objects.remove(&(*kind, *name));
                apply(&mut self.world, *kind, Said::Remove(key(*kind, *name)));
            }
            Step::Miss(kind, name, variant) => {
                let version = self.objects.entry((*kind, *name)).or_default();
                let good = |variant| Now::Good(variant % variants(*kind));
                version.now = variant.map_or(Now::Gone, good);
                self.missed.insert(*kind);
            }
            Step::List(kind) => {
                self.missed.remove(kind);
                self.list(*kind, usize::MAX);
                apply(&mut self.world, *kind, Said::ListEnd);
                self.objects
                    .retain(|(it, _), version| it != kind || version.now != Now::Gone);
                for ((it, _), version) in &mut self.objects {
                    if let (true, Now::Good(variant)) = (it == kind, version.now) {
                        version.good = Some(variant);
                    }
                }
            }
            Step::BreakOff(kind, after) => self.list(*kind, *after),
            Step::Secret(name, version) => {
                self.secrets[*name] = *version;
                let key = objects::secret_key(*name);
                let delta = match version {
                    SecretVersion::Gone => Delta::Remove(key.clone()),
                    other => Delta::Set(key.clone(), other.decoded(*name)),
                };
                self.world.apply(Change::Secret(key, delta));
            }
            Step::Wait(millis) => self.world.wait(*millis),
            Step::Build => self.build(),
        }
        self.follow_secrets();
    }

    /// Tells of an object as it is now.
    fn tell(&mut self, kind: Kind, name: usize) {
        let now = self.objects[&(kind, name)].now;
        if let Some(said) = now.said(kind, name) {
            apply(&mut self.world, kind, Said::Set(key(kind, name), said));
        }
    }

    /// Begins a list of all objects of a kind and breaks off after so many.
    fn list(&mut self, kind: Kind, after: usize) {
        apply(&mut self.world, kind, Said::ListBegin);
        let of_kind = self.objects.iter().filter(|((it, _), _)| *it == kind);
        let said = |((_, name), version): (&(Kind, usize), &Version)| {
            Some((key(kind, *name), version.now.said(kind, *name)?))
        };
        let all: Vec<_> = of_kind.filter_map(said).take(after).collect();
        for page in all.chunks(2) {
            apply(&mut self.world, kind, Said::Page(page.to_vec()));
        }
    }

    /// Reads the Secrets that are referred to and were not, or were forgotten in between.
    fn follow_secrets(&mut self) {
        let wanted: HashMap<ObjectKey, u64> = self
            .world
            .compiler
            .secrets()
            .map(|(key, reference)| (key.clone(), reference))
            .collect();
        for (key, reference) in &wanted {
            if self.followed.get(key) == Some(reference) {
                continue;
            }
            let name = (0..NAMES).find(|name| objects::secret_key(*name) == *key);
            let listed = name.map(|name| (key.clone(), self.secrets[name].decoded(name)));
            let page = Delta::Page(listed.into_iter().collect());
            for delta in [Delta::ListBegin, page, Delta::ListEnd] {
                self.world.apply(Change::Secret(key.clone(), delta));
            }
        }
        self.followed = wanted;
    }

    /// Builds, and sees that a snapshot that is said to be the same is.
    fn build(&mut self) {
        let built = self.world.compiler.build(self.world.now, EPOCH);
        let now = canonical(&built.snapshot);
        if !built.is_changed {
            assert_eq!(self.last, now, "said to be the same as before");
        }
        self.last = now;
    }

    /// The same state, told to a compiler that knows nothing.
    fn recompiled(&self) -> Self {
        let mut fresh = Self::new();
        fresh.objects.clone_from(&self.objects);
        fresh.secrets = self.secrets;
        for ((kind, name), version) in &self.objects {
            if let Some(good) = version.good {
                let said = Said::Set(key(*kind, *name), Ok(object(*kind, *name, good)));
                apply(&mut fresh.world, *kind, said);
            }
            fresh.tell(*kind, *name);
        }
        fresh.follow_secrets();
        fresh
    }

    fn check(&mut self) {
        for kind in std::mem::take(&mut self.missed) {
            self.step(&Step::List(kind));
        }
        // An endpoint may be held for so long because it may be about to turn up elsewhere.
        self.world
            .wait(u64::try_from(SLICE_MOVE_GRACE.as_millis()).unwrap());
        self.build();
        let mut fresh = self.recompiled();
        fresh.build();
        let certificates = |mirror: &mut Self| {
            let built = mirror.world.compiler.build(mirror.world.now, EPOCH);
            certificates(&built.snapshot)
        };
        let (here, there) = (certificates(self), certificates(&mut fresh));
        assert_eq!(self.last, fresh.last);
        for host in here.keys().chain(there.keys()) {
            let (have, want) = (here.get(host), there.get(host));
            if have != want {
                let kept = have.and_then(|(secret, _)| {
                    (0..NAMES).find(|name| *objects::secret_key(*name).name == **secret)
                });
                let is_good = kept.is_some_and(|name| self.secrets[name].is_good());
                assert!(
                    want.is_none() && kept.is_some() && !is_good,
                    "{host}: {have:?}"
                );
            }
        }
    }
}

impl Now {
    fn said(self, kind: Kind, name: usize) -> Option<Result<Value, String>> {
        match self {
            Self::Gone => None,
            Self::Garbled => Some(Err("garbled".into())),
            Self::Good(variant) => Some(Ok(object(kind, name, variant))),
        }
    }
}

/// An event about objects that were not read yet.
enum Said {
    Set(ObjectKey, Result<Value, String>),
    Remove(ObjectKey),
    ListBegin,
    Page(Vec<(ObjectKey, Result<Value, String>)>),
    ListEnd,
}

impl Said {
    fn read<K: DeserializeOwned, R>(
        self,
        read: impl Fn(&ObjectKey, K, &mut Names) -> Option<R>,
    ) -> Delta<R> {
        let mut names = Names::default();
        let mut decode = |key: &ObjectKey, said: Result<Value, String>| -> Decoded<R> {
            let object = serde_json::from_value(said?).unwrap();
            Ok(read(key, object, &mut names))
        };
        match self {
            Self::Set(key, said) => {
                let decoded = decode(&key, said);
                Delta::Set(key, decoded)
            }
            Self::Remove(key) => Delta::Remove(key),
            Self::ListBegin => Delta::ListBegin,
            Self::Page(said) => Delta::Page(
                said.into_iter()
                    .map(|(key, said)| {
                        let decoded = decode(&key, said);
                        (key, decoded)
                    })
                    .collect(),
            ),
            Self::ListEnd => Delta::ListEnd,
        }
    }

    fn read_api<S>(self) -> Delta<ApiRecord<S>>
    where
        Object<S>: DeserializeOwned,
    {
        self.read(|_, object: Object<S>, _| Some(ApiRecord::read(object)))
    }
}

fn apply(world: &mut World, kind: Kind, said: Said) {
    let change = match kind {
        Kind::Service => {
            let read = |key: &ObjectKey, object: core::Service, names: &mut Names| {
                Some(ServiceRecord::read(key, object, names))
            };
            Change::Services(said.read(read))
        }
        Kind::Slice => {
            let read = |key: &ObjectKey, object: EndpointSlice, names: &mut Names| {
                SliceRecord::read(key, object, names)
            };
            Change::Slices(said.read(read))
        }
        Kind::Node => {
            let read = |key: &ObjectKey, object: core::Node, names: &mut Names| {
                Some(NodeRecord::read(key, object, names))
            };
            Change::Nodes(said.read(read))
        }
        Kind::Namespace => Change::Namespaces(said.read(|_, _: Value, _| Some(()))),
        Kind::Ingress => {
            let read = |key: &ObjectKey, object: networking::Ingress, _: &mut Names| {
                Some(IngressRecord::read(key, object))
            };
            Change::Ingresses(said.read(read))
        }
        Kind::Class => {
            let read = |_: &ObjectKey, object: networking::IngressClass, _: &mut Names| {
                Some(ClassRecord::read(object))
            };
            Change::Classes(said.read(read))
        }
        Kind::GatewayClass => Change::GatewayApi(ApiChange::Classes(said.read_api())),
        Kind::Gateway => Change::GatewayApi(ApiChange::Gateways(said.read_api())),
        Kind::HttpRoute => Change::GatewayApi(ApiChange::HttpRoutes(said.read_api())),
    };
    world.apply(change);
}

impl SecretVersion {
    fn is_good(self) -> bool {
        matches!(self, Self::Good(_))
    }

    fn decoded(self, name: usize) -> Decoded<SecretRecord> {
        match self {
            Self::Gone => Ok(None),
            Self::Garbled => Err("garbled".into()),
            Self::Bad | Self::Good(_) => Ok(Some(objects::secret(name, self))),
        }
    }
}

/// A snapshot without its certificates, as text.
fn canonical(snapshot: &Snapshot) -> Vec<String> {
    let mut lines = Vec::new();
    for (key, service) in &snapshot.services {
        lines.push(format!("service {key}: {service:?}"));
    }
    for (vip, port) in &snapshot.vips {
        lines.push(format!("vip {vip:?}: {port:?}"));
    }
    for (node_port, port) in &snapshot.node_ports {
        lines.push(format!("node port {node_port:?}: {port:?}"));
    }
    for (ip, key) in snapshot.cluster_ips.iter() {
        lines.push(format!("cluster IP {ip}: {key}"));
    }
    for (ip, keys) in snapshot.endpoint_ips.iter() {
        lines.push(format!("endpoint IP {ip}: {keys:?}"));
    }
    for (name, ()) in &snapshot.namespaces {
        lines.push(format!("namespace {name}"));
    }
    for (key, status) in &snapshot.ingresses {
        lines.push(format!("status {key}: {status:?}"));
    }
    let routes = &snapshot.routes;
    for (host, rules) in routes.exact.iter().chain(routes.wildcard.iter()) {
        lines.push(format!("host {host}: {rules:?}"));
    }
    lines.push(format!("any host: {:?}", routes.any));
    lines.push(format!("default rule: {:?}", routes.default_rule));
    lines.sort();
    lines.extend(
        snapshot
            .problems
            .iter()
            .map(|problem| format!("{problem:?}")),
    );
    lines
}

/// The Secret and the bytes of each host's certificate.
fn certificates(snapshot: &Snapshot) -> BTreeMap<String, (String, Vec<u8>)> {
    let shown = |certificate: &Certificate| {
        let der = certificate.key.cert[0].to_vec();
        (certificate.source.name.to_string(), der)
    };
    let table = &snapshot.certificates;
    let exact = table
        .exact
        .iter()
        .map(|(host, it)| (host.to_string(), shown(it)));
    let wildcard = table.wildcard.iter();
    let wildcard = wildcard.map(|(host, it)| (format!("*.{host}"), shown(it)));
    exact.chain(wildcard).collect()
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    // What most depends on each other comes most often.
    let kind = || {
        prop_oneof![
            3 => Just(Kind::Service),
            4 => Just(Kind::Slice),
            4 => Just(Kind::Ingress),
            1 => Just(Kind::Node),
            6 => prop::sample::select(&Kind::ALL[..]),
        ]
    };
    let name = || 0..NAMES;
    let secret = prop_oneof![
        Just(SecretVersion::Gone),
        Just(SecretVersion::Garbled),
        Just(SecretVersion::Bad),
        (0_usize..2).prop_map(SecretVersion::Good),
    ];
    let step = prop_oneof![
        14 => (kind(), name(), any::<usize>()).prop_map(|(k, n, v)| Step::Put(k, n, v)),
        2 => (kind(), name()).prop_map(|(k, n)| Step::Garble(k, n)),
        4 => (kind(), name()).prop_map(|(k, n)| Step::Delete(k, n)),
        3 => (kind(), name(), any::<Option<usize>>()).prop_map(|(k, n, v)| Step::Miss(k, n, v)),
        2 => kind().prop_map(Step::List),
        1 => (kind(), name()).prop_map(|(k, n)| Step::BreakOff(k, n)),
        3 => (name(), secret).prop_map(|(n, v)| Step::Secret(n, v)),
        2 => (0_u64..80).prop_map(Step::Wait),
        4 => Just(Step::Build),
    ];
    prop::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn any_order_of_events_ends_as_from_nothing(steps in steps()) {
        let mut mirror = Mirror::new();
        for (index, step) in steps.iter().enumerate() {
            mirror.step(step);
            if index % 16 == 15 {
                mirror.check();
            }
        }
        mirror.check();
    }
}
