//! The client against our own API server over TLS, with a relay between them that counts and
//! freezes connections.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::try_join_all;
use http::{Request, StatusCode, Version};
use http_body_util::BodyExt as _;
use kube::Client;
use kube::client::Body;
use sealane_cluster::api::credentials::Credentials;
use sealane_cluster::api::{self, ApiOptions, ApiServer, Store};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::{ClusterAddress, LinkOptions, configuration, connect, connect_with, transport};
use crate::defaults::{KEEP_ALIVE_INTERVAL, KEEP_ALIVE_TIMEOUT};

/// For what takes milliseconds on an idle machine.
const DEADLINE: Duration = Duration::from_secs(20);

/// Short, so that a test need not wait for the real thing.
const QUICK: LinkOptions = LinkOptions {
    interval: Duration::from_millis(300),
    timeout: Duration::from_millis(300),
    mark: None,
};

/// An API server, its credentials, and a relay in front of it.
struct World {
    directory: TempDir,
    credentials: Credentials,
    relay: Relay,
    _stop: tokio_util::sync::DropGuard,
}

impl World {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let credentials = Credentials::load_or_create(directory.path(), &[]).unwrap();
        let options = ApiOptions {
            token: Some(credentials.token().to_owned()),
            ..ApiOptions::default()
        };
        let server = ApiServer::new(Store::ephemeral(), options);
        server.bootstrap().await.expect("the API server starts");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let relay = Relay::start(listener.local_addr().unwrap()).await;
        let stop = CancellationToken::new();
        tokio::spawn(api::serve(
            listener,
            credentials.tls(),
            server,
            stop.clone(),
        ));
        Self {
            directory,
            credentials,
            relay,
            _stop: stop.drop_guard(),
        }
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// A client for a kubeconfig with this user and more fields of the cluster.
    async fn client(&self, user: Value, cluster: Value) -> Client {
        let mut entry = json!({
            "server": format!("https://{}", self.relay.addr),
            "certificate-authority": self.file("ca", self.credentials.ca_pem()),
        });
        for (name, value) in cluster.as_object().unwrap() {
            entry[name] = value.clone();
        }
        let kubeconfig = json!({
            "clusters": [{"name": "c", "cluster": entry}],
            "users": [{"name": "u", "user": user}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        });
        let address = ClusterAddress {
            kubeconfig: Some(self.file("config", &kubeconfig.to_string())),
            context: Some("x".into()),
            server: None,
        };
        let config = configuration(&address).await.unwrap();
        connect_with(config, QUICK).await.unwrap()
    }

    fn token(&self) -> Value {
        json!({"token": self.credentials.token()})
    }
}

/// Passes connections on.
struct Relay {
    addr: SocketAddr,
    accepted: Arc<AtomicUsize>,
    frozen: Arc<Mutex<CancellationToken>>,
}

impl Relay {
    async fn start(to: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let relay = Self {
            addr: listener.local_addr().unwrap(),
            accepted: Arc::default(),
            frozen: Arc::default(),
        };
        let (accepted, frozen) = (Arc::clone(&relay.accepted), Arc::clone(&relay.frozen));
        tokio::spawn(async move {
            while let Ok((mut inner, _)) = listener.accept().await {
                accepted.fetch_add(1, Ordering::Relaxed);
                let frozen = frozen.lock().unwrap().clone();
                tokio::spawn(async move {
                    let mut outer = TcpStream::connect(to).await.unwrap();
                    tokio::select! {
                        _ = copy_bidirectional(&mut inner, &mut outer) => {}
                        () = frozen.cancelled() => std::future::pending().await,
                    }
                });
            }
        });
        relay
    }

    fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Nothing passes on the connections that there are any more, and nobody is told.
    fn freeze(&self) {
        let mut frozen = self.frozen.lock().unwrap();
        std::mem::take(&mut *frozen).cancel();
    }
}

/// The status and the version of an answer.
async fn get(client: &Client, path: &str) -> Result<(StatusCode, Version), String> {
    let request = Request::get(path).body(Body::empty()).unwrap();
    let sent = timeout(DEADLINE, client.send(request)).await.unwrap();
    sent.map(|answer| (answer.status(), answer.version()))
        .map_err(|error| error.to_string())
}

const NAMESPACES: &str = "/api/v1/namespaces";
const WATCH: &str = "/api/v1/services?watch=true&timeoutSeconds=300";

async fn watch(client: &Client) -> Result<http::Response<Body>, String> {
    let request = Request::get(WATCH).body(Body::empty()).unwrap();
    let sent = timeout(DEADLINE, client.send(request)).await.unwrap();
    sent.map_err(|error| error.to_string())
}

#[tokio::test]
async fn watches_share_a_connection_up_to_what_servers_allow() {
    let world = World::start().await;
    let client = world.client(world.token(), json!({})).await;
    let first = get(&client, NAMESPACES).await;
    assert_eq!(first, Ok((StatusCode::OK, Version::HTTP_2)));
    let few = try_join_all((0..40).map(|_| watch(&client))).await.unwrap();
    assert_eq!(world.relay.accepted(), 1);
    let many = try_join_all((0..100).map(|_| watch(&client)))
        .await
        .unwrap();
    assert_eq!(world.relay.accepted(), 3, "140 streams, 64 a connection");
    drop((few, many));
    let again = get(&client, NAMESPACES).await;
    assert_eq!(again, Ok((StatusCode::OK, Version::HTTP_2)));
    assert_eq!(world.relay.accepted(), 3);
}

#[tokio::test]
async fn reliability_f29_a_connection_that_died_silently_is_noticed() {
    let limit = KEEP_ALIVE_INTERVAL + KEEP_ALIVE_TIMEOUT;
    assert!(limit <= Duration::from_secs(25), "{limit:?}");

    let world = World::start().await;
    let client = world.client(world.token(), json!({})).await;
    let mut open = watch(&client).await.unwrap();
    world.relay.freeze();
    let frozen = Instant::now();
    let ended = async { while let Some(Ok(_)) = open.frame().await {} };
    timeout(DEADLINE, ended).await.expect("the watch fails");
    let waited = frozen.elapsed();
    let limit = QUICK.interval + QUICK.timeout;
    assert!(waited < 4 * limit, "{waited:?}");
    let again = get(&client, NAMESPACES).await;
    assert_eq!(again, Ok((StatusCode::OK, Version::HTTP_2)));
    assert_eq!(world.relay.accepted(), 2);
}

#[tokio::test]
async fn an_idle_connection_that_died_is_not_used() {
    let world = World::start().await;
    let client = world.client(world.token(), json!({})).await;
    get(&client, NAMESPACES).await.unwrap();
    world.relay.freeze();
    let until = Instant::now() + DEADLINE;
    loop {
        let answer = timeout(QUICK.interval, get(&client, NAMESPACES)).await;
        if matches!(answer, Ok(Ok(_))) {
            break;
        }
        assert!(Instant::now() < until, "{answer:?}");
    }
}

#[tokio::test]
async fn refused_credentials_are_read_again() {
    let world = World::start().await;
    let token_file = world.file("token", "old");
    let script = format!(
        r#"#!/bin/sh
echo run >> "$0.runs"
printf '{{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{{"token":"%s"}}}}' "$(cat {})"
"#,
        token_file.display()
    );
    let plugin = world.file("plugin", &script);
    std::fs::set_permissions(&plugin, std::fs::Permissions::from_mode(0o700)).unwrap();
    let exec = json!({
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": plugin,
        "interactiveMode": "Never",
    });
    for user in [json!({"tokenFile": token_file}), json!({"exec": exec})] {
        world.file("token", "old");
        let client = world.client(user.clone(), json!({})).await;
        let standing = world.client(user.clone(), json!({})).await;
        world.file("token", world.credentials.token());
        let answers = try_join_all((0..8).map(|_| get(&client, NAMESPACES))).await;
        let expected = vec![(StatusCode::OK, Version::HTTP_2); 8];
        assert_eq!(answers, Ok(expected), "{user}");

        world.file("token", "wrong");
        for _ in 0..5 {
            let answer = get(&standing, NAMESPACES).await.unwrap();
            assert_eq!(answer.0, StatusCode::UNAUTHORIZED, "{user}");
        }
    }
    let runs = world.directory.path().join("plugin.runs");
    let runs = std::fs::read_to_string(runs).unwrap().lines().count();
    // Setting up asks twice, once for a token and once for a certificate: two clients, each set up
    // twice, however many requests are refused.
    assert_eq!(runs, 8);
}

#[tokio::test]
async fn a_proxy_is_used_unless_the_server_is_excepted() {
    let world = World::start().await;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let proxy = format!("http://user:p%40ss@{}", listener.local_addr().unwrap());
    let seen = tokio::spawn(async move {
        let (client, _) = listener.accept().await.unwrap();
        let mut client = BufReader::new(client);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            client.read_line(&mut head).await.unwrap();
        }
        let target = head.split(' ').nth(1).unwrap().to_owned();
        let mut server = TcpStream::connect(&target).await.unwrap();
        client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        tokio::spawn(async move { copy_bidirectional(&mut client, &mut server).await });
        head
    });
    let client = world
        .client(world.token(), json!({"proxy-url": proxy}))
        .await;
    let answer = get(&client, NAMESPACES).await;
    assert_eq!(answer, Ok((StatusCode::OK, Version::HTTP_2)));
    let head = seen.await.unwrap();
    let connect = format!("CONNECT {} HTTP/1.1\r\n", world.relay.addr);
    assert!(head.starts_with(&connect), "{head}");
    assert!(head.contains("Basic dXNlcjpwQHNz"), "user:p@ss in {head}");
}

