//! POST, PUT and PATCH (W1–W3, C1–C7).
//!
//! Order for every write: body → checks of name, namespace and type → schema → server fields →
//! defaults → admission → validation → store. All but the body is done while the request is alone
//! with the store, so what was checked is what is written.

mod options;
mod reading;
mod state;

use std::sync::Arc;

use bytes::Bytes;
use http::Response;
use serde_json::Value;

pub(super) use options::{FieldValidation, WriteOptions, dry_run};
use reading::{check_name, check_object, check_uid, read_object, read_patch};
pub(super) use state::is_finished;
use state::{
    changes_desired_state, check_new_finalizers, prepare_metadata, restrict, set_initial_status,
};

use super::body::ApiBody;
use super::kinds::Subresource;
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
