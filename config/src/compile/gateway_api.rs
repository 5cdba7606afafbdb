//! Gateway API to the terms of Ingress, so that one compiler makes rules of both.
//!
//! An HTTPRoute that a Gateway of ours takes becomes a record with one rule for each of its hosts, a
//! Gateway's HTTPS listeners become certificates. Served are exact and prefix paths with weighted
//! Services behind them, in the same namespace or where a ReferenceGrant allows it.
//!
//! What cannot be served yet is said in a problem and answers 503, since leaving it out would hand its
//! requests to the next broader rule: matches of headers, query and method, filters, GRPCRoutes. All
//! listeners share one table of hosts: which listener a request came in by, and its port, make no
//! difference. A wildcard host stands for one label, as with Ingress.

mod attach;
mod findings;
mod listeners;
mod translate;
mod types;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::ingress::IngressRecord;
use super::problems::Problems;
use super::rank::SourceKey;
use super::store::{Changed, Delta, ObjectKey, Store};
use crate::Snapshot;
use crate::defaults::GATEWAY_CONTROLLER;
use crate::model::{Attachment, ObjectRef, Problem, ProblemKind};
use types::ParentRef;

pub use types::{
    GROUP, GatewayClassSpec, GatewaySpec, GrpcRouteSpec, HttpRouteSpec, Object, ReferenceGrantSpec,
    Spec,
};

/// A change of Gateway API's objects.
#[derive(Debug)]
pub enum ApiChange {
    /// GatewayClasses.
    Classes(Delta<ApiRecord<GatewayClassSpec>>),
    /// Gateways.
    Gateways(Delta<ApiRecord<GatewaySpec>>),
    /// HTTPRoutes.
    HttpRoutes(Delta<ApiRecord<HttpRouteSpec>>),
    /// GRPCRoutes.
    GrpcRoutes(Delta<ApiRecord<GrpcRouteSpec>>),
    /// ReferenceGrants.
    Grants(Delta<ApiRecord<ReferenceGrantSpec>>),
}

impl ApiChange {
    /// The kind of which this is the complete list.
    pub fn listed_kind(&self) -> Option<&'static str> {
        match self {
            Self::Classes(Delta::ListEnd) => Some(GatewayClassSpec::KIND),
            Self::Gateways(Delta::ListEnd) => Some(GatewaySpec::KIND),
            Self::HttpRoutes(Delta::ListEnd) => Some(HttpRouteSpec::KIND),
            Self::GrpcRoutes(Delta::ListEnd) => Some(GrpcRouteSpec::KIND),
            Self::Grants(Delta::ListEnd) => Some(ReferenceGrantSpec::KIND),
            Self::Classes(_)
            | Self::Gateways(_)
            | Self::HttpRoutes(_)
            | Self::GrpcRoutes(_)
            | Self::Grants(_) => None,
        }
    }
}

/// What is kept of an object.
#[derive(Clone, Debug, PartialEq)]
pub struct ApiRecord<S> {
    pub(super) created: i64,
    pub(super) generation: i64,
    pub(super) spec: S,
}

impl<S> ApiRecord<S> {
    /// Reads an object.
    pub fn read(object: Object<S>) -> Self {
        let ObjectMeta {
            creation_timestamp,
            generation,
            ..
        } = object.metadata;
        Self {
            created: super::created(creation_timestamp.as_ref()),
            generation: generation.unwrap_or_default(),
            spec: object.spec,
        }
    }
}

/// The objects, and what those that are ours come to.
#[derive(Debug)]
pub(super) struct GatewayApi {
    classes: Store<ApiRecord<GatewayClassSpec>>,
    gateways: Store<ApiRecord<GatewaySpec>>,
    routes: Store<ApiRecord<HttpRouteSpec>>,
    grpc_routes: Store<ApiRecord<GrpcRouteSpec>>,
    grants: Store<ApiRecord<ReferenceGrantSpec>>,
    /// Routes of any kind by the Gateways that they name.
    by_gateway: HashMap<ObjectKey, BTreeSet<SourceKey>>,
    records: HashMap<SourceKey, IngressRecord>,
    /// What became of objects, until it is in the snapshot; `None` if they are not ours.
    attached: HashMap<ObjectRef, Option<Attachment>>,
}

