//! How much a client may ask of a route.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

/// How much each client address may ask of the routes of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateLimits {
    /// Tells what is counted together: the object, and what it says about rates, so that another
    /// limit begins with nothing counted.
    pub zone: Arc<str>,
    /// Requests a second (ingress-nginx `limit-rps`).
    pub per_second: Option<Rate>,
    /// Requests a minute (ingress-nginx `limit-rpm`).
    pub per_minute: Option<Rate>,
    /// Requests in flight at a time, up to the end of the answer (ingress-nginx `limit-connections`).
    pub in_flight: Option<NonZeroU32>,
    /// Clients without limits.
    pub exempt: Box<[IpNet]>,
}

/// A leaky bucket: it loses a request each `interval`, and holds `burst` of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Between two requests, at the rate.
    pub interval: Duration,
    /// Requests that may come at once, beside the one that the rate lets in.
    pub burst: u32,
}

impl RateLimits {
    /// The limits hold for this client.
    pub fn concern(&self, client: IpAddr) -> bool {
        let client = client.to_canonical();
        !self.exempt.iter().any(|net| net.contains(&client))
    }

    /// The rates that hold.
    pub fn rates(&self) -> [Option<Rate>; 2] {
        [self.per_second, self.per_minute]
    }
}
