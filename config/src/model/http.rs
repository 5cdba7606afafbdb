//! How HTTP requests to a Service are treated: time limits, retries, balancing, limits on size.
//!
//! A Service without annotations has [`HttpPolicy::default`], which all of them share.
//! [`SETTINGS`] names the annotations.

mod settings;

use std::ops::RangeInclusive;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

pub use settings::{PREFIX, SETTINGS, Setting};

/// The policy of a Service for HTTP, and for balancing connections of any kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpPolicy {
    /// How long things may take.
    pub timeouts: Timeouts,
    /// What is sent again, and how often.
    pub retries: RetryPolicy,
    /// Which endpoint is chosen. Holds for connections that are not HTTP, too.
    pub balancing: Balancing,
    /// How large and how many requests may be.
    pub limits: Limits,
    /// Connections that are relayed as bytes begin with a PROXY header, version 2, that says who the
    /// client is; and all connections to a Service that a node proxy takes are.
    pub sends_proxy_protocol: bool,
}

impl HttpPolicy {
    /// The policy of a Service that asks for nothing.
    pub fn shared() -> Arc<Self> {
        static DEFAULT: LazyLock<Arc<HttpPolicy>> = LazyLock::new(Arc::default);
        Arc::clone(&DEFAULT)
    }

    /// The policy of a Service that asks for nothing, at a gateway that stands in for ingress-nginx.
    pub fn shared_compat() -> Arc<Self> {
        static DEFAULT: LazyLock<Arc<HttpPolicy>> =
            LazyLock::new(|| Arc::new(HttpPolicy::default().compat()));
        Arc::clone(&DEFAULT)
    }

    /// With ingress-nginx's defaults in place of ours, wherever the Service asks for nothing:
    /// `proxy-body-size` 1m, `proxy-connect-timeout` 5, `proxy-read-timeout` and `proxy-send-timeout` 60.
    #[must_use]
    pub fn compat(&self) -> Self {
        let (ours, mut policy) = (Self::default(), self.clone());
        let limits = &mut policy.limits;
        if limits.body_bytes == ours.limits.body_bytes {
            limits.body_bytes = 1024 * 1024;
        }
        let timeouts = &mut policy.timeouts;
        for (limit, ours, theirs) in [
            (&mut timeouts.connect, ours.timeouts.connect, 5),
            (&mut timeouts.response, ours.timeouts.response, 60),
            (&mut timeouts.idle, ours.timeouts.idle, 60),
            (&mut timeouts.send, ours.timeouts.send, 60),
        ] {
            if *limit == ours {
                *limit = Duration::from_secs(theirs);
            }
        }
        policy
    }
}

/// Time limits; zero stands for none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// From the head of a request to the end of its answer, over all attempts.
    pub request: Duration,
    /// From the end of a request to the head of its answer. Does not hold for gRPC, whose clients
    /// send a limit of their own.
    pub response: Duration,
    /// The same for a single attempt, gRPC included; an attempt that takes longer may be repeated.
    pub per_try: Duration,
    /// For the next piece of an answer's body.
    pub idle: Duration,
    /// For an endpoint to take the next piece of a request's body.
    pub send: Duration,
    /// For a connection to an endpoint; never zero. A TLS handshake has five seconds of its own.
    pub connect: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            request: Duration::ZERO,
            response: Duration::from_secs(60),
            per_try: Duration::ZERO,
            idle: Duration::from_secs(3600),
            send: Duration::ZERO,
            connect: Duration::from_secs(1),
        }
    }
}

/// What is sent again, and how often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Retries of one request that may have reached an endpoint. Requests that provably have not
    /// are sent to another endpoint without being counted.
    pub count: u32,
    /// What is a reason.
    pub on: RetryOn,
    /// First and longest pause before a retry that a status or an expired attempt is the reason for;
    /// the pause is doubled with each retry and drawn at random from its whole length.
    pub backoff: RangeInclusive<Duration>,
    /// Retries for every hundred requests…
    pub budget_percent: u32,
    /// … and for every second, so that a quiet Service has any at all.
    pub budget_per_second: u32,
    /// Attempts at one request, with those that are not counted above; 0: no further limit.
    pub tries: u32,
    /// None is made when so much time is over; zero: no limit.
    pub within: Duration,
    /// None is made on an endpoint that the request was tried on, unless only its connection was old.
    pub elsewhere: bool,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            count: 1,
            on: RetryOn::default(),
            backoff: Duration::from_millis(25)..=Duration::from_millis(250),
            budget_percent: 20,
            budget_per_second: 10,
            tries: 0,
            within: Duration::ZERO,
            elsewhere: false,
        }
    }
}

