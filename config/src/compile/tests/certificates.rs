//! Certificates by host, and what happens when they are no good.

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use rcgen::{CertificateParams, KeyPair};
use serde_json::json;

use super::world::{EPOCH, World, host, one_host, path, problems};
use crate::Snapshot;
use crate::compile::ObjectKey;
use crate::model::ProblemKind;

pub(super) fn pem(names: &[&str], years: std::ops::Range<i32>) -> (String, String) {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.not_before = rcgen::date_time_ymd(years.start, 1, 1);
    params.not_after = rcgen::date_time_ymd(years.end, 1, 1);
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    (certificate.pem(), key.serialize_pem())
}

pub(super) fn secret(version: &str, type_: &str, (certificate, key): (String, String)) -> Secret {
    let data = [("tls.crt", certificate), ("tls.key", key)];
    let data = data.map(|(name, text)| (name.to_owned(), ByteString(text.into_bytes())));
    Secret {
        metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
            resource_version: Some(version.into()),
            ..Default::default()
        },
        type_: Some(type_.into()),
        data: Some(data.into()),
        ..Secret::default()
    }
}

pub(super) fn tls(version: &str, names: &[&str]) -> Secret {
    secret(version, "kubernetes.io/tls", pem(names, 2025..2035))
}

/// A world with one Ingress for `host`, TLS as given.
pub(super) fn world(name: &str, tls: serde_json::Value) -> World {
    let mut world = World::new();
    world.simple_service("a");
    let mut spec = one_host(name, json!([path("Prefix", "/", "a")]));
    spec["tls"] = tls;
    world.ingress("it", 0, json!({}), spec);
    world
}

/// The certificate for a server name.
pub(super) fn served(snapshot: &Snapshot, sni: &str) -> Option<Vec<u8>> {
    let certificate = snapshot.certificates.find(sni)?;
    Some(certificate.key.cert[0].to_vec())
}

#[test]
fn ingress_i17_certificates_by_host() {
    let exact = ["shop.test"];
    let wild = ["*.shop.test"];
    let cases: [(&str, &str, serde_json::Value, &[&str], &str); 5] = [
        (
            "named",
            "shop.test",
            json!([{"hosts": ["shop.test"], "secretName": "s"}]),
            &exact,
            "shop.test",
        ),
        (
            "wildcard entry",
            "a.shop.test",
            json!([{"hosts": ["*.shop.test"], "secretName": "s"}]),
            &wild,
            "a.shop.test",
        ),
        (
            "without hosts",
            "shop.test",
            json!([{"secretName": "s"}]),
            &exact,
            "shop.test",
        ),
        (
            "by its names",
            "shop.test",
            json!([{"hosts": ["other.test"], "secretName": "s"}]),
            &["other.test", "shop.test"],
            "shop.test",
        ),
        (
            "without a rule",
            "shop.test",
            json!([{"hosts": ["other.test", "shop.test"], "secretName": "s"}]),
            &["other.test", "shop.test"],
            "other.test",
        ),
    ];
    for (name, rule, tls_entries, names, sni) in cases {
        let mut world = world(rule, tls_entries);
        world.secret("s", tls("1", names));
        let snapshot = world.build();
        assert!(served(&snapshot, sni).is_some(), "{name}");
        assert!(host(&snapshot, rule).has_certificate, "{name}");
        assert_eq!(
            snapshot.problems.len(),
            0,
            "{name}: {:?}",
            snapshot.problems
        );
    }
}

#[test]
fn ingress_i17_tls_without_a_secret_is_the_default_certificate() {
    let mut world = world("shop.test", json!([{"hosts": ["shop.test"]}]));
    let snapshot = world.build();
    assert!(served(&snapshot, "shop.test").is_none());
    assert!(
        host(&snapshot, "shop.test").has_certificate,
        "the redirect stays on"
    );
    assert!(snapshot.problems.is_empty());
}

#[test]
fn ingress_i18_bad_secrets_are_reported() {
    let wrong_key = || {
        (
            pem(&["shop.test"], 2025..2035).0,
            pem(&["shop.test"], 2025..2035).1,
        )
    };
    let good = || pem(&["shop.test"], 2025..2035);
    let kind = "kubernetes.io/tls";
    let cases = [
        (
            "type",
            secret("1", "Opaque", good()),
            ProblemKind::WrongSecretType,
            "Opaque",
        ),
        (
            "key",
            secret("1", kind, wrong_key()),
            ProblemKind::BadCertificate,
            "is not the key of",
        ),
        (
            "no certificate",
            secret("1", kind, (String::new(), good().1)),
            ProblemKind::BadCertificate,
            "no certificate",
        ),
        (
            "no key",
            secret("1", kind, (good().0, "x".into())),
            ProblemKind::BadCertificate,
            "no private key",
        ),
        (
            "host",
            tls("1", &["other.test"]),
            ProblemKind::CertificateHost,
            "not for this host",
        ),
    ];
    for (name, secret, want, message) in cases {
        let mut world = world(
            "shop.test",
            json!([{"hosts": ["shop.test"], "secretName": "s"}]),
        );
        world.secret("s", secret);
        let snapshot = world.build();
        assert!(served(&snapshot, "shop.test").is_none(), "{name}");
        let found = problems(&snapshot, want);
        assert_eq!(found.len(), 1, "{name}: {:?}", snapshot.problems);
        assert!(
            found[0].message.contains(message),
            "{name}: {}",
            found[0].message
        );
        assert_eq!(found[0].field, "spec.tls[0].secretName", "{name}");
    }
}

