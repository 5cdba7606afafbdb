//! A network that swallows everything and says nothing.

use std::time::Duration;

use sealane_config::watch::WatchOptions;
use sealane_test_kubernetes::{FaultProxy, Network};
use tokio::time::Instant;

use crate::plane;
use crate::world::{Operator, World};

#[tokio::test]
async fn reliability_f29_black_hole_noticed_within_thirty_seconds() {
    let Some(plane) = plane::shared() else {
        return;
    };
    let operator = Operator::new(plane.admin().await, "silence").await;
    let proxy = FaultProxy::start(plane.api_addr()).await.expect("a proxy");
    let user = plane
        .user("silence", Some("system:masters"))
        .expect("a user");
    let kubeconfig = plane.write_kubeconfig_for(&proxy.url(), "silence", &user);
    let kubeconfig = kubeconfig.expect("a file");
    let mut world = World::synced(kubeconfig, WatchOptions::default()).await;
    proxy.set(Network::BlackHole);
    let silent = Instant::now();
    operator.service("unheard").await;
    world.until_logged(&["WARN", "kind=\"Service\""]).await;
    let noticed = silent.elapsed();
    eprintln!("black hole noticed: {noticed:?}");
    assert!(noticed <= Duration::from_secs(30), "{noticed:?}");
    assert!(!operator.has(&world.reader.load(), "unheard"));
    // New connections are swallowed as well, so that an attempt is in the hole when it closes.
    proxy.set(Network::Up);
    let took = world
        .until("current after the black hole", |s| {
            operator.has(s, "unheard")
        })
        .await;
    assert!(took <= Duration::from_secs(13), "{took:?}");
}
