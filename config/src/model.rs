//! The routing model: plain data, no Kubernetes types, cheap to share between snapshots.

mod addr;
mod addresses;
mod attachment;
mod authorities;
mod endpoint;
mod gateway;
mod http;
mod ingress;
mod owners;
mod pods;
mod policy;
mod problem;
mod route;
mod service;
mod tls;

pub use addr::{ClientAddr, EndpointAddr, ListenAddr, VipAddr};
pub use addresses::{AddressLists, AddressTable};
pub use attachment::{Attachment, Parent, Refusal};
pub use authorities::{Authorities, BadAuthorities, CertificateUse, Untrusted};
pub use endpoint::{Conditions, Endpoint, EndpointInfo, EndpointStats, Location};
pub use gateway::{GatewaySettings, ProxyProtocol, RuleDefaults, TrustedProxies};
pub use http::{
    Algorithm, Balancing, Ejection, HttpPolicy, Limits, PREFIX, RetryOn, RetryPolicy, SETTINGS,
    Setting, Timeouts,
};
pub use ingress::{IngressStatus, PublishedAddress, StatusWriter};
pub use owners::EndpointOwners;
pub use pods::{Pod, Pods};
pub use policy::{Scope, TrafficPolicy};
pub use problem::{ObjectRef, Problem, ProblemKind};
pub use route::{
    AccessList, AnswerRules, Backend, BackendProtocol, Canary, CanaryHeader, CanaryShare,
    ClientAuth, ClientVerification, Cors, CorsOrigins, Filters, HeaderPattern, HeaderTest,
    HostMatch, HostRoutes, HostTls, HttpOverrides, Mirror, OriginPattern, Part, PathMatch, Rate,
    RateLimits, Redirect, Replacement, Rewrite, RoutePolicy, RouteRule, RouteTable, SubjectPattern,
    Template, TlsVersions, UpstreamTls, WeightedBackend,
};
pub use service::{
    AddressKind, AppProtocol, EndpointPorts, Protocol, Service, ServiceEndpoint, ServiceKey,
    ServiceKind, ServiceName, ServicePort,
};
pub use tls::{Certificate, CertificateTable};
