//! One state of the world for a dry run: objects from files or from a cluster, taken once and
//! compiled by the compiler that feeds the data plane.
//!
//! Files go through an API server in memory first, which checks them, fills in defaults and allocates
//! cluster IPs. There are no pods then, so every pod template stands for as many ready pods as it has
//! replicas; their addresses, and the cluster IPs, are examples.

mod cluster;
mod compile;
mod files;
mod gateway_api;
mod planned;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass, IngressClassSpec};
use kube::ResourceExt as _;
use sealane_config::Snapshot;
use sealane_config::compile::{ObjectKey, ServedClasses};
use serde_json::Value;

use crate::classes::ClassOptions;
use crate::exit::Failure;
use crate::gateway_settings::object;
use crate::manifests::{Manifest, ManifestError};

pub(crate) use planned::Template;

/// `spec.controller` of ingress-nginx's IngressClasses.
pub(crate) const INGRESS_NGINX: &str = "k8s.io/ingress-nginx";

/// Where the state comes from.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct SourceOptions {
    /// Manifests: a file or a directory (repeatable)
    #[arg(short = 'f', long = "filename", value_name = "PATH")]
    pub(crate) filename: Vec<PathBuf>,
    /// The kubeconfig file [default: KUBECONFIG, ~/.kube/config, the pod's service account]
    #[arg(long, value_name = "FILE", conflicts_with = "filename")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig [default: its current one]
    #[arg(long, value_name = "NAME", conflicts_with = "filename")]
    pub(crate) context: Option<String>,
    /// The gateway's ConfigMap
    #[arg(long, value_name = "NAMESPACE/NAME", value_parser = object)]
    pub(crate) configmap: Option<ObjectKey>,
    /// The gateway's Service for requests that no rule takes, and for errors
    #[arg(long, value_name = "NAMESPACE/NAME", value_parser = object)]
    pub(crate) default_backend_service: Option<ObjectKey>,
    /// The gateway heeds the annotation ssl-passthrough
    #[arg(long)]
    pub(crate) enable_ssl_passthrough: bool,
    #[command(flatten)]
    pub(crate) classes: ClassOptions,
}

/// Which namespaces of a cluster are looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// All.
    All,
    /// This one; `None`: the context's own.
    One(Option<String>),
}

/// Objects, and what they compile to.
#[derive(Debug)]
pub(crate) struct State {
    /// What the data plane would be given.
    pub(crate) snapshot: Snapshot,
    /// The objects.
    pub(crate) objects: Objects,
    /// Where they come from.
    pub(crate) origin: Origin,
    /// The manifests, if they come from files.
    pub(crate) places: Places,
}

/// Where a state comes from.
#[derive(Debug)]
pub(crate) enum Origin {
    /// Files, and what is wrong with them.
    Files {
        /// Objects and files that cannot be used.
        errors: Vec<ManifestError>,
        /// Namespaces that objects are in and that no file makes.
        implied_namespaces: Vec<String>,
        /// Templates of pods.
        templates: Vec<Template>,
    },
    /// A cluster, by the address of its API, and the namespace if only one was looked at.
    Cluster {
        /// The API's address.
        url: String,
        /// The namespace.
        namespace: Option<String>,
    },
}

impl Origin {
    /// Files, where what is missing may be elsewhere.
    pub(crate) fn is_files(&self) -> bool {
        matches!(self, Self::Files { .. })
    }
}

/// Namespace and name.
pub(crate) type Key = (String, String);

/// The objects that routing follows from.
#[derive(Debug, Default)]
pub(crate) struct Objects {
    /// Services.
    pub(crate) services: Vec<Service>,
    /// EndpointSlices.
    pub(crate) slices: Vec<EndpointSlice>,
    /// Names of namespaces.
    pub(crate) namespaces: Vec<String>,
    /// Ingresses.
    pub(crate) ingresses: Vec<Ingress>,
    /// IngressClasses.
    pub(crate) classes: Vec<IngressClass>,
    /// Which of them are served.
    pub(crate) served: ServedClasses,
    /// Objects of Gateway API.
    pub(crate) gateway_api: Vec<Value>,
    /// The Secrets that Ingresses refer to; `None`: not there.
    pub(crate) secrets: BTreeMap<Key, Option<Secret>>,
    /// The gateway's ConfigMap, if one is named.
    pub(crate) settings: Option<ObjectKey>,
    /// The gateway's default Service, if one is named.
    pub(crate) default_service: Option<ObjectKey>,
    /// TLS connections may be passed through.
    pub(crate) ssl_passthrough: bool,
    /// The ConfigMaps that are referred to; `None`: not there.
    pub(crate) config_maps: BTreeMap<Key, Option<ConfigMap>>,
}

