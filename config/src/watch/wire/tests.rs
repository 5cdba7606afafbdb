use sealane_cluster::api::protobuf;
use serde_json::{Value, json};

use super::*;

/// Type and bytes of an object, as `runtime.Unknown` has them.
#[derive(Clone, PartialEq, Eq, prost::Message)]
struct Typed {
    #[prost(message, optional, tag = 1)]
    of: Option<Type>,
    #[prost(bytes = "bytes", tag = 2)]
    raw: Bytes,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
struct Type {
    #[prost(string, tag = 1)]
    api_version: String,
    #[prost(string, tag = 2)]
    kind: String,
}

fn typed(api_version: &str, kind: &str, raw: Vec<u8>) -> Bytes {
    let of = Type {
        api_version: api_version.to_owned(),
        kind: kind.to_owned(),
    };
    let typed = Typed {
        of: Some(of),
        raw: raw.into(),
    };
    [MAGIC, &typed.encode_to_vec()].concat().into()
}

fn slice() -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": "web-x7k2p", "namespace": "shop", "resourceVersion": "42",
            "labels": {"kubernetes.io/service-name": "web"},
            "annotations": {"endpoints.kubernetes.io/last-change-trigger-time": "2026-01-01T00:00:00Z"},
        },
        "addressType": "IPv4",
        "endpoints": [
            {
                "addresses": ["10.1.0.1"], "hostname": "web-0", "nodeName": "a", "zone": "z",
                "conditions": {"ready": true, "serving": true, "terminating": false},
                "targetRef": {"kind": "Pod", "namespace": "shop", "name": "web-0", "uid": "u-0"},
                "hints": {"forZones": [{"name": "z"}], "forNodes": [{"name": "a"}]},
            },
            {"addresses": ["10.1.0.2"], "conditions": {"ready": false}},
        ],
        "ports": [{"name": "http", "protocol": "TCP", "port": 8080}],
    })
}

#[test]
fn slices_have_the_tags_of_the_api() {
    let known: EndpointSlice = serde_json::from_value(slice()).unwrap();
    let body = typed(
        "discovery.k8s.io/v1",
        "EndpointSlice",
        known.encode_to_vec(),
    );
    assert_eq!(protobuf::decode(&body).unwrap(), slice());
    let decoded = Decode::decode(&Encoded::Protobuf(unknown(body).unwrap()));
    assert_eq!(decoded.ok(), Some(known));
}

#[test]
fn refusals_are_read_in_either_form() {
    let sent = message::Status {
        message: "too many requests".into(),
        reason: "TooManyRequests".into(),
        details: Some(message::StatusDetails {
            retry_after_seconds: 7,
        }),
        code: 429,
    };
    let body = typed("v1", "Status", sent.encode_to_vec());
    let text = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "too many requests", "reason": "TooManyRequests", "code": 429,
        "details": {"retryAfterSeconds": 7}});
    for body in [body, text.to_string().into()] {
        let status = status(body).unwrap();
        assert_eq!((status.code, &*status.reason), (429, "TooManyRequests"));
        assert_eq!(status.message, "too many requests");
        assert_eq!(status.details.unwrap().retry_after_seconds, 7);
    }
}

fn event(kind: &str, object: &[u8]) -> Vec<u8> {
    let object = message::RawExtension {
        raw: object.to_vec().into(),
    };
    let event = message::WatchEvent {
        r#type: kind.to_owned(),
        object: Some(object),
    };
    event.encode_to_vec()
}

#[test]
fn what_is_no_event_is_an_error() {
    let compressed = message::Unknown {
        raw: Bytes::new(),
        content_encoding: "gzip".to_owned(),
    };
    let compressed = [MAGIC, &compressed.encode_to_vec()].concat();
    let nothing = typed("v1", "Pod", Vec::new());
    for (frame, message) in [
        (event("ADDED", b"{}"), "does not begin"),
        (event("ADDED", &compressed), "encoded as `gzip`"),
        (event("MOVED", &nothing), "no event of type `MOVED`"),
        (b"\x0a\xff".to_vec(), "varint"),
    ] {
        let Err(error) = Frame::Protobuf(frame.into()).event() else {
            panic!("{message}: taken for an event");
        };
        let error = error.to_string();
        assert!(error.contains(message), "{message}: {error}");
    }
    for (line, is_broken_off) in [("{\"type\":\"ADDED\",\"obj", true), ("{\"type\":7}", false)] {
        let event = Frame::Json(line.into())
            .event()
            .map(|event| event.is_none());
        assert_eq!(event.unwrap_or(false), is_broken_off, "{line}");
    }
}
