//! Counts panics. One in a connection's task ends that connection and nothing else: the runtime keeps
//! it within the task. That it happened must be seen all the same.

use std::panic::{set_hook, take_hook};

use metrics::{counter, describe_counter};

const PANICS: &str = "sealane_panics_total";
/// The same, by the name that CoreDNS's alerts read.
const DNS_PANICS: &str = "coredns_panics_total";

/// Counts from now on, besides what is done about panics already. To be called after the recorder of
/// metrics was installed.
pub(crate) fn count() {
    for name in [PANICS, DNS_PANICS] {
        describe_counter!(name, "Tasks and threads that failed inside");
        counter!(name).absolute(0);
    }
    let before = take_hook();
    set_hook(Box::new(move |info| {
        counter!(PANICS).increment(1);
        counter!(DNS_PANICS).increment(1);
        before(info);
    }));
}
