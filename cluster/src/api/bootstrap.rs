//! Objects that every cluster has from the start.

use serde_json::{Value, json};

use super::kinds;
use super::path::ResourcePath;
use super::server::ApiServer;
use super::status::ApiError;
use super::write::Part;

/// Namespaces of every cluster.
const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

impl ApiServer {
    /// Creates what is missing: namespaces, the IngressClass `sealane`, the Service
    /// `default/kubernetes` and its EndpointSlice. Safe to repeat.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn bootstrap(&self) -> Result<(), ApiError> {
        for name in NAMESPACES {
            self.ensure("v1", "Namespace", json!({"metadata": {"name": name}}))
                .await?;
        }
        self.ensure("networking.k8s.io/v1", "IngressClass", ingress_class())
            .await?;
        let advertised = self.options().advertise;
        let target = advertised.map_or(6443, |address| address.port());
        let address = self.options().service_cidr.address(1);
        self.ensure(
            "v1",
            "Service",
            json!({
                "metadata": {
                    "name": "kubernetes",
                    "namespace": "default",
                    "labels": {"component": "apiserver", "provider": "kubernetes"},
                },
                "spec": {
                    "clusterIP": address.map(|ip| ip.to_string()),
                    "clusterIPs": [address.map(|ip| ip.to_string())],
                    "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": target}],
                    "type": "ClusterIP",
                    "sessionAffinity": "None",
                    "internalTrafficPolicy": "Cluster",
                },
            }),
        )
        .await?;
        if let Some(address) = advertised {
            self.advertise(address).await?;
        }
        Ok(())
    }

    async fn ensure(&self, api_version: &str, kind: &str, object: Value) -> Result<(), ApiError> {
        let path = path_of(api_version, kind, &object);
        let mut object = object;
        object["apiVersion"] = api_version.into();
        object["kind"] = kind.into();
        self.store()
            .transact(false, |transaction| {
                if transaction.get(&path.key()).is_none() {
                    self.create_in(transaction, &path, object)?;
                }
                Ok(())
            })
            .await
    }

    /// The server's own endpoint may have moved since the last start. It may be a loopback
    /// address, which clients could not write.
    async fn advertise(&self, address: std::net::SocketAddr) -> Result<(), ApiError> {
        let ip = address.ip();
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": "kubernetes",
                "namespace": "default",
                "labels": {"kubernetes.io/service-name": "kubernetes"},
            },
            "addressType": if ip.is_ipv4() { "IPv4" } else { "IPv6" },
            "endpoints": [{"addresses": [ip.to_string()], "conditions": {"ready": true}}],
            "ports": [{"name": "https", "port": address.port(), "protocol": "TCP"}],
        });
        let path = path_of("discovery.k8s.io/v1", "EndpointSlice", &slice);
        let trusted = Self::new(
            self.store().clone(),
            super::ApiOptions {
                allow_loopback_endpoints: true,
                ..self.options().clone()
            },
        );
        self.store()
            .transact(false, |transaction| {
                match transaction.get(&path.key()) {
                    Some(stored) => {
                        trusted.update_in(transaction, &path, Part::Main, &stored, slice)
                    }
                    None => trusted.create_in(transaction, &path, slice),
                }
                .map(|_| ())
            })
            .await
    }
}

fn path_of(api_version: &str, kind: &str, object: &Value) -> ResourcePath {
    let resource = kinds::find_kind(api_version, kind).expect("bootstrap kinds are served");
    let text = |field: &str| object["metadata"][field].as_str().map(str::to_owned);
    ResourcePath {
        resource,
        namespace: text("namespace"),
        name: text("name"),
        subresource: None,
        watch: false,
    }
}

fn ingress_class() -> Value {
    json!({
        "metadata": {
            "name": "sealane",
            "annotations": {"ingressclass.kubernetes.io/is-default-class": "true"},
        },
        "spec": {"controller": "sealane.dev/ingress"},
    })
}
