//! Kinds that come and go with their CRDs.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

const V1: &str = "/apis/gateway.networking.k8s.io/v1";
const GATEWAY_CLASSES: &str = "/apis/gateway.networking.k8s.io/v1/gatewayclasses";
const GATEWAYS: &str = "/apis/gateway.networking.k8s.io/v1/gateways";
const ROUTES: &str = "/apis/gateway.networking.k8s.io/v1/httproutes";

const ALL: [(&str, &str); 5] = [
    ("v1", "gatewayclasses"),
    ("v1", "gateways"),
    ("v1", "httproutes"),
    ("v1", "grpcroutes"),
    ("v1beta1", "referencegrants"),
];

/// How soon a kind that comes or goes has to be noticed.
const NOTICED: Duration = Duration::from_secs(5);

fn put_objects(server: &Server) {
    server.put(SERVICES, service("web"));
    let class =
        json!({"metadata": {"name": "ours"}, "spec": {"controllerName": "sealane.dev/gateway"}});
    server.put(GATEWAY_CLASSES, class);
    server.put(
        GATEWAYS,
        json!({"metadata": {"name": "edge", "namespace": "shop"}, "spec": {
        "gatewayClassName": "ours",
        "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}]}}),
    );
    server.put(
        ROUTES,
        json!({"metadata": {"name": "it", "namespace": "shop"}, "spec": {
        "parentRefs": [{"name": "edge"}], "hostnames": ["shop.test"],
        "rules": [{"backendRefs": [{"name": "web", "port": 80}]}]}}),
    );
}

fn is_routed(snapshot: &Snapshot) -> bool {
    snapshot.routes.host("shop.test").is_some()
}

#[tokio::test(start_paused = true)]
async fn kinds_are_watched_while_they_are_served() {
    let server = Server::default();
    let mut running = Running::synced(&server).await;
    assert!(server.seen(ROUTES).is_empty(), "not asked for");
    let start = Instant::now();
    server.serve_custom(&ALL);
    put_objects(&server);
    running.until("installed", is_routed).await;
    assert!(start.elapsed() <= NOTICED, "{:?}", start.elapsed());
    sleep(SECOND).await;
    assert_eq!(server.open_watches(ROUTES), 1);

    let start = Instant::now();
    server.serve_custom(&[]);
    running
        .until("removed", |snapshot| !is_routed(snapshot))
        .await;
    assert!(start.elapsed() <= NOTICED, "{:?}", start.elapsed());
    let asked = server.seen(ROUTES).len();
    sleep(600 * SECOND).await;
    assert_eq!(server.seen(ROUTES).len(), asked, "left alone");
    assert_eq!(server.open_watches(ROUTES), 0);
    assert!(
        !running
            .reader
            .staleness()
            .ages()
            .iter()
            .any(|(kind, _)| *kind == "HTTPRoute")
    );

    server.serve_custom(&ALL);
    running.until("installed again", is_routed).await;
}

#[tokio::test(start_paused = true)]
async fn the_first_snapshot_has_the_routes() {
    let server = Server::default();
    server.serve_custom(&ALL);
    put_objects(&server);
    for path in [V1, ROUTES] {
        server.fault(path, Some(Fault::Status(500)));
        let mut running = Running::start(&server);
        sleep(60 * SECOND).await;
        assert_eq!(running.reader.load().generation, 0, "{path}");
        server.fault(path, None);
        running.until(path, |snapshot| snapshot.synced).await;
        assert!(is_routed(&running.reader.load()), "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_kind_that_may_not_be_listed_holds_up_nothing() {
    let server = Server::default();
    server.serve_custom(&ALL);
    put_objects(&server);
    server.fault(ROUTES, Some(Fault::Status(403)));
    let mut running = Running::start(&server);
    let took = running.until("synced", |snapshot| snapshot.synced).await;
    assert!(took <= SECOND, "{took:?}");
    assert!(!is_routed(&running.reader.load()));
    sleep(60 * SECOND).await;
    server.fault(ROUTES, None);
    let took = running.until("allowed", is_routed).await;
    assert!(took <= NOTICED, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn reliability_f25_what_cannot_be_discovered_stays() {
    let server = Server::default();
    server.serve_custom(&ALL);
    put_objects(&server);
    let mut running = Running::synced(&server).await;
    for fault in [Fault::Unreachable, Fault::Status(503)] {
        server.fault(V1, Some(fault));
        server.end_watches();
        sleep(600 * SECOND).await;
        assert!(is_routed(&running.reader.load()), "{fault:?}");
        server.fault(V1, None);
    }
    // An API server that has just started may not know the kind for a moment.
    server.fault(V1, Some(Fault::Status(404)));
    sleep(2 * SECOND).await;
    server.fault(V1, None);
    for _ in 0..1_000 {
        sleep(SECOND / 100).await;
        assert!(is_routed(&running.reader.load()));
    }
    server.put(SERVICES, service("later"));
    running
        .until("goes on", |snapshot| has(snapshot, "later"))
        .await;
}

#[tokio::test(start_paused = true)]
async fn some_kinds_may_be_served_without_others() {
    let server = Server::default();
    server.serve_custom(&ALL[..3]);
    put_objects(&server);
    let running = Running::synced(&server).await;
    assert!(is_routed(&running.reader.load()));
    assert!(
        server
            .seen("/apis/gateway.networking.k8s.io/v1beta1/")
            .is_empty()
    );
}
