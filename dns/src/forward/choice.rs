//! In which order upstreams are asked.

use std::cell::Cell;
use std::rc::Rc;

use rand::Rng;
use rand::seq::SliceRandom;
use tokio::time::Instant;

use super::upstream::Upstream;
use crate::config::Policy;

/// With [`Policy::Latency`] one query in so many goes to any upstream first, so that one that has
/// become faster is noticed.
const EXPLORE: u32 = 32;

/// Upstreams to be asked.
#[derive(Debug)]
pub(super) struct Choice {
    /// In this order.
    pub(super) order: Vec<Rc<Upstream>>,
    /// All are down, so that health checks seem to be what is broken: any order.
    pub(super) all_down: bool,
}

/// Orders upstreams by the policy, suspect ones last. Those that are down are left out, unless all
/// are.
pub(super) fn choose(
    upstreams: &[Rc<Upstream>],
    policy: Policy,
    turn: &Cell<usize>,
    max_fails: u32,
) -> Choice {
    let mut order = upstreams.to_vec();
    order.retain(|upstream| !upstream.is_down(max_fails));
    if order.is_empty() {
        let mut order = upstreams.to_vec();
        order.shuffle(&mut rand::rng());
        let all_down = !order.is_empty();
        return Choice { order, all_down };
    }
    if order.len() > 1 {
        by_policy(&mut order, policy, turn);
        let now = Instant::now();
        order.sort_by_key(|upstream| upstream.is_suspect(now));
    }
    Choice {
        order,
        all_down: false,
    }
}

fn by_policy(order: &mut [Rc<Upstream>], policy: Policy, turn: &Cell<usize>) {
    match policy {
        Policy::Random => order.shuffle(&mut rand::rng()),
        Policy::RoundRobin => {
            let next = turn.get();
            turn.set(next.wrapping_add(1));
            order.rotate_left(next % order.len());
        }
        Policy::Sequential => {}
        Policy::Latency => {
            // Nothing is known of an upstream that was never asked: it comes first.
            order.sort_by_key(|upstream| upstream.srtt());
            let mut rng = rand::rng();
            if rng.random_ratio(1, EXPLORE) {
                let any = rng.random_range(0..order.len());
                order.swap(0, any);
            }
        }
    }
}