impl GatewayApi {
    pub(super) fn new() -> Self {
        Self {
            classes: Store::new(GatewayClassSpec::KIND),
            gateways: Store::new(GatewaySpec::KIND),
            routes: Store::new(HttpRouteSpec::KIND),
            grpc_routes: Store::new(GrpcRouteSpec::KIND),
            grants: Store::new(ReferenceGrantSpec::KIND),
            by_gateway: HashMap::new(),
            records: HashMap::new(),
            attached: HashMap::new(),
        }
    }

    /// What an object of ours comes to.
    pub(super) fn record(&self, source: &SourceKey) -> Option<&IngressRecord> {
        self.records.get(source)
    }

    /// Takes a change in; returns the objects whose records are other than before.
    pub(super) fn apply(&mut self, change: ApiChange, problems: &mut Problems) -> Vec<SourceKey> {
        let touched = match change {
            ApiChange::Classes(delta) => self.apply_classes(delta, problems),
            ApiChange::Gateways(delta) => {
                let changed = keys(self.gateways.apply(delta, problems));
                changed
                    .iter()
                    .flat_map(|key| self.with_routes(key))
                    .collect()
            }
            ApiChange::HttpRoutes(delta) => {
                let mut touched = BTreeSet::new();
                for Changed { key, old } in self.routes.apply(delta, problems) {
                    let source = source(HttpRouteSpec::KIND, key);
                    let new = self.routes.get(&source.key);
                    let old = old.map(|record| record.spec.parent_refs);
                    let new = new.map(|record| record.spec.parent_refs.clone());
                    self.link(&source, &old.unwrap_or_default(), &new.unwrap_or_default());
                    touched.insert(source);
                }
                touched
            }
            ApiChange::GrpcRoutes(delta) => {
                let mut touched = BTreeSet::new();
                for Changed { key, old } in self.grpc_routes.apply(delta, problems) {
                    let source = source(GrpcRouteSpec::KIND, key);
                    let new = self.grpc_routes.get(&source.key);
                    let old = old.map(|record| record.spec.parent_refs);
                    let new = new.map(|record| record.spec.parent_refs.clone());
                    self.link(&source, &old.unwrap_or_default(), &new.unwrap_or_default());
                    touched.insert(source);
                }
                touched
            }
            ApiChange::Grants(delta) => {
                let changed = keys(self.grants.apply(delta, problems));
                let namespaces: BTreeSet<&str> =
                    changed.iter().map(|key| &*key.namespace).collect();
                let refers = |namespace: &str| namespaces.contains(namespace);
                let routes = self.routes.iter();
                routes
                    .filter(|(key, route)| translate::leads_out(key, &route.spec, refers))
                    .map(|(key, _)| source(HttpRouteSpec::KIND, key.clone()))
                    .collect()
            }
        };
        let is_changed = |source: &SourceKey| self.update(source.clone());
        touched.into_iter().filter(is_changed).collect()
    }

    /// A class that comes, goes or changes hands moves its Gateways, and they their routes.
    fn apply_classes(
        &mut self,
        delta: Delta<ApiRecord<GatewayClassSpec>>,
        problems: &mut Problems,
    ) -> BTreeSet<SourceKey> {
        let changed = keys(self.classes.apply(delta, problems));
        for key in &changed {
            let class = self.classes.get(key);
            let class = class.filter(|class| class.spec.controller_name == GATEWAY_CONTROLLER);
            let attachment = class.map(|class| Attachment {
                generation: class.generation,
                parents: Vec::new(),
            });
            let object = key.of_kind(GatewayClassSpec::KIND);
            self.attached.insert(object, attachment);
        }
        let moved = |gateway: &ApiRecord<GatewaySpec>| {
            let mut changed = changed.iter();
            changed.any(|class| *class.name == gateway.spec.gateway_class_name)
        };
        let moved = self.gateways.iter().filter(|(_, gateway)| moved(gateway));
        moved.flat_map(|(key, _)| self.with_routes(key)).collect()
    }

    /// A Gateway and the routes that name it.
    fn with_routes(&self, gateway: &ObjectKey) -> Vec<SourceKey> {
        let routes = self.by_gateway.get(gateway).into_iter().flatten();
        let gateway = source(GatewaySpec::KIND, gateway.clone());
        routes.cloned().chain([gateway]).collect()
    }

