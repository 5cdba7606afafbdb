//! A request finds its endpoint, and room there.

use std::pin::pin;
use std::sync::Arc;

use sealane_config::model::{Endpoint, EndpointAddr};
use tokio::time::{Instant, timeout_at};

use super::engine::{Inner, Target};
use super::services::ServiceState;
use crate::balance::{Ejection, Flight, ejection, ignores_ejection};
use crate::{Error, ErrorKind};

impl Inner {
    /// An endpoint, and a place among the requests that it works on. Where the Service limits those
    /// and all endpoints are full, the request waits in a line of limited length (proxy L18).
    pub(super) async fn board<'a>(
        &self,
        target: &'a Target,
        tried: &[EndpointAddr],
        state: &ServiceState,
    ) -> Result<(&'a Arc<Endpoint>, Flight), Error> {
        let picked = self.pick(target, tried)?;
        match target.policy().limits.requests_per_endpoint {
            0 => Ok((picked, Flight::start(picked))),
            most => match Flight::start_below(picked, most) {
                Some(flight) => Ok((picked, flight)),
                None => Box::pin(wait_for_room(target, tried, state, most)).await,
            },
        }
    }

    /// The balancer's choice among the endpoints of the target.
    pub(super) fn pick<'a>(
        &self,
        target: &'a Target,
        tried: &[EndpointAddr],
    ) -> Result<&'a Arc<Endpoint>, Error> {
        let (client, port) = (target.client, &target.port);
        let preferred = target
            .sticky
            .and_then(|sticky| self.balancer.preferred(sticky, target.everywhere(), tried));
        let picked = preferred.or_else(|| {
            let rules = &target.policy().balancing;
            let balancer = &self.balancer;
            balancer.pick_by(rules, client, port, target.scope, tried)
        });
        picked.ok_or_else(|| {
            let detail = if target.is_cut_off() {
                "the Service has no ready endpoint on this node, and its policy is Local"
            } else {
                "the Service has no ready endpoint"
            };
            Error::new(ErrorKind::NoEndpoints, detail)
        })
    }
}

async fn wait_for_room<'a>(
    target: &'a Target,
    tried: &[EndpointAddr],
    state: &ServiceState,
    most: u32,
) -> Result<(&'a Arc<Endpoint>, Flight), Error> {
    let full = |detail| Error::new(ErrorKind::Overloaded, detail);
    if let Some(found) = below(target, tried, most) {
        return Ok(found);
    }
    let limits = &target.policy().limits;
    let Some(queued) = state.queue(limits.queued_requests) else {
        return Err(full("every endpoint is busy, and so many requests wait"));
    };
    let until = Instant::now() + limits.queue_timeout;
    loop {
        let mut freed = pin!(queued.freed());
        // What is freed from here on is noticed.
        freed.as_mut().enable();
        if let Some(found) = below(target, tried, most) {
            return Ok(found);
        }
        if timeout_at(until, freed).await.is_err() {
            return Err(full("every endpoint was busy for too long"));
        }
    }
}

/// The endpoint with the most room.
fn below<'a>(
    target: &'a Target,
    tried: &[EndpointAddr],
    most: u32,
) -> Option<(&'a Arc<Endpoint>, Flight)> {
    let near = target.endpoints();
    let endpoints = if ignores_ejection(near) {
        target.everywhere()
    } else {
        near
    };
    let panic = ignores_ejection(endpoints);
    let may =
        |e: &&Arc<Endpoint>| !tried.contains(&e.addr) && (panic || ejection(e) == Ejection::Open);
    let load = |e: &&Arc<Endpoint>| e.stats.in_flight.load(std::sync::atomic::Ordering::Relaxed);
    let emptiest = endpoints.iter().filter(may).min_by_key(load)?;
    let flight = Flight::start_below(emptiest, most)?;
    Some((emptiest, flight))
}
