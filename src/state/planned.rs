//! Pods that manifests ask for: a template for each workload, and the pods that it would come to.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::{
    Container, Pod, PodCondition, PodIP, PodSpec, PodStatus, Service,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt as _;
use serde_json::Value;

use crate::manifests::{Manifest, Named};

/// Pods of one workload that are planned at most: enough to see how traffic spreads.
const MAX_PODS: u64 = 100;

/// The first planned address, of the range for benchmarks (RFC 2544), which is nobody's.
const FIRST: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);

/// The kinds whose pods are planned under their own name and a number.
pub(super) fn has_template(kind: &str) -> bool {
    const KINDS: [&str; 7] = [
        "CronJob",
        "DaemonSet",
        "Deployment",
        "Job",
        "ReplicaSet",
        "ReplicationController",
        "StatefulSet",
    ];
    KINDS.contains(&kind)
}

/// Hands out addresses, each once.
#[derive(Debug, Default)]
pub(super) struct Numbers(u32);

impl Numbers {
    fn next(&mut self) -> Ipv4Addr {
        let address = Ipv4Addr::from(u32::from(FIRST) + self.0);
        self.0 += 1;
        address
    }
}

/// A pod template of a workload, or a pod.
#[derive(Clone, Debug)]
pub(crate) struct Template {
    /// The workload.
    pub(crate) owner: Named,
    /// Its namespace.
    pub(crate) namespace: String,
    /// Labels of its pods.
    pub(crate) labels: BTreeMap<String, String>,
    /// How many pods it asks for.
    pub(crate) replicas: u64,
    spec: PodSpec,
}

impl Template {
    /// The templates of all manifests, whatever their kind: everything that has `spec.template`, and
    /// pods. One that cannot be read is reported by the API server.
    pub(super) fn all(manifests: &[Manifest], namespace: &str) -> Vec<Self> {
        let template = |manifest: &Manifest| Self::of(manifest, namespace);
        manifests.iter().filter_map(template).collect()
    }

    fn of(manifest: &Manifest, namespace: &str) -> Option<Self> {
        let object = &manifest.object;
        let template = match manifest.text("/kind")? {
            "Pod" => object,
            "CronJob" => object.pointer("/spec/jobTemplate/spec/template")?,
            _ => object.pointer("/spec/template")?,
        };
        let labels = template.pointer("/metadata/labels").cloned();
        let owner = manifest.named();
        let mut spec: PodSpec = serde_json::from_value(template.get("spec")?.clone()).ok()?;
        if owner.kind == "StatefulSet" {
            spec.subdomain = manifest.text("/spec/serviceName").map(str::to_owned);
        }
        Some(Self {
            namespace: owner.namespace.clone().unwrap_or_else(|| namespace.into()),
            owner,
            labels: labels
                .and_then(|labels| serde_json::from_value(labels).ok())
                .unwrap_or_default(),
            replicas: object
                .pointer("/spec/replicas")
                .and_then(Value::as_u64)
                .unwrap_or(1),
            spec,
        })
    }

    /// The Service's selector picks pods of this template.
    pub(crate) fn is_selected_by(&self, service: &Service) -> bool {
        let selector = service
            .spec
            .as_ref()
            .and_then(|spec| spec.selector.as_ref());
        let has = |(name, value)| self.labels.get(name) == Some(value);
        service.namespace().as_deref() == Some(&*self.namespace)
            && selector.is_some_and(|selector| selector.iter().all(has))
    }

    /// The containers whose ports a Service can name.
    pub(crate) fn containers(&self) -> impl Iterator<Item = &Container> {
        let init = self.spec.init_containers.iter().flatten();
        let sidecars = init.filter(|it| it.restart_policy.as_deref() == Some("Always"));
        self.spec.containers.iter().chain(sidecars)
    }

    /// Its pods, ready.
    pub(super) fn pods(&self, numbers: &mut Numbers) -> Vec<Pod> {
        let count = self.replicas.min(MAX_PODS);
        (0..count).map(|index| self.pod(index, numbers)).collect()
    }

    fn pod(&self, index: u64, numbers: &mut Numbers) -> Pod {
        let name = match self.owner.kind.as_str() {
            "Pod" => self.owner.name.clone(),
            _ => format!("{}-{index}", self.owner.name),
        };
        let ip = numbers.next().to_string();
        let mut spec = self.spec.clone();
        if self.owner.kind == "StatefulSet" && spec.hostname.is_none() {
            spec.hostname = Some(name.clone());
        }
        Pod {
            metadata: ObjectMeta {
                name: Some(name),
                namespace: Some(self.namespace.clone()),
                labels: Some(self.labels.clone()),
                ..ObjectMeta::default()
            },
            spec: Some(spec),
            status: Some(PodStatus {
                phase: Some("Running".to_owned()),
                pod_ip: Some(ip.clone()),
                pod_ips: Some(vec![PodIP { ip }]),
                conditions: Some(vec![PodCondition {
                    type_: "Ready".to_owned(),
                    status: "True".to_owned(),
                    ..PodCondition::default()
                }]),
                ..PodStatus::default()
            }),
        }
    }
}