    /// Brings the index of a route's parents up to date.
    fn link(&mut self, route: &SourceKey, before: &[ParentRef], after: &[ParentRef]) {
        for gateway in before
            .iter()
            .filter_map(|parent| parent.gateway(&route.key))
        {
            if let Some(routes) = self.by_gateway.get_mut(&gateway) {
                routes.remove(route);
                if routes.is_empty() {
                    self.by_gateway.remove(&gateway);
                }
            }
        }
        for gateway in after.iter().filter_map(|parent| parent.gateway(&route.key)) {
            let routes = self.by_gateway.entry(gateway).or_default();
            routes.insert(route.clone());
        }
    }

    /// Makes an object's record anew; returns whether it is other than before.
    fn update(&mut self, source: SourceKey) -> bool {
        let (record, attachment) = match source.kind {
            GatewaySpec::KIND => (
                self.gateway_record(&source.key),
                self.attachment(&source.key),
            ),
            HttpRouteSpec::KIND => self.route_record(&source.key).unzip(),
            _ => (self.grpc_record(&source.key), None),
        };
        self.attached.insert(source.object(), attachment);
        if self.records.get(&source) == record.as_ref() {
            return false;
        }
        match record {
            Some(record) => self.records.insert(source, record),
            None => self.records.remove(&source),
        };
        true
    }

    fn attachment(&self, gateway: &ObjectKey) -> Option<Attachment> {
        let generation = self.our_gateway(gateway)?.generation;
        let parents = Vec::new();
        Some(Attachment {
            generation,
            parents,
        })
    }

    /// Brings the attachments in `snapshot` up to date; returns whether one changed.
    pub(super) fn build(&mut self, snapshot: &mut Snapshot) -> bool {
        let mut is_changed = false;
        for (object, attachment) in self.attached.drain() {
            let attachment = attachment.map(Arc::new);
            if snapshot.attachments.get(&object) == attachment.as_ref() {
                continue;
            }
            is_changed = true;
            match attachment {
                Some(attachment) => snapshot.attachments.insert_mut(object, attachment),
                None => drop(snapshot.attachments.remove_mut(&object)),
            }
        }
        is_changed
    }

    /// A Gateway whose class is ours.
    fn our_gateway(&self, key: &ObjectKey) -> Option<&ApiRecord<GatewaySpec>> {
        let gateway = self.gateways.get(key)?;
        let class = ObjectKey::new("", &gateway.spec.gateway_class_name);
        let class = self.classes.get(&class)?;
        (class.spec.controller_name == GATEWAY_CONTROLLER).then_some(gateway)
    }

    /// Says of a GRPCRoute that would be ours that it is not served.
    fn grpc_record(&self, key: &ObjectKey) -> Option<IngressRecord> {
        let route = self.grpc_routes.get(key)?;
        let mut parents = route.spec.parent_refs.iter();
        let is_ours = parents.any(|parent| {
            let gateway = parent.gateway(key);
            gateway.is_some_and(|gateway| self.our_gateway(&gateway).is_some())
        });
        is_ours.then(|| {
            let problem = Problem {
                object: key.of_kind(GrpcRouteSpec::KIND),
                field: "spec".into(),
                kind: ProblemKind::BadField,
                message: "GRPCRoutes are not served yet; an HTTPRoute to the same Service is"
                    .into(),
            };
            translate::record(route.created, Vec::new(), vec![problem])
        })
    }
}

fn source(kind: &'static str, key: ObjectKey) -> SourceKey {
    SourceKey { key, kind }
}

fn keys<R>(changed: Vec<Changed<R>>) -> Vec<ObjectKey> {
    changed.into_iter().map(|changed| changed.key).collect()
}

impl ParentRef {
    /// The Gateway that a route of this key names; `None` if it names something else.
    fn gateway(&self, route: &ObjectKey) -> Option<ObjectKey> {
        let is_gateway = self.group.as_deref().is_none_or(|group| group == GROUP)
            && self
                .kind
                .as_deref()
                .is_none_or(|kind| kind == GatewaySpec::KIND);
        let namespace = self.namespace.as_deref().unwrap_or(&route.namespace);
        is_gateway.then(|| ObjectKey::new(namespace, &self.name))
    }
}
