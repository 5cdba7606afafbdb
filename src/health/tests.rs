use std::sync::Arc;

use http_body_util::BodyExt as _;
use sealane_config::model::{
    AppProtocol, Endpoint, Protocol, Service, ServiceKey, ServiceKind, ServicePort, TrafficPolicy,
};
use sealane_config::{Publisher, snapshot};
use sealane_test_kubernetes::free_port;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

fn key(name: &str) -> ServiceKey {
    ServiceKey {
        namespace: "shop".into(),
        name: name.into(),
    }
}

/// A Service with endpoints elsewhere and so many here, of which the last `unready` are not ready.
fn service(name: &str, port: u16, local: u8, unready: u8) -> Arc<Service> {
    let policy = Arc::new(TrafficPolicy {
        external: Scope::Local,
        health_check_node_port: Some(port),
        ..TrafficPolicy::default()
    });
    let endpoint = |last: u8| {
        let mut endpoint = Endpoint::at(([10, 244, 0, last], 80).into());
        endpoint.ready = last < 10 + local - unready.min(local);
        Arc::new(endpoint)
    };
    let here: Arc<[_]> = (10..10 + local).map(endpoint).collect();
    let service_port = |name: &str, number| {
        Arc::new(ServicePort {
            service: key(name),
            name: name.into(),
            port: number,
            protocol: Protocol::Tcp,
            node_port: None,
            app_protocol: AppProtocol::Tcp,
            endpoints: [endpoint(1)].into(),
            local: Some(Arc::clone(&here)),
            everywhere: None,
            http: Arc::default(),
            policy: Arc::clone(&policy),
        })
    };
    Arc::new(Service {
        key: key(name),
        kind: ServiceKind::ClusterIp,
        cluster_ips: Vec::new(),
        load_balancer_ips: Vec::new(),
        external_ips: Vec::new(),
        policy: Arc::clone(&policy),
        ports: vec![service_port(name, 80), service_port(name, 443)],
        listed_ports: Arc::default(),
        endpoints: [].into(),
    })
}

fn publish(publisher: &mut Publisher, services: &[Arc<Service>], node_is_leaving: bool) -> u64 {
    let mut snapshot = Snapshot {
        synced: true,
        node_is_leaving,
        ..Snapshot::default()
    };
    for service in services {
        let key = &service.key;
        if let Some(port) = service.policy.health_check_node_port {
            snapshot.health_ports.insert_mut(port, key.clone());
        }
        let services = &mut snapshot.services;
        services.insert_mut(key.clone(), Arc::clone(service));
    }
    publisher.publish(snapshot)
}

async fn read(answer: Answer) -> (u16, Value) {
    let status = answer.status().as_u16();
    assert_eq!(answer.headers()["content-type"], "application/json");
    assert_eq!(answer.headers()["x-content-type-options"], "nosniff");
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap())
}

#[tokio::test(start_paused = true)]
async fn proxy_s16_unhealthy_when_a_change_is_overdue_or_the_node_goes() {
    let (mut publisher, reader) = snapshot::channel();
    let health = Health::new(reader);
    let codes = async |health: &Health| {
        let healthz = read(health.respond("/healthz")).await;
        let livez = read(health.respond("/livez")).await;
        assert!(livez.1.get("nodeEligible").is_none());
        (healthz.0, livez.0, healthz.1["nodeEligible"] == true)
    };
    health.note(0);
    assert_eq!(codes(&health).await, (200, 200, true), "starting");
    let first = publish(&mut publisher, &[], false);
    health.note(0);
    tokio::time::advance(OVERDUE - Duration::from_millis(1)).await;
    assert_eq!(codes(&health).await, (200, 200, true), "not overdue yet");
    publish(&mut publisher, &[], false);
    health.note(0);
    tokio::time::advance(Duration::from_millis(1)).await;
    assert_eq!(codes(&health).await, (503, 503, true), "overdue");
    health.note(first + 1);
    assert_eq!(codes(&health).await, (200, 200, true), "in force");
    let (_, body) = read(health.respond("/healthz")).await;
    assert_eq!(body["lastUpdated"], body["currentTime"]);
    tokio::time::advance(OVERDUE * 100).await;
    assert_eq!(codes(&health).await, (200, 200, true), "nothing to do");
    let leaving = publish(&mut publisher, &[], true);
    health.note(leaving);
    assert_eq!(codes(&health).await, (503, 200, false), "the node goes");
    drop(publisher);
    assert_eq!(codes(&health).await, (503, 200, false), "the last state");
    assert_eq!(health.respond("/x").status(), 404);
}

