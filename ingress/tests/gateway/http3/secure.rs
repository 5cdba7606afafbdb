//! Handshakes, and what they decide.

use quinn::ConnectionError;
use rustls::client::Resumption;
use sealane_config::model::{GatewaySettings, ListenerTls, ProxyProtocol, TlsVersions};
use sealane_proxy::testing::Origin;

use super::client::Client;
use super::{ALL, HOST, edge};
use crate::certificates::{Authority, Client as Tls};
use crate::manifests::Manifests;
use crate::support::on_worker;
use crate::tls::{certificate, der};

const UNRECOGNIZED_NAME: u8 = 112;

fn is_alert(error: &ConnectionError, alert: u8) -> bool {
    let code = quinn::TransportErrorCode::crypto(alert);
    matches!(error, ConnectionError::ConnectionClosed(close) if close.error_code == code)
}

#[tokio::test]
async fn ingress_t5_the_certificate_is_that_of_the_name() {
    on_worker(async {
        let mut edge = edge().await;
        let own = certificate(HOST);
        let table = &mut edge.world.snapshot.certificates;
        table.exact.insert_mut(HOST.into(), own.clone());
        edge.world.publish();
        let shown = |quic: &quinn::Connection| {
            let chain = quic.peer_identity().unwrap();
            let chain = chain.downcast::<Vec<rustls::pki_types::CertificateDer<'static>>>();
            chain.unwrap().remove(0)
        };
        let client = Client::new(None);
        let named = client.connect(&edge, HOST).await;
        assert_eq!(shown(&named.quic), *der(&own.key));
        let other = client.connect(&edge, "b.test").await;
        assert_eq!(shown(&other.quic), *der(&edge.fallback));
        // A new one serves the next handshake.
        let new = certificate(HOST);
        let table = &mut edge.world.snapshot.certificates;
        table.exact.insert_mut(HOST.into(), new.clone());
        edge.world.publish();
        let again = Client::new(None).connect(&edge, HOST).await;
        assert_eq!(shown(&again.quic), *der(&new.key));
    })
    .await;
}

#[tokio::test]
async fn ingress_t5_certificates_of_clients_let_requests_in() {
    on_worker(async {
        let (ours, other) = (Authority::new("Ours"), Authority::new("Other"));
        let (good, bad) = (ours.vouch("shop"), other.vouch("shop"));
        let web = Origin::named("web").await;
        let mut edge = edge().await;
        let mut manifests = Manifests::new();
        manifests.service("web", web.addr);
        manifests.ingress("pay", &[("auth-tls-secret", "default/ca")], "pay.test", ALL);
        manifests.ingress("open", &[], HOST, ALL);
        manifests.secret("ca", Some(&[("ca.crt", &ours.pem)]));
        manifests.publish(&mut edge);
        for (identity, status) in [(None, 400), (Some(&bad), 400), (Some(&good), 200)] {
            let answer = Client::new(identity).get(&edge, "pay.test").await;
            assert_eq!(answer.status(), status);
        }
        assert_eq!(web.seen()[0].header("ssl-client-verify"), "SUCCESS");
        // Nobody was asked for one here, so the host is not served through this connection.
        let mut client = Client::new(Some(&good)).connect(&edge, HOST).await;
        assert_eq!(client.get(HOST, "/").await.status(), 200);
        assert_eq!(client.get("pay.test", "/").await.status(), 421);
    })
    .await;
}

#[tokio::test]
async fn ingress_t5_sessions_are_resumed_but_early_data_is_not_taken() {
    on_worker(async {
        let web = Origin::named("web").await;
        let (edge, _) = super::edge_before(&web, &[]).await;
        let client = Client::with(None, |tls| {
            tls.enable_early_data = true;
            tls.resumption = Resumption::in_memory_sessions(8);
        });
        // The tickets came before the answer.
        assert_eq!(client.get(&edge, HOST).await.status(), 200);
        // Without permission for early data in the ticket there are no keys for it.
        assert!(client.connecting(edge.https, HOST).into_0rtt().is_err());
        assert_eq!(client.get(&edge, HOST).await.status(), 200);
    })
    .await;
}

#[tokio::test]
async fn ingress_t5_names_that_are_not_to_be_served_get_no_certificate() {
    on_worker(async {
        let web = Origin::named("web").await;
        let mut settings = GatewaySettings::default();
        settings.rules.ssl_passthrough = true;
        let mut edge = edge().await;
        let mut manifests = Manifests::with(|options| options.settings = settings);
        manifests.service("web", web.addr);
        manifests.ingress("web", &[], HOST, ALL);
        manifests.ingress("pass", &[("ssl-passthrough", "true")], "pass.test", ALL);
        manifests.publish(&mut edge);
        let client = Client::new(None);
        let refused = client.try_connect(&edge, "pass.test").await.err().unwrap();
        assert!(is_alert(&refused, UNRECOGNIZED_NAME), "{refused}");
        assert_eq!(client.get(&edge, HOST).await.status(), 200);
        let with = |change: fn(&mut GatewaySettings)| {
            let mut settings = GatewaySettings::default();
            change(&mut settings);
            settings
        };
        edge.world.snapshot.gateway = with(|settings| {
            settings.tls.rejects_unknown_names = true;
        })
        .into();
        edge.world.publish();
        let refused = client.try_connect(&edge, "b.test").await.err().unwrap();
        assert!(is_alert(&refused, UNRECOGNIZED_NAME), "{refused}");
        assert_eq!(client.get(&edge, HOST).await.status(), 200);
        for settings in [
            with(|settings| {
                settings.tls = ListenerTls {
                    versions: TlsVersions::Only12,
                    ..settings.tls
                };
            }),
            with(|settings| {
                settings.proxy_protocol = ProxyProtocol {
                    https: true,
                    ..settings.proxy_protocol
                };
            }),
        ] {
            edge.world.snapshot.gateway = settings.into();
            edge.world.publish();
            assert!(client.try_connect(&edge, HOST).await.is_err());
            // Nor does anybody get told to try.
            let told = Tls::new(None).get_http2(&edge, HOST, &[HOST]).await;
            assert!(!told[0].headers().contains_key("alt-svc"));
        }
    })
    .await;
}
