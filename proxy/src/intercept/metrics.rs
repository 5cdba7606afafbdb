//! What interception tells about itself.

use metrics::{Counter, counter, describe_counter, describe_gauge, gauge};

use super::netlink::NfTables;
use super::state::{Elements, Set};
use super::{Lost, Method, table};

const METHOD: &str = "sealane_intercept_method";
const LOST: &str = "sealane_intercept_lost_packets_total";
const CUT_OFF: &str = "sealane_intercept_ports_without_local_endpoints";

/// The kernel's counters begin again with each new table; ours go on.
pub(super) struct Metrics {
    lost: [(Lost, Counted); Lost::ALL.len()],
}

struct Counted {
    counter: Counter,
    /// What earlier tables have counted, and what this one has.
    before: u64,
    now: u64,
}

impl Metrics {
    pub(super) fn new(method: Method) -> Self {
        describe_gauge!(METHOD, "How connections are intercepted: 1 for the method");
        describe_counter!(
            LOST,
            "Packets to Services that the kernel has turned away, by reason"
        );
        describe_gauge!(
            CUT_OFF,
            "Service ports on an address with endpoints on other nodes only, where the traffic policy is Local"
        );
        gauge!(METHOD, "method" => method.label()).set(1.0);
        Self {
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
