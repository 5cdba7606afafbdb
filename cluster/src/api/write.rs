//! POST, PUT and PATCH (W1–W3, C1–C7).
//!
//! Order for every write: body → checks of name, namespace and type → schema → server fields →
//! defaults → admission → validation → store. All but the body is done while the request is alone
//! with the store, so what was checked is what is written.

mod options;

use std::sync::Arc;

use bytes::Bytes;
use http::Response;
use serde_json::Value;

pub(super) use options::{FieldValidation, WriteOptions, dry_run};

use super::body::ApiBody;
use super::kinds::{Resource, Subresource};
use super::negotiate::{self, Offer};
use super::path::ResourcePath;
use super::render::{Renderer, with_warnings};
use super::rules::{self, PatchType};
use super::server::{ApiServer, Call};
use super::status::{ApiError, Cause};
use super::store::{Key, Transaction};
use super::{admission, decode, metadata, views};

/// What a PUT or PATCH may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Everything but the status.
    Main,
    /// The status (and annotations).
    Status,
    /// `spec.finalizers` of a Namespace.
    Finalize,
}

/// A stored object and the HTTP status that tells what was done.
pub(super) struct Written {
    pub(super) code: u16,
    pub(super) object: Arc<Value>,
}

impl ApiServer {
    pub(super) async fn create(
        &self,
        call: &Call,
        body: &Bytes,
    ) -> Result<Response<ApiBody>, ApiError> {
        let resource = call.path.resource;
        let renderer = self.renderer(call)?;
        let options = WriteOptions::parse(&call.query, "CreateOptions")?;
        if resource.namespaced && call.path.namespace.is_none() {
            return Err(ApiError::method_not_allowed());
        }
        let (object, warnings) = read_object(call, body, &options)?;
        let written = self
            .store()
            .transact(options.dry_run, |transaction| {
                self.create_in(transaction, &call.path, object)
            })
            .await?;
        Ok(with_warnings(
            renderer.object(written.code, &written.object),
            &warnings,
        ))
    }

    pub(super) async fn replace(
        &self,
        call: &Call,
        body: &Bytes,
    ) -> Result<Response<ApiBody>, ApiError> {
        let renderer = self.renderer(call)?;
        let options = WriteOptions::parse(&call.query, "UpdateOptions")?;
        let (object, warnings) = read_object(call, body, &options)?;
        check_name(&object, call.path.name())?;
        let written = self
            .store()
            .transact(options.dry_run, |transaction| {
                let resource = call.path.resource;
                let Some(stored) = transaction.get(&call.path.key()) else {
                    if resource.create_on_update && call.path.subresource.is_none() {
                        return self.create_in(transaction, &call.path, object);
                    }
                    return Err(ApiError::not_found(resource, call.path.name()));
                };
                check_uid(resource, &stored, &object)?;
                self.update_in(transaction, &call.path, part(&call.path), &stored, object)
            })
            .await?;
        Ok(with_warnings(
            renderer.object(written.code, &written.object),
            &warnings,
        ))
    }

    pub(super) async fn patch(
        &self,
        call: &Call,
        body: &Bytes,
    ) -> Result<Response<ApiBody>, ApiError> {
        let renderer = self.renderer(call)?;
        let options = WriteOptions::parse(&call.query, "PatchOptions")?;
        let kind = PatchType::of(decode::media_type(&call.parts.headers))?;
        let patch = read_patch(kind, body, &options)?;
        let (written, warnings) = self
            .store()
            .transact(options.dry_run, |transaction| {
                self.patch_in(transaction, call, kind, &patch, &options)
            })
            .await?;
        Ok(with_warnings(
            renderer.object(written.code, &written.object),
            &warnings,
        ))
    }

    pub(super) fn renderer(&self, call: &Call) -> Result<Renderer, ApiError> {
        let format = negotiate::format(&call.parts.headers, Offer::Objects)?;
        Renderer::new(call.path.resource, format, &call.query)
    }

