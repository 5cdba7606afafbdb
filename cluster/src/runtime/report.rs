//! Events about a pod's containers (B11).

use k8s_openapi::api::core::v1::{ObjectReference, Pod};

use crate::controllers::events::{Kind, Recorder};

/// Reports events about a pod or one of its containers.
#[derive(Clone)]
pub(super) struct Reporter {
    recorder: Recorder,
    object: ObjectReference,
}

impl Reporter {
    /// About the pod as a whole.
    pub(super) fn new(recorder: &Recorder, pod: &Pod) -> Self {
        let object = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            name: pod.metadata.name.clone(),
            namespace: pod.metadata.namespace.clone(),
            uid: pod.metadata.uid.clone(),
            resource_version: pod.metadata.resource_version.clone(),
            field_path: None,
        };
        Self {
            recorder: recorder.clone(),
            object,
        }
    }

    /// About one container; `list` is the field of the spec that holds it.
    pub(super) fn of_container(&self, list: &str, name: &str) -> Self {
        let mut reporter = self.clone();
        reporter.object.field_path = Some(format!("spec.{list}{{{name}}}"));
        reporter
    }

    /// As intended.
    pub(super) fn normal(&self, reason: &'static str, message: impl Into<String>) {
        self.record(Kind::Normal, reason, message.into());
    }

    /// Something to look at.
    pub(super) fn warning(&self, reason: &'static str, message: impl Into<String>) {
        self.record(Kind::Warning, reason, message.into());
    }

    fn record(&self, kind: Kind, reason: &'static str, message: String) {
        self.recorder
            .record(self.object.clone(), kind, reason, message);
    }
}
