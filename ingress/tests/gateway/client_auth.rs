//! Certificates of clients: what lets a request in, and what does not.

mod connections;

use rcgen::{CertificateParams, SanType, SerialNumber};
use rustls::HandshakeKind;
use rustls::version::{TLS12, TLS13};
use sealane_proxy::testing::{Origin, RawClient};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::certificates::{Authority, Client, Identity, expired, for_servers};
use crate::manifests::Manifests;
use crate::support::{Edge, on_worker};

const HOST: &str = "pay.test";
const ALL: &[(&str, &str, &str)] = &[("Prefix", "/", "web")];
const SECRET: (&str, &str) = ("auth-tls-secret", "default/ca");
const PLAIN: (&str, &str) = ("ssl-redirect", "false");

/// A gateway with one host that asks for certificates, and one that does not.
struct Site {
    edge: Edge,
    origin: Origin,
    manifests: Manifests,
}

impl Site {
    async fn new(annotations: &[(&str, &str)], data: &[(&str, &str)]) -> Self {
        let (edge, origin) = (Edge::new().await, Origin::named("web").await);
        let mut manifests = Manifests::new();
        manifests.service("web", origin.addr);
        manifests.ingress("open", &[], "open.test", ALL);
        let mut site = Self {
            edge,
            origin,
            manifests,
        };
        site.annotate(annotations, data);
        site
    }

    fn annotate(&mut self, annotations: &[(&str, &str)], data: &[(&str, &str)]) {
        self.manifests.ingress("pay", annotations, HOST, ALL);
        self.manifests.secret("ca", Some(data));
        self.manifests.publish(&mut self.edge);
    }

    /// The status, and what the backend was told of the verification.
    async fn get(&self, identity: Option<&Identity>) -> (u16, String) {
        self.get_with(&Client::new(identity)).await
    }

    async fn get_with(&self, client: &Client) -> (u16, String) {
        let hits = self.origin.hits();
        let answer = client.get(&self.edge, HOST, HOST).await;
        let seen = self.origin.seen();
        let told = seen
            .get(hits)
            .map(|seen| seen.header("ssl-client-verify").to_owned());
        (answer.status, told.unwrap_or_else(|| "-".to_owned()))
    }
}

fn refused(status: u16) -> (u16, String) {
    (status, "-".to_owned())
}

#[tokio::test]
async fn ingress_a16_the_mode_says_which_clients_come_in() {
    on_worker(async {
        let (ours, other) = (Authority::new("Ours"), Authority::new("Other"));
        let good = ours.vouch("shop");
        let (unknown, old) = (other.vouch("shop"), ours.vouch_as("shop", expired));
        let mut site = Site::new(&[SECRET], &[("ca.crt", &ours.pem)]).await;
        let unknown_ca = "FAILED:unable to get local issuer certificate";
        for (mode, none, of_other, of_old) in [
            (None, (400, "-"), (400, "-"), (400, "-")),
            (Some("on"), (400, "-"), (400, "-"), (400, "-")),
            (Some("optional"), (200, "NONE"), (400, "-"), (400, "-")),
            (
                Some("optional_no_ca"),
                (200, "NONE"),
                (200, unknown_ca),
                (400, "-"),
            ),
            (Some("nonsense"), (403, "-"), (403, "-"), (403, "-")),
        ] {
            let annotations: Vec<_> = [SECRET]
                .into_iter()
                .chain(mode.map(|mode| ("auth-tls-verify-client", mode)))
                .collect();
            site.annotate(&annotations, &[("ca.crt", &ours.pem)]);
            for (identity, (status, told)) in [
                (None, none),
                (Some(&unknown), of_other),
                (Some(&old), of_old),
            ] {
                let got = site.get(identity).await;
                assert_eq!(got, (status, told.to_owned()), "{mode:?}");
            }
            if mode != Some("nonsense") {
                assert_eq!(site.get(Some(&good)).await, (200, "SUCCESS".to_owned()));
            }
        }
        site.annotate(
            &[SECRET, ("auth-tls-verify-client", "off")],
            &[("ca.crt", &ours.pem)],
        );
        assert_eq!(site.get(Some(&good)).await, (200, "NONE".to_owned()));
    })
    .await;
}

