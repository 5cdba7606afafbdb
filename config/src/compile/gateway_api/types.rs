//! The objects of Gateway API, as far as they are read. The full types come with CRDs, of which a
//! cluster may have any version; the fields here are in all of them.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::DynamicResourceScope;
use serde::Deserialize;
use serde::de::IgnoredAny;

/// API group of all of them.
pub const GROUP: &str = "gateway.networking.k8s.io";

/// An object.
#[derive(Clone, Debug, Deserialize)]
pub struct Object<S> {
    /// Its metadata.
    pub metadata: ObjectMeta,
    /// What it asks for.
    pub spec: S,
}

/// The part of an object that its kind makes.
pub trait Spec {
    /// Kind.
    const KIND: &'static str;
    /// Resource name.
    const PLURAL: &'static str;
    /// Version in which it is watched.
    const VERSION: &'static str;
}

impl<S: Spec> kube::Resource for Object<S> {
    type DynamicType = ();
    type Scope = DynamicResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        S::KIND.into()
    }

    fn group((): &()) -> Cow<'_, str> {
        GROUP.into()
    }

    fn version((): &()) -> Cow<'_, str> {
        S::VERSION.into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        S::PLURAL.into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// A GatewayClass.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewayClassSpec {
    pub(super) controller_name: String,
}

/// A Gateway.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewaySpec {
    pub(super) gateway_class_name: String,
    #[serde(default)]
    pub(super) listeners: Vec<Listener>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Listener {
    pub(super) name: String,
    pub(super) hostname: Option<String>,
    pub(super) port: i32,
    pub(super) protocol: String,
    pub(super) tls: Option<ListenerTls>,
    pub(super) allowed_routes: Option<AllowedRoutes>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ListenerTls {
    pub(super) mode: Option<String>,
    #[serde(default)]
    pub(super) certificate_refs: Vec<TargetRef>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct AllowedRoutes {
    pub(super) namespaces: Option<RouteNamespaces>,
    #[serde(default)]
    pub(super) kinds: Vec<RouteKind>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(super) struct RouteNamespaces {
    pub(super) from: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(super) struct RouteKind {
    pub(super) group: Option<String>,
    pub(super) kind: String,
}

/// A reference to an object, perhaps of another namespace.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(super) struct TargetRef {
    pub(super) group: Option<String>,
    pub(super) kind: Option<String>,
    pub(super) namespace: Option<String>,
    pub(super) name: String,
}

/// An HTTPRoute.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpRouteSpec {
    #[serde(default)]
    pub(super) parent_refs: Vec<ParentRef>,
    #[serde(default)]
    pub(super) hostnames: Vec<String>,
    #[serde(default)]
    pub(super) rules: Vec<HttpRouteRule>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ParentRef {
    pub(super) group: Option<String>,
    pub(super) kind: Option<String>,
    pub(super) namespace: Option<String>,
    pub(super) name: String,
    pub(super) section_name: Option<String>,
    pub(super) port: Option<i32>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct HttpRouteRule {
    #[serde(default)]
    pub(super) matches: Vec<HttpRouteMatch>,
    #[serde(default)]
    pub(super) filters: Vec<IgnoredAny>,
    #[serde(default)]
    pub(super) backend_refs: Vec<BackendRef>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct HttpRouteMatch {
    pub(super) path: Option<HttpPathMatch>,
    #[serde(default)]
    pub(super) headers: Vec<IgnoredAny>,
    #[serde(default)]
    pub(super) query_params: Vec<IgnoredAny>,
    pub(super) method: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub(super) struct HttpPathMatch {
    #[serde(rename = "type")]
    pub(super) kind: Option<String>,
    pub(super) value: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(super) struct BackendRef {
    #[serde(flatten)]
    pub(super) target: TargetRef,
    pub(super) port: Option<i32>,
    pub(super) weight: Option<i32>,
    #[serde(default)]
    pub(super) filters: Vec<IgnoredAny>,
}

/// A GRPCRoute, of which only is known where it wants to be attached.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GrpcRouteSpec {
    #[serde(default)]
    pub(super) parent_refs: Vec<ParentRef>,
}

/// A ReferenceGrant: who may refer to objects of its namespace.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct ReferenceGrantSpec {
    #[serde(default)]
    pub(super) from: Vec<GrantFrom>,
    #[serde(default)]
    pub(super) to: Vec<GrantTo>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(super) struct GrantFrom {
    pub(super) group: String,
    pub(super) kind: String,
    pub(super) namespace: String,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(super) struct GrantTo {
    pub(super) group: String,
    pub(super) kind: String,
    pub(super) name: Option<String>,
}

impl Spec for GatewayClassSpec {
    const KIND: &'static str = "GatewayClass";
    const PLURAL: &'static str = "gatewayclasses";
    const VERSION: &'static str = "v1";
}

impl Spec for GatewaySpec {
    const KIND: &'static str = "Gateway";
    const PLURAL: &'static str = "gateways";
    const VERSION: &'static str = "v1";
}

impl Spec for HttpRouteSpec {
    const KIND: &'static str = "HTTPRoute";
    const PLURAL: &'static str = "httproutes";
    const VERSION: &'static str = "v1";
}

impl Spec for GrpcRouteSpec {
    const KIND: &'static str = "GRPCRoute";
    const PLURAL: &'static str = "grpcroutes";
    const VERSION: &'static str = "v1";
}

impl Spec for ReferenceGrantSpec {
    const KIND: &'static str = "ReferenceGrant";
    const PLURAL: &'static str = "referencegrants";
    const VERSION: &'static str = "v1beta1";
}
