//! An EndpointSlice as the API server sends it, in JSON or in protobuf, without what is not used.
//!
//! A large cluster's state is EndpointSlices for the most part, and every node reads all of them when
//! it starts. A decoder passes over fields that are not named here (`managedFields` is a third of a
//! slice in JSON), and protobuf costs both sides a fraction of what JSON does.
//!
//! Tags are those of `k8s.io/api/discovery/v1/generated.proto`. Go writes strings that are not
//! pointers even if they are empty, so that an empty one is none here; JSON has `null` for lists.

use std::collections::BTreeMap;

use prost::Message;
use serde::{Deserialize, Deserializer};

/// `discovery.k8s.io/v1` EndpointSlice.
#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointSlice {
    /// Standard metadata.
    #[prost(message, required, tag = 1)]
    pub metadata: Metadata,
    /// The endpoints.
    #[prost(message, repeated, tag = 2)]
    #[serde(deserialize_with = "or_default")]
    pub endpoints: Vec<Endpoint>,
    /// Ports of all endpoints.
    #[prost(message, repeated, tag = 3)]
    #[serde(deserialize_with = "or_default")]
    pub ports: Vec<EndpointPort>,
    /// `IPv4`, `IPv6` or `FQDN`.
    #[prost(string, tag = 4)]
    pub address_type: String,
}

/// `meta/v1` ObjectMeta.
#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Metadata {
    /// Name.
    #[prost(string, tag = 1)]
    pub name: String,
    /// Namespace; empty if the object has none.
    #[prost(string, tag = 3)]
    pub namespace: String,
    /// Version of the object, or of the state that a bookmark stands for.
    #[prost(string, tag = 6)]
    pub resource_version: String,
    /// Labels.
    #[prost(btree_map = "string, string", tag = 11)]
    #[serde(deserialize_with = "or_default")]
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    #[prost(btree_map = "string, string", tag = 12)]
    #[serde(deserialize_with = "or_default")]
    pub annotations: BTreeMap<String, String>,
}

/// `discovery.k8s.io/v1` Endpoint.
#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Endpoint {
    /// Addresses, which are fungible.
    #[prost(string, repeated, tag = 1)]
    #[serde(deserialize_with = "or_default")]
    pub addresses: Vec<String>,
    /// Its state.
    #[prost(message, optional, tag = 2)]
    pub conditions: Option<EndpointConditions>,
    /// Its host name within the Service.
    #[prost(string, optional, tag = 3)]
    pub hostname: Option<String>,
    /// The object behind it.
    #[prost(message, optional, tag = 4)]
    pub target_ref: Option<ObjectReference>,
    /// The node that it runs on.
    #[prost(string, optional, tag = 6)]
    pub node_name: Option<String>,
    /// The zone that it runs in.
    #[prost(string, optional, tag = 7)]
    pub zone: Option<String>,
    /// For whom it is meant.
    #[prost(message, optional, tag = 8)]
    pub hints: Option<EndpointHints>,
}

/// `discovery.k8s.io/v1` EndpointConditions.
#[derive(Clone, Copy, PartialEq, Eq, Message, Deserialize)]
#[serde(default)]
pub struct EndpointConditions {
    /// Ready.
    #[prost(bool, optional, tag = 1)]
    pub ready: Option<bool>,
    /// Serving.
    #[prost(bool, optional, tag = 2)]
    pub serving: Option<bool>,
    /// Terminating.
    #[prost(bool, optional, tag = 3)]
    pub terminating: Option<bool>,
}

/// `core/v1` ObjectReference.
#[derive(Clone, PartialEq, Eq, Message, Deserialize)]
#[serde(default)]
pub struct ObjectReference {
    /// Kind.
    #[prost(string, tag = 1)]
    pub kind: String,
    /// Namespace; empty stands for that of the slice.
    #[prost(string, tag = 2)]
    pub namespace: String,
    /// Name.
    #[prost(string, tag = 3)]
    pub name: String,
    /// Uid.
    #[prost(string, tag = 4)]
    pub uid: String,
}

/// `discovery.k8s.io/v1` EndpointHints.
#[derive(Clone, PartialEq, Eq, Message, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointHints {
    /// Zones whose traffic should come here.
    #[prost(message, repeated, tag = 1)]
    #[serde(deserialize_with = "or_default")]
    pub for_zones: Vec<Hinted>,
    /// Nodes whose traffic should come here.
    #[prost(message, repeated, tag = 2)]
    #[serde(deserialize_with = "or_default")]
    pub for_nodes: Vec<Hinted>,
}

/// `discovery.k8s.io/v1` ForZone or ForNode.
#[derive(Clone, PartialEq, Eq, Message, Deserialize)]
#[serde(default)]
pub struct Hinted {
    /// Name of the zone or node.
    #[prost(string, tag = 1)]
    pub name: String,
}

/// `discovery.k8s.io/v1` EndpointPort.
#[derive(Clone, PartialEq, Eq, Message, Deserialize)]
#[serde(default)]
pub struct EndpointPort {
    /// The port's name; none is the same as an empty one.
    #[prost(string, optional, tag = 1)]
    pub name: Option<String>,
    /// `TCP`, `UDP` or `SCTP`; none stands for TCP.
    #[prost(string, optional, tag = 2)]
    pub protocol: Option<String>,
    /// Number; none stands for all ports.
    #[prost(int32, optional, tag = 3)]
    pub port: Option<i32>,
}

/// `null` is what Go writes for a list or map that was never made.
fn or_default<'de, D, T>(decoder: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(decoder)?.unwrap_or_default())
}
