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
mod table;
mod tls;

pub use addr::{ClientAddr, EndpointAddr, ListenAddr, VipAddr};
pub use addresses::{AddressLists, AddressTable};
pub use attachment::{Attachment, Parent, Refusal};
pub use authorities::{Authorities, BadAuthorities, CertificateUse, Untrusted};
pub use endpoint::{Conditions, Endpoint, EndpointInfo, EndpointStats, Location};
pub use gateway::{
    GatewaySettings, HstsByMode, ListenerTls, ProxyProtocol, RuleDefaults, TrustedProxies,
};
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
    AccessList, AffinityKey, AffinityMode, AnswerRules, Backend, BackendProtocol, Canary,
    CanaryHeader, CanaryShare, CookieAffinity, Cors, CorsOrigins, ErrorPages, ErrorStatuses,
    Filters, HashBy, HashPart, HeaderPattern, HeaderTest, HostMatch, HostRoutes, HttpOverrides,
    Mirror, Mode, NextUpstream, OriginPattern, Part, PathMatch, Rate, RateLimits, Redirect,
    Replacement, Rewrite, RoutePolicy, RouteRule, RouteTable, SameSite, Template, WeightedBackend,
};
pub use route::{
    Auth, AuthCache, AuthPlace, BasicAuth, ExternalAuth, KeyPart, PasswordHash, Users,
};
pub use route::{
    ClientAuth, ClientVerification, HostTls, SubjectPattern, TlsVersions, UpstreamTls,
};
pub use service::{
    AddressKind, AppProtocol, EndpointPorts, Protocol, Service, ServiceEndpoint, ServiceKey,
    ServiceKind, ServiceName, ServicePort,
};
pub use table::Table;
pub use tls::{Certificate, CertificateTable};
