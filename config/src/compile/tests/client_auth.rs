//! Certificates of clients.

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use serde_json::{Value, json};

use super::world::{World, answer, host, one_host, path, problems};
use crate::Snapshot;
use crate::model::{ClientVerification, ProblemKind};

fn authorities(version: &str) -> Secret {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let pem = params.self_signed(&key).unwrap().pem();
    let mut secret = Secret {
        data: Some([("ca.crt".to_owned(), ByteString(pem.into_bytes()))].into()),
        ..Secret::default()
    };
    secret.metadata.resource_version = Some(version.to_owned());
    secret
}

fn annotations(of: &[(&str, &str)]) -> Value {
    let named = of.iter().map(|(name, value)| {
        let name = format!("nginx.ingress.kubernetes.io/{name}");
        (name, Value::from(*value))
    });
    Value::Object(named.collect())
}

fn everything() -> Value {
    json!([path("Prefix", "/", "a")])
}

fn world(of: &[(&str, &str)]) -> World {
    let mut world = World::new();
    world.simple_service("a");
    let spec = one_host("pay.test", everything());
    world.ingress("first", 0, annotations(of), spec);
    world
}

fn mode(snapshot: &Snapshot) -> Option<(ClientVerification, usize, bool)> {
    let client = host(snapshot, "pay.test").tls.client.as_ref()?;
    Some((client.verify, client.depth, client.authorities.is_some()))
}

#[test]
fn ingress_a16_annotations_become_a_policy_of_the_host() {
    use ClientVerification::{Off, Optional, OptionalAnyIssuer, Required};
    let secret = ("auth-tls-secret", "shop/ca");
    let verify = |mode| ("auth-tls-verify-client", mode);
    for (of, want, problem) in [
        (&[][..], None, None),
        (&[secret], Some((Required, 1, true)), None),
        (
            &[("auth-tls-secret", "ca")],
            Some((Required, 1, true)),
            None,
        ),
        (
            &[secret, verify("optional")],
            Some((Optional, 1, true)),
            None,
        ),
        (
            &[secret, verify("optional_no_ca")],
            Some((OptionalAnyIssuer, 1, true)),
            None,
        ),
        (&[secret, verify("off")], Some((Off, 1, true)), None),
        (
            &[secret, ("auth-tls-verify-depth", "3")],
            Some((Required, 3, true)),
            None,
        ),
        (
            &[secret, ("auth-tls-verify-depth", "7")],
            Some((Required, 1, true)),
            Some(ProblemKind::BadAnnotation),
        ),
        (
            &[secret, ("auth-tls-error-page", "javascript:x")],
            Some((Required, 1, true)),
            Some(ProblemKind::BadAnnotation),
        ),
        (
            &[secret, verify("perhaps")],
            Some((Required, 1, false)),
            Some(ProblemKind::RefusedAnnotation),
        ),
        (
            &[secret, ("auth-tls-match-cn", "shop")],
            Some((Required, 1, false)),
            Some(ProblemKind::RefusedAnnotation),
        ),
        (
            &[("auth-tls-secret", "other/ca")],
            Some((Required, 1, false)),
            Some(ProblemKind::RefusedAnnotation),
        ),
        (
            &[("auth-tls-secret", "../ca")],
            Some((Required, 1, false)),
            Some(ProblemKind::RefusedAnnotation),
        ),
        (
            &[verify("on")],
            Some((Required, 1, false)),
            Some(ProblemKind::RefusedAnnotation),
        ),
        (&[verify("off")], None, Some(ProblemKind::BadAnnotation)),
        (
            &[("auth-tls-pass-certificate-to-upstream", "true")],
            None,
            Some(ProblemKind::BadAnnotation),
        ),
        (
            &[secret, ("auth-tls-new", "x")],
            Some((Required, 1, true)),
            Some(ProblemKind::UnknownAnnotation),
        ),
    ] {
        let mut world = world(of);
        world.secret("ca", authorities("1"));
        let snapshot = world.build();
        assert_eq!(mode(&snapshot), want, "{of:?}");
        let found: Vec<_> = snapshot
            .problems
            .iter()
            .map(|problem| problem.kind)
            .collect();
        assert_eq!(found, Vec::from_iter(problem), "{of:?}");
    }
}

#[test]
fn ingress_a16_a_secret_that_goes_closes_the_host() {
    let mut world = world(&[("auth-tls-secret", "shop/ca")]);
    let has_authorities = |snapshot: &Snapshot| mode(snapshot).unwrap().2;
    assert!(!has_authorities(&world.build()), "nothing is known of it");
    world.secret("ca", authorities("1"));
    assert!(has_authorities(&world.build()));
    world.secret("ca", Secret::default());
    let snapshot = world.build();
    assert!(!has_authorities(&snapshot), "the last good one is not kept");
    let found = problems(&snapshot, ProblemKind::BadCertificate);
    assert!(
        found[0].message.contains("ca.crt holds no certificate"),
        "{found:?}"
    );
    world.secret("ca", authorities("2"));
    assert!(has_authorities(&world.build()));
    world.delete_secret("ca");
    let snapshot = world.build();
    assert!(!has_authorities(&snapshot));
    assert_eq!(problems(&snapshot, ProblemKind::MissingSecret).len(), 1);
}

#[test]
fn ingress_i12_the_oldest_ingress_settles_certificates_of_clients() {
    let mut world = world(&[("auth-tls-secret", "shop/ca")]);
    let others = json!([path("Prefix", "/b", "a")]);
    let off = [
        ("auth-tls-secret", "shop/ca"),
        ("auth-tls-verify-client", "off"),
    ];
    world.ingress("second", 1, annotations(&off), one_host("pay.test", others));
    world.ingress(
        "third",
        2,
        json!({}),
        one_host("pay.test", json!([path("Prefix", "/c", "a")])),
    );
    world.secret("ca", authorities("1"));
    let snapshot = world.build();
    assert_eq!(
        mode(&snapshot),
        Some((ClientVerification::Required, 1, true))
    );
    let found = problems(&snapshot, ProblemKind::Conflict);
    assert_eq!(found.len(), 1);
    assert_eq!(&*found[0].object.name, "second");
    assert!(found[0].message.contains("first"), "{}", found[0].message);
    // Without it the next one does.
    world.delete_ingress("first");
    assert_eq!(mode(&world.build()).unwrap().0, ClientVerification::Off);
}

#[test]
fn ingress_a16_a_default_backend_without_rules_cannot_ask() {
    let mut world = World::new();
    world.simple_service("a");
    let spec = json!({"defaultBackend": {"service": {"name": "a", "port": {"number": 80}}}});
    let of = annotations(&[("auth-tls-secret", "shop/ca")]);
    world.ingress("all", 0, of, spec);
    world.secret("ca", authorities("1"));
    let snapshot = world.build();
    let rule = snapshot.routes.default_rule.as_ref().unwrap();
    assert_eq!(answer(rule), "client certificates without a rule");
    assert_eq!(problems(&snapshot, ProblemKind::RefusedAnnotation).len(), 1);
}
