//! Objects that a cluster has from its own installation and that the API server does not make:
//! Service `kube-system/kube-dns` with its endpoint, and the IngressClass `nginx`, so that manifests
//! written for the most common controller are served as they are. A control plane that was joined
//! gets the IngressClass `sealane` as well, which our own has from the start.

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::IngressClass;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Client, Resource, ResourceExt as _};
use sealane_config::defaults::{INGRESS_CONTROLLER, INGRESS_NGINX_CONTROLLER};
use serde_json::{Value, json};

use super::settings::{Addresses, ControlPlane};

/// Port of cluster DNS inside the cluster.
pub(crate) const DNS_PORT: u16 = 53;

/// Makes a class the one of Ingresses that name none.
const DEFAULT_CLASS: &str = "ingressclass.kubernetes.io/is-default-class";

/// The class that most manifests name.
const NGINX: &str = "nginx";

/// Where they are.
const NAMESPACE: &str = "kube-system";

/// Creates or updates them. The DNS Service's endpoint comes first: a Service without endpoints
/// refuses, and DNS must not.
///
/// # Errors
/// The API refused one of them.
pub(crate) async fn install(
    client: &Client,
    addresses: &Addresses,
    plane: &ControlPlane,
) -> kube::Result<()> {
    let ports = json!([
        {"name": "dns", "port": DNS_PORT, "protocol": "UDP"},
        {"name": "dns-tcp", "port": DNS_PORT, "protocol": "TCP"},
    ]);
    let slice = json!({
        "metadata": {
            "name": "kube-dns",
            "namespace": NAMESPACE,
            "labels": {
                "kubernetes.io/service-name": "kube-dns",
                "endpointslice.kubernetes.io/managed-by": "sealane-up",
            },
        },
        "addressType": "IPv4",
        "endpoints": [{"addresses": [addresses.node], "conditions": {"ready": true}}],
        "ports": ports,
    });
    let service = json!({
        "metadata": {
            "name": "kube-dns",
            "namespace": NAMESPACE,
            "labels": {
                "k8s-app": "kube-dns",
                "kubernetes.io/cluster-service": "true",
                "kubernetes.io/name": "CoreDNS",
            },
        },
        "spec": {"clusterIP": addresses.dns, "ports": ports},
    });
    let class = |metadata: Value, controller: &str| json!({"metadata": metadata, "spec": {"controller": controller}});
    let namespaced = Api::namespaced(client.clone(), NAMESPACE);
    put::<EndpointSlice>(namespaced, slice).await?;
    let namespaced = Api::namespaced(client.clone(), NAMESPACE);
    put::<Service>(namespaced, service).await?;
    if matches!(plane, ControlPlane::Joined(_)) {
        let metadata = json!({"name": "sealane", "annotations": {DEFAULT_CLASS: "true"}});
        let ours = class(metadata, INGRESS_CONTROLLER);
        put::<IngressClass>(Api::all(client.clone()), ours).await?;
    }
    let classes: Api<IngressClass> = Api::all(client.clone());
    // The controller of a class never changes, and this one may be somebody else's.
    if classes.get_opt(NGINX).await?.is_some() {
        return Ok(());
    }
    let controller = match plane {
        ControlPlane::Embedded { .. } => INGRESS_NGINX_CONTROLLER,
        ControlPlane::Joined(_) => INGRESS_CONTROLLER,
    };
    put::<IngressClass>(classes, class(json!({"name": NGINX}), controller)).await
}

async fn put<K>(api: Api<K>, object: Value) -> kube::Result<()>
where
    K: Resource + Clone + std::fmt::Debug + serde::Serialize + serde::de::DeserializeOwned,
{
    let object: K = serde_json::from_value(object).map_err(kube::Error::SerdeError)?;
    let name = object.name_any();
    if api.get_opt(&name).await?.is_some() {
        let params = PatchParams::default();
        api.patch(&name, &params, &Patch::Merge(&object)).await?;
    } else {
        api.create(&PostParams::default(), &object).await?;
    }
    Ok(())
}
