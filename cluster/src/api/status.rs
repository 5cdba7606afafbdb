//! The one error type of the API server and the `Status` object it becomes (`meta/v1 Status`).

use serde_json::{Map, Value, json};

use super::kinds::Resource;

/// A failed request. `reason` is a `metav1.StatusReason`; it is empty where the real server sends none.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// HTTP status.
    pub code: u16,
    /// Machine readable reason.
    pub reason: &'static str,
    /// Text for the user.
    pub message: String,
    /// `details` of the Status: name, kind, causes.
    pub details: Option<Value>,
    /// Answered as plain text instead of a Status: paths outside the API.
    pub plain_text: bool,
}

/// One entry of `details.causes`: a field and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// Path of the field, such as `spec.ports[0].port`.
    pub field: String,
    /// `FieldValueRequired`, `FieldValueInvalid` and so on.
    pub reason: &'static str,
    /// Such as `Required value`.
    pub message: String,
}

impl Cause {
    /// A value that is not allowed; `value` as JSON text.
    pub fn invalid(field: impl Into<String>, value: &Value, why: &str) -> Self {
        Self {
            field: field.into(),
            reason: "FieldValueInvalid",
            message: format!("Invalid value: {value}: {why}"),
        }
    }

    /// Something that may not be set here.
    pub fn forbidden(field: impl Into<String>, why: &str) -> Self {
        Self {
            field: field.into(),
            reason: "FieldValueForbidden",
            message: format!("Forbidden: {why}"),
        }
    }

    /// A missing value.
    pub fn required(field: impl Into<String>, why: &str) -> Self {
        let message = if why.is_empty() {
            "Required value".to_owned()
        } else {
            format!("Required value: {why}")
        };
        Self {
            field: field.into(),
            reason: "FieldValueRequired",
            message,
        }
    }

    /// A value outside a fixed set; both given as they are printed.
    pub fn unsupported(field: impl Into<String>, value: &str, supported: &str) -> Self {
        Self {
            field: field.into(),
            reason: "FieldValueNotSupported",
            message: format!("Unsupported value: {value}: supported values: {supported}"),
        }
    }
}

