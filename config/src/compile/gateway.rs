//! Ingresses, their classes and their certificates to the gateway's tables, one host at a time.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use super::classes::{ClassRecord, Classes, ServedClasses};
use super::config_maps::{ConfigMapRecord, ConfigMaps};
use super::gateway_api::{ApiChange, GatewayApi};
use super::gateway_settings;
use super::host_routes::{HostCompiler, Source};
use super::ingress::IngressRecord;
use super::problems::{Problems, Unit};
use super::rank::{Age, SourceKey};
use super::secret::SecretRecord;
use super::secrets::Secrets;
use super::served::{Index, Served};
use super::services::Services;
use super::store::{Changed, Delta, ObjectKey, Store};
use crate::Snapshot;
use crate::model::{GatewaySettings, HostMatch};

mod hosts;

/// Which Ingresses are ours, and the certificate for everything else.
#[derive(Clone, Debug, Default)]
pub struct GatewayOptions {
    /// Which Ingresses are ours.
    pub classes: ServedClasses,
    /// The Secret of the default certificate.
    pub default_certificate: Option<ObjectKey>,
    /// The Service for requests that no rule takes, and for errors that the settings leave to it.
    pub default_service: Option<ObjectKey>,
    /// The ConfigMap with settings of the gateway as a whole.
    pub config_map: Option<ObjectKey>,
    /// These settings as they are where the ConfigMap says nothing.
    pub settings: GatewaySettings,
}

/// The gateway half of the compiler.
#[derive(Debug)]
pub(super) struct Gateway {
    options: GatewayOptions,
    ingresses: Store<IngressRecord>,
    classes: Classes,
    api: GatewayApi,
    secrets: Secrets,
    config_maps: ConfigMaps,
    settings: Arc<GatewaySettings>,
    /// The objects that are ours.
    index: Index,
    dirty_hosts: HashSet<HostMatch>,
    dirty_default: bool,
    dirty_status: HashSet<ObjectKey>,
    /// When the validity of certificates was last looked at, seconds since the Unix epoch.
    checked_at: i64,
}

/// What a [`Gateway::build`] did.
pub(super) struct GatewayWork {
    /// Hosts compiled.
    pub(super) hosts: usize,
    /// Anything at all.
    pub(super) is_changed: bool,
}

impl Gateway {
    pub(super) fn new(options: GatewayOptions) -> Self {
        let mut secrets = Secrets::default();
        if let Some(default) = &options.default_certificate {
            secrets.refer(default);
        }
        let mut config_maps = ConfigMaps::default();
        if let Some(key) = &options.config_map {
            config_maps.refer(key);
        }
        Self {
            settings: Arc::new(options.settings.clone()),
            ingresses: Store::new("Ingress"),
            classes: Classes::new(options.classes.clone()),
            api: GatewayApi::new(),
            secrets,
            config_maps,
            index: Index::default(),
            dirty_hosts: HashSet::new(),
            // Until it is known that there is no such Service.
            dirty_default: options.default_service.is_some(),
            dirty_status: HashSet::new(),
            checked_at: 0,
            options,
        }
    }

    pub(super) fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    pub(super) fn config_maps(&self) -> &ConfigMaps {
        &self.config_maps
    }

    pub(super) fn apply_ingresses(&mut self, delta: Delta<IngressRecord>, problems: &mut Problems) {
        for Changed { key, old } in self.ingresses.apply(delta, problems) {
            let new = self.ingresses.get(&key);
            if old.zip(new).is_some_and(|(old, new)| old.routes_like(new)) {
                self.dirty_status.insert(key);
            } else {
                self.index_ingress(&key, problems);
            }
        }
    }

    /// Takes in what changed in Gateway API.
    pub(super) fn apply_gateway_api(&mut self, change: ApiChange, problems: &mut Problems) {
        for source in self.api.apply(change, problems) {
            self.index(&source, problems);
        }
    }

