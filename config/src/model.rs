//! The routing model: plain data, no Kubernetes types, cheap to share between snapshots.

mod addr;
mod endpoint;
mod ingress;
mod problem;
mod route;
mod service;
mod tls;

pub use addr::{ClientAddr, EndpointAddr, ListenAddr, VipAddr};
pub use endpoint::{Endpoint, EndpointStats};
pub use ingress::{IngressStatus, PublishedAddress, StatusWriter};
pub use problem::{ObjectRef, Problem, ProblemKind};
pub use route::{
    Backend, BackendProtocol, Filters, HostMatch, HostRoutes, PathMatch, Rewrite, RouteRule,
    RouteTable, WeightedBackend,
};
pub use service::{
    AppProtocol, Protocol, Service, ServiceEndpoint, ServiceKey, ServiceKind, ServicePort,
};
pub use tls::{Certificate, CertificateTable};
