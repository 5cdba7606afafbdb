//! IngressClasses: which Ingresses are ours, and in which mode they are served.

use std::sync::Arc;

use k8s_openapi::api::networking::v1;

use super::ingress::{IngressRecord, Origin};
use super::store::{Changed, Delta, ObjectKey, Store};
use crate::defaults::{INGRESS_CONTROLLER, INGRESS_NGINX_CONTROLLER};
use crate::model::{Mode, Problem, ProblemKind};

use super::problems::{Problems, Unit};

/// Which Ingresses are ours, by their class.
#[derive(Clone, Debug)]
pub struct ServedClasses {
    /// `spec.controller` of the IngressClasses that are ours. Those of ingress-nginx have to be asked
    /// for: where it still runs, it serves them itself.
    pub controllers: Vec<String>,
    /// Serve all of them as ingress-nginx would, and not only those that are ingress-nginx's.
    pub ingress_nginx_compat: bool,
    /// Serve Ingresses that name no class.
    pub without_class: bool,
}

impl Default for ServedClasses {
    fn default() -> Self {
        Self {
            controllers: vec![INGRESS_CONTROLLER.to_owned()],
            ingress_nginx_compat: false,
            without_class: false,
        }
    }
}

impl ServedClasses {
    /// Our own and those of ingress-nginx: for a cluster in which nobody else serves the latter.
    pub fn with_ingress_nginx() -> Self {
        let controllers = [INGRESS_CONTROLLER, INGRESS_NGINX_CONTROLLER];
        Self {
            controllers: controllers.map(str::to_owned).to_vec(),
            ..Self::default()
        }
    }

    /// Whether classes of this controller are ours.
    pub fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|ours| ours == controller)
    }

    /// How Ingresses are served whose class has this controller.
    fn mode(&self, controller: Option<&str>) -> Mode {
        match controller {
            _ if self.ingress_nginx_compat => Mode::Compat,
            Some(INGRESS_NGINX_CONTROLLER) => Mode::Compat,
            Some(_) | None => Mode::Strict,
        }
    }
}

/// The fields of an IngressClass that are used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassRecord {
    controller: String,
    /// Parameters are none of ours: a class that has them asks for what cannot be given.
    has_parameters: bool,
}

impl ClassRecord {
    /// Reads a class.
    pub fn read(class: v1::IngressClass) -> Self {
        let spec = class.spec.unwrap_or_default();
        Self {
            controller: spec.controller.unwrap_or_default(),
            has_parameters: spec.parameters.is_some(),
        }
    }
}

/// The IngressClasses, and which are ours.
#[derive(Debug)]
pub(super) struct Classes {
    served: ServedClasses,
    store: Store<ClassRecord>,
}

impl Classes {
    pub(super) fn new(served: ServedClasses) -> Self {
        Self {
            served,
            store: Store::new("IngressClass"),
        }
    }

    /// Takes in what changed; returns the names of the classes.
    pub(super) fn apply(
        &mut self,
        delta: Delta<ClassRecord>,
        problems: &mut Problems,
    ) -> Vec<Arc<str>> {
        let changed = self.store.apply(delta, problems);
        let mut names = Vec::with_capacity(changed.len());
        for Changed { key, .. } in changed {
            names.push(Arc::clone(&key.name));
            let class = self.store.get(&key);
            let refused = class
                .is_some_and(|class| class.has_parameters && self.served.has(&class.controller));
            let problem = refused.then(|| Problem {
                object: key.of_kind("IngressClass"),
                field: "spec.parameters".into(),
                kind: ProblemKind::BadField,
                message: "parameters are not supported: the class is not served".into(),
            });
            let unit = Unit::Object("IngressClass", key);
            problems.set(unit, problem.into_iter().collect());
        }
        names
    }

    /// How an Ingress is served; `None` if it is not ours. The annotation that names a class came
    /// first and is read first. What Gateway API comes to has no class.
    pub(super) fn mode(&self, record: &IngressRecord) -> Option<Mode> {
        if record.origin != Origin::Ingress {
            return Some(Mode::Strict);
        }
        let Some(name) = &record.class else {
            let ours = self.served.without_class;
            return ours.then(|| self.served.mode(None));
        };
        let key = ObjectKey {
            namespace: "".into(),
            name: Arc::clone(name),
        };
        let class = self.store.get(&key)?;
        let ours = self.served.has(&class.controller) && !class.has_parameters;
        ours.then(|| self.served.mode(Some(&class.controller)))
    }
}
