//! What the gateway's settings and time make of handshakes: versions, names, tickets.

use std::sync::Arc;
use std::time::Duration;

use rustls::HandshakeKind;
use rustls::version::{TLS12, TLS13};
use sealane_config::model::{GatewaySettings, ListenerTls, TlsVersions};
use sealane_proxy::testing::Origin;

use crate::certificates::{Authority, Client};
use crate::manifests::Manifests;
use crate::support::{Edge, on_worker};
use crate::tls::certificate;

const ALL: &[(&str, &str, &str)] = &[("Prefix", "/", "web")];

/// A gateway with three hosts: with a certificate, with rules only, and one that asks clients for
/// certificates.
async fn site() -> (Edge, Origin) {
    let (mut edge, web) = (Edge::new().await, Origin::named("web").await);
    let mut manifests = Manifests::new();
    manifests.service("web", web.addr);
    manifests.ingress("shop", &[], "shop.test", ALL);
    manifests.ingress("wild", &[], "*.shop.test", ALL);
    manifests.ingress("any", &[], "", ALL);
    let asks = [
        ("auth-tls-secret", "default/ca"),
        ("auth-tls-verify-client", "optional"),
    ];
    manifests.ingress("pay", &asks, "pay.test", ALL);
    let pem = Authority::new("Ours").pem;
    manifests.secret("ca", Some(&[("ca.crt", &pem)]));
    manifests.publish(&mut edge);
    let table = &mut edge.world.snapshot.certificates;
    for name in ["shop.test", "bare.test"] {
        table.exact.insert_mut(name.into(), certificate(name));
    }
    edge.world.publish();
    (edge, web)
}

fn set(edge: &mut Edge, tls: ListenerTls) {
    edge.world.snapshot.gateway = Arc::new(GatewaySettings {
        tls,
        ..GatewaySettings::default()
    });
    edge.world.publish();
}

/// Lets so much time pass at once, for the gateway and for everybody.
pub(crate) async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

#[tokio::test]
async fn ingress_t6_the_settings_say_which_versions_are_spoken() {
    on_worker(async {
        let (mut edge, _web) = site().await;
        for (versions, spoken) in [
            (TlsVersions::All, [true, true]),
            (TlsVersions::Only12, [true, false]),
            (TlsVersions::Only13, [false, true]),
            (TlsVersions::All, [true, true]),
        ] {
            let tls = ListenerTls {
                versions,
                ..ListenerTls::default()
            };
            set(&mut edge, tls);
            for (version, wanted) in [&TLS12, &TLS13].into_iter().zip(spoken) {
                for name in ["shop.test", "pay.test"] {
                    let client = Client::of_versions(None, &[version]);
                    let connected = client.connect(&edge, name, b"http/1.1").await;
                    let error = connected.err().map(|error| error.to_string());
                    let refused = error.is_some_and(|text| text.contains("ProtocolVersion"));
                    assert_eq!(!refused, wanted, "{versions:?} {version:?} {name}");
                }
            }
        }
    })
    .await;
}

#[tokio::test]
async fn ingress_i19_names_that_nothing_is_served_under_are_refused_if_that_is_asked_for() {
    on_worker(async {
        let (mut edge, web) = site().await;
        for rejects in [false, true, false] {
            let tls = ListenerTls {
                rejects_unknown_names: rejects,
                ..ListenerTls::default()
            };
            set(&mut edge, tls);
            for (name, known) in [
                ("shop.test", true),
                ("SHOP.test", true),
                ("a.shop.test", true),
                ("pay.test", true),
                ("bare.test", true),
                ("b.a.shop.test", false),
                ("other.test", false),
                // An address is not sent as a name.
                ("127.0.0.1", false),
            ] {
                let hits = web.hits();
                let connected = Client::new(None).connect(&edge, name, b"http/1.1").await;
                let error = connected.err().map(|error| error.to_string());
                let is_refused = error
                    .as_ref()
                    .is_some_and(|text| text.contains("UnrecognisedName"));
                assert_eq!(is_refused, rejects && !known, "{name}: {error:?}");
                if !is_refused {
                    let answer = Client::new(None).get(&edge, name, "shop.test").await;
                    assert!(answer.status < 500, "{name}: {}", answer.text);
                    assert_eq!(web.hits(), hits + 1, "{name}");
                }
            }
        }
    })
    .await;
}

#[tokio::test]
async fn ingress_t6_a_ticket_is_good_for_as_long_as_its_key() {
    const HOUR: Duration = Duration::from_secs(3600);
    on_worker(async {
        for version in [&TLS13, &TLS12] {
            let (edge, _web) = site().await;
            // Each has one ticket of the first key. Resuming gives another one.
            let first: Vec<Client> = (0..3)
                .map(|_| Client::of_versions(None, &[version]))
                .collect();
            let later = Client::of_versions(None, &[version]);
            let connect = async |client: &Client| {
                let answer = client.get(&edge, "shop.test", "shop.test").await;
                assert_eq!(answer.status, 200);
                answer.handshake == HandshakeKind::Resumed
            };
            for client in &first {
                assert!(!connect(client).await, "{version:?}");
            }
            pass(5 * HOUR).await;
            assert!(connect(&first[0]).await, "{version:?}: the same key");
            pass(2 * HOUR).await;
            assert!(
                !connect(&later).await,
                "{version:?}: the second key, made after 7 hours"
            );
            assert!(connect(&first[1]).await, "{version:?}: the key before it");
            pass(5 * HOUR + HOUR / 2).await;
            assert!(
                !connect(&first[2]).await,
                "{version:?}: older than 12 hours"
            );
            assert!(connect(&later).await, "{version:?}: the second key");
            // Nobody comes for a day: a key that was current until now is not good any more.
            let quiet = Client::of_versions(None, &[version]);
            assert!(!connect(&quiet).await, "{version:?}");
            pass(24 * HOUR).await;
            assert!(!connect(&quiet).await, "{version:?}: a day later");
        }
    })
    .await;
}