impl State {
    /// Compiles again, as a gateway that takes ingress-nginx's place. `class` is of ingress-nginx
    /// where nothing else is said of it.
    pub(crate) fn take_over(&mut self, class: &str, without_class: bool) {
        let is_written =
            !self.origin.is_files() || self.places.find(("IngressClass", "", class), "").is_some();
        let classes = &mut self.objects.classes;
        let known = classes.iter_mut().find(|known| known.name_any() == class);
        let spec = Some(IngressClassSpec {
            controller: Some(INGRESS_NGINX.to_owned()),
            parameters: None,
        });
        match known {
            Some(_) if is_written => {}
            // The API server in memory has a class of that name, which is ours.
            Some(known) => known.spec = spec,
            None => {
                let mut made = IngressClass {
                    spec,
                    ..IngressClass::default()
                };
                made.metadata.name = Some(class.to_owned());
                classes.push(made);
            }
        }
        self.snapshot = compile::compile_taking_over(&self.objects, INGRESS_NGINX, without_class);
    }
}

/// Finds the manifest, and the line, of an object's field.
#[derive(Debug, Default)]
pub(crate) struct Places {
    manifests: Vec<Manifest>,
    by_object: HashMap<(String, String, String), usize>,
}

impl Places {
    fn new(manifests: Vec<Manifest>, namespace: &str) -> Self {
        let mut by_object = HashMap::new();
        for (index, manifest) in manifests.iter().enumerate() {
            let named = manifest.named();
            let namespace = named.namespace.unwrap_or_else(|| namespace.to_owned());
            by_object
                .entry((named.kind, namespace, named.name))
                .or_insert(index);
        }
        Self {
            manifests,
            by_object,
        }
    }

    /// The manifests, in the order in which they were read.
    pub(crate) fn manifests(&self) -> &[Manifest] {
        &self.manifests
    }

    /// File and line of a field of an object, as near as the manifest has it. Objects without a
    /// namespace are looked for in every one. A planned pod is where its workload is.
    pub(crate) fn find(
        &self,
        (kind, namespace, name): (&str, &str, &str),
        field: &str,
    ) -> Option<(PathBuf, u64)> {
        let key = (kind.to_owned(), namespace.to_owned(), name.to_owned());
        let workload = name.rsplit_once('-').map(|(name, _number)| name);
        let is_it = |key: &&(String, String, String)| {
            let (of_kind, at, of) = (&*key.0, &*key.1, &*key.2);
            if kind == "Pod" {
                at == namespace && Some(of) == workload && planned::has_template(of_kind)
            } else {
                namespace.is_empty() && of_kind == kind && of == name
            }
        };
        let index = self.by_object.get(&key).or_else(|| {
            let found = self.by_object.keys().find(is_it)?;
            self.by_object.get(found)
        })?;
        let manifest = self.manifests.get(*index)?;
        Some((manifest.file.clone(), manifest.line(field)))
    }
}

/// Takes the state from where the options say.
///
/// # Errors
/// A path that is not there; a cluster that does not answer or refuses.
pub(crate) async fn load(options: &SourceOptions, scope: &Scope) -> Result<State, Failure> {
    // Boxed: listing and applying are large futures, and this is done once.
    if options.filename.is_empty() {
        let classes = options.classes.served(ServedClasses::default());
        Box::pin(cluster::load(options, classes, scope)).await
    } else {
        let classes = options.classes.served(ServedClasses::with_ingress_nginx());
        let namespace = match scope {
            Scope::One(Some(namespace)) => namespace,
            Scope::One(None) | Scope::All => crate::up::apply::DEFAULT_NAMESPACE,
        };
        Box::pin(files::load(options, classes, namespace)).await
    }
}
