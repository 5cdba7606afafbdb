//! `GET …/pods/NAME/log` (C12), and what `exec` shares with it: which container of which Pod.

use bytes::Bytes;
use futures_util::StreamExt;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderValue, Response};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::body::ApiBody;
use super::metadata;
use super::query::Query;
use super::server::{ApiServer, Call};
use super::status::{ApiError, Cause};
use super::watch::shutdown_of;
use crate::streams::{LogOptions, PodKey, PodStreams, StreamError};

/// Names the container that kubectl and the server choose among several.
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

impl ApiServer {
    pub(super) async fn log(&self, call: &Call) -> Result<Response<ApiBody>, ApiError> {
        let pod = self
            .store()
            .get(&call.path.key())
            .ok_or_else(|| ApiError::not_found(call.path.resource, call.path.name()))?;
        let asked = call.query.non_empty("container");
        let options = log_options(&pod, asked, &call.query)?;
        let streams = self.streams().ok_or_else(no_agent)?;
        answer(&call.parts, &pod, options, &*streams).await
    }
}

/// The log as the answer to a request.
pub(super) async fn answer(
    parts: &Parts,
    pod: &Value,
    options: LogOptions,
    streams: &dyn PodStreams,
) -> Result<Response<ApiBody>, ApiError> {
    let lines = streams
        .logs(pod_key(pod), options)
        .await
        .map_err(stream_failed)?;
    let until = shutdown_of(parts).cancelled_owned();
    let body: futures_util::stream::BoxStream<'static, Bytes> = lines.take_until(until).boxed();
    let mut response = Response::new(ApiBody::stream(body));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    Ok(response)
}

/// The Pod as the node agent knows it.
pub(super) fn pod_key(pod: &Value) -> PodKey<'_> {
    PodKey {
        namespace: metadata::text(pod, "namespace"),
        name: metadata::text(pod, "name"),
        uid: metadata::text(pod, "uid"),
    }
}

pub(super) fn no_agent() -> ApiError {
    ApiError::new(
        503,
        "ServiceUnavailable",
        "no node agent is connected to this server",
    )
}

pub(super) fn stream_failed(error: StreamError) -> ApiError {
    match error {
        StreamError::BadRequest(message) => ApiError::bad_request(message),
        StreamError::NotFound(message) => ApiError::new(404, "NotFound", message),
        StreamError::Internal(message) => ApiError::internal(message),
    }
}

/// The container asked for; the only one, or the one an annotation names, if none was.
pub(super) fn container(name: &str, pod: &Value, asked: Option<&str>) -> Result<String, ApiError> {
    let names = |list: &str| -> Vec<&str> {
        pod["spec"][list]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|container| container["name"].as_str())
            .collect()
    };
    let main = names("containers");
    let Some(asked) = asked else {
        let annotated = pod["metadata"]["annotations"][DEFAULT_CONTAINER].as_str();
        return match (annotated, main.as_slice()) {
            (Some(annotated), _) if main.contains(&annotated) => Ok(annotated.to_owned()),
            (_, [only]) => Ok((*only).to_owned()),
            _ => Err(ApiError::bad_request(format!(
                "a container name must be specified for pod {name}, choose one of: [{}]",
                main.join(" ")
            ))),
        };
    };
    let known = ["containers", "initContainers", "ephemeralContainers"]
        .into_iter()
        .any(|list| names(list).contains(&asked));
    if !known {
        return Err(ApiError::bad_request(format!(
            "container {asked} is not valid for pod {name}"
        )));
    }
    Ok(asked.to_owned())
}

/// Reads the query of a log request for a container, if one was asked for.
pub(super) fn log_options(
    pod: &Value,
    asked: Option<&str>,
    query: &Query,
) -> Result<LogOptions, ApiError> {
    let name = metadata::text(pod, "name");
    let refuse = |cause| ApiError::invalid("", "PodLogOptions", name, &[cause]);
    let number = |parameter: &'static str, least: i64| {
        let Some(text) = query.non_empty(parameter) else {
            return Ok(None);
        };
        match text.parse::<i64>() {
            Ok(number) if number >= least => Ok(Some(number)),
            Ok(number) => Err(refuse(Cause::invalid(
                parameter,
                &number.into(),
                &format!("must be greater than or equal to {least}"),
            ))),
            Err(error) => Err(ApiError::bad_request(format!(
                "invalid {parameter} \"{text}\": {error}"
            ))),
        }
    };
    let tail_lines = number("tailLines", 0)?;
    let limit_bytes = number("limitBytes", 1)?;
    let since_seconds = number("sinceSeconds", 1)?;
    let since_time = query
        .non_empty("sinceTime")
        .map(str::parse::<Timestamp>)
        .transpose()
        .map_err(|error| ApiError::bad_request(format!("invalid sinceTime: {error}")))?;
    let since = match (since_seconds, since_time) {
        (Some(_), Some(_)) => {
            return Err(refuse(Cause::forbidden(
                "sinceSeconds",
                "at most one of `sinceTime` or `sinceSeconds` may be specified",
            )));
        }
        (Some(seconds), None) => Timestamp::now()
            .checked_sub(SignedDuration::from_secs(seconds))
            .ok(),
        (None, since) => since,
    };
    let unsigned = |number: Option<i64>| number.and_then(|number| u64::try_from(number).ok());
    Ok(LogOptions {
        container: container(name, pod, asked)?,
        follow: query.flag("follow"),
        previous: query.flag("previous"),
        tail_lines: unsigned(tail_lines),
        since,
        timestamps: query.flag("timestamps"),
        limit_bytes: unsigned(limit_bytes),
    })
}
