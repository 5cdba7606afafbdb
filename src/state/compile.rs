//! Objects through the data plane's compiler, once.

use std::sync::Arc;

use k8s_openapi::api::discovery::v1;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use sealane_config::Snapshot;
use sealane_config::compile::endpoint_slice::EndpointSlice;
use sealane_config::compile::{
    Change, ClassRecord, Compiler, ConfigMapRecord, Delta, GatewayOptions, IngressRecord, Names,
    ObjectKey, SecretRecord, ServedClasses, ServiceRecord, SliceRecord,
};
use sealane_config::model::GatewaySettings;
use tokio::time::Instant;

use super::{Key, Objects, gateway_api};

fn gateway(objects: &Objects) -> GatewayOptions {
    let mut settings = GatewaySettings::default();
    settings.rules.ssl_passthrough = objects.ssl_passthrough;
    GatewayOptions {
        classes: objects.served.clone(),
        default_service: objects.default_service.clone(),
        config_map: objects.settings.clone(),
        settings,
        ..GatewayOptions::default()
    }
}

/// The Secrets, and the ConfigMaps, that Ingresses of ours and the gateway refer to.
pub(super) fn referred(objects: &Objects) -> (Vec<Key>, Vec<Key>) {
    let mut compiler = Compiler::new(gateway(objects), None);
    compile_ingresses(&mut compiler, objects, Instant::now());
    let key = |(key, _): (&ObjectKey, u64)| (key.namespace.to_string(), key.name.to_string());
    let config_maps = compiler.config_maps().map(key).collect();
    (compiler.secrets().map(key).collect(), config_maps)
}

/// Compiles the objects from nothing.
pub(super) fn compile(objects: &Objects) -> Snapshot {
    compile_as(objects, gateway(objects))
}

/// The same, as a gateway with the classes of another controller.
pub(super) fn compile_taking_over(
    objects: &Objects,
    controller: &str,
    without_class: bool,
) -> Snapshot {
    let options = GatewayOptions {
        classes: ServedClasses {
            controllers: vec![controller.to_owned()],
            without_class,
            ..objects.served.clone()
        },
        ..gateway(objects)
    };
    compile_as(objects, options)
}

fn compile_as(objects: &Objects, options: GatewayOptions) -> Snapshot {
    let now = Instant::now();
    let mut names = Names::default();
    let mut compiler = Compiler::new(options, None);
    for service in &objects.services {
        let key = key_of(service);
        let record = ServiceRecord::read(&key, service.clone(), &mut names);
        let delta = Delta::Set(key, Ok(Some(record)));
        compiler.apply(Change::Services(delta), now);
    }
    for slice in &objects.slices {
        let key = key_of(slice);
        let record = as_sent(slice).map(|slice| SliceRecord::read(&key, slice, &mut names));
        compiler.apply(Change::Slices(Delta::Set(key, record)), now);
    }
    for name in &objects.namespaces {
        let delta = Delta::Set(ObjectKey::new("", name), Ok(Some(())));
        compiler.apply(Change::Namespaces(delta), now);
    }
    compile_ingresses(&mut compiler, objects, now);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    for ((namespace, name), secret) in &objects.secrets {
        let key = ObjectKey::new(namespace, name);
        let delta = match secret {
            Some(secret) => {
                let record = SecretRecord::read(&key, secret.clone(), &provider);
                Delta::Set(key.clone(), Ok(Some(record)))
            }
            None => Delta::Remove(key.clone()),
        };
        compiler.apply(Change::Secret(key, delta), now);
    }
    for ((namespace, name), map) in &objects.config_maps {
        let key = ObjectKey::new(namespace, name);
        let delta = match map {
            Some(map) => Delta::Set(key.clone(), Ok(Some(ConfigMapRecord::read(map.clone())))),
            None => Delta::Remove(key.clone()),
        };
        compiler.apply(Change::ConfigMap(key, delta), now);
    }
    let mut snapshot = compiler.build(now, Timestamp::now().as_second()).snapshot;
    snapshot.synced = true;
    snapshot
}

fn compile_ingresses(compiler: &mut Compiler, objects: &Objects, now: Instant) {
    for class in &objects.classes {
        let record = ClassRecord::read(class.clone());
        let delta = Delta::Set(key_of(class), Ok(Some(record)));
        compiler.apply(Change::Classes(delta), now);
    }
    for ingress in &objects.ingresses {
        let key = key_of(ingress);
        let record = IngressRecord::read(&key, ingress.clone());
        let delta = Delta::Set(key, Ok(Some(record)));
        compiler.apply(Change::Ingresses(delta), now);
    }
    for object in &objects.gateway_api {
        if let Some(change) = gateway_api::change(object) {
            compiler.apply(change, now);
        }
    }
}

/// The slice as an API server would send it.
fn as_sent(slice: &v1::EndpointSlice) -> Result<EndpointSlice, String> {
    let sent = serde_json::to_value(slice).and_then(serde_json::from_value);
    sent.map_err(|error| error.to_string())
}

fn key_of<K: kube::Resource>(object: &K) -> ObjectKey {
    let namespace = object.namespace().unwrap_or_default();
    ObjectKey::new(&namespace, &object.name_any())
}