    /// Creates an object whose kind has been checked.
    pub(super) fn create_in(
        &self,
        transaction: &mut Transaction<'_>,
        path: &ResourcePath,
        mut object: Value,
    ) -> Result<Written, ApiError> {
        let resource = path.resource.stored();
        prepare_metadata(path, &mut object)?;
        let name = metadata::text(&object, "name").to_owned();
        let key = Key::new(resource.storage, path.namespace(), name.as_str());
        admission::check_namespace(transaction, resource, path.namespace(), &name)?;
        set_initial_status(resource, &mut object);
        rules::apply_defaults(resource, &mut object);
        admission::create(self.options(), transaction, resource, &mut object)?;
        rules::validate_create(self.options(), resource, &object)?;
        if transaction.get(&key).is_some() {
            return Err(ApiError::already_exists(path.resource, &name));
        }
        Ok(Written {
            code: 201,
            object: transaction.put(key, object),
        })
    }

    fn patch_in(
        &self,
        transaction: &mut Transaction<'_>,
        call: &Call,
        kind: PatchType,
        patch: &Value,
        options: &WriteOptions,
    ) -> Result<(Written, Vec<String>), ApiError> {
        let resource = call.path.resource;
        let Some(stored) = transaction.get(&call.path.key()) else {
            if kind == PatchType::Apply && call.path.subresource.is_none() {
                return self.apply_new(transaction, call, patch, options);
            }
            return Err(ApiError::not_found(resource, call.path.name()));
        };
        let shown = views::present(resource, &stored);
        let mut patched = rules::apply_patch(resource.group, resource.kind, kind, &shown, patch)?;
        if !patched.is_object() {
            return Err(ApiError::bad_request("the patch does not yield an object"));
        }
        let warnings = check_object(call, &mut patched, Vec::new(), options)?;
        check_name(&patched, call.path.name())?;
        let uid = metadata::text(&patched, "uid");
        if uid != metadata::text(&stored, "uid") {
            let cause = Cause::invalid("metadata.uid", &uid.into(), "field is immutable");
            return Err(ApiError::invalid(
                resource.group,
                resource.kind,
                call.path.name(),
                &[cause],
            ));
        }
        let object = views::accept(resource, patched);
        let written = self.update_in(transaction, &call.path, part(&call.path), &stored, object)?;
        Ok((written, warnings))
    }

    /// Server-side apply of an object that does not exist yet.
    fn apply_new(
        &self,
        transaction: &mut Transaction<'_>,
        call: &Call,
        patch: &Value,
        options: &WriteOptions,
    ) -> Result<(Written, Vec<String>), ApiError> {
        let mut object = patch.clone();
        let warnings = check_object(call, &mut object, Vec::new(), options)?;
        check_name(&object, call.path.name())?;
        metadata::map(&mut object).insert("name".to_owned(), call.path.name().into());
        let object = views::accept(call.path.resource, object);
        Ok((self.create_in(transaction, &call.path, object)?, warnings))
    }

    /// Replaces a stored object by `object`, as far as `part` allows.
    pub(super) fn update_in(
        &self,
        transaction: &mut Transaction<'_>,
        path: &ResourcePath,
        part: Part,
        stored: &Arc<Value>,
        mut object: Value,
    ) -> Result<Written, ApiError> {
        let resource = path.resource.stored();
        let version = metadata::text(&object, "resourceVersion");
        if !version.is_empty() && version != metadata::text(stored, "resourceVersion") {
            return Err(ApiError::modified(path.resource, path.name()));
        }
        metadata::strip_nulls(&mut object);
        metadata::clean(&mut object);
        metadata::keep_server_fields(&mut object, stored);
        restrict(resource, part, stored, &mut object);
        check_new_finalizers(resource, path.name(), stored, &object)?;
        rules::apply_defaults(resource, &mut object);
        if part == Part::Main {
            admission::update(self.options(), transaction, resource, stored, &mut object)?;
        }
        rules::validate_update(self.options(), resource, stored, &object)?;
        if object == **stored {
            return Ok(Written {
                code: 200,
                object: Arc::clone(stored),
            });
        }
        if resource.generation && changes_desired_state(resource, stored, &object) {
            let generation = stored["metadata"]["generation"].as_i64().unwrap_or(0);
            metadata::map(&mut object).insert("generation".to_owned(), (generation + 1).into());
        }
        let object = if is_finished(resource, &object) {
            transaction.remove(path.key(), object)
        } else {
            transaction.put(path.key(), object)
        };
        Ok(Written { code: 200, object })
    }
}

fn part(path: &ResourcePath) -> Part {
    match path.subresource {
        Some(Subresource::Status) => Part::Status,
        Some(Subresource::Finalize) => Part::Finalize,
        _ => Part::Main,
    }
}

