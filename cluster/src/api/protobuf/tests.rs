use serde_json::{Value, json};

use super::{DecodeError, decode, go_duration, is_protobuf};
use crate::api::schema;

/// Bodies that kubectl 1.32 sends for its create, autoscale and auth commands, and beside each the
/// JSON that the API's Go types write for it.
const KUBECTL: &str = include_str!("testdata/kubectl.txt");
/// The same for objects that use every special form.
const TYPED: &str = include_str!("testdata/typed.txt");

fn bytes(hex: &str) -> Vec<u8> {
    hex.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn cases() -> impl Iterator<Item = (Vec<u8>, Value)> {
    KUBECTL.lines().chain(TYPED.lines()).map(|line| {
        let (hex, json) = line.split_once(' ').unwrap();
        (bytes(hex), serde_json::from_str(json).unwrap())
    })
}

#[test]
fn cluster_t3_recorded_namespace_body() {
    let body = bytes(
        "6b3873000a0f0a02763112094e616d657370616365121b0a130a036c616212001a0022002a0032003800420012001a020a001a002200",
    );
    assert_eq!(body.len(), 54);
    assert!(is_protobuf(&body));
    let expected = json!({
        "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "lab"}, "spec": {}, "status": {},
    });
    assert_eq!(decode(&body).unwrap(), expected);
}

#[test]
fn cluster_t4_bodies_decode_to_the_json_of_the_typed_objects() {
    let mut count = 0;
    for (body, expected) in cases() {
        let kind = expected["kind"].as_str().unwrap();
        assert_eq!(decode(&body).unwrap(), expected, "{kind}");
        count += 1;
    }
    assert_eq!(count, KUBECTL.lines().count() + TYPED.lines().count());
    assert!(count > 40, "{count}");
}

#[test]
fn cluster_k1_kinds_that_kubectl_sends() {
    let kinds: Vec<String> = cases()
        .map(|(_, object)| object["kind"].as_str().unwrap().to_owned())
        .collect();
    for kind in [
        "Namespace",
        "ConfigMap",
        "Secret",
        "Deployment",
        "Ingress",
        "Service",
        "ServiceAccount",
        "ResourceQuota",
        "Role",
        "Job",
        "CronJob",
        "PodDisruptionBudget",
        "PriorityClass",
        "TokenRequest",
        "SelfSubjectAccessReview",
        "SelfSubjectRulesReview",
        "SelfSubjectReview",
        "HorizontalPodAutoscaler",
        "Pod",
    ] {
        assert!(kinds.iter().any(|found| found == kind), "{kind}");
    }
}

#[test]
fn cluster_t3_typed_json_is_in_normal_form() {
    for (_, expected) in cases() {
        let (version, kind) = (
            expected["apiVersion"].as_str().unwrap(),
            expected["kind"].as_str().unwrap(),
        );
        let report = schema::check(version, kind, &expected);
        assert_eq!(report, schema::SchemaReport::default(), "{kind}");
        let mut normal = expected.clone();
        schema::normalize(version, kind, &mut normal);
        assert_eq!(normal, expected, "{kind}");
    }
}

#[test]
fn cluster_k1_bad_bodies_are_errors() {
    assert!(!is_protobuf(b"{}"));
    assert!(matches!(decode(b"{}"), Err(DecodeError::NotProtobuf)));
    assert!(matches!(
        decode(b"k8s\0\xff\xff"),
        Err(DecodeError::Malformed(_))
    ));
    assert!(matches!(
        decode(b"k8s\0"),
        Err(DecodeError::UnknownKind { .. })
    ));
    let gzipped = b"k8s\0\x0a\x0f\x0a\x02v1\x12\x09Namespace\x1a\x04gzip";
    assert!(matches!(decode(gzipped), Err(DecodeError::Encoding(_))));
    let cut = b"k8s\0\x0a\x0f\x0a\x02v1\x12\x09Namespace\x12\x02\x0a\x13";
    assert!(matches!(decode(cut), Err(DecodeError::Malformed(_))));
}

#[test]
fn cluster_t3_durations_are_in_the_form_of_go() {
    let cases = [
        (0, "0s"),
        (1, "1ns"),
        (1_100, "1.1µs"),
        (2_000_000, "2ms"),
        (1_500_000_000, "1.5s"),
        (60_000_000_000, "1m0s"),
        (3_600_500_000_000, "1h0m0.5s"),
        (-2_000_000_000, "-2s"),
    ];
    for (nanos, expected) in cases {
        assert_eq!(go_duration(nanos), expected);
    }
}
