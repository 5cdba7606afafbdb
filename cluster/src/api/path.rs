//! What a request path names.
//!
//! `/api/v1/…` is the core group, `/apis/GROUP/VERSION/…` the others; then
//! `[namespaces/NS/]RESOURCE[/NAME[/SUBRESOURCE]]`, with an optional `watch/` in front (deprecated
//! since Kubernetes 1.11, still served).

use super::kinds::{self, Resource, Subresource};
use super::status::ApiError;

/// A parsed path.
#[derive(Debug)]
pub(crate) enum Target {
    /// A collection, an object or a subresource.
    Resource(ResourcePath),
    /// `/api`: the versions of the core group.
    CoreVersions,
    /// `/apis`: the groups.
    Groups,
    /// `/apis/GROUP`.
    Group(&'static str),
    /// `/api/v1` or `/apis/GROUP/VERSION`: the resources of it.
    GroupVersion(&'static str, &'static str),
    /// `/openapi/v3`.
    OpenApiIndex,
    /// `/openapi/v3/apis/GROUP/VERSION` or `/openapi/v3/api/v1`.
    OpenApi(&'static str, &'static str),
    /// `/version`.
    Version,
    /// `/healthz`, `/livez`, `/readyz`.
    Health(&'static str),
    /// A review that is answered and not stored, such as `selfsubjectaccessreviews`.
    Review(&'static str),
}

/// A path below a resource.
#[derive(Debug, Clone)]
pub(crate) struct ResourcePath {
    /// The resource.
    pub(crate) resource: &'static Resource,
    /// The namespace; `None` for cluster-scoped kinds and for lists over all namespaces.
    pub(crate) namespace: Option<String>,
    /// The object.
    pub(crate) name: Option<String>,
    /// Its subresource.
    pub(crate) subresource: Option<Subresource>,
    /// The deprecated `watch/` form.
    pub(crate) watch: bool,
}

impl ResourcePath {
    /// The name, for operations that are only routed with one.
    pub(crate) fn name(&self) -> &str {
        self.name.as_deref().unwrap_or_default()
    }

    /// The namespace or the empty string.
    pub(crate) fn namespace(&self) -> &str {
        self.namespace.as_deref().unwrap_or_default()
    }

    /// The store's key of the object.
    pub(crate) fn key(&self) -> super::store::Key {
        super::store::Key::new(self.resource.storage, self.namespace(), self.name())
    }
}

/// Parses a path.
///
/// # Errors
/// The 404 answers of E1.
pub(crate) fn parse(path: &str) -> Result<Target, ApiError> {
    let segments: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    match segments.as_slice() {
        ["api"] => Ok(Target::CoreVersions),
        ["apis"] => Ok(Target::Groups),
        ["version"] => Ok(Target::Version),
        ["healthz", ..] => Ok(Target::Health("healthz")),
        ["livez", ..] => Ok(Target::Health("livez")),
        ["readyz", ..] => Ok(Target::Health("readyz")),
        ["openapi", "v3"] => Ok(Target::OpenApiIndex),
        ["openapi", "v3", "api", version] => {
            group_version("", version).map(|(group, version)| Target::OpenApi(group, version))
        }
        ["openapi", "v3", "apis", group, version] => {
            group_version(group, version).map(|(group, version)| Target::OpenApi(group, version))
        }
        ["api", version] => {
            group_version("", version).map(|(group, version)| Target::GroupVersion(group, version))
        }
        ["apis", group] => kinds::groups()
            .into_iter()
            .find(|(name, _)| name == group)
            .map(|(name, _)| Target::Group(name))
            .ok_or_else(ApiError::unknown_path),
        ["apis", group, version] => group_version(group, version)
            .map(|(group, version)| Target::GroupVersion(group, version)),
        ["api", version, rest @ ..] => resource_target("", version, rest),
        ["apis", group, version, rest @ ..] => resource_target(group, version, rest),
        _ => Err(ApiError::unknown_path()),
    }
}

fn group_version(group: &str, version: &str) -> Result<(&'static str, &'static str), ApiError> {
    kinds::RESOURCES
        .iter()
        .find(|row| row.group == group && row.version == version)
        .map(|row| (row.group, row.version))
        .ok_or_else(ApiError::unknown_path)
}

fn resource_target(group: &str, version: &str, rest: &[&str]) -> Result<Target, ApiError> {
    if let Some(review) = super::review::find(group, version, rest) {
        return Ok(Target::Review(review));
    }
    if !kinds::serves(group, version) {
        return Err(ApiError::unknown_path());
    }
    let (watch, rest) = match rest {
        ["watch", rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    let (namespace, rest) = match rest {
        ["namespaces", namespace, rest @ ..]
            if !rest.is_empty() && !matches!(rest, ["status" | "finalize"]) =>
        {
            (Some((*namespace).to_owned()), rest)
        }
        rest => (None, rest),
    };
    let [plural, rest @ ..] = rest else {
        return Err(ApiError::unknown_resource());
    };
    let resource = kinds::find(group, version, plural).ok_or_else(ApiError::unknown_resource)?;
    let (name, subresource) = match rest {
        [] => (None, None),
        [name] => (Some((*name).to_owned()), None),
        [name, sub] => {
            let subresource = resource
                .subresources
                .iter()
                .find(|known| known.name() == *sub)
                .ok_or_else(ApiError::unknown_resource)?;
            (Some((*name).to_owned()), Some(*subresource))
        }
        _ => return Err(ApiError::unknown_resource()),
    };
    let scope_fits = match (resource.namespaced, &namespace) {
        (true, Some(_)) | (false, None) => true,
        (true, None) => name.is_none(),
        (false, Some(_)) => false,
    };
    if !scope_fits {
        return Err(ApiError::unknown_resource());
    }
    Ok(Target::Resource(ResourcePath {
        resource,
        namespace,
        name,
        subresource,
        watch,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_collections_objects_and_subresources() {
        for (path, expected) in [
            ("/api/v1/pods", "pods None None None"),
            ("/api/v1/namespaces", "namespaces None None None"),
            ("/api/v1/namespaces/a", "namespaces None Some(\"a\") None"),
            (
                "/api/v1/namespaces/a/finalize",
                "namespaces None Some(\"a\") Some(Finalize)",
            ),
            (
                "/api/v1/namespaces/a/pods/p/log",
                "pods Some(\"a\") Some(\"p\") Some(Log)",
            ),
            (
                "/apis/apps/v1/namespaces/a/deployments/d/scale",
                "deployments Some(\"a\") Some(\"d\") Some(Scale)",
            ),
            (
                "/api/v1/watch/namespaces/a/configmaps",
                "configmaps Some(\"a\") None None",
            ),
        ] {
            let Ok(Target::Resource(found)) = parse(path) else {
                panic!("{path} is not a resource path");
            };
            let shown = format!(
                "{} {:?} {:?} {:?}",
                found.resource.plural, found.namespace, found.name, found.subresource
            );
            assert_eq!(shown, expected, "{path}");
        }
    }

    #[test]
    fn cluster_e1_unknown_paths_are_text_and_unknown_resources_a_status() {
        for (path, plain_text) in [
            ("/nope", true),
            ("/apis/nope.io/v1/things", true),
            ("/apis/nope.io", true),
            ("/api/v2/pods", true),
            ("/api/v1/things", false),
            ("/api/v1/namespaces/a/pods/p/nope", false),
            ("/api/v1/namespaces/a/nodes", false),
            ("/api/v1/pods/p", false),
        ] {
            let error = parse(path).expect_err(path);
            assert_eq!((error.code, error.plain_text), (404, plain_text), "{path}");
        }
    }
}
