//! What users of other gateways complain about: certificates that are not rotated, and the default
//! certificate where there was a good one.

use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use sealane_proxy::testing::Origin;
use serde_json::{Value, json};

use crate::manifests::Manifests;
use crate::support::{Edge, on_worker};
use crate::tls::Client;

const HOST: &str = "shop.test";

/// A certificate and its key, in PEM format.
#[derive(Clone)]
struct Pair {
    certificate: String,
    key: String,
}

impl Pair {
    fn of(name: &str) -> Self {
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        let key = KeyPair::generate().unwrap();
        Self {
            certificate: params.self_signed(&key).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }

    fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.certificate.as_bytes()).unwrap()
    }

    fn half(&self) -> Self {
        let half = |text: &str| text[..text.len() / 2].to_owned();
        Self {
            certificate: half(&self.certificate),
            key: half(&self.key),
        }
    }
}

/// One thing that happens.
enum Step<'a> {
    /// The Ingress is created or changed: the Secret that it names, and a path.
    Ingress(&'a str, &'a str),
    /// It is deleted.
    Gone,
    /// A Secret is created or changed.
    Secret(&'a str, &'a Pair),
    /// It is deleted.
    SecretGone(&'a str),
}

fn ingress(secret: &str, path: &str) -> Value {
    let backend = json!({"service": {"name": "web", "port": {"number": 80}}});
    let path = json!({"pathType": "Prefix", "path": path, "backend": backend});
    json!({
        "metadata": {"namespace": "default", "name": "shop"},
        "spec": {
            "ingressClassName": "nginx",
            "tls": [{"hosts": [HOST], "secretName": secret}],
            "rules": [{"host": HOST, "http": {"paths": [path]}}],
        },
    })
}

fn happen(manifests: &mut Manifests, step: &Step<'_>) {
    match step {
        Step::Ingress(secret, path) => manifests.object(ingress(secret, path)),
        Step::Gone => manifests.delete_ingress("shop"),
        Step::Secret(name, pair) => {
            let data = [("tls.crt", &*pair.certificate), ("tls.key", &*pair.key)];
            manifests.secret(name, Some(&data));
        }
        Step::SecretGone(name) => manifests.secret(name, None),
    }
}

#[tokio::test]
async fn ingress_u7_a_host_that_had_a_good_certificate_never_shows_another_one() {
    use Step::{Gone, Ingress, Secret, SecretGone};
    on_worker(async {
        let (mut edge, web) = (Edge::new().await, Origin::named("web").await);
        let mut manifests = Manifests::new();
        manifests.service("web", web.addr);
        let good: Vec<Pair> = (0..5).map(|_| Pair::of(HOST)).collect();
        let (other, half) = (Pair::of("other.test"), good[4].half());
        let mixed = Pair {
            key: good[0].key.clone(),
            ..good[4].clone()
        };
        // What happens at once, and the certificate that is shown then; `None`: the default one.
        let steps: [(&str, &[Step<'_>], Option<usize>); 16] = [
            ("the Ingress is first", &[Ingress("a", "/")], None),
            ("the Secret follows", &[Secret("a", &good[0])], Some(0)),
            ("rotated", &[Secret("a", &good[1])], Some(1)),
            (
                "rotated, the Ingress edited",
                &[Secret("a", &good[2]), Ingress("a", "/x")],
                Some(2),
            ),
            ("half-written", &[Secret("a", &half)], Some(2)),
            (
                "half-written, the Ingress edited",
                &[Ingress("a", "/y")],
                Some(2),
            ),
            ("the key of another", &[Secret("a", &mixed)], Some(2)),
            ("for another host", &[Secret("a", &other)], Some(2)),
            ("deleted", &[SecretGone("a")], Some(2)),
            ("deleted, the Ingress edited", &[Ingress("a", "/")], Some(2)),
            ("back", &[Secret("a", &good[3])], Some(3)),
            (
                "deleted and back at once",
                &[SecretGone("a"), Secret("a", &good[0])],
                Some(0),
            ),
            (
                "another Secret, not there yet",
                &[Ingress("b", "/")],
                Some(0),
            ),
            ("no good when it comes", &[Secret("b", &half)], Some(0)),
            ("good in the end", &[Secret("b", &good[1])], Some(1)),
            (
                "replaced by one of the same name",
                &[Gone, Ingress("b", "/")],
                Some(1),
            ),
        ];
        for (what, happening, wanted) in steps {
            for step in happening {
                happen(&mut manifests, step);
            }
            manifests.publish(&mut edge);
            let wanted = wanted.map_or(edge.fallback.cert[0].clone(), |n| good[n].der());
            // A client without tickets: a resumed session shows no certificate.
            let shown = Client::new(&[]).certificate(&edge, HOST).await;
            assert!(shown == wanted, "{what}");
        }
        // Nothing is kept for a host that is not there any more.
        happen(&mut manifests, &Gone);
        manifests.publish(&mut edge);
        let shown = Client::new(&[]).certificate(&edge, HOST).await;
        assert_eq!(shown, edge.fallback.cert[0]);
    })
    .await;
}