#[tokio::test]
async fn proxy_s15_ready_endpoints_here_decide() {
    let (mut publisher, reader) = snapshot::channel();
    let health = Health::new(reader);
    let cases = [
        ("three", 3, 0, 200, 3),
        ("one not ready", 3, 1, 200, 2),
        ("none ready", 2, 2, 503, 0),
        ("none here", 0, 0, 503, 0),
    ];
    for (name, local, unready, status, count) in cases {
        let service = service(name, 30000, local, unready);
        publish(&mut publisher, std::slice::from_ref(&service), false);
        let answer = service::respond(&health, &service.key);
        let weight = answer.headers()["x-load-balancing-endpoint-weight"].clone();
        assert_eq!(weight, count.to_string(), "{name}");
        let body = json!({
            "service": {"namespace": "shop", "name": name},
            "localEndpoints": count,
            "serviceProxyHealthy": true,
        });
        assert_eq!(read(answer).await, (status, body), "{name}");
    }
    let gone = service::respond(&health, &key("gone"));
    assert_eq!(gone.status(), 503);
}

#[tokio::test(start_paused = true)]
async fn proxy_s15_an_overdue_change_fails_services_too() {
    let (mut publisher, reader) = snapshot::channel();
    let health = Health::new(reader);
    let api = service("api", 30000, 1, 0);
    publish(&mut publisher, std::slice::from_ref(&api), false);
    health.note(0);
    tokio::time::advance(OVERDUE).await;
    let (status, body) = read(service::respond(&health, &api.key)).await;
    assert_eq!((status, &body["serviceProxyHealthy"]), (503, &json!(false)));
}

async fn ask(port: u16) -> Option<u16> {
    let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await;
    let mut stream = stream.ok()?;
    let asked = stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    asked.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    answer.split(' ').nth(1)?.parse().ok()
}

async fn until(port: u16, want: Option<u16>) {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let seen = ask(port).await;
        if seen == want {
            return;
        }
        assert!(Instant::now() < deadline, "{port}: {seen:?}");
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn proxy_s15_listeners_follow_services_and_a_taken_port_is_an_event() {
    let (mut publisher, reader) = snapshot::channel();
    let health = Health::new(reader);
    let (told, mut events) = tokio::sync::mpsc::channel(16);
    let api = tower::service_fn(move |request: Request<kube::client::Body>| {
        let told = told.clone();
        async move {
            let body = request.into_body().collect_bytes().await.unwrap();
            let event = serde_json::from_slice::<Value>(&body).unwrap();
            let _ = told.try_send(event);
            Ok::<_, std::convert::Infallible>(http::Response::new(kube::client::Body::from(
                body.to_vec(),
            )))
        }
    });
    let client = Client::new(api, "default");
    tokio::spawn(service::follow(health, client));
    let (first, second) = (free_port(), free_port());
    publish(&mut publisher, &[service("api", first, 1, 0)], false);
    until(first, Some(200)).await;
    publish(&mut publisher, &[service("api", first, 0, 0)], false);
    until(first, Some(503)).await;
    publish(&mut publisher, &[service("api", second, 1, 0)], false);
    until(second, Some(200)).await;
    until(first, None).await;
    publish(&mut publisher, &[], false);
    until(second, None).await;

    let taken = TcpListener::bind("[::]:0").await.unwrap();
    let port = taken.local_addr().unwrap().port();
    publish(&mut publisher, &[service("api", port, 1, 0)], false);
    let event = tokio::time::timeout(Duration::from_secs(10), events.recv()).await;
    let event = event.unwrap().unwrap();
    assert_eq!(event["reason"], "FailedToStartServiceHealthcheck");
    assert_eq!(event["regarding"]["name"], "api");
    assert!(event["note"].as_str().unwrap().contains(&port.to_string()));
    drop(taken);
    until(port, Some(200)).await;
}

#[test]
fn proxy_o1_services_without_an_endpoint_here_are_counted_by_policy() {
    let (mut publisher, reader) = snapshot::channel();
    let services = [service("a", 1, 0, 0), service("b", 2, 1, 0)];
    publish(&mut publisher, &services, false);
    let counts = without_local_endpoints(&reader.load());
    assert_eq!(counts, [("internal", 0.0), ("external", 1.0)]);
}
