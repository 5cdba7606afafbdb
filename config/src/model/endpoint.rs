//! One endpoint of a Service port, and the live counters that outlive snapshots.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};

use super::{EndpointAddr, ObjectRef};

/// An address that can take traffic for a Service port.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Where it listens.
    pub addr: EndpointAddr,
    /// The pod behind it, if the EndpointSlice names one.
    pub target: Option<ObjectRef>,
    /// The node that it runs on.
    pub node: Option<Arc<str>>,
    /// The zone that it runs in.
    pub zone: Option<Arc<str>>,
    /// Ready and not terminating. False for an endpoint that is used only because no ready one is
    /// left (KEP-1669, terminating fallback).
    pub ready: bool,
    /// Live counters, carried over by the compiler for as long as the endpoint's identity
    /// (Service, port name, address, target) stays the same.
    pub stats: Arc<EndpointStats>,
}

/// Live state of an endpoint. Written by the data plane on every worker, read by the balancer.
///
/// The balancer in `proxy` owns the meaning of these cells; the compiler only creates them and
/// carries them over from one snapshot to the next.
#[derive(Debug, Default)]
pub struct EndpointStats {
    /// Requests or flows in flight.
    pub in_flight: AtomicU32,
    /// Round-trip estimate (peak EWMA), nanoseconds; 0 while nothing was measured.
    pub rtt_nanos: AtomicU64,
    /// When `rtt_nanos` was last updated, nanoseconds since the process's own monotonic epoch.
    pub rtt_updated: AtomicU64,
    /// Failures in a row.
    pub consecutive_failures: AtomicU32,
    /// Until when the endpoint is ejected, same clock as `rtt_updated`; 0 while it is not.
    pub ejected_until: AtomicU64,
    /// How often it was ejected without a success in between.
    pub ejections: AtomicU32,
    /// Set by the compiler when the endpoint left its Service for good: pooled connections to it
    /// are closed once idle.
    pub removed: AtomicBool,
}
