//! Request bodies: JSON, YAML or protobuf to `serde_json::Value` (K1, E4).

use std::collections::BTreeSet;
use std::fmt;

use http::HeaderMap;
use http::header::CONTENT_TYPE;
use serde::de::{Deserialize, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::rules;
use super::status::ApiError;

/// Longest piece of a bad body that is shown in an error.
const SHOWN: usize = 64;

/// A decoded body.
#[derive(Debug)]
pub(super) struct Decoded {
    pub(super) value: Value,
    /// Fields that occur twice in one map; the last one counts.
    pub(super) duplicates: Vec<String>,
}

/// The media type of the body, without parameters; empty if none was sent.
pub(super) fn media_type(headers: &HeaderMap) -> &str {
    headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .unwrap_or_default()
        .trim()
}

/// Decodes an object of the expected kind.
///
/// # Errors
/// 415 for other media types, 400 for a body that does not parse.
pub(super) fn object(
    headers: &HeaderMap,
    body: &[u8],
    expected_kind: &str,
) -> Result<Decoded, ApiError> {
    match media_type(headers) {
        "" | "application/json" if !rules::is_protobuf(body) => json(body, expected_kind),
        "application/yaml" | "application/x-yaml" => yaml(body, expected_kind),
        "" | "application/json" | "application/vnd.kubernetes.protobuf" => {
            rules::decode_protobuf(body, expected_kind).map(|value| Decoded {
                value,
                duplicates: Vec::new(),
            })
        }
        _ => Err(ApiError::unsupported_media_type(
            "application/json, application/yaml, application/vnd.kubernetes.protobuf",
        )),
    }
}

/// Decodes JSON and reports fields that occur twice.
pub(super) fn json(body: &[u8], expected_kind: &str) -> Result<Decoded, ApiError> {
    let mut duplicates = Vec::new();
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let value = Watchful {
        duplicates: &mut duplicates,
        path: String::new(),
    }
    .deserialize(&mut deserializer)
    .and_then(|value| deserializer.end().map(|()| value))
    .map_err(|error| unrecognized(body, expected_kind, &error))?;
    Ok(Decoded { value, duplicates })
}

fn yaml(body: &[u8], expected_kind: &str) -> Result<Decoded, ApiError> {
    let value: Value = serde_saphyr::from_slice(body)
        .map_err(|error| unrecognized(body, expected_kind, &error))?;
    Ok(Decoded {
        value,
        duplicates: Vec::new(),
    })
}

fn unrecognized(body: &[u8], expected_kind: &str, error: &dyn fmt::Display) -> ApiError {
    let shown = if body.is_empty() {
        "<empty>".into()
    } else {
        String::from_utf8_lossy(&body[..body.len().min(SHOWN)])
    };
    ApiError::bad_request(format!(
        "the object provided is unrecognized (must be of type {expected_kind}): couldn't get \
         version/kind; json parse error: {error} ({shown})"
    ))
}

/// Builds a `Value` and notes repeated keys, which `Value`'s own implementation swallows.
struct Watchful<'a> {
    duplicates: &'a mut Vec<String>,
    path: String,
}

impl<'de> DeserializeSeed<'de> for Watchful<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Watchful<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Value::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = items.next_element_seed(Watchful {
            duplicates: &mut *self.duplicates,
            path: format!("{}[{}]", self.path, values.len()),
        })? {
            values.push(value);
        }
        Ok(values.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut values = Map::new();
        let mut seen = BTreeSet::new();
        while let Some(key) = entries.next_key::<String>()? {
            let path = if self.path.is_empty() {
                key.clone()
            } else {
                format!("{}.{key}", self.path)
            };
            let value = entries.next_value_seed(Watchful {
                duplicates: &mut *self.duplicates,
                path: path.clone(),
            })?;
            if values.insert(key, value).is_some() && seen.insert(path.clone()) {
                self.duplicates.push(path);
            }
        }
        Ok(values.into())
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use serde_json::json;

    use super::*;

    #[test]
    fn cluster_e4_repeated_fields_are_reported_with_their_place() {
        let decoded = json(
            br#"{"data": {"a": "1", "a": "2"}, "data": {}, "list": [{"x": 1, "x": 2}]}"#,
            "ConfigMap",
        )
        .expect("valid JSON");
        assert_eq!(decoded.duplicates, ["data.a", "data", "list[0].x"]);
        assert_eq!(decoded.value, json!({"data": {}, "list": [{"x": 2}]}));
    }

    #[test]
    fn cluster_e4_bodies_that_do_not_parse_are_400() {
        for body in [&b""[..], b"{\"a", b"{} x", b"nonsense"] {
            let error = json(body, "ConfigMap").expect_err("not JSON");
            assert_eq!(error.code, 400);
            assert!(
                error
                    .message
                    .starts_with("the object provided is unrecognized (must be of type ConfigMap)"),
                "{}",
                error.message
            );
        }
    }

    #[test]
    fn bodies_may_be_yaml_and_other_types_are_415() {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/yaml"));
        let decoded = object(&headers, b"kind: ConfigMap\ndata: {a: 'b'}", "ConfigMap");
        assert_eq!(
            decoded.expect("valid YAML").value,
            json!({"kind": "ConfigMap", "data": {"a": "b"}})
        );
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        assert_eq!(
            object(&headers, b"{}", "ConfigMap")
                .expect_err("unknown type")
                .code,
            415
        );
    }
}