    /// A class that comes, goes or changes its controller moves all of its Ingresses.
    pub(super) fn apply_classes(&mut self, delta: Delta<ClassRecord>, problems: &mut Problems) {
        let names = self.classes.apply(delta, problems);
        if names.is_empty() {
            return;
        }
        let names: HashSet<Arc<str>> = names.into_iter().collect();
        let moved: Vec<ObjectKey> = self
            .ingresses
            .iter()
            .filter(|(_, ingress)| ingress.class.as_ref().is_some_and(|c| names.contains(c)))
            .map(|(key, _)| key.clone())
            .collect();
        for key in moved {
            self.index_ingress(&key, problems);
        }
    }

    pub(super) fn apply_secret(&mut self, key: &ObjectKey, delta: Delta<SecretRecord>) {
        if self.secrets.apply(key, delta) {
            self.secret_changed(key);
        }
    }

    pub(super) fn apply_config_map(
        &mut self,
        key: &ObjectKey,
        delta: Delta<ConfigMapRecord>,
        problems: &mut Problems,
    ) {
        if !self.config_maps.apply(key, delta) {
            return;
        }
        for served in self.index.of_config_map(key) {
            self.dirty_hosts.extend(served.hosts.iter().cloned());
            self.dirty_default |= served.is_catch_all;
        }
        if self.options.config_map.as_ref() == Some(key) {
            self.read_settings(key, problems);
        }
    }

    /// Reads the ConfigMap with the settings again. What of them is part of rules has all rules
    /// compiled again.
    fn read_settings(&mut self, key: &ObjectKey, problems: &mut Problems) {
        let Some(state) = self.config_maps.get(key) else {
            return;
        };
        let base = &self.options.settings;
        let (settings, found) = gateway_settings::read(base, key, state);
        problems.set(Unit::Settings, found);
        if settings.redirect_status != self.settings.redirect_status {
            let redirecting = self.redirecting_hosts();
            self.dirty_hosts.extend(redirecting);
        }
        if settings.rules != self.settings.rules {
            self.dirty_hosts.extend(self.index.hosts().cloned());
            self.dirty_default = true;
        }
        let before = std::mem::replace(&mut self.settings, Arc::new(settings));
        if self.settings.rules.cross_namespace != before.rules.cross_namespace {
            // Other Secrets may be read.
            let sources: Vec<SourceKey> = self.index.sources().cloned().collect();
            for source in sources {
                self.index(&source, problems);
            }
        }
    }

    /// Lets time pass: hosts whose certificate began or ceased to be valid since the last call are
    /// compiled again. Returns whether there are any.
    pub(super) fn check_validity(&mut self, epoch_seconds: i64) -> bool {
        let before = std::mem::replace(&mut self.checked_at, epoch_seconds);
        let turned = self.secrets.turned(before, epoch_seconds);
        for key in &turned {
            self.secret_changed(key);
        }
        !turned.is_empty()
    }

    fn secret_changed(&mut self, key: &ObjectKey) {
        for served in self.index.of_secret(key) {
            self.dirty_hosts.extend(served.hosts.iter().cloned());
            self.dirty_default |= served.is_catch_all;
        }
        self.dirty_default |= self.options.default_certificate.as_ref() == Some(key);
    }

    /// Kind or ports of a Service changed: backends that name it are looked up again.
    pub(super) fn service_changed(&mut self, service: &ObjectKey) {
        for served in self.index.of_service(service) {
            self.dirty_hosts.extend(served.hosts.iter().cloned());
            self.dirty_default |= served.is_catch_all;
        }
        if self.options.default_service.as_ref() == Some(service) {
            self.dirty_default = true;
            self.dirty_hosts.extend(self.index.hosts().cloned());
        }
    }

    /// Compiles the hosts that changed into `snapshot`.
    pub(super) fn build(
        &mut self,
        services: &Services,
        epoch_seconds: i64,
        snapshot: &mut Snapshot,
        problems: &mut Problems,
    ) -> GatewayWork {
        let dirty = std::mem::take(&mut self.dirty_hosts);
        let default = std::mem::take(&mut self.dirty_default);
        let settings = snapshot.gateway != self.settings;
        if settings {
            snapshot.gateway = Arc::clone(&self.settings);
        }
        let compiler = self.compiler(services, epoch_seconds);
        let hosts = self.build_hosts(dirty, &compiler, snapshot, problems);
        if default {
            let oldest_first = self.records(&self.index.catch_all);
            let (rule, mut found) = compiler.default_rule(&oldest_first);
            let rule = rule.or_else(|| compiler.default_service_rule(&mut found));
            snapshot.routes.default_rule = rule;
            problems.set(Unit::DefaultRule, found);
            if let Some(secret) = &self.options.default_certificate {
                let (certificate, found) = compiler.default_certificate(secret);
                snapshot.certificates.default = certificate;
                problems.set(Unit::DefaultCertificate, found);
            }
        }
        let status = self.build_status(snapshot) | self.api.build(snapshot);
        GatewayWork {
            hosts,
            is_changed: default || settings || status || hosts > 0,
        }
    }

