//! Counts panics. One in a connection's task ends that connection and nothing else: the runtime keeps
//! it within the task. That it happened must be seen all the same.

use std::panic::{set_hook, take_hook};

use metrics::{counter, describe_counter};

const PANICS: &str = "sealane_panics_total";

/// Counts from now on, besides what is done about panics already. To be called after the recorder of
/// metrics was installed.
pub(crate) fn count() {
    describe_counter!(PANICS, "Tasks and threads that failed inside");
    counter!(PANICS).absolute(0);
    let before = take_hook();
    set_hook(Box::new(move |info| {
        counter!(PANICS).increment(1);
        before(info);
    }));
}
