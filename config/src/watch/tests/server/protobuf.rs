//! What the server says, in protobuf.

use bytes::{BufMut as _, Bytes, BytesMut};
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use http_body_util::BodyExt as _;
use prost::Message as _;
use serde_json::Value;

use super::Answer;
use crate::compile::endpoint_slice::EndpointSlice;
use crate::watch::wire::message::{RawExtension, Status, Unknown, WatchEvent};

/// A watch on EndpointSlices, or its refusal.
pub(super) fn of(answer: Answer) -> Answer {
    let is_watch = answer.status().is_success();
    let (mut parts, body) = answer.into_parts();
    let form = match is_watch {
        true => "application/vnd.kubernetes.protobuf;stream=watch",
        false => "application/vnd.kubernetes.protobuf",
    };
    let form = HeaderValue::from_static(form);
    parts.headers.insert(CONTENT_TYPE, form);
    let body = body.map_frame(move |frame| {
        frame.map_data(|text| {
            let value: Value = serde_json::from_slice(&text).unwrap();
            match is_watch {
                true => event(value),
                false => object(&status(&value)),
            }
        })
    });
    Answer::from_parts(parts, body.boxed_unsync())
}

fn event(mut event: Value) -> Bytes {
    let sent = event["object"].take();
    let r#type = event["type"].as_str().unwrap().to_owned();
    let raw = match &*r#type {
        "ERROR" => object(&status(&sent)),
        _ => object(&serde_json::from_value::<EndpointSlice>(sent).unwrap()),
    };
    let event = WatchEvent {
        r#type,
        object: Some(RawExtension { raw }),
    };
    let mut frame = BytesMut::new();
    frame.put_u32(event.encoded_len().try_into().unwrap());
    event.encode(&mut frame).unwrap();
    frame.freeze()
}

fn object(message: &impl prost::Message) -> Bytes {
    let unknown = Unknown {
        raw: message.encode_to_vec().into(),
        content_encoding: String::new(),
    };
    [b"k8s\0", &*unknown.encode_to_vec()].concat().into()
}

fn status(status: &Value) -> Status {
    let text = |field: &str| status[field].as_str().unwrap().to_owned();
    Status {
        message: text("message"),
        reason: text("reason"),
        details: None,
        code: status["code"].as_i64().unwrap().try_into().unwrap(),
    }
}