#[test]
fn no_proxy_is_about_the_server() {
    let mut config = kube::Config::new("https://10.0.0.1:6443".parse().unwrap());
    config.proxy_url = Some("http://proxy.test:3128".parse().unwrap());
    for (exceptions, used) in [
        ("", true),
        ("example.com", true),
        ("proxy.test", true),
        ("10.0.0.0/8", false),
        ("localhost, 10.0.0.1", false),
        ("*", false),
    ] {
        let proxy = transport::proxy_unless(&config, exceptions);
        assert_eq!(proxy.is_some(), used, "{exceptions:?}");
    }
}

#[tokio::test]
async fn a_server_without_tls_speaks_http_1_and_sees_who_asks() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let seen = tokio::spawn(async move {
        let (client, _) = listener.accept().await.unwrap();
        let mut client = BufReader::new(client);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            client.read_line(&mut head).await.unwrap();
        }
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
        client.write_all(answer).await.unwrap();
        head
    });
    let config = kube::Config::new(url.parse().unwrap());
    let client = connect(config, "dns").await.unwrap();
    let answer = get(&client, NAMESPACES).await;
    assert_eq!(answer, Ok((StatusCode::OK, Version::HTTP_11)));
    let agent = format!(
        "user-agent: sealane/{} (dns)\r\n",
        env!("CARGO_PKG_VERSION")
    );
    let head = seen.await.unwrap();
    assert!(head.contains(&agent), "{head}");
}

#[tokio::test]
async fn a_kubeconfig_that_cannot_be_used_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing");
    let contexts = directory.path().join("contexts");
    std::fs::write(&contexts, json!({"contexts": []}).to_string()).unwrap();
    for (file, context, expected) in [
        (&missing, None, "missing"),
        (&contexts, Some("prod"), "prod"),
    ] {
        let address = ClusterAddress {
            kubeconfig: Some(file.clone()),
            context: context.map(str::to_owned),
            server: None,
        };
        let error = configuration(&address).await.unwrap_err().to_string();
        assert!(error.starts_with("kubeconfig "), "{error}");
        assert!(error.contains(expected), "{error}");
    }
}
