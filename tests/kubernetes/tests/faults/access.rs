//! Permissions and credentials that come and go.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Client;
use kube::api::{Api, PostParams};
use sealane_config::watch::WatchOptions;
use sealane_test_kubernetes::FaultProxy;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::plane;
use crate::world::{Operator, PATIENCE, World};

/// What the state path needs, in one role a kind.
const NEEDS: [(&str, &str); 5] = [
    ("", "services"),
    ("discovery.k8s.io", "endpointslices"),
    ("", "namespaces"),
    ("networking.k8s.io", "ingresses"),
    ("networking.k8s.io", "ingressclasses"),
];

async fn allow(operator: &Operator, user: &Value, prefix: &str, needs: &[(&str, &str)]) {
    for (group, resource) in needs {
        let name = format!("{prefix}-{resource}");
        let rule =
            json!({"apiGroups": [group], "resources": [resource], "verbs": ["list", "watch"]});
        let role = json!({"metadata": {"name": name}, "rules": [rule]});
        let version = "rbac.authorization.k8s.io/v1";
        operator.create(version, "ClusterRole", role).await;
        bind(operator, user, &name).await;
    }
}

async fn bind(operator: &Operator, user: &Value, role: &str) {
    let binding = json!({
        "metadata": {"name": role},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [user],
    });
    let version = "rbac.authorization.k8s.io/v1";
    operator
        .create(version, "ClusterRoleBinding", binding)
        .await;
}

#[tokio::test]
async fn reliability_f25_permission_withdrawn_for_one_kind() {
    let Some(plane) = plane::shared() else {
        return;
    };
    let operator = Operator::new(plane.admin().await, "rbac").await;
    let user =
        json!({"kind": "User", "name": "rbac-user", "apiGroup": "rbac.authorization.k8s.io"});
    allow(&operator, &user, "rbac", &NEEDS).await;
    let proxy = FaultProxy::start(plane.api_addr()).await.expect("a proxy");
    let entry = plane.user("rbac-user", None).expect("a user");
    let kubeconfig = plane.write_kubeconfig_for(&proxy.url(), "rbac-user", &entry);
    let kubeconfig = kubeconfig.expect("a file");
    let mut world = World::synced(kubeconfig, WatchOptions::default()).await;
    operator.service("web").await;
    operator.slice("web", 8080, &["10.1.0.1"]).await;
    world
        .until("synced", |s| operator.targets(s, "web").len() == 1)
        .await;

    let version = "rbac.authorization.k8s.io/v1";
    let role = "rbac-endpointslices";
    operator.delete(version, "ClusterRoleBinding", role).await;
    // An open watch outlives its permission; the next one does not.
    let told = [
        "WARN",
        "kind=\"EndpointSlice\"",
        "`list` and `watch`",
        "`endpointslices.discovery.k8s.io`",
    ];
    let end = Instant::now() + PATIENCE;
    while world.log.count(&told) == 0 {
        assert!(Instant::now() < end, "{}", world.log.text());
        proxy.cut();
        sleep(Duration::from_millis(500)).await;
    }
    let withdrawn = Instant::now();
    operator.service("others-go-on").await;
    operator.move_slice("web", &["10.1.0.1", "10.1.0.2"]).await;
    world
        .until("another kind", |s| operator.has(s, "others-go-on"))
        .await;
    sleep(Duration::from_secs(9)).await;
    assert_eq!(world.log.count(&told), 1, "once\n{}", world.log.text());
    let age = world.age("EndpointSlice");
    assert!(age >= withdrawn.elapsed(), "stale for {age:?}");
    let snapshot = world.reader.load().clone();
    assert!(snapshot.synced, "still ready");
    assert_eq!(operator.targets(&snapshot, "web").len(), 1, "last good");

    bind(&operator, &user, role).await;
    let took = world
        .until("current with the permission", |s| {
            operator.targets(s, "web").len() == 2
        })
        .await;
    assert!(took <= Duration::from_secs(5), "{took:?}");
}

