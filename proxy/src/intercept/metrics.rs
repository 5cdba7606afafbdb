//! What interception tells about itself.
//!
//! In the place of kube-proxy it has kube-proxy's metrics of writing rules, too. One transaction holds
//! the rules of both families, so each figure counts for both.

use std::time::Duration;

use metrics::{
    Counter, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge,
    histogram,
};

use super::netlink::NfTables;
use super::state::{Elements, Set};
use super::{InterceptOptions, Lost, table};

const METHOD: &str = "sealane_intercept_method";
const LOST: &str = "sealane_intercept_lost_packets_total";
const CUT_OFF: &str = "sealane_intercept_ports_without_local_endpoints";

const SYNC: &str = "kubeproxy_sync_proxy_rules_duration_seconds";
const FULL: &str = "kubeproxy_sync_full_proxy_rules_duration_seconds";
const PARTIAL: &str = "kubeproxy_sync_partial_proxy_rules_duration_seconds";
const SYNC_FAILED: &str = "kubeproxy_sync_proxy_rules_nftables_sync_failures_total";
const CLEANUP_FAILED: &str = "kubeproxy_sync_proxy_rules_nftables_cleanup_failures_total";

/// How kube-proxy names the families.
const FAMILIES: [&str; 2] = ["IPv4", "IPv6"];

/// What the kernel was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Write {
    /// The whole table.
    Full,
    /// What has changed, or nothing if that is nothing.
    Partial,
    /// Nothing but what is to be removed.
    CleanUp,
}

/// kube-proxy's metrics of writing rules.
pub(super) struct KubeProxy([FamilyMetrics; FAMILIES.len()]);

struct FamilyMetrics {
    sync: Histogram,
    full: Histogram,
    partial: Histogram,
    sync_failed: Counter,
    cleanup_failed: Counter,
}

impl KubeProxy {
    pub(super) fn new() -> Self {
        for (name, what) in [
            (SYNC, "Time to bring the kernel's rules up to date"),
            (FULL, "Time to write all rules"),
            (PARTIAL, "Time to write the rules that have changed"),
        ] {
            describe_histogram!(name, Unit::Seconds, what);
        }
        describe_counter!(SYNC_FAILED, "Rules that the kernel refused");
        describe_counter!(CLEANUP_FAILED, "Removals that the kernel refused");
        Self(FAMILIES.map(|family| FamilyMetrics {
            sync: histogram!(SYNC, "ip_family" => family),
            full: histogram!(FULL, "ip_family" => family),
            partial: histogram!(PARTIAL, "ip_family" => family),
            sync_failed: counter!(SYNC_FAILED, "ip_family" => family),
            cleanup_failed: counter!(CLEANUP_FAILED, "ip_family" => family),
        }))
    }

    /// The kernel took it.
    pub(super) fn wrote(&self, write: Write, elapsed: Duration) {
        for family in &self.0 {
            family.sync.record(elapsed);
            match write {
                Write::Full => family.full.record(elapsed),
                Write::Partial | Write::CleanUp => family.partial.record(elapsed),
            }
        }
    }

    /// The kernel refused it.
    pub(super) fn failed(&self, write: Write) {
        for family in &self.0 {
            match write {
                Write::Full | Write::Partial => family.sync_failed.increment(1),
                Write::CleanUp => family.cleanup_failed.increment(1),
            }
        }
    }

    /// Counters that are not touched expire.
    fn keep(&self) {
        for family in &self.0 {
            family.sync_failed.increment(0);
            family.cleanup_failed.increment(0);
        }
    }
}

/// The kernel's counters begin again with each new table; ours go on.
pub(super) struct Metrics {
    /// On a real node, where there may be a kube-proxy otherwise.
    pub(super) kube_proxy: Option<KubeProxy>,
    lost: [(Lost, Counted); Lost::ALL.len()],
}

struct Counted {
    counter: Counter,
    /// What earlier tables have counted, and what this one has.
    before: u64,
    now: u64,
}

impl Metrics {
    pub(super) fn new(options: &InterceptOptions) -> Self {
        describe_gauge!(METHOD, "How connections are intercepted: 1 for the method");
        describe_counter!(
            LOST,
            "Packets to Services that the kernel has turned away, by reason"
        );
        describe_gauge!(
            CUT_OFF,
            "Service ports on an address with endpoints on other nodes only, where the traffic policy is Local"
        );
        gauge!(METHOD, "method" => options.method.label()).set(1.0);
        Self {
            kube_proxy: (!options.egress).then(KubeProxy::new),
            lost: Lost::ALL.map(|lost| {
                let counted = Counted {
                    counter: counter!(LOST, "reason" => lost.label()),
                    before: 0,
                    now: 0,
                };
                (lost, counted)
            }),
        }
    }

    /// A new table has taken the place of the last one.
    pub(super) fn start_over(&mut self) {
        for (_, counted) in &mut self.lost {
            counted.before += std::mem::take(&mut counted.now);
        }
    }

    /// Reads the kernel's counters, and looks at what it was told last. Before that it may have none.
    pub(super) fn update(&mut self, kernel: &mut NfTables, written: Option<&Elements>) {
        if let Some(kube_proxy) = &self.kube_proxy {
            kube_proxy.keep();
        }
        let Some(written) = written else {
            return;
        };
        for (lost, counted) in &mut self.lost {
            match table::count(kernel, *lost) {
                Ok(now) => {
                    counted.now = now;
                    counted.counter.absolute(counted.before + now);
                }
                Err(error) => tracing::debug!(%error, "no count of lost packets"),
            }
        }
        let (mut internal, mut external) = (0_u32, 0_u32);
        for set in written.values() {
            match set {
                Set::CutOff(_) => internal += 1,
                Set::InsideOnly(_) => external += 1,
                _ => {}
            }
        }
        gauge!(CUT_OFF, "traffic_policy" => "internal").set(internal);
        gauge!(CUT_OFF, "traffic_policy" => "external").set(external);
    }
}
