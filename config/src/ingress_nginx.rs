//! What becomes of the annotations and of the settings of ingress-nginx here: what `sealane migrate`
//! reports and `docs/migrate.md` lists.
//!
//! Whether an annotation is served is not written down here but asked of the code that reads Ingresses,
//! with a value that people use. What is written down is what a reader cannot know: in what a served one
//! differs, and what to do instead of one that is not.

mod annotations;
mod settings;

pub use crate::compile::is_without_effect;
pub use annotations::{ANNOTATIONS, Annotation};
pub use settings::{SETTINGS, Setting};

/// What all annotations of ingress-nginx begin with.
pub const PREFIX: &str = "nginx.ingress.kubernetes.io/";

/// The annotation with this name, without the prefix.
pub fn annotation(name: &str) -> Option<&'static Annotation> {
    ANNOTATIONS.iter().find(|known| known.name == name)
}

/// The setting with this key of the ConfigMap.
pub fn setting(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|known| known.key == key)
}