#[tokio::test]
async fn ingress_a16_a_client_reads_why_it_is_refused() {
    on_worker(async {
        let ours = Authority::new("Ours");
        let site = Site::new(&[SECRET], &[("ca.crt", &ours.pem)]).await;
        let answer = Client::new(None).get(&site.edge, HOST, HOST).await;
        assert_eq!(answer.status, 400);
        assert!(
            answer.text.contains("sealane-error: client_certificate"),
            "{}",
            answer.text
        );
        assert!(answer.text.contains("no certificate"), "{}", answer.text);
        let open = Client::new(None)
            .get(&site.edge, "open.test", "open.test")
            .await;
        assert_eq!(open.status, 200);
        assert_eq!(site.origin.hits(), 1);
    })
    .await;
}

#[tokio::test]
async fn ingress_a16_without_authorities_nobody_comes_in() {
    on_worker(async {
        let ours = Authority::new("Ours");
        let good = ours.vouch("shop");
        let mut site = Site::new(&[SECRET], &[("ca.crt", &ours.pem)]).await;
        assert_eq!(site.get(Some(&good)).await.0, 200);
        for (name, annotations, data) in [
            ("no key", &[SECRET][..], &[("tls.crt", &*ours.pem)][..]),
            ("garbage", &[SECRET], &[("ca.crt", "garbage")]),
            (
                "bad list",
                &[SECRET],
                &[("ca.crt", &ours.pem), ("ca.crl", "garbage")],
            ),
            (
                "a list that is none",
                &[SECRET],
                &[
                    ("ca.crt", &ours.pem),
                    (
                        "ca.crl",
                        "-----BEGIN X509 CRL-----\nMAA=\n-----END X509 CRL-----\n",
                    ),
                ],
            ),
            (
                "another Secret",
                &[("auth-tls-secret", "default/none")],
                &[("ca.crt", &ours.pem)],
            ),
            (
                "another namespace",
                &[("auth-tls-secret", "other/ca")],
                &[("ca.crt", &ours.pem)],
            ),
            (
                "no Secret",
                &[("auth-tls-verify-client", "on")],
                &[("ca.crt", &ours.pem)],
            ),
            (
                "bad pattern",
                &[SECRET, ("auth-tls-match-cn", "CN=(")],
                &[("ca.crt", &ours.pem)],
            ),
        ] {
            site.annotate(annotations, data);
            assert_eq!(site.get(Some(&good)).await, refused(403), "{name}");
        }
        site.annotate(&[SECRET], &[("ca.crt", &ours.pem)]);
        assert_eq!(site.get(Some(&good)).await.0, 200);
    })
    .await;
}

#[tokio::test]
async fn ingress_a16_depth_revocation_and_subject_are_looked_at() {
    on_worker(async {
        let ours = Authority::new("Ours");
        let second = ours.below("Second");
        let third = second.below("Third");
        let serial = |number: u64| {
            move |params: &mut CertificateParams| {
                params.serial_number = Some(SerialNumber::from(number));
            }
        };
        let direct = ours.vouch_as("shop", serial(1));
        let taken_back = ours.vouch_as("shop", serial(2));
        let (deep, deeper) = (second.vouch("shop"), third.vouch("shop"));
        let list = ours.revocations(&[2], 2035);
        let old_list = ours.revocations(&[2], 2026);
        let alone = &[("ca.crt", &*ours.pem)][..];
        let with_list = &[("ca.crt", &*ours.pem), ("ca.crl", &*list)][..];
        let with_old = &[("ca.crt", &*ours.pem), ("ca.crl", &*old_list)][..];
        let depth = |depth| ("auth-tls-verify-depth", depth);
        let cn = |pattern| ("auth-tls-match-cn", pattern);
        let optional = ("auth-tls-verify-client", "optional");
        let mut site = Site::new(&[SECRET], alone).await;
        for (name, annotations, data, identity, status) in [
            (
                "direct",
                &[SECRET, depth("0")][..],
                alone,
                Some(&direct),
                200,
            ),
            (
                "one between, by default",
                &[SECRET],
                alone,
                Some(&deep),
                200,
            ),
            (
                "one is too many",
                &[SECRET, depth("0")],
                alone,
                Some(&deep),
                400,
            ),
            ("two are too many", &[SECRET], alone, Some(&deeper), 400),
            (
                "two may be",
                &[SECRET, depth("2")],
                alone,
                Some(&deeper),
                200,
            ),
            (
                "taken back, nobody says so",
                &[SECRET],
                alone,
                Some(&taken_back),
                200,
            ),
            ("taken back", &[SECRET], with_list, Some(&taken_back), 400),
            ("not taken back", &[SECRET], with_list, Some(&direct), 200),
            ("the list is old", &[SECRET], with_old, Some(&direct), 400),
            (
                "no list of one between",
                &[SECRET],
                with_list,
                Some(&deep),
                400,
            ),
            (
                "the name",
                &[SECRET, cn("CN=shop")],
                alone,
                Some(&direct),
                200,
            ),
            (
                "the whole name",
                &[SECRET, cn("CN=shop,O=Shop$")],
                alone,
                Some(&direct),
                200,
            ),
            (
                "another name",
                &[SECRET, cn("CN=bank")],
                alone,
                Some(&direct),
                403,
            ),
            (
                "no name",
                &[SECRET, optional, cn("CN=.*")],
                alone,
                None,
                403,
            ),
        ] {
            site.annotate(annotations, data);
            assert_eq!(site.get(identity).await.0, status, "{name}");
        }
    })
    .await;
}