#[test]
fn ingress_i18_the_last_good_certificate_stays() {
    let mut world = world(
        "shop.test",
        json!([{"hosts": ["shop.test"], "secretName": "s"}]),
    );
    let snapshot = world.build();
    assert!(
        snapshot.problems.is_empty(),
        "nothing is known of the Secret yet"
    );
    world.secret("s", tls("1", &["shop.test"]));
    let first = served(&world.build(), "shop.test").unwrap();
    let bad = [
        (
            "bad PEM",
            secret("2", "kubernetes.io/tls", ("x".into(), "y".into())),
            ProblemKind::BadCertificate,
        ),
        (
            "other host",
            tls("3", &["other.test"]),
            ProblemKind::CertificateHost,
        ),
    ];
    for (name, secret, kind) in bad {
        world.secret("s", secret);
        let snapshot = world.build();
        assert_eq!(
            served(&snapshot, "shop.test"),
            Some(first.clone()),
            "{name}"
        );
        assert_eq!(problems(&snapshot, kind).len(), 1, "{name}");
    }
    world.delete_secret("s");
    let snapshot = world.build();
    assert_eq!(
        served(&snapshot, "shop.test"),
        Some(first.clone()),
        "deleted"
    );
    assert_eq!(problems(&snapshot, ProblemKind::MissingSecret).len(), 1);
    world.secret("s", tls("4", &["shop.test"]));
    let snapshot = world.build();
    assert_ne!(served(&snapshot, "shop.test"), Some(first), "rotated");
    assert!(snapshot.problems.is_empty());
    world.delete_ingress("it");
    assert!(served(&world.build(), "shop.test").is_none());
    assert_eq!(world.compiler.secrets().count(), 0);
}

#[test]
fn ingress_i18_expiry_is_a_problem_but_no_reason_to_serve_another() {
    for (name, years) in [("expired", 2020..2025), ("early", 2030..2035)] {
        let mut world = world(
            "shop.test",
            json!([{"hosts": ["shop.test"], "secretName": "s"}]),
        );
        world.secret(
            "s",
            secret("1", "kubernetes.io/tls", pem(&["shop.test"], years)),
        );
        let snapshot = world.build();
        assert!(served(&snapshot, "shop.test").is_some(), "{name}");
        assert_eq!(
            problems(&snapshot, ProblemKind::CertificateTime).len(),
            1,
            "{name}"
        );
    }
}

#[test]
fn ingress_i18_a_certificate_that_expires_without_an_event_is_noticed() {
    let mut world = world(
        "shop.test",
        json!([{"hosts": ["shop.test"], "secretName": "s"}]),
    );
    world.secret("s", tls("1", &["shop.test"]));
    world.compiler.check_validity(EPOCH);
    assert!(world.build().problems.is_empty());
    assert!(!world.compiler.check_validity(EPOCH + 3_600));
    world.epoch += 20 * 365 * 86_400;
    assert!(world.compiler.check_validity(world.epoch));
    let snapshot = world.build();
    assert_eq!(problems(&snapshot, ProblemKind::CertificateTime).len(), 1);
    assert!(!world.compiler.check_validity(world.epoch + 5));
}

#[test]
fn ingress_i12_i17_the_oldest_ingress_settles_the_certificate() {
    let entries = json!([{"hosts": ["shop.test"], "secretName": "s"}]);
    let mut world = world("shop.test", entries);
    let mut spec = one_host("shop.test", json!([path("Prefix", "/x", "a")]));
    spec["tls"] = json!([{"hosts": ["shop.test"], "secretName": "younger"}]);
    world.ingress("younger", 9, json!({}), spec);
    let (old, young) = (tls("1", &["shop.test"]), tls("2", &["shop.test"]));
    world.secret("younger", young);
    assert!(
        served(&world.build(), "shop.test").is_none(),
        "the older one's is not there"
    );
    world.secret("s", old);
    let first = served(&world.build(), "shop.test").unwrap();
    world.delete_ingress("it");
    let second = served(&world.build(), "shop.test").unwrap();
    assert_ne!(first, second);
}

#[test]
fn ingress_i19_default_certificate() {
    let mut world = World::with(|options| {
        options.default_certificate = Some(ObjectKey::new("shop", "default"));
    });
    assert_eq!(world.compiler.secrets().count(), 1);
    assert!(!world.compiler.references_known());
    world.secret("default", tls("1", &["anything.test"]));
    assert!(world.compiler.references_known());
    let snapshot = world.build();
    assert!(snapshot.certificates.default.is_some());
    assert!(snapshot.certificates.default.as_ref().unwrap().not_after > EPOCH);
    world.delete_secret("default");
    let snapshot = world.build();
    assert!(snapshot.certificates.default.is_some(), "the last good one");
    assert_eq!(snapshot.problems[0].object.kind, "Secret");
}

#[test]
fn a_secret_is_followed_while_it_is_referred_to() {
    let mut world = world(
        "shop.test",
        json!([{"hosts": ["shop.test"], "secretName": "s"}]),
    );
    let references = |world: &World| -> Vec<u64> {
        world
            .compiler
            .secrets()
            .map(|(_, reference)| reference)
            .collect()
    };
    let first = references(&world);
    assert_eq!(first.len(), 1);
    let version = world.compiler.secrets_version();
    let mut spec = one_host("shop.test", json!([path("Prefix", "/edited", "a")]));
    spec["tls"] = json!([{"secretName": "s"}]);
    world.ingress("it", 0, json!({}), spec.clone());
    assert_eq!(
        (references(&world), world.compiler.secrets_version()),
        (first.clone(), version)
    );
    world.delete_ingress("it");
    assert!(references(&world).is_empty());
    world.ingress("it", 0, json!({}), spec);
    assert_ne!(references(&world), first, "it has to be read again");
    assert_ne!(world.compiler.secrets_version(), version);
}
