//! Defaults with their units and reasons.

use std::time::Duration;

/// How long the compiler gathers changes after it has published; one that comes later is published at
/// once. Long enough to batch a burst, short against the 100 ms in which a change has to take effect.
pub const BATCH_WINDOW: Duration = Duration::from_millis(2);

/// How long a ready endpoint that vanished from one EndpointSlice is kept, in case it turns up in
/// another slice of its Service: long enough for the second half of a move between slices, and short
/// enough that with [`BATCH_WINDOW`] a real removal still takes effect within 100 ms.
pub const SLICE_MOVE_GRACE: Duration = Duration::from_millis(50);

/// The same where there is no traffic but only names: clients remember a name for its TTL anyway, so
/// that one which is answered a little longer does no harm, while NXDOMAIN does.
pub const NAME_MOVE_GRACE: Duration = Duration::from_secs(1);

/// Objects per page of a list: what client-go asks for, so API servers are tuned to it.
pub const LIST_PAGE: u32 = 500;

/// How long one page of a list, or the start of a watch, may take.
pub const LIST_TIMEOUT: Duration = Duration::from_secs(30);

/// How long the API server keeps a watch open, seconds. Each watch draws its own from this range, so
/// that they are not all reopened at once. Shorter than the customary five minutes: a watch whose
/// connection died without a word is found out when its end is overdue.
pub const WATCH_SECONDS: std::ops::RangeInclusive<u32> = 45..=55;

/// A watch that says nothing for this long, not even that it ends, is dead.
pub const WATCH_SILENCE: Duration = Duration::from_secs(60);

/// First and longest pause between attempts to reach the API server; each is halved at most by
/// jitter. The longest is for a server that answers with errors, which attempts make worse.
pub const RETRY_PAUSE: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(30);

/// Longest pause while nobody answers at all. Such an attempt costs no server anything, and a short
/// pause ends the outage soon: with this one the state is current within 2 s of the server's return.
pub const UNREACHABLE_PAUSE: Duration = Duration::from_millis(1_500);

/// Longest pause while requests are refused for want of permission: cheap to refuse, and whoever has
/// corrected a role looks whether that has helped.
pub const DENIED_PAUSE: Duration = Duration::from_secs(4);

/// A server that wants to be asked again later than this is asked after this.
pub const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(120);

/// The longest line of a watch: etcd takes no object above 1.5 MB, whose JSON may be some times as
/// long.
pub const LONGEST_EVENT: usize = 16 * 1024 * 1024;

/// How often the number of objects is compared with the server's, at the end of a watch.
pub const COUNT_PERIOD: Duration = Duration::from_secs(600);

/// Changes that wait for the compiler; then the watches wait.
pub const CHANGE_QUEUE: usize = 1024;

/// How long the first snapshot waits for certificates once everything else is there: one that
/// cannot be read must not keep everything from starting.
pub const CERTIFICATE_WAIT: Duration = Duration::from_secs(2);

/// Name under which the API server keeps book of the fields that we write.
pub const FIELD_MANAGER: &str = "sealane-gateway";

/// `spec.controller` of the IngressClasses that are ours.
pub const INGRESS_CONTROLLER: &str = "sealane.dev/ingress";

/// `spec.controller` of the IngressClasses of ingress-nginx, which are served if that is asked for.
pub const INGRESS_NGINX_CONTROLLER: &str = "k8s.io/ingress-nginx";

/// `spec.controllerName` of the GatewayClasses that are ours, and `reportingController` of our Events.
pub const GATEWAY_CONTROLLER: &str = "sealane.dev/gateway";

/// How long a connection to the API server may take, with name lookup, proxy and TLS.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A PING is sent to the API server after this time without a frame from it.
pub const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// How long its answer may take. Together with [`KEEP_ALIVE_INTERVAL`] below the 30 seconds in which
/// a connection that died silently has to be noticed.
pub const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);
