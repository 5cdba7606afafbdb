use rand::{Rng as _, SeedableRng as _};

use super::link::Mode;
use super::*;
use crate::compile::ObjectKey;

const EDGE: &[&str] = &["203.0.113.1", "edge.test"];

#[tokio::test(start_paused = true)]
async fn ingress_i21_only_our_ingresses_get_a_status() {
    let world = World::new().await;
    world.ingress("mine", "ours").await;
    world.ingress("foreign", "theirs").await;
    world.ingress("lost", "missing").await;
    let gateway = Gateway::start(&world.server, "a", EDGE);
    world.until_status("mine", EDGE, 2 * SECOND).await;
    world.ingress("later", "ours").await;
    world.until_status("later", EDGE, 2 * SECOND).await;
    sleep(300 * SECOND).await;
    assert_eq!(world.status("foreign").await, [""; 0]);
    assert_eq!(world.status("lost").await, [""; 0]);
    assert_eq!(gateway.statuses(), 2, "written once each");
    let gets = gateway.link.count(&http::Method::GET, "/ingresses/");
    assert_eq!(gets, 2, "nothing is read that need not be written");
}

#[tokio::test(start_paused = true)]
async fn ingress_i21_status_by_the_leader_only() {
    let world = World::new().await;
    world.ingress("first", "ours").await;
    let a = Gateway::start(&world.server, "a", EDGE);
    world.until_status("first", EDGE, 2 * SECOND).await;
    let b = Gateway::start(&world.server, "b", EDGE);
    sleep(30 * SECOND).await;
    world.ingress("second", "ours").await;
    world.until_status("second", EDGE, 2 * SECOND).await;
    assert_eq!((a.statuses(), b.statuses()), (2, 0));
    a.kill();
    world.ingress("third", "ours").await;
    let took = world.until_status("third", EDGE, 15 * SECOND).await;
    eprintln!("handed over after {took:?}");
    sleep(60 * SECOND).await;
    assert_eq!(
        (a.statuses(), b.statuses()),
        (2, 1),
        "what is right is left alone"
    );
}

