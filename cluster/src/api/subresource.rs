//! `scale`, `binding` and `eviction`.

use bytes::Bytes;
use http::Response;
use serde_json::{Value, json};

use super::body::ApiBody;
use super::delete::{DeleteOptions, delete_in};
use super::kinds::Resource;
use super::query::Query;
use super::rules::{self, PatchType};
use super::server::{ApiServer, Call, json_response};
use super::status::{self, ApiError, Cause};
use super::write::{Part, WriteOptions, Written};
use super::{decode, metadata};

impl ApiServer {
    pub(super) fn get_scale(&self, call: &Call) -> Result<Response<ApiBody>, ApiError> {
        let stored = self
            .store()
            .get(&call.path.key())
            .ok_or_else(|| ApiError::not_found(call.path.resource, call.path.name()))?;
        Ok(json_response(200, &scale(&stored)))
    }

    pub(super) async fn replace_scale(
        &self,
        call: &Call,
        body: &Bytes,
    ) -> Result<Response<ApiBody>, ApiError> {
        let sent = decode::object(&call.parts.headers, body, "Scale")?.value;
        self.change_scale(call, "UpdateOptions", move |_| Ok(sent))
            .await
    }

    pub(super) async fn patch_scale(
        &self,
        call: &Call,
        body: &Bytes,
    ) -> Result<Response<ApiBody>, ApiError> {
        let kind = PatchType::of(decode::media_type(&call.parts.headers))?;
        let patch: Value = serde_json::from_slice(body)
            .map_err(|error| ApiError::bad_request(format!("error decoding patch: {error}")))?;
        self.change_scale(call, "PatchOptions", move |current| {
            rules::apply_patch("autoscaling", "Scale", kind, &current, &patch)
        })
        .await
    }

    async fn change_scale(
        &self,
        call: &Call,
        options_kind: &str,
        change: impl FnOnce(Value) -> Result<Value, ApiError> + Send,
    ) -> Result<Response<ApiBody>, ApiError> {
        let options = WriteOptions::parse(&call.query, options_kind)?;
        let resource = call.path.resource;
        let written: Written = self
            .store()
            .transact(options.dry_run, |transaction| {
                let stored = transaction
                    .get(&call.path.key())
                    .ok_or_else(|| ApiError::not_found(resource, call.path.name()))?;
                let wanted = change(scale(&stored))?;
                let replicas = check_replicas(call.path.name(), &wanted["spec"]["replicas"])?;
                let mut object = (*stored).clone();
                object["spec"]["replicas"] = replicas.into();
                if let Value::String(version) = &wanted["metadata"]["resourceVersion"] {
                    object["metadata"]["resourceVersion"] = version.as_str().into();
                }
                self.update_in(transaction, &call.path, Part::Main, &stored, object)
            })
            .await?;
        Ok(json_response(200, &scale(&written.object)))
    }

    /// The scheduler's decision: sets the node once and notes that the Pod is scheduled.
    pub(super) async fn bind(
        &self,
        call: &Call,
        body: &Bytes,
    ) -> Result<Response<ApiBody>, ApiError> {
        let options = WriteOptions::parse(&call.query, "CreateOptions")?;
        let binding = decode::object(&call.parts.headers, body, "Binding")?.value;
        let name = call.path.name();
        let Some(node) = binding["target"]["name"].as_str().filter(|n| !n.is_empty()) else {
            let cause = Cause::required("target.name", "");
            return Err(ApiError::invalid("", "Binding", name, &[cause]));
        };
        self.store()
            .transact(options.dry_run, |transaction| {
                let resource = call.path.resource;
                let stored = transaction
                    .get(&call.path.key())
                    .ok_or_else(|| ApiError::not_found(resource, name))?;
                check_bindable(resource, name, &stored, &binding)?;
                let mut pod = (*stored).clone();
                pod["spec"]["nodeName"] = node.into();
                set_scheduled(&mut pod);
                transaction.put(call.path.key(), pod);
                Ok(())
            })
            .await?;
        Ok(json_response(201, &status::success(201)))
    }

    /// A deletion that a disruption budget could refuse; budgets are stored and not enforced.
    pub(super) async fn evict(
        &self,
        call: &Call,
        body: &Bytes,
    ) -> Result<Response<ApiBody>, ApiError> {
        let eviction = decode::object(&call.parts.headers, body, "Eviction")?.value;
        let options = DeleteOptions::from_values(&eviction["deleteOptions"], &Query::default())?;
        let dry_run = WriteOptions::parse(&call.query, "CreateOptions")?.dry_run || options.dry_run;
        self.store()
            .transact(dry_run, |transaction| {
                delete_in(transaction, call.path.resource, &call.path.key(), &options)
            })
            .await?;
        Ok(json_response(201, &status::success(201)))
    }
}