/// Reasons to send a request again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryOn {
    /// No connection could be made.
    pub connect_failure: bool,
    /// HTTP/2: the endpoint said that it did not look at the request.
    pub refused_stream: bool,
    /// The connection broke before the head of an answer; idempotent methods only.
    pub reset: bool,
    /// Statuses of answers; idempotent methods only.
    pub statuses: Box<[RangeInclusive<u16>]>,
    /// gRPC status codes, a bit for each. A call is repeated whatever it does, so these are for
    /// methods that may be repeated.
    pub grpc: u32,
    /// The head of the answer took too long; idempotent methods only.
    pub timeout: bool,
    /// What is for idempotent methods only is for all: whoever says so knows that his may be repeated.
    pub non_idempotent: bool,
}

impl Default for RetryOn {
    fn default() -> Self {
        Self {
            connect_failure: true,
            refused_stream: true,
            reset: true,
            ..Self::never()
        }
    }
}

impl RetryOn {
    /// No reason at all.
    pub fn never() -> Self {
        Self {
            connect_failure: false,
            refused_stream: false,
            reset: false,
            statuses: Box::default(),
            grpc: 0,
            timeout: false,
            non_idempotent: false,
        }
    }

    /// Whether an answer of this status is one.
    pub fn has_status(&self, status: u16) -> bool {
        self.statuses.iter().any(|range| range.contains(&status))
    }

    /// Whether this gRPC status code is one.
    pub fn has_grpc(&self, code: u32) -> bool {
        code < u32::BITS && self.grpc & (1 << code) != 0
    }
}

/// How an endpoint is chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Balancing {
    /// Among those that take traffic.
    pub algorithm: Algorithm,
    /// For how long a new endpoint, or one that has failed and is back, gets less than its share;
    /// zero: it gets it at once.
    pub slow_start: Duration,
    /// When one that fails takes none.
    pub ejection: Ejection,
}

impl Balancing {
    /// What holds without annotations.
    pub const DEFAULT: Self = Self {
        algorithm: Algorithm::PeakEwma,
        slow_start: Duration::from_secs(10),
        ejection: Ejection::DEFAULT,
    };
}

impl Default for Balancing {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Ways to choose an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Algorithm {
    /// Of two at random the one with the lower round-trip estimate times requests in flight.
    #[default]
    PeakEwma,
    /// Of two at random the one with fewer requests in flight.
    LeastRequest,
    /// One after the other.
    RoundRobin,
    /// Any.
    Random,
}

impl Algorithm {
    /// Every algorithm.
    pub const ALL: [Self; 4] = [
        Self::PeakEwma,
        Self::LeastRequest,
        Self::RoundRobin,
        Self::Random,
    ];

    /// As in the annotation.
    pub fn label(self) -> &'static str {
        match self {
            Self::PeakEwma => "peak-ewma",
            Self::LeastRequest => "least-request",
            Self::RoundRobin => "round-robin",
            Self::Random => "random",
        }
    }
}

/// When an endpoint that fails takes no traffic for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ejection {
    /// It is done at all.
    pub enabled: bool,
    /// Failures in a row that eject; 0: that is no reason.
    pub failures: u32,
    /// The share of good answers below which an endpoint is ejected, percent; 0: that is no reason.
    pub success_rate: u32,
    /// The first ejection; doubled with each further one.
    pub shortest: Duration,
    /// The longest, before a random part of up to a half.
    pub longest: Duration,
}

impl Ejection {
    /// What holds without annotations.
    pub const DEFAULT: Self = Self {
        enabled: true,
        failures: 5,
        success_rate: 80,
        shortest: Duration::from_secs(1),
        longest: Duration::from_secs(60),
    };
}

impl Default for Ejection {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// How large and how many requests may be; zero stands for no limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a request's body.
    pub body_bytes: u64,
    /// Bytes of the header fields of a request, names and values; never zero.
    pub header_bytes: u64,
    /// Header fields of a request; never zero.
    pub header_fields: u32,
    /// Requests in flight at one endpoint, from this process.
    pub requests_per_endpoint: u32,
    /// Requests that wait while all endpoints have as many as they may; more are turned away.
    pub queued_requests: u32,
    /// How long one waits.
    pub queue_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 0,
            header_bytes: 64 * 1024,
            header_fields: 256,
            requests_per_endpoint: 0,
            queued_requests: 1000,
            queue_timeout: Duration::from_secs(1),
        }
    }
}
