//! Reviews: questions about the caller's own rights (`kubectl auth`). Whoever holds the credentials
//! of an embedded cluster is its administrator, so the answer is always yes.

use http::Response;
use http::request::Parts;
use serde_json::{Value, json};

use super::body::ApiBody;
use super::decode;
use super::server::json_response;
use super::status::ApiError;

const AUTHORIZATION: [&str; 2] = ["selfsubjectaccessreviews", "selfsubjectrulesreviews"];

/// The review at a path, if there is one.
pub(super) fn find(group: &str, version: &str, rest: &[&str]) -> Option<&'static str> {
    match (group, version, rest) {
        ("authorization.k8s.io", "v1", [plural]) => {
            AUTHORIZATION.into_iter().find(|known| known == plural)
        }
        ("authentication.k8s.io", "v1", ["selfsubjectreviews"]) => Some("selfsubjectreviews"),
        _ => None,
    }
}

/// The question with its answer filled in.
pub(super) fn answer(
    review: &str,
    parts: &Parts,
    body: &[u8],
) -> Result<Response<ApiBody>, ApiError> {
    let (group, kind) = match review {
        "selfsubjectaccessreviews" => ("authorization.k8s.io", "SelfSubjectAccessReview"),
        "selfsubjectrulesreviews" => ("authorization.k8s.io", "SelfSubjectRulesReview"),
        _ => ("authentication.k8s.io", "SelfSubjectReview"),
    };
    let mut object: Value = decode::object(&parts.headers, body, kind)?.value;
    if !object.is_object() {
        return Err(ApiError::bad_request(format!("the body is not a {kind}")));
    }
    object["kind"] = kind.into();
    object["apiVersion"] = format!("{group}/v1").into();
    object["status"] = match review {
        "selfsubjectaccessreviews" => json!({"allowed": true}),
        "selfsubjectrulesreviews" => json!({
            "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
            "incomplete": false,
        }),
        _ => json!({
            "userInfo": {"username": "sealane:admin", "groups": ["system:masters", "system:authenticated"]},
        }),
    };
    Ok(json_response(201, &object))
}
