//! The API's time stamps, in whole seconds.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// Now, cut to the second as the API stores it.
pub(crate) fn now() -> Time {
    whole_seconds(Timestamp::now())
}

/// A moment, cut to the second.
pub(crate) fn whole_seconds(moment: Timestamp) -> Time {
    Time(Timestamp::from_second(moment.as_second()).unwrap_or(moment))
}

/// From `now` until `moment` plus `delay`; zero if that has passed.
pub(crate) fn until(now: Timestamp, moment: &Time, delay: Duration) -> Duration {
    let passed = now.duration_since(moment.0);
    let delay = jiff::SignedDuration::try_from(delay).unwrap_or(jiff::SignedDuration::MAX);
    Duration::try_from(delay.saturating_sub(passed)).unwrap_or_default()
}