/// Reads and checks the object of a POST or PUT; gives it in stored form, with warnings.
fn read_object(
    call: &Call,
    body: &[u8],
    options: &WriteOptions,
) -> Result<(Value, Vec<String>), ApiError> {
    let resource = call.path.resource;
    let decoded = decode::object(&call.parts.headers, body, resource.kind)?;
    let mut object = decoded.value;
    let warnings = check_object(call, &mut object, decoded.duplicates, options)?;
    Ok((views::accept(resource, object), warnings))
}

/// Checks type, namespace and fields of an object as the client sent it.
fn check_object(
    call: &Call,
    object: &mut Value,
    duplicates: Vec<String>,
    options: &WriteOptions,
) -> Result<Vec<String>, ApiError> {
    let resource = call.path.resource;
    if !object.is_object() {
        return Err(ApiError::bad_request(format!(
            "the object provided is unrecognized (must be of type {}): it is not a map",
            resource.kind
        )));
    }
    check_type(resource, object)?;
    let warnings = rules::check_fields(resource, object, duplicates, options.validation)?;
    metadata::strip_nulls(object);
    let sent = metadata::text(object, "namespace");
    if !sent.is_empty() && sent != call.path.namespace() {
        return Err(ApiError::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    Ok(warnings)
}

/// The body may omit kind and apiVersion (W2); what it says must fit the path.
fn check_type(resource: &Resource, object: &mut Value) -> Result<(), ApiError> {
    let api_version = resource.api_version();
    let kind = object["kind"].as_str().unwrap_or(resource.kind);
    let version = object["apiVersion"].as_str().unwrap_or(&api_version);
    if kind != resource.kind || version != api_version {
        return Err(ApiError::bad_request(format!(
            "{kind} in version \"{version}\" cannot be handled as a {}: the request's path is for \
             {} in version \"{api_version}\"",
            resource.kind, resource.kind
        )));
    }
    object["kind"] = resource.kind.into();
    object["apiVersion"] = api_version.into();
    Ok(())
}

fn check_name(object: &Value, expected: &str) -> Result<(), ApiError> {
    let name = metadata::text(object, "name");
    if !name.is_empty() && name != expected {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({expected})"
        )));
    }
    Ok(())
}

fn check_uid(resource: &Resource, stored: &Value, object: &Value) -> Result<(), ApiError> {
    let (sent, uid) = (metadata::text(object, "uid"), metadata::text(stored, "uid"));
    if sent.is_empty() || sent == uid {
        return Ok(());
    }
    Err(ApiError::conflict(
        resource,
        metadata::text(stored, "name"),
        &format!(
            "StorageError: invalid object, Code: 4, AdditionalErrorMsg: Precondition failed: UID \
             in precondition: {sent}, UID in object meta: {uid}"
        ),
    ))
}

fn read_patch(kind: PatchType, body: &[u8], options: &WriteOptions) -> Result<Value, ApiError> {
    if kind == PatchType::Apply {
        return rules::read_apply(body, options);
    }
    if options.force {
        return Err(ApiError::invalid_options(
            "PatchOptions",
            Cause::forbidden("force", "may not be specified for non-apply patch"),
        ));
    }
    serde_json::from_slice(body)
        .map_err(|error| ApiError::bad_request(format!("error decoding patch: {error}")))
}

fn prepare_metadata(path: &ResourcePath, object: &mut Value) -> Result<(), ApiError> {
    if !metadata::text(object, "resourceVersion").is_empty() {
        return Err(ApiError::new(
            500,
            "",
            "resourceVersion should not be set on objects to be created",
        ));
    }
    let prefix = metadata::text(object, "generateName").to_owned();
    if metadata::text(object, "name").is_empty() {
        if prefix.is_empty() {
            let cause = Cause::required("metadata.name", "name or generateName is required");
            let resource = path.resource;
            return Err(ApiError::invalid(
                resource.group,
                resource.kind,
                "",
                &[cause],
            ));
        }
        let name = metadata::generate_name(&prefix);
        metadata::map(object).insert("name".to_owned(), name.into());
    }
    metadata::clean(object);
    let fields = metadata::map(object);
    for field in [
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
    ] {
        fields.remove(field);
    }
    fields.insert("uid".to_owned(), metadata::new_uid().into());
    fields.insert("creationTimestamp".to_owned(), metadata::now().into());
    if path.resource.generation {
        fields.insert("generation".to_owned(), 1.into());
    }
    match &path.namespace {
        Some(namespace) => fields.insert("namespace".to_owned(), namespace.as_str().into()),
        None => fields.remove("namespace"),
    };
    Ok(())
}