/// A token that is good for as long as a Secret exists: deleting it ends the token at once, which
/// makes the test faster than waiting ten minutes, the shortest life that the server gives.
async fn token(operator: &Operator, client: &Client, secret: &str) -> String {
    let object = json!({"metadata": {"name": secret}});
    operator.create("v1", "Secret", object).await;
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), "renew");
    let request = TokenRequest {
        spec: TokenRequestSpec {
            bound_object_ref: Some(BoundObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Secret".to_owned()),
                name: Some(secret.to_owned()),
                uid: None,
            }),
            ..TokenRequestSpec::default()
        },
        ..TokenRequest::default()
    };
    let params = PostParams::default();
    let made = accounts.create_token_request("node", &params, &request);
    made.await.expect("a token").status.expect("a token").token
}

/// An exec plugin that answers with what is in a file.
fn plugin(directory: &Path) -> Value {
    let program = directory.join("credentials.sh");
    let script = format!(
        "#!/bin/sh\necho >>{0}/calls\ncat {0}/credential\n",
        directory.display()
    );
    fs::write(&program, script).expect("a script");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("executable");
    json!({"exec": {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": program,
        "interactiveMode": "Never",
    }})
}

fn give(directory: &Path, token: &str, seconds: Option<i64>) {
    let mut status = json!({"token": token});
    if let Some(seconds) = seconds {
        let end = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(seconds);
        status["expirationTimestamp"] = json!(end.to_string());
    }
    let credential = json!({
        "apiVersion": "client.authentication.k8s.io/v1",
        "kind": "ExecCredential",
        "status": status,
    });
    let new = directory.join("credential.new");
    fs::write(&new, credential.to_string()).expect("a credential");
    fs::rename(&new, directory.join("credential")).expect("a credential");
}

fn calls(directory: &Path) -> usize {
    let calls = fs::read_to_string(directory.join("calls"));
    calls.map_or(0, |text| text.lines().count())
}

fn directory_for(plane: &Path, name: &str) -> PathBuf {
    let directory = plane.join(name);
    fs::create_dir(&directory).expect("a directory");
    directory
}

#[tokio::test]
async fn reliability_f25_expired_credentials_are_renewed() {
    let Some(plane) = plane::shared() else {
        return;
    };
    let admin = plane.admin().await;
    let operator = Operator::new(admin.clone(), "renew").await;
    let account = json!({"metadata": {"name": "node"}});
    operator.create("v1", "ServiceAccount", account).await;
    let user = json!({"kind": "ServiceAccount", "name": "node", "namespace": "renew"});
    allow(&operator, &user, "renew", &NEEDS).await;
    // A plugin that says when its tokens end is asked before; one that does not, when they are
    // refused.
    for (name, seconds) in [("announced", Some(12)), ("revoked", None)] {
        let directory = directory_for(plane.directory(), name);
        let first = format!("{name}-first");
        give(&directory, &token(&operator, &admin, &first).await, seconds);
        let proxy = FaultProxy::start(plane.api_addr()).await.expect("a proxy");
        let entry = plugin(&directory);
        let kubeconfig = plane.write_kubeconfig_for(&proxy.url(), name, &entry);
        let kubeconfig = kubeconfig.expect("a file");
        let mut world = World::synced(kubeconfig, WatchOptions::default()).await;
        let before = calls(&directory);
        let second = format!("{name}-second");
        give(
            &directory,
            &token(&operator, &admin, &second).await,
            Some(3600),
        );
        operator.delete("v1", "Secret", &first).await;
        // The server remembers that a token was good for ten seconds.
        sleep(Duration::from_secs(13)).await;
        proxy.cut();
        let later = format!("{name}-later");
        operator.service(&later).await;
        let took = world
            .until(&format!("{name}: current with new credentials"), |s| {
                operator.has(s, &later)
            })
            .await;
        assert!(took <= Duration::from_secs(5), "{took:?}");
        let asked = calls(&directory) - before;
        assert!((1..=3).contains(&asked), "{name}: asked {asked} times");
    }
}
