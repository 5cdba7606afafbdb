//! Ingresses as written, compiled as from a watch.

use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::crypto::aws_lc_rs;
use sealane_config::compile::{
    Change, ClassRecord, Compiler, ConfigMapRecord, Delta, GatewayOptions, IngressRecord, Names,
    ObjectKey, SecretRecord, ServedClasses, ServiceRecord, SliceRecord,
};
use sealane_config::defaults::{INGRESS_CONTROLLER, INGRESS_NGINX_CONTROLLER};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::support::Edge;

/// The prefix of ingress-nginx's annotations.
pub(crate) const NGINX: &str = "nginx.ingress.kubernetes.io";

/// Objects that a gateway serves.
pub(crate) struct Manifests {
    compiler: Box<Compiler>,
    names: Names,
    /// Versions of Secrets so far.
    secrets: u64,
}

impl Manifests {
    /// Nothing but a class of ours.
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    /// Nothing but a class of ingress-nginx's.
    pub(crate) fn compat() -> Self {
        Self::of_controller(INGRESS_NGINX_CONTROLLER, |_| {})
    }

    /// Nothing but a class of ours, for a gateway with these options.
    pub(crate) fn with(change: impl FnOnce(&mut GatewayOptions)) -> Self {
        Self::of_controller(INGRESS_CONTROLLER, change)
    }

    fn of_controller(controller: &str, change: impl FnOnce(&mut GatewayOptions)) -> Self {
        let mut options = GatewayOptions {
            classes: ServedClasses::with_ingress_nginx(),
            ..GatewayOptions::default()
        };
        change(&mut options);
        let class = json!({"metadata": {"name": "nginx"}, "spec": {"controller": controller}});
        let mut compiler = Box::new(Compiler::new(options, None));
        let class = ClassRecord::read(serde_json::from_value(class).unwrap());
        let set = Delta::Set(ObjectKey::new("", "nginx"), Ok(Some(class)));
        compiler.apply(Change::Classes(set), Instant::now());
        Self {
            compiler,
            names: Names::default(),
            secrets: 0,
        }
    }

    /// Service `NAME` in `default`, port 80, with one endpoint.
    pub(crate) fn service(&mut self, name: &str, endpoint: SocketAddr) {
        self.service_with(name, &[endpoint]);
    }

    /// The same with these endpoints, which differ in their addresses or in their ports.
    pub(crate) fn service_with(&mut self, name: &str, endpoints: &[SocketAddr]) {
        self.bare_service(name);
        for (number, endpoint) in endpoints.iter().enumerate() {
            self.slice(name, &format!("{name}-{number}"), *endpoint);
        }
    }

    /// Service `NAME` in `default` with this address and port of its own, and one endpoint.
    pub(crate) fn service_at(&mut self, name: &str, own: SocketAddr, endpoint: SocketAddr) {
        self.service_object(name, own.ip().to_string(), own.port(), json!({}));
        self.slice(name, &format!("{name}-0"), endpoint);
    }

    /// The same without an endpoint.
    pub(crate) fn bare_service(&mut self, name: &str) {
        self.annotated_service(name, json!({}));
    }

    /// The same with these annotations.
    pub(crate) fn annotated_service(&mut self, name: &str, annotations: Value) {
        self.service_object(name, "10.96.0.7".to_owned(), 80, annotations);
    }

    fn service_object(&mut self, name: &str, own: String, port: u16, annotations: Value) {
        let key = ObjectKey::new("default", name);
        let service = json!({
            "metadata": {"namespace": "default", "name": name, "annotations": annotations},
            "spec": {"clusterIP": own, "ports": [{"port": port}]},
        });
        let service = serde_json::from_value(service).unwrap();
        let service = ServiceRecord::read(&key, service, &mut self.names);
        let set = Delta::Set(key.clone(), Ok(Some(service)));
        self.compiler.apply(Change::Services(set), Instant::now());
    }

    /// Deletes a Service and what it leads to.
    pub(crate) fn remove_service(&mut self, name: &str) {
        let key = ObjectKey::new("default", name);
        let slice = ObjectKey::new("default", &format!("{name}-0"));
        for change in [
            Change::Services(Delta::Remove(key)),
            Change::Slices(Delta::Remove(slice)),
        ] {
            self.compiler.apply(change, Instant::now());
        }
    }