/// Clients cannot set a status on create; a Node is registered with its own.
fn set_initial_status(resource: &Resource, object: &mut Value) {
    if !resource.has(Subresource::Status) || resource.kind == "Node" {
        return;
    }
    object["status"] = match resource.kind {
        "Pod" | "PersistentVolume" | "PersistentVolumeClaim" => {
            serde_json::json!({"phase": "Pending"})
        }
        "Service" | "Ingress" => serde_json::json!({"loadBalancer": {}}),
        "ReplicaSet" | "ReplicationController" | "StatefulSet" => {
            serde_json::json!({"replicas": 0})
        }
        "DaemonSet" => serde_json::json!({
            "currentNumberScheduled": 0,
            "desiredNumberScheduled": 0,
            "numberMisscheduled": 0,
            "numberReady": 0,
        }),
        _ => serde_json::json!({}),
    };
}

/// Takes over from `object` only what this endpoint may change (W3).
fn restrict(resource: &Resource, part: Part, stored: &Value, object: &mut Value) {
    match part {
        Part::Main => {
            if resource.has(Subresource::Status) {
                match stored.get("status") {
                    Some(status) => object["status"] = status.clone(),
                    None => {
                        object.as_object_mut().map(|fields| fields.remove("status"));
                    }
                }
            }
            if resource.kind == "Namespace" {
                object["spec"]["finalizers"] = stored["spec"]["finalizers"].clone();
                metadata::strip_nulls(object);
            }
        }
        Part::Status => {
            let annotations = object["metadata"]["annotations"].take();
            let status = object["status"].take();
            *object = stored.clone();
            for (parent, field, value) in [
                ("metadata", "annotations", annotations),
                ("", "status", status),
            ] {
                let fields = if parent.is_empty() {
                    object.as_object_mut()
                } else {
                    object[parent].as_object_mut()
                };
                if let Some(fields) = fields {
                    match value {
                        Value::Null => fields.remove(field),
                        value => fields.insert(field.to_owned(), value),
                    };
                }
            }
        }
        Part::Finalize => {
            let finalizers = object["spec"]["finalizers"].take();
            *object = stored.clone();
            object["spec"]["finalizers"] = finalizers;
            metadata::strip_nulls(object);
        }
    }
}

/// G1: an object that is being deleted cannot get new finalizers.
fn check_new_finalizers(
    resource: &Resource,
    name: &str,
    stored: &Value,
    object: &Value,
) -> Result<(), ApiError> {
    if !metadata::is_terminating(stored) {
        return Ok(());
    }
    let known = metadata::finalizers(stored);
    let added: Vec<String> = metadata::finalizers(object)
        .into_iter()
        .filter(|finalizer| !known.contains(finalizer))
        .map(|finalizer| format!("\"{finalizer}\""))
        .collect();
    if added.is_empty() {
        return Ok(());
    }
    let why = format!(
        "no new finalizers can be added if the object is being deleted, found new finalizers \
         []string{{{}}}",
        added.join(", ")
    );
    Err(ApiError::invalid(
        resource.group,
        resource.kind,
        name,
        &[Cause::forbidden("metadata.finalizers", &why)],
    ))
}

/// W3: what counts for `metadata.generation`.
fn changes_desired_state(resource: &Resource, stored: &Value, object: &Value) -> bool {
    let annotations_count = resource.kind == "Deployment";
    if annotations_count && stored["metadata"]["annotations"] != object["metadata"]["annotations"] {
        return true;
    }
    let desired = |value: &Value| -> Vec<(String, Value)> {
        value
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(field, _)| {
                !matches!(
                    field.as_str(),
                    "metadata" | "status" | "apiVersion" | "kind"
                )
            })
            .map(|(field, value)| (field.clone(), value.clone()))
            .collect()
    };
    desired(stored) != desired(object)
}

/// Whether deletion has begun and nothing holds the object any more (G1).
pub(super) fn is_finished(resource: &Resource, object: &Value) -> bool {
    metadata::is_terminating(object)
        && metadata::finalizers(object).is_empty()
        && object["metadata"]["deletionGracePeriodSeconds"]
            .as_i64()
            .unwrap_or(0)
            == 0
        && (resource.kind != "Namespace"
            || metadata::strings(&object["spec"]["finalizers"]).is_empty())
}
