//! One endpoint of a Service port, and the live counters that outlive snapshots.
//!
//! A cluster has hundreds of thousands of endpoints, so what is known of one is kept once: the
//! compiler's record, the DNS table and every port that it serves share one [`EndpointInfo`], and
//! what many endpoints have in common (node, zone, hints) is one [`Location`].

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64};

use super::EndpointAddr;

/// An address that can take traffic for a Service port.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Where it listens.
    pub addr: EndpointAddr,
    /// Ready and not terminating. False for an endpoint that is used only because no ready one is
    /// left (KEP-1669, terminating fallback).
    pub ready: bool,
    /// What its EndpointSlice says.
    pub info: Arc<EndpointInfo>,
    /// Live counters, carried over by the compiler for as long as the endpoint's identity
    /// (Service, port name, address, pod) stays the same.
    pub stats: Arc<EndpointStats>,
}

impl Endpoint {
    /// A ready endpoint of which only the address is known, with counters of its own.
    pub fn at(addr: SocketAddr) -> Self {
        Self {
            addr: EndpointAddr::from(addr),
            ready: true,
            info: Arc::new(EndpointInfo::at(addr.ip())),
            stats: Arc::default(),
        }
    }

    /// Name of the pod behind it, which is in the Service's namespace.
    pub fn pod(&self) -> Option<&str> {
        self.info.pod.as_deref()
    }

    /// The node that it runs on.
    pub fn node(&self) -> Option<&Arc<str>> {
        self.info.location.node.as_ref()
    }

    /// The zone that it runs in.
    pub fn zone(&self) -> Option<&Arc<str>> {
        self.info.location.zone.as_ref()
    }
}

/// What an EndpointSlice says of one endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointInfo {
    /// Its address.
    pub addr: IpAddr,
    /// Its state as written.
    pub conditions: Conditions,
    /// A hash of `targetRef.uid`: tells a pod from its successor of the same name and address.
    pub uid: Option<NonZeroU64>,
    /// Name of the pod behind it, if the slice names one of its own namespace.
    pub pod: Option<Box<str>>,
    /// The pod's host name, if it has one within this Service. Boxed twice because nearly none has.
    pub hostname: Option<Box<Box<str>>>,
    /// Where it runs, and for whom it is meant.
    pub location: Arc<Location>,
}

impl EndpointInfo {
    /// An endpoint of which only the address is known.
    pub fn at(addr: IpAddr) -> Self {
        Self {
            addr,
            conditions: Conditions::default(),
            uid: None,
            pod: None,
            hostname: None,
            location: Arc::default(),
        }
    }
}

/// Where an endpoint runs, and for whom it is meant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Location {
    /// The node that it runs on.
    pub node: Option<Arc<str>>,
    /// The zone that it runs in.
    pub zone: Option<Arc<str>>,
    /// `hints.forNodes`: nodes whose traffic should come here. Empty: no such hint.
    pub for_nodes: Box<[Arc<str>]>,
    /// `hints.forZones`: zones whose traffic should come here. Empty: no such hint.
    pub for_zones: Box<[Arc<str>]>,
}

// With 250,000 endpoints, eight bytes more that do not fit are four megabytes: an `Arc` adds 16 bytes,
// and the allocator has sizes of 64 and of 80 bytes.
const _: () = assert!(size_of::<Endpoint>() <= 64 - 16);
const _: () = assert!(size_of::<EndpointInfo>() <= 80 - 16);
const _: () = assert!(size_of::<EndpointStats>() <= 64 - 16);

/// `conditions` of an endpoint, as written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Conditions {
    /// `ready`.
    pub ready: Option<bool>,
    /// `serving`.
    pub serving: Option<bool>,
    /// `terminating`; missing means false.
    pub terminating: bool,
}

impl Conditions {
    /// Takes new traffic. A missing condition counts as ready; a terminating endpoint is ready only
    /// if its Service publishes not-ready addresses and the slice says so.
    pub fn is_ready(self, publish_not_ready: bool) -> bool {
        match self.ready {
            Some(ready) => ready && (!self.terminating || publish_not_ready),
            None => !self.terminating,
        }
    }

    /// Takes traffic if no ready endpoint is left (KEP-1669). A missing condition means the same as
    /// `ready`.
    pub fn is_serving_terminating(self) -> bool {
        self.terminating && self.serving.or(self.ready).unwrap_or(true)
    }
}

/// Live state of an endpoint. Written by the data plane on every worker, read by the balancer.
///
/// The balancer in `proxy` owns the meaning of these cells; the compiler only creates them and
/// carries them over from one snapshot to the next.
///
/// Times are of the process's own monotonic clock. Those that may be coarse are in its ticks of
/// 2²⁴ ns, about 17 ms: what two draws of the balancer read is one cache line for each endpoint.
#[derive(Debug, Default)]
pub struct EndpointStats {
    /// Requests or flows in flight.
    pub in_flight: AtomicU32,
    /// Round-trip estimate (peak EWMA), nanoseconds; 0 while nothing was measured.
    pub rtt_nanos: AtomicU64,
    /// When `rtt_nanos` was last updated, ticks.
    pub rtt_updated: AtomicU32,
    /// Failures in a row.
    pub consecutive_failures: AtomicU32,
    /// Until when the endpoint is ejected, nanoseconds; 0 while it is not.
    pub ejected_until: AtomicU64,
    /// How often it was ejected without a success in between, 255 if more often.
    pub ejections: AtomicU8,
    /// Good and bad answers of the last seconds, packed.
    pub outcomes: AtomicU64,
    /// Since when it is being warmed, ticks; 0 while it has not been drawn. The compiler sets it to 0
    /// when the endpoint takes no traffic.
    pub warming_since: AtomicU32,
    /// Whose turn it is among the endpoints of which this one is the first.
    pub turn: AtomicU32,
    /// Set by the compiler when the endpoint left its Service for good: pooled connections to it
    /// are closed once idle.
    pub removed: AtomicBool,
}
