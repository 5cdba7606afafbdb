//! Header fields out of ConfigMaps: for clients (`custom-headers`), and for the service that is asked
//! whether they may come in (`auth-proxy-set-headers`).
//!
//! A path whose fields cannot be written as asked answers 503, as with ingress-nginx: they may be what
//! keeps a browser from doing harm, or what a service decides by.

use http::{HeaderName, HeaderValue, header};

use super::annotations::{is_of_message, redirect};
use super::config_maps::ConfigMapRecord;
use super::host_routes::HostCompiler;
use super::ingress::IngressRecord;
use super::rank::SourceKey;
use super::store::ObjectKey;
use crate::model::{Problem, ProblemKind, Template};

/// Most fields of a ConfigMap, and most bytes of all of them: they are part of every message.
const MOST_FIELDS: usize = 64;
const MOST_BYTES: usize = 8 << 10;

impl HostCompiler<'_> {
    /// Fields that answers to clients have.
    ///
    /// # Errors
    /// Why the path cannot be served, in a few words.
    pub(super) fn answer_headers(
        &self,
        key: &SourceKey,
        record: &IngressRecord,
        problems: &mut Vec<Problem>,
    ) -> Result<Box<[(HeaderName, HeaderValue)]>, &'static str> {
        let Some(map) = &record.policy.custom_headers else {
            return Ok(Box::default());
        };
        let allowed = &self.defaults.allowed_headers;
        let field = |name: &str, value: &str| {
            let name = answer_name(name)?;
            if !allowed.contains(&name) {
                return Err(format!(
                    "`{name}` is not among global-allowed-response-headers of the gateway's ConfigMap"
                ));
            }
            let value = HeaderValue::from_str(text(value)?);
            let value = value.map_err(|_bad| format!("the value of `{name}` cannot be sent"))?;
            Ok((name, value))
        };
        self.fields(key, "custom-headers", map, field, problems)
    }

    /// Fields of the question to a service.
    ///
    /// # Errors
    /// Why the path cannot be served, in a few words.
    pub(super) fn question_headers(
        &self,
        key: &SourceKey,
        map: &ObjectKey,
        problems: &mut Vec<Problem>,
    ) -> Result<Box<[(HeaderName, Template)]>, &'static str> {
        let field = |name: &str, value: &str| {
            let name = field_name(name)?;
            let is_of_question = name.as_str().starts_with("x-original-")
                || matches!(name.as_str(), "x-auth-request-redirect" | "x-request-id");
            if is_of_message(&name) || is_of_question {
                return Err(format!("`{name}` belongs to the gateway"));
            }
            let value = redirect::parts(text(value)?);
            let value = value.map_err(|why| format!("`{name}`: {why}"))?;
            Ok((name, value))
        };
        self.fields(key, "auth-proxy-set-headers", map, field, problems)
    }

    fn fields<T>(
        &self,
        key: &SourceKey,
        annotation: &str,
        name: &ObjectKey,
        field: impl Fn(&str, &str) -> Result<T, String>,
        problems: &mut Vec<Problem>,
    ) -> Result<Box<[T]>, &'static str> {
        // Each path of the object says the same.
        let mut problem = |kind, why: String| {
            let problem = Problem {
                object: key.object(),
                field: format!("metadata.annotations[nginx.ingress.kubernetes.io/{annotation}]"),
                kind,
                message: format!("{why}: the Ingress answers 503 until it is mended"),
            };
            if !problems.contains(&problem) {
                problems.push(problem);
            }
        };
        if !self.defaults.cross_namespace && name.namespace != key.key.namespace {
            let why = format!("ConfigMap {name} is in another namespace than the Ingress");
            problem(ProblemKind::RefusedAnnotation, why);
            return Err("ConfigMap of another namespace");
        }
        let state = self.config_maps.get(name);
        let Some(state) = state.filter(|state| state.is_known) else {
            return Err("the ConfigMap with header fields is not known yet");
        };
        let record = match (state.problem, &state.good) {
            (None, Some(record)) => record,
            (why, _) => {
                let why = why.unwrap_or("does not exist");
                let why = format!("ConfigMap {name} {why}");
                problem(ProblemKind::MissingConfigMap, why);
                return Err("no ConfigMap with header fields");
            }
        };
        let read = bounded(record).and_then(|()| {
            let fields = record.data.iter();
            fields.map(|(name, value)| field(name, value)).collect()
        });
        read.map_err(|why| {
            problem(
                ProblemKind::RefusedAnnotation,
                format!("ConfigMap {name}: {why}"),
            );
            "bad header fields in the ConfigMap"
        })
    }
}

fn bounded(map: &ConfigMapRecord) -> Result<(), String> {
    let bytes: usize = map.data.iter().map(|(k, v)| k.len() + v.len()).sum();
    if map.data.len() > MOST_FIELDS || bytes > MOST_BYTES {
        return Err(format!(
            "more than {MOST_FIELDS} fields, or {MOST_BYTES} bytes of them"
        ));
    }
    Ok(())
}

/// A field that an answer may have besides the backend's.
pub(super) fn answer_name(name: &str) -> Result<HeaderName, String> {
    let name = field_name(name)?;
    let is_ours = matches!(
        name,
        header::CONNECTION
            | header::CONTENT_ENCODING
            | header::CONTENT_LENGTH
            | header::CONTENT_RANGE
            | header::DATE
            | header::PROXY_AUTHENTICATE
            | header::SET_COOKIE
            | header::TE
            | header::TRAILER
            | header::TRANSFER_ENCODING
            | header::UPGRADE
            | header::WWW_AUTHENTICATE
    ) || matches!(name.as_str(), "keep-alive" | "proxy-connection")
        || name.as_str().starts_with("sealane-");
    match is_ours {
        true => Err(format!("`{name}` belongs to the message or the gateway")),
        false => Ok(name),
    }
}

fn field_name(name: &str) -> Result<HeaderName, String> {
    HeaderName::from_bytes(name.as_bytes())
        .map_err(|_bad| format!("`{name}` is not the name of a header field"))
}

/// A value, without the blanks around it, such as the line's end that YAML leaves.
fn text(value: &str) -> Result<&str, String> {
    let value = value.trim();
    let is_sent = |b: u8| b == b' ' || b.is_ascii_graphic();
    match !value.is_empty() && value.bytes().all(is_sent) {
        true => Ok(value),
        false => Err(
            "a value is empty, or has characters that are not ASCII or are control \
                      characters"
                .to_owned(),
        ),
    }
}