fn scale(stored: &Value) -> Value {
    let metadata = &stored["metadata"];
    let mut scale = json!({
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "uid": metadata["uid"],
            "resourceVersion": metadata["resourceVersion"],
            "creationTimestamp": metadata["creationTimestamp"],
        },
        "spec": {},
        "status": {"replicas": stored["status"]["replicas"].as_i64().unwrap_or(0)},
    });
    if let Some(replicas) = stored["spec"]["replicas"].as_i64() {
        scale["spec"]["replicas"] = replicas.into();
    }
    let selector = selector_text(&stored["spec"]["selector"]);
    if !selector.is_empty() {
        scale["status"]["selector"] = selector.into();
    }
    scale
}

/// A selector in the text form of `labelSelector` parameters.
fn selector_text(selector: &Value) -> String {
    let mut terms = Vec::new();
    let equalities = match selector.get("matchLabels") {
        Some(labels) => labels,
        None if selector.get("matchExpressions").is_none() => selector,
        None => &Value::Null,
    };
    for (key, value) in equalities.as_object().into_iter().flatten() {
        terms.push(format!("{key}={}", value.as_str().unwrap_or_default()));
    }
    for term in selector["matchExpressions"]
        .as_array()
        .into_iter()
        .flatten()
    {
        let key = term["key"].as_str().unwrap_or_default();
        let values = metadata::strings(&term["values"]).join(",");
        terms.push(match term["operator"].as_str() {
            Some("In") => format!("{key} in ({values})"),
            Some("NotIn") => format!("{key} notin ({values})"),
            Some("DoesNotExist") => format!("!{key}"),
            _ => key.to_owned(),
        });
    }
    terms.join(",")
}

fn check_replicas(name: &str, replicas: &Value) -> Result<i64, ApiError> {
    let wanted = match replicas {
        Value::Null => 0,
        value => value
            .as_i64()
            .ok_or_else(|| ApiError::bad_request("spec.replicas is not a whole number"))?,
    };
    if wanted < 0 {
        let cause = Cause::invalid(
            "spec.replicas",
            replicas,
            "must be greater than or equal to 0",
        );
        return Err(ApiError::invalid("autoscaling", "Scale", name, &[cause]));
    }
    Ok(wanted)
}

fn check_bindable(
    resource: &Resource,
    name: &str,
    pod: &Value,
    binding: &Value,
) -> Result<(), ApiError> {
    let refuse = |why: String| {
        let mut error = ApiError::conflict(resource, name, &why);
        error.message = format!("Operation cannot be fulfilled on pods/binding \"{name}\": {why}");
        Err(error)
    };
    if metadata::is_terminating(pod) {
        return refuse(format!(
            "pod {name} is being deleted, cannot be assigned to a host"
        ));
    }
    if let Some(node) = pod["spec"]["nodeName"].as_str().filter(|n| !n.is_empty()) {
        return refuse(format!("pod {name} is already assigned to node \"{node}\""));
    }
    let (sent, uid) = (metadata::text(binding, "uid"), metadata::text(pod, "uid"));
    if !sent.is_empty() && sent != uid {
        return refuse(format!(
            "Precondition failed: UID in precondition: {sent}, UID in object meta: {uid}"
        ));
    }
    Ok(())
}

fn set_scheduled(pod: &mut Value) {
    let condition = json!({
        "type": "PodScheduled",
        "status": "True",
        "lastProbeTime": null,
        "lastTransitionTime": metadata::now(),
        "observedGeneration": pod["metadata"]["generation"],
    });
    let mut condition = condition;
    metadata::strip_nulls(&mut condition);
    let status = metadata::entry(pod, "status");
    let conditions = status
        .entry("conditions")
        .or_insert_with(|| Value::Array(Vec::new()));
    if let Some(conditions) = conditions.as_array_mut() {
        conditions.retain(|known| known["type"] != "PodScheduled");
        conditions.push(condition);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cluster_c16_scale_has_the_selector_as_text() {
        for (selector, expected) in [
            (json!({"matchLabels": {"a": "b", "c": "d"}}), "a=b,c=d"),
            (
                json!({"matchLabels": {"a": "b"}, "matchExpressions": [
                    {"key": "x", "operator": "In", "values": ["1", "2"]},
                    {"key": "y", "operator": "Exists"},
                    {"key": "z", "operator": "DoesNotExist"},
                ]}),
                "a=b,x in (1,2),y,!z",
            ),
            (json!({"app": "old"}), "app=old"),
            (Value::Null, ""),
        ] {
            assert_eq!(selector_text(&selector), expected);
        }
    }
}
