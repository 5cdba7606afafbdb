//! History that the API server and etcd have forgotten.

use std::time::Duration;

use sealane_config::watch::WatchOptions;
use sealane_test_kubernetes::{FaultProxy, Network};

use crate::plane;
use crate::world::{Operator, World};

#[tokio::test]
async fn reliability_f27_compaction_while_away_forgets_what_vanished() {
    let Some(mut plane) = plane::own().await else {
        return;
    };
    let operator = Operator::new(plane.client(), "shop").await;
    for name in ["stays", "vanishes"] {
        operator.service(name).await;
        operator.slice(name, 8080, &["10.1.0.1"]).await;
    }
    let proxy = FaultProxy::start(plane.api_addr()).await.expect("a proxy");
    let user = plane.user("watcher", Some("system:masters")).expect("user");
    let kubeconfig = plane.write_kubeconfig_for(&proxy.url(), "watcher", &user);
    let kubeconfig = kubeconfig.expect("a file");
    let mut world = World::synced(kubeconfig, WatchOptions::default()).await;
    let lists = "sealane_config_relists_total{kind=\"Service\"}";
    assert_eq!(world.metric(lists), Some(1.0));

    proxy.set(Network::Down);
    operator.delete("v1", "Service", "vanishes").await;
    operator
        .delete("discovery.k8s.io/v1", "EndpointSlice", "vanishes")
        .await;
    operator.service("new").await;
    for turn in 0..20 {
        let addresses = ["10.1.0.1", "10.1.0.2"];
        operator
            .move_slice("stays", &addresses[..1 + turn % 2])
            .await;
    }
    // A server that was up would have the changes in its watch cache.
    plane.kill_api_server();
    plane.compact().await.expect("etcd compacts");
    plane.start_api_server().await.expect("it comes back");
    assert!(operator.has(&world.reader.load(), "vanishes"), "last good");
    proxy.set(Network::Up);
    let took = world
        .until("current after 410", |s| {
            operator.has(s, "new")
                && !operator.has(s, "vanishes")
                && operator.targets(s, "stays").len() == 2
        })
        .await;
    assert!(took <= Duration::from_secs(5), "{took:?}");
    assert_eq!(world.metric(lists), Some(2.0), "listed again, once");
    assert!(operator.has(&world.reader.load(), "stays"));
    operator.move_slice("stays", &["10.1.0.3"]).await;
    let took = world
        .until("the new watch", |s| operator.targets(s, "stays").len() == 1)
        .await;
    assert!(took <= Duration::from_secs(2), "{took:?}");
}