#[tokio::test]
async fn ingress_a16_the_backend_is_told_by_us_alone() {
    on_worker(async {
        let ours = Authority::new("Ours");
        let good = ours.vouch("shop");
        let pass = ("auth-tls-pass-certificate-to-upstream", "true");
        let mut site = Site::new(&[SECRET], &[("ca.crt", &ours.pem)]).await;
        let claims = "ssl-client-verify: SUCCESS\r\nSSL-Client-Subject-DN: CN=root\r\n\
                      ssl-client-issuer-dn: CN=x\r\nssl-client-cert: x\r\n";
        let client = Client::new(Some(&good));
        for (host, annotations, verify, subject, issuer, has_certificate) in [
            (
                HOST,
                &[SECRET][..],
                "SUCCESS",
                "CN=shop,O=Shop",
                "CN=Ours",
                false,
            ),
            (
                HOST,
                &[SECRET, pass],
                "SUCCESS",
                "CN=shop,O=Shop",
                "CN=Ours",
                true,
            ),
            ("open.test", &[SECRET], "", "", "", false),
        ] {
            site.annotate(annotations, &[("ca.crt", &ours.pem)]);
            let head =
                format!("GET / HTTP/1.1\r\nHost: {host}\r\n{claims}Connection: close\r\n\r\n");
            assert_eq!(client.ask(&site.edge, host, &head).await.status, 200);
            let seen = site.origin.seen();
            let seen = seen.last().unwrap();
            assert_eq!(seen.header("ssl-client-verify"), verify, "{host}");
            assert_eq!(seen.header("ssl-client-subject-dn"), subject, "{host}");
            assert!(
                seen.header("ssl-client-issuer-dn").starts_with(issuer),
                "{host}"
            );
            let certificate = seen.header("ssl-client-cert");
            assert_eq!(
                certificate.starts_with("-----BEGIN%20CERTIFICATE-----%0A"),
                has_certificate,
                "{certificate}"
            );
        }
    })
    .await;
}

#[tokio::test]
async fn ingress_a16_an_error_page_takes_those_without_a_good_certificate() {
    on_worker(async {
        let (ours, other) = (Authority::new("Ours"), Authority::new("Other"));
        let page = ("auth-tls-error-page", "https://help.test/certificates");
        let site = Site::new(&[SECRET, page], &[("ca.crt", &ours.pem)]).await;
        for identity in [None, Some(&other.vouch("shop"))] {
            let answer = Client::new(identity).get(&site.edge, HOST, HOST).await;
            assert_eq!(answer.status, 302);
            let location = "location: https://help.test/certificates\r\n";
            assert!(answer.text.contains(location), "{}", answer.text);
        }
        assert_eq!(site.get(Some(&ours.vouch("shop"))).await.0, 200);
    })
    .await;
}

#[tokio::test]
async fn ingress_a16_plain_http_is_no_way_round() {
    on_worker(async {
        let ours = Authority::new("Ours");
        let mut site = Site::new(&[SECRET, PLAIN], &[("ca.crt", &ours.pem)]).await;
        let challenge = ("Exact", "/.well-known/acme-challenge/token", "web");
        site.manifests
            .ingress("solver", &[PLAIN], HOST, &[challenge]);
        site.manifests.publish(&mut site.edge);
        for (target, status) in [
            ("/", 400),
            ("/.well-known/acme-challenge/other", 400),
            ("/.well-known/acme-challenge/token", 200),
        ] {
            let mut client = RawClient::connect(site.edge.http).await;
            assert_eq!(client.get(HOST, target).await.status, status, "{target}");
        }
        assert_eq!(site.origin.hits(), 1);
        // Every other Ingress of the host is behind it too, over TLS this one included.
        let head = format!(
            "GET {} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n",
            challenge.1
        );
        let answer = Client::new(None).ask(&site.edge, HOST, &head).await;
        assert_eq!(answer.status, 400);
    })
    .await;
}