#[tokio::test(start_paused = true)]
async fn reliability_f32_a_leader_that_was_cut_off_writes_nothing() {
    let world = World::new().await;
    world.ingress("first", "ours").await;
    let a = Gateway::start(&world.server, "a", EDGE);
    world.until_status("first", EDGE, 2 * SECOND).await;
    let b = Gateway::start(&world.server, "b", &["203.0.113.2"]);
    sleep(20 * SECOND).await;
    a.link.set(Mode::Silent);
    world
        .until_status("first", &["203.0.113.2"], 20 * SECOND)
        .await;
    a.link.set(Mode::Up);
    for second in 0..300 {
        sleep(SECOND).await;
        assert_eq!(
            world.status("first").await,
            ["203.0.113.2"],
            "after {second} s"
        );
    }
    assert_eq!((a.statuses(), b.statuses()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn ingress_i21_status_goes_when_the_class_stops_being_ours() {
    let world = World::new().await;
    world.ingress("it", "ours").await;
    let gateway = Gateway::start(&world.server, "a", EDGE);
    world.until_status("it", EDGE, 2 * SECOND).await;
    world
        .patch("it", json!({"spec": {"ingressClassName": "theirs"}}))
        .await;
    world.until_status("it", &[], 2 * SECOND).await;
    world
        .set_status("it", json!([{"ip": "198.51.100.7"}]))
        .await;
    sleep(300 * SECOND).await;
    assert_eq!(
        world.status("it").await,
        ["198.51.100.7"],
        "another one's stays"
    );
    world
        .patch("it", json!({"spec": {"ingressClassName": "ours"}}))
        .await;
    world.until_status("it", EDGE, 2 * SECOND).await;
    world
        .delete("networking.k8s.io/v1", "IngressClass", "ours")
        .await;
    world.until_status("it", &[], 2 * SECOND).await;
    assert_eq!(gateway.statuses(), 4);
}

#[tokio::test(start_paused = true)]
async fn ingress_i21_what_is_left_from_before_a_restart_goes_too() {
    let world = World::new().await;
    world.ingress("it", "ours").await;
    let before = Gateway::start(&world.server, "a", EDGE);
    world.until_status("it", EDGE, 2 * SECOND).await;
    before.kill();
    world
        .patch("it", json!({"spec": {"ingressClassName": "theirs"}}))
        .await;
    let _after = Gateway::start(&world.server, "b", EDGE);
    world.until_status("it", &[], 15 * SECOND).await;
}

#[tokio::test(start_paused = true)]
async fn reliability_f33_a_fight_over_status_is_not_fought() {
    let world = World::new().await;
    world.ingress("it", "ours").await;
    let gateway = Gateway::start(&world.server, "a", EDGE);
    world.until_status("it", EDGE, 2 * SECOND).await;
    let start = Instant::now();
    while start.elapsed() < 600 * SECOND {
        if world.status("it").await != ["198.51.100.7"] {
            world
                .set_status("it", json!([{"ip": "198.51.100.7"}]))
                .await;
        }
        sleep(100 * TICK).await;
    }
    let writes = gateway.statuses();
    assert!((8..=11).contains(&writes), "{writes} writes in ten minutes");
    let events = world.events("StatusContested").await;
    assert_eq!(events.len(), 1, "{events:?}");
    // The other one gives up: ours stays, with one more write.
    world.until_status("it", EDGE, 61 * SECOND).await;
    sleep(600 * SECOND).await;
    assert!(gateway.statuses() <= writes + 1);
}

#[tokio::test(start_paused = true)]
async fn ingress_i21_many_are_written_at_an_even_pace() {
    let world = World::new().await;
    for index in 0..120 {
        world.ingress(&format!("i{index}"), "ours").await;
    }
    let gateway = Gateway::start(&world.server, "a", EDGE);
    let mut per_second = Vec::new();
    while gateway.statuses() < 120 {
        let before = gateway.statuses();
        sleep(SECOND).await;
        per_second.push(gateway.statuses() - before);
        assert!(per_second.len() < 30, "{per_second:?}");
    }
    assert!(
        per_second.iter().all(|writes| *writes <= 31),
        "{per_second:?}"
    );
    assert!(
        per_second[2..].iter().all(|writes| *writes <= 11),
        "{per_second:?}"
    );
    sleep(60 * SECOND).await;
    assert_eq!(gateway.statuses(), 120);
}

#[tokio::test(start_paused = true)]
async fn ingress_i21_addresses_of_a_service_are_followed() {
    let world = World::new().await;
    world.ingress("it", "ours").await;
    world.ingress("foreign", "theirs").await;
    let publish = Publish::Service(ObjectKey::new("shop", "edge"));
    let gateway = Gateway::publishing(&world.server, "a", publish);
    sleep(30 * SECOND).await;
    assert_eq!(world.status("it").await, [""; 0], "not known yet");
    let service = json!({"metadata": {"name": "edge"},
        "spec": {"type": "LoadBalancer", "ports": [{"port": 80}]}});
    world.create("v1", "Service", service).await;
    let set = async |entries: Value| {
        let patch = Patch::Merge(json!({"status": {"loadBalancer": {"ingress": entries}}}));
        let api = world.api("v1", "Service");
        let params = PatchParams::default();
        api.patch_status("edge", &params, &patch).await.unwrap();
    };
    set(json!([{"ip": "203.0.113.9"}])).await;
    world.until_status("it", &["203.0.113.9"], 6 * SECOND).await;
    set(json!([{"hostname": "lb.test"}])).await;
    world.until_status("it", &["lb.test"], 6 * SECOND).await;
    world.delete("v1", "Service", "edge").await;
    sleep(60 * SECOND).await;
    assert_eq!(
        world.status("it").await,
        ["lb.test"],
        "what is not known is left"
    );
    assert_eq!(gateway.statuses(), 2);
}

#[tokio::test(start_paused = true)]
async fn ingress_i21_addresses_of_the_nodes_that_the_gateway_runs_on() {
    let world = World::new().await;
    world.ingress("it", "ours").await;
    for (node, ip) in [
        ("n1", "192.0.2.1"),
        ("n2", "192.0.2.2"),
        ("n3", "192.0.2.3"),
    ] {
        let api: Api<k8s_openapi::api::core::v1::Node> = Api::all(world.server.client());
        let object = json!({"metadata": {"name": node},
            "status": {"addresses": [{"type": "InternalIP", "address": ip}]}});
        let object = serde_json::from_value(object).unwrap();
        api.create(&PostParams::default(), &object).await.unwrap();
    }
    let pod = async |name: &str, node: &str, app: &str, ready: &str| {
        let object = json!({"metadata": {"name": name, "labels": {"app": app}},
            "spec": {"nodeName": node, "containers": [{"name": "c", "image": "i"}]}});
        world.create("v1", "Pod", object).await;
        let status = json!({"status": {"conditions": [{"type": "Ready", "status": ready}]}});
        let api = world.api("v1", "Pod");
        let (params, patch) = (PatchParams::default(), Patch::Merge(status));
        api.patch_status(name, &params, &patch).await.unwrap();
    };
    pod("g1", "n1", "gateway", "True").await;
    pod("g2", "n2", "gateway", "False").await;
    pod("other", "n3", "other", "True").await;
    let publish = Publish::Nodes {
        namespace: "shop".into(),
        selector: "app=gateway".into(),
    };
    let _gateway = Gateway::publishing(&world.server, "a", publish);
    world.until_status("it", &["192.0.2.1"], 10 * SECOND).await;
    pod("g3", "n2", "gateway", "True").await;
    world
        .until_status("it", &["192.0.2.1", "192.0.2.2"], 10 * SECOND)
        .await;
}

#[tokio::test(start_paused = true)]
async fn reliability_f25_writes_go_on_after_an_outage() {
    for mode in [
        Mode::Down,
        Mode::WritesRefused(503),
        Mode::WritesRefused(403),
    ] {
        let world = World::new().await;
        let gateway = Gateway::start(&world.server, "a", EDGE);
        sleep(5 * SECOND).await;
        gateway.link.set(mode);
        world.ingress("it", "ours").await;
        sleep(600 * SECOND).await;
        let tries = gateway.statuses();
        assert!(tries <= 20, "{mode:?}: {tries} tries in ten minutes");
        gateway.link.set(Mode::Up);
        world.until_status("it", EDGE, 63 * SECOND).await;
    }
}

/// Killed at a hundred points, it ends in the same state as if it had not been, and writes nothing
/// twice that was right.
#[tokio::test(start_paused = true)]
async fn reliability_f34_a_crash_between_writes_is_made_good() {
    let mut random = rand::rngs::StdRng::seed_from_u64(34);
    let world = World::new().await;
    let mut names = Vec::new();
    let mut written = 0;
    for round in 0..100 {
        for copy in 0..3 {
            let name = format!("i{round}-{copy}");
            world.ingress(&name, "ours").await;
            names.push(name);
        }
        let gateway = Gateway::start(&world.server, "a", EDGE);
        sleep(Duration::from_millis(
            10_000 + random.random_range(0..4_000),
        ))
        .await;
        gateway.kill();
        written += gateway.statuses();
    }
    let gateway = Gateway::start(&world.server, "last", EDGE);
    for name in &names {
        world.until_status(name, EDGE, 60 * SECOND).await;
    }
    written += gateway.statuses();
    assert!(
        (300..=400).contains(&written),
        "{written} writes of 300 statuses"
    );
}

#[tokio::test(start_paused = true)]
async fn reliability_f32_a_write_that_was_overtaken_is_not_done() {
    let world = World::new().await;
    let gateway = Gateway::start(&world.server, "a", EDGE);
    sleep(5 * SECOND).await;
    gateway.link.set(Mode::Overtaken);
    world.ingress("it", "ours").await;
    for _ in 0..100 {
        sleep(TICK).await;
        let status = world.status("it").await;
        let theirs = status.iter().all(|ip| ip.starts_with("198.51.100."));
        assert!(theirs, "{status:?}");
    }
    assert!(gateway.statuses() > 0);
    gateway.link.set(Mode::Up);
    world.until_status("it", EDGE, 61 * SECOND).await;
}
