use super::*;

#[tokio::test(start_paused = true)]
async fn ingress_i13_a_problem_is_told_once_in_an_event() {
    let world = World::new().await;
    world.ingress("it", "ours").await;
    let gateway = Gateway::start(&world.server, "a", &[]);
    let events = world.until_events("MissingService", 1).await;
    let event = &events[0];
    let ingress = world.ingresses().get("it").await.unwrap();
    let regarding = event.regarding.as_ref().unwrap();
    assert_eq!(regarding.kind.as_deref(), Some("Ingress"));
    assert_eq!(
        regarding.api_version.as_deref(),
        Some("networking.k8s.io/v1")
    );
    assert_eq!(regarding.uid, ingress.metadata.uid);
    assert_eq!(event.type_.as_deref(), Some("Warning"));
    let note = event.note.as_deref().unwrap();
    let expected = "spec.rules[0].http.paths[0].backend: Service shop/web does not exist";
    assert_eq!(note, expected);
    sleep(600 * SECOND).await;
    assert_eq!(gateway.events(), 1, "once");
    world.web().await;
    sleep(10 * SECOND).await;
    world.delete("v1", "Service", "web").await;
    sleep(10 * SECOND).await;
    let events = world.until_events("MissingService", 1).await;
    let series = events[0].series.as_ref().expect("it happened again");
    assert_eq!(series.count, 2);
    assert_eq!(gateway.events(), 2, "once a change");
}

#[tokio::test(start_paused = true)]
async fn ingress_i13_a_service_without_endpoints_is_told_when_that_lasts() {
    let world = World::new().await;
    world.ingress("it", "ours").await;
    world.web().await;
    let gateway = Gateway::start(&world.server, "a", &[]);
    sleep(20 * SECOND).await;
    assert_eq!(gateway.events(), 0);
    let slices = world.api("discovery.k8s.io/v1", "EndpointSlice");
    let ready = async |ready: bool| {
        let patch = Patch::Merge(json!({"endpoints": [
            {"addresses": ["10.244.0.5"], "conditions": {"ready": ready}}]}));
        let params = PatchParams::default();
        slices.patch("web-1", &params, &patch).await.unwrap();
    };
    ready(false).await;
    sleep(3 * SECOND).await;
    ready(true).await;
    sleep(20 * SECOND).await;
    assert_eq!(gateway.events(), 0, "a short gap is no news");
    ready(false).await;
    let events = world.until_events("NoEndpoints", 1).await;
    let note = events[0].note.as_deref().unwrap();
    assert!(
        note.starts_with("Service shop/web has no ready endpoints for port 80"),
        "{note}"
    );
}

#[tokio::test(start_paused = true)]
async fn ingress_i12_the_loser_of_a_conflict_is_told_who_won() {
    let world = World::new().await;
    world.web().await;
    world.ingress("older", "ours").await;
    let rule = |host: &str| {
        let backend = json!({"service": {"name": "web", "port": {"number": 80}}});
        json!({"host": host, "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}})
    };
    world.ingress("younger", "ours").await;
    world
        .patch("younger", json!({"spec": {"rules": [rule("older.test")]}}))
        .await;
    let _gateway = Gateway::start(&world.server, "a", &[]);
    let events = world.until_events("Conflict", 1).await;
    let regarding = events[0].regarding.as_ref().unwrap();
    assert_eq!(regarding.name.as_deref(), Some("younger"));
    assert!(
        events[0].note.as_deref().unwrap().contains("shop/older"),
        "{events:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn ingress_i16_i11_i18_other_problems_are_told_too() {
    let world = World::new().await;
    world.web().await;
    world.ingress("it", "ours").await;
    let spec = json!({"spec": {
        "defaultBackend": {"resource": {"kind": "Bucket", "name": "files", "apiGroup": "example.com"}},
        "tls": [{"hosts": ["it.test"], "secretName": "absent"}]}});
    world.patch("it", spec).await;
    let class = json!({"metadata": {"name": "special"}, "spec": {
        "controller": "sealane.dev/ingress",
        "parameters": {"kind": "Parameters", "name": "p", "apiGroup": "example.com"}}});
    world
        .create("networking.k8s.io/v1", "IngressClass", class)
        .await;
    let _gateway = Gateway::start(&world.server, "a", &[]);
    world.until_events("MissingSecret", 1).await;
    let bad = world.until_events("BadField", 2).await;
    let class = bad
        .iter()
        .find(|event| event.regarding.as_ref().unwrap().kind.as_deref() == Some("IngressClass"));
    let class = class.expect("the class");
    assert_eq!(class.metadata.namespace.as_deref(), Some("default"));
    assert!(class.regarding.as_ref().unwrap().uid.is_some());
}

#[tokio::test(start_paused = true)]
async fn events_only_about_what_is_ours() {
    let world = World::new().await;
    world.ingress("foreign", "theirs").await;
    // A Service with a problem that no Ingress of ours names.
    let service = json!({"metadata": {"name": "odd"}, "spec": {"clusterIP": "None",
        "ports": [{"name": "p", "port": 5000, "protocol": "SCTP"}]}});
    world.create("v1", "Service", service).await;
    let gateway = Gateway::start(&world.server, "a", &[]);
    sleep(60 * SECOND).await;
    assert_eq!(gateway.events(), 0, "{:?}", world.all_events().await);
}

#[tokio::test(start_paused = true)]
async fn events_are_not_repeated_by_the_next_leader() {
    let world = World::new().await;
    world.ingress("it", "ours").await;
    let a = Gateway::start(&world.server, "a", &[]);
    world.until_events("MissingService", 1).await;
    a.shutdown.cancel();
    a.task.await.unwrap();
    let b = Gateway::start(&world.server, "b", &[]);
    sleep(60 * SECOND).await;
    assert_eq!(b.events(), 1, "it asks");
    let events = world.until_events("MissingService", 1).await;
    assert!(events[0].series.is_none(), "and nothing happened again");
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_problems_is_told_at_an_even_pace() {
    let world = World::new().await;
    for index in 0..300 {
        world.ingress(&format!("i{index}"), "ours").await;
    }
    let gateway = Gateway::start(&world.server, "a", &[]);
    sleep(5 * SECOND).await;
    let early = gateway.events();
    assert!((50..=80).contains(&early), "{early} in five seconds");
    sleep(60 * SECOND).await;
    assert_eq!(
        world.events("MissingService").await.len(),
        300,
        "none is lost"
    );
}