    /// Brings the statuses in `snapshot` up to date; returns whether one changed.
    fn build_status(&mut self, snapshot: &mut Snapshot) -> bool {
        let mut is_changed = false;
        for key in std::mem::take(&mut self.dirty_status) {
            let record = self.ingresses.get(&key);
            let status = record.and_then(|record| {
                record
                    .status
                    .build(record, self.is_ours(record))
                    .map(Arc::new)
            });
            let object = key.of_kind("Ingress");
            if snapshot.ingresses.get(&object) == status.as_ref() {
                continue;
            }
            is_changed = true;
            match status {
                Some(status) => snapshot.ingresses.insert_mut(object, status),
                None => drop(snapshot.ingresses.remove_mut(&object)),
            }
        }
        is_changed
    }

    fn compiler<'a>(&'a self, services: &'a Services, epoch_seconds: i64) -> HostCompiler<'a> {
        HostCompiler {
            services,
            secrets: &self.secrets,
            config_maps: &self.config_maps,
            defaults: &self.settings.rules,
            redirect_status: self.settings.redirect_status,
            classes: &self.classes,
            default_service: self.options.default_service.as_ref(),
            epoch_seconds,
        }
    }

    fn records(&self, ages: &BTreeSet<Age>) -> Vec<Source<'_>> {
        let with_record = |age: &Age| Some((age.source.clone(), self.record(&age.source)?));
        ages.iter().filter_map(with_record).collect()
    }

    /// The record of an object, if it is ours.
    fn record(&self, source: &SourceKey) -> Option<&IngressRecord> {
        if source.kind == "Ingress" {
            let record = self.ingresses.get(&source.key);
            record.filter(|record| self.is_ours(record))
        } else {
            self.api.record(source)
        }
    }

    fn is_ours(&self, ingress: &IngressRecord) -> bool {
        self.classes.mode(ingress).is_some()
    }

    fn index_ingress(&mut self, key: &ObjectKey, problems: &mut Problems) {
        self.dirty_status.insert(key.clone());
        self.index(&SourceKey::ingress(key), problems);
    }

    /// Brings the indexes up to date with an object, and marks what depends on it.
    fn index(&mut self, source: &SourceKey, problems: &mut Problems) {
        let old = self.index.remove(source);
        if let Some(old) = &old {
            self.mark(old);
        }
        let record = self.record(source);
        let found = record.map(|record| record.problems.clone());
        let served =
            record.map(|record| Served::of(source, record, self.settings.rules.cross_namespace));
        problems.set(
            Unit::Object(source.kind, source.key.clone()),
            found.unwrap_or_default(),
        );
        if let Some(new) = served {
            for secret in &new.secrets {
                self.secrets.refer(secret);
            }
            for map in &new.config_maps {
                self.config_maps.refer(map);
            }
            self.mark(&new);
            self.index.insert(source, new);
        }
        for secret in old.iter().flat_map(|old| &old.secrets) {
            let is_default = self.options.default_certificate.as_ref() == Some(secret);
            if !is_default && self.index.of_secret(secret).next().is_none() {
                self.secrets.forget(secret);
            }
        }
        for map in old.iter().flat_map(|old| &old.config_maps) {
            let is_settings = self.options.config_map.as_ref() == Some(map);
            if !is_settings && self.index.of_config_map(map).next().is_none() {
                self.config_maps.forget(map);
            }
        }
    }

    /// What an object is part of is compiled again.
    fn mark(&mut self, served: &Served) {
        self.dirty_hosts.extend(served.hosts.iter().cloned());
        self.dirty_default |= served.is_catch_all;
    }
}