impl ApiError {
    /// An error without details.
    pub fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            reason,
            message: message.into(),
            details: None,
            plain_text: false,
        }
    }

    fn with_empty_details(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            details: Some(json!({})),
            ..Self::new(code, reason, message)
        }
    }

    fn about(resource: &Resource, name: &str) -> Map<String, Value> {
        let mut details = Map::new();
        if !name.is_empty() {
            details.insert("name".to_owned(), name.into());
        }
        if !resource.group.is_empty() {
            details.insert("group".to_owned(), resource.group.into());
        }
        details.insert("kind".to_owned(), resource.plural.into());
        details
    }

    fn object(
        (code, reason): (u16, &'static str),
        resource: &Resource,
        name: &str,
        message: String,
    ) -> Self {
        Self {
            details: Some(Value::Object(Self::about(resource, name))),
            ..Self::new(code, reason, message)
        }
    }

    /// E1: no object of that name.
    pub fn not_found(resource: &Resource, name: &str) -> Self {
        let message = format!("{} \"{name}\" not found", resource.group_resource());
        Self::object((404, "NotFound"), resource, name, message)
    }

    /// E1: unknown resource or subresource in a known group.
    pub fn unknown_resource() -> Self {
        Self::with_empty_details(
            404,
            "NotFound",
            "the server could not find the requested resource",
        )
    }

    /// E1: a path outside the API.
    pub fn unknown_path() -> Self {
        Self {
            plain_text: true,
            ..Self::new(404, "NotFound", "404 page not found\n")
        }
    }

    /// E2: the name is taken.
    pub fn already_exists(resource: &Resource, name: &str) -> Self {
        let message = format!("{} \"{name}\" already exists", resource.group_resource());
        Self::object((409, "AlreadyExists"), resource, name, message)
    }

    /// E2: a precondition does not hold.
    pub fn conflict(resource: &Resource, name: &str, why: &str) -> Self {
        let message = format!(
            "Operation cannot be fulfilled on {} \"{name}\": {why}",
            resource.group_resource()
        );
        Self::object((409, "Conflict"), resource, name, message)
    }

    /// E2: a stale resourceVersion.
    pub fn modified(resource: &Resource, name: &str) -> Self {
        Self::conflict(
            resource,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    /// E3: the verb is not served there.
    pub fn method_not_allowed() -> Self {
        Self::with_empty_details(
            405,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        )
    }

    /// E3: none of the accepted media types can be produced.
    pub fn not_acceptable() -> Self {
        Self::with_empty_details(
            406,
            "NotAcceptable",
            "406: Not Acceptable\n\nAvailable representations: application/json, application/yaml",
        )
    }

    /// E3: the body's media type is not understood.
    pub fn unsupported_media_type(accepted: &str) -> Self {
        Self::new(
            415,
            "UnsupportedMediaType",
            format!(
                "the body of the request was in an unknown format - accepted media types include: {accepted}"
            ),
        )
    }

    /// T9: the body is larger than `limit` bytes.
    pub fn too_large(limit: usize) -> Self {
        Self::new(
            413,
            "RequestEntityTooLarge",
            format!("Request entity too large: limit is {limit}"),
        )
    }

    /// E3: no valid credentials.
    pub fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    /// E8: refused for a reason other than permission.
    pub fn forbidden(resource: &Resource, name: &str, why: &str) -> Self {
        let message = format!(
            "{} \"{name}\" is forbidden: {why}",
            resource.group_resource()
        );
        Self::object((403, "Forbidden"), resource, name, message)
    }

    /// E4: a request that cannot be understood.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// E5: fields with errors; `group_kind` as in [`Resource::group_kind`].
    pub fn invalid(group: &str, kind: &str, name: &str, causes: &[Cause]) -> Self {
        let listed = causes
            .iter()
            .map(|cause| format!("{}: {}", cause.field, cause.message))
            .collect::<Vec<_>>()
            .join(", ");
        let listed = match causes.len() {
            1 => listed,
            _ => format!("[{listed}]"),
        };
        let qualified = if group.is_empty() {
            kind.to_owned()
        } else {
            format!("{kind}.{group}")
        };
        let mut details = Map::new();
        if !name.is_empty() {
            details.insert("name".to_owned(), name.into());
        }
        if !group.is_empty() {
            details.insert("group".to_owned(), group.into());
        }
        details.insert("kind".to_owned(), kind.into());
        details.insert(
            "causes".to_owned(),
            causes
                .iter()
                .map(|cause| {
                    json!({"reason": cause.reason, "message": cause.message, "field": cause.field})
                })
                .collect(),
        );
        Self {
            details: Some(Value::Object(details)),
            ..Self::new(
                422,
                "Invalid",
                format!("{qualified} \"{name}\" is invalid: {listed}"),
            )
        }
    }

    /// E5 for request options such as `CreateOptions`.
    pub fn invalid_options(kind: &str, cause: Cause) -> Self {
        Self::invalid("meta.k8s.io", kind, "", &[cause])
    }

    /// E7: the history no longer reaches back to the asked resourceVersion.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    /// E7: a resourceVersion that this server has not reached yet.
    pub fn future_version(asked: u64, current: u64) -> Self {
        Self {
            details: Some(json!({
                "causes": [{
                    "reason": "ResourceVersionTooLarge",
                    "message": "Too large resource version",
                }],
                "retryAfterSeconds": 1,
            })),
            ..Self::new(
                504,
                "Timeout",
                format!("Timeout: Too large resource version: {asked}, current: {current}"),
            )
        }
    }

    /// A failure on our side.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(500, "InternalError", message)
    }

    /// More writes are waiting for the disk than the queue holds.
    pub fn too_many_requests() -> Self {
        Self {
            details: Some(json!({"retryAfterSeconds": 1})),
            ..Self::new(
                429,
                "TooManyRequests",
                "the server has received too many requests and has asked us to try again later",
            )
        }
    }

    /// The Status object.
    pub fn status(&self) -> Value {
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "code": self.code,
        });
        if !self.reason.is_empty() {
            status["reason"] = self.reason.into();
        }
        if let Some(details) = &self.details {
            status["details"] = details.clone();
        }
        status
    }
}

/// The Status object that answers a successful deletion (G1).
pub fn deleted(resource: &Resource, name: &str, uid: &str) -> Value {
    let mut details = ApiError::about(resource, name);
    details.insert("uid".to_owned(), uid.into());
    json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": details,
    })
}

/// The Status object of a successful action without an object (binding, eviction).
pub fn success(code: u16) -> Value {
    json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "code": code,
    })
}
