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

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Duration;

    use super::*;
    use crate::forward::plan::{Speaks, Target};
    use crate::metrics::Metrics;

    fn upstreams(count: u16) -> Vec<Rc<Upstream>> {
        let target = |port| Target {
            addr: SocketAddr::from(([127, 0, 0, 1], port)),
            speaks: Speaks::Plain,
        };
        let upstream = |port| Rc::new(Upstream::new(target(port), &Metrics::default()));
        (1..=count).map(upstream).collect()
    }

    fn ports(upstreams: &[Rc<Upstream>], policy: Policy, turn: &Cell<usize>) -> Vec<u16> {
        let choice = choose(upstreams, policy, turn, 2);
        let ports = choice.order.iter();
        ports.map(|upstream| upstream.target.addr.port()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn dns_forward_suspects_come_last_and_those_down_not_at_all() {
        let upstreams = upstreams(4);
        let turn = Cell::new(0);
        upstreams[0].failed(2);
        let went_down: Vec<bool> = (0..3).map(|_| upstreams[1].check_failed(2)).collect();
        assert_eq!(went_down, [false, false, true]);
        assert_eq!(ports(&upstreams, Policy::Sequential, &turn), [3, 4, 1]);
        upstreams[0].check_passed();
        upstreams[1].check_passed();
        assert_eq!(ports(&upstreams, Policy::Sequential, &turn), [1, 2, 3, 4]);
        // Checks pass, queries fail: longer each time.
        for (failures, avoided) in [(1, 500), (1, 1000), (2, 4000), (9, 10_000)] {
            (0..failures).for_each(|_| upstreams[0].failed(2));
            upstreams[0].check_passed();
            let until = Duration::from_millis(avoided);
            tokio::time::advance(until - Duration::from_millis(1)).await;
            let order = ports(&upstreams, Policy::Sequential, &turn);
            assert_eq!(order, [2, 3, 4, 1], "{avoided}");
            tokio::time::advance(Duration::from_millis(2)).await;
            let order = ports(&upstreams, Policy::Sequential, &turn);
            assert_eq!(order, [1, 2, 3, 4], "{avoided}");
        }
        upstreams[0].answered(Duration::from_millis(1));
        upstreams[0].failed(0);
        assert!(
            upstreams[0].is_suspect(Instant::now()),
            "without checks for a while"
        );
        tokio::time::advance(Duration::from_secs(10)).await;
        assert!(!upstreams[0].is_suspect(Instant::now()));
    }

    #[tokio::test(start_paused = true)]
    async fn dns_forward_policy_orders() {
        let upstreams = upstreams(3);
        let turn = Cell::new(0);
        let all = |policy| ports(&upstreams, policy, &turn);
        assert_eq!(all(Policy::RoundRobin), [1, 2, 3]);
        assert_eq!(all(Policy::RoundRobin), [2, 3, 1]);
        assert_eq!(all(Policy::RoundRobin), [3, 1, 2]);
        let firsts: Vec<u16> = (0..300).map(|_| all(Policy::Random)[0]).collect();
        for port in 1..=3 {
            let count = firsts.iter().filter(|&&first| first == port).count();
            assert!(
                (60..=140).contains(&count),
                "{port} came first {count} times"
            );
        }
        for (upstream, millis) in upstreams.iter().zip([30, 10, 20]) {
            upstream.answered(Duration::from_millis(millis));
        }
        let fastest = (0..300).filter(|_| all(Policy::Latency) == [2, 3, 1]);
        let fastest = fastest.count();
        assert!((270..300).contains(&fastest), "{fastest}");
    }
}