    fn slice(&mut self, service: &str, name: &str, endpoint: SocketAddr) {
        let key = ObjectKey::new("default", name);
        let slice = json!({
            "metadata": {"namespace": "default", "name": name, "labels": {"kubernetes.io/service-name": service}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": [endpoint.ip()], "conditions": {"ready": true}}],
            "ports": [{"port": endpoint.port(), "protocol": "TCP", "name": ""}],
        });
        let slice = serde_json::from_value(slice).unwrap();
        let slice = SliceRecord::read(&key, slice, &mut self.names);
        let set = Delta::Set(key, Ok(slice));
        self.compiler.apply(Change::Slices(set), Instant::now());
    }

    /// An Ingress as [`ingress`] writes it.
    pub(crate) fn ingress(
        &mut self,
        name: &str,
        annotations: &[(&str, &str)],
        host: &str,
        paths: &[(&str, &str, &str)],
    ) {
        self.object(ingress(name, annotations, host, paths));
    }

    /// An Ingress as written, in `default`.
    pub(crate) fn object(&mut self, ingress: Value) {
        let key = ObjectKey::new("default", ingress["metadata"]["name"].as_str().unwrap());
        let record = IngressRecord::read(&key, serde_json::from_value(ingress).unwrap());
        let set = Delta::Set(key, Ok(Some(record)));
        self.compiler.apply(Change::Ingresses(set), Instant::now());
    }

    /// Secret `NAME` in `default`, for Ingresses that refer to it already; nothing: it is gone.
    pub(crate) fn secret(&mut self, name: &str, data: Option<&[(&str, &str)]>) {
        self.secrets += 1;
        let key = ObjectKey::new("default", name);
        let delta = match data {
            Some(data) => {
                let is_certificate = data.iter().any(|(key, _)| *key == "tls.crt");
                let kind = if is_certificate {
                    "kubernetes.io/tls"
                } else {
                    "Opaque"
                };
                let data = data
                    .iter()
                    .map(|(key, value)| ((*key).to_owned(), STANDARD.encode(value).into()));
                let secret = json!({
                    "metadata": {"namespace": "default", "name": name, "resourceVersion": self.secrets.to_string()},
                    "type": kind,
                    "data": data.collect::<serde_json::Map<_, _>>(),
                });
                let secret = serde_json::from_value(secret).unwrap();
                let record = SecretRecord::read(&key, secret, &aws_lc_rs::default_provider());
                Delta::Set(key.clone(), Ok(Some(record)))
            }
            None => Delta::Remove(key.clone()),
        };
        self.compiler
            .apply(Change::Secret(key, delta), Instant::now());
    }

    /// ConfigMap `NAME` in `default`, if it is referred to already; nothing: it is gone.
    pub(crate) fn config_map(&mut self, name: &str, data: Option<&[(&str, &str)]>) {
        let key = ObjectKey::new("default", name);
        let delta = match data {
            Some(data) => {
                let data = data.iter();
                let data: serde_json::Map<String, Value> = data
                    .map(|(key, value)| ((*key).to_owned(), Value::from(*value)))
                    .collect();
                let map = serde_json::from_value(json!({"data": data})).unwrap();
                Delta::Set(key.clone(), Ok(Some(ConfigMapRecord::read(map))))
            }
            None => Delta::Remove(key.clone()),
        };
        self.compiler
            .apply(Change::ConfigMap(key, delta), Instant::now());
    }

    /// Deletes Ingress `NAME` in `default`.
    pub(crate) fn delete_ingress(&mut self, name: &str) {
        let key = ObjectKey::new("default", name);
        let change = Change::Ingresses(Delta::Remove(key));
        self.compiler.apply(change, Instant::now());
    }

    /// Compiles, and has the gateway serve it.
    pub(crate) fn publish(&mut self, edge: &mut Edge) {
        let mut snapshot = self.compiler.build(Instant::now(), 0).snapshot;
        snapshot.synced = true;
        edge.world.snapshot = snapshot;
        edge.world.publish();
    }
}

/// Ingress `NAME` in `default` with these annotations, short names of ingress-nginx, for `HOST`'s
/// paths, each `(pathType, path, service)`.
pub(crate) fn ingress(
    name: &str,
    annotations: &[(&str, &str)],
    host: &str,
    paths: &[(&str, &str, &str)],
) -> Value {
    let annotations = annotations.iter();
    let annotations = annotations.map(|(n, v)| (format!("{NGINX}/{n}"), Value::from(*v)));
    let path = |(kind, path, service): &(&str, &str, &str)| {
        json!({"pathType": kind, "path": path,
            "backend": {"service": {"name": service, "port": {"number": 80}}}})
    };
    let paths: Vec<Value> = paths.iter().map(path).collect();
    json!({
        "metadata": {
            "namespace": "default",
            "name": name,
            "annotations": annotations.collect::<serde_json::Map<_, _>>(),
        },
        "spec": {"ingressClassName": "nginx", "rules": [{"host": host, "http": {"paths": paths}}]},
    })
}
