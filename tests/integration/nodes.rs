//! Two nodes, each with `sealane node`, and one API server: who reaches what of a Service, from where.
//!
//! ```text
//!            outside 10.0.0.9
//!               │
//!   ────────────┴──── bridge ────────────
//!   node-a 10.0.0.1           node-b 10.0.0.2
//!   │    │    │               │    │    │
//!   a1   a2   a3              b1   b2   b3      10.244.1.2 …, 10.244.2.2 …
//! ```
//!
//! Everything has an IPv6 address, too. The API server is a real one or the embedded one, by
//! `SEALANE_TEST_API`; there are no controllers, so EndpointSlices are as the tests write them.
//!
//! All tests share one such world, which takes longer to make than most of them take.

mod addresses;
mod api;
mod changes;
mod net;
mod objects;
mod outages;
mod policies;
mod probe;
mod reach;
mod relay;
mod serve;
mod table;
mod world;

use std::sync::Mutex;
use std::time::Instant;

use world::World;

type Test = (&'static str, fn(&World));

/// A test by its name.
macro_rules! tests {
    ($($module:ident::$name:ident),* $(,)?) => {
        [$((concat!(stringify!($module), "::", stringify!($name)), $module::$name as fn(&World))),*]
    };
}

/// Tests that touch nothing but Services of their own.
const SIDE_BY_SIDE: &[Test] = &tests![
    addresses::proxy_s8_s9_s10_node_ports_load_balancers_and_external_ips,
    addresses::proxy_s21_each_family_for_itself,
    addresses::proxy_s22_a_pod_reaches_itself,
    addresses::proxy_s23_pods_see_who_dials_if_it_is_a_pod,
    addresses::proxy_s23_from_ports_that_pods_do_not_choose,
    changes::proxy_s12_a_client_stays_with_its_pod_until_that_is_not_ready,
    changes::proxy_s15_load_balancers_learn_where_pods_are,
    changes::proxy_s19_open_connections_outlive_endpoints_policies_and_services,
    changes::proxy_s24_s20_s11_other_types_ports_and_labels_within_a_second,
    policies::proxy_s3_s13_fallback_to_pods_that_are_ending_and_topology,
    policies::proxy_s5_s6_s7_policies_for_traffic_from_within_and_from_outside,
    reach::proxy_s1_s2_s4_s20_endpoints_that_can_be_used_and_refusals_at_once,
    reach::proxy_i5_the_proxy_is_no_endpoint,
    reach::proxy_s11_s14_services_of_others_and_pods_that_are_not_ready,
];

/// Tests that measure, or that break what others need.
const ONE_BY_ONE: &[Test] = &tests![
    changes::proxy_s27_new_connections_follow_a_change_soon,
    outages::proxy_s13_another_zone,
    outages::proxy_o9_the_api_server_goes_away,
    outages::proxy_s25_a_proxy_is_restarted,
    outages::proxy_s25_a_proxy_is_killed,
];

/// Tests at once.
const AT_ONCE: usize = 3;

#[test]
fn proxy_services_of_two_nodes() {
    let Some(world) = World::new() else { return };
    let failed = Mutex::new(Vec::new());
    let run = |(name, test): Test| {
        let begun = Instant::now();
        let outcome = std::thread::scope(|scope| {
            let named = std::thread::Builder::new().name(name.to_owned());
            named.spawn_scoped(scope, || test(&world)).unwrap().join()
        });
        eprintln!("{name}: {:?}", begun.elapsed());
        if outcome.is_err() {
            failed.lock().unwrap().push(name);
        }
    };
    let waiting = Mutex::new(SIDE_BY_SIDE.iter());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(test) = { waiting.lock().unwrap().next() } {
                    run(*test);
                }
            });
        }
    });
    for test in ONE_BY_ONE {
        run(*test);
    }
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}
