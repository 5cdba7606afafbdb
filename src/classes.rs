//! Flags that say which IngressClasses are served, and how.

use sealane_config::compile::ServedClasses;

/// Which IngressClasses are served, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
pub(crate) struct ClassOptions {
    /// spec.controller of the IngressClasses that are served (repeatable). k8s.io/ingress-nginx, whose
    /// Ingresses are served as ingress-nginx would, has to be named where it may still run itself
    /// [default: sealane.dev/ingress; both in a cluster of our own and for files]
    #[arg(long, value_name = "NAME")]
    ingress_class_controller: Vec<String>,
    /// Serve the Ingresses of every class as ingress-nginx would
    #[arg(long)]
    ingress_nginx_compat: bool,
}

impl ClassOptions {
    /// What is served; `otherwise` if the flags name no controller.
    pub(crate) fn served(&self, otherwise: ServedClasses) -> ServedClasses {
        let named = !self.ingress_class_controller.is_empty();
        let named = named.then(|| self.ingress_class_controller.clone());
        ServedClasses {
            controllers: named.unwrap_or(otherwise.controllers),
            ingress_nginx_compat: self.ingress_nginx_compat,
            ..otherwise
        }
    }
}
