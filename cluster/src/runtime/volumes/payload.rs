//! What goes into a volume: keys of ConfigMaps and Secrets, fields of the pod, a token.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::net::IpAddr;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{
    ConfigMap, DownwardAPIVolumeFile, KeyToPath, Pod, Secret, Volume, VolumeProjection,
};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;

use super::{File, Payload, VolumeError};
use crate::runtime::context::Context;
use crate::runtime::env;

/// Mode of files where nothing is said.
const DEFAULT_MODE: i32 = 0o644;

/// The files of a volume; `None` for one that starts empty and belongs to the programs.
pub(super) async fn of(
    ctx: &Context,
    pod: &Pod,
    volume: &Volume,
    ip: Option<IpAddr>,
) -> Result<Option<Payload>, VolumeError> {
    let maker = Maker {
        ctx,
        pod,
        volume,
        ip,
    };
    let mut payload = Payload::new();
    if let Some(source) = &volume.config_map {
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        let items = source.items.as_deref();
        maker
            .config_map(&mut payload, &source.name, items, source.optional, mode)
            .await?;
    } else if let Some(source) = &volume.secret {
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        let name = source.secret_name.as_deref().unwrap_or_default();
        let items = source.items.as_deref();
        maker
            .secret(&mut payload, name, items, source.optional, mode)
            .await?;
    } else if let Some(source) = &volume.downward_api {
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        maker.fields(&mut payload, source.items.as_deref(), mode)?;
    } else if let Some(source) = &volume.projected {
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        for projection in source.sources.iter().flatten() {
            maker.projection(&mut payload, projection, mode).await?;
        }
    } else if volume.empty_dir.is_some() || volume.ephemeral.is_some() {
        return Ok(None);
    } else {
        return Err(maker.missing("this kind of volume is not supported".to_owned()));
    }
    Ok(Some(payload))
}

struct Maker<'a> {
    ctx: &'a Context,
    pod: &'a Pod,
    volume: &'a Volume,
    ip: Option<IpAddr>,
}

impl Maker<'_> {
    async fn projection(
        &self,
        payload: &mut Payload,
        source: &VolumeProjection,
        mode: i32,
    ) -> Result<(), VolumeError> {
        if let Some(s) = &source.config_map {
            self.config_map(payload, &s.name, s.items.as_deref(), s.optional, mode)
                .await?;
        }
        if let Some(s) = &source.secret {
            self.secret(payload, &s.name, s.items.as_deref(), s.optional, mode)
                .await?;
        }
        if let Some(s) = &source.downward_api {
            self.fields(payload, s.items.as_deref(), mode)?;
        }
        if let Some(s) = &source.service_account_token {
            let token = match &self.ctx.options.api_token {
                Some(token) => token.clone(),
                None => Box::pin(self.ctx.tokens.get(&self.ctx.client, self.pod, s)).await?,
            };
            let file = File {
                contents: token.into_bytes(),
                mode: 0o600,
            };
            payload.insert(s.path.clone(), file);
        }
        Ok(())
    }

    async fn config_map(
        &self,
        payload: &mut Payload,
        name: &str,
        items: Option<&[KeyToPath]>,
        optional: Option<bool>,
        mode: i32,
    ) -> Result<(), VolumeError> {
        let found: Option<ConfigMap> = self.get(name).await?;
        let Some(map) = found else {
            return self.absent("configmap", name, optional);
        };
        let text = map.data.unwrap_or_default().into_iter();
        let binary = map.binary_data.unwrap_or_default().into_iter();
        let entries = text.map(|(key, value)| (key, value.into_bytes()));
        let entries = entries.chain(binary.map(|(key, value)| (key, value.0)));
        self.add(payload, entries.collect(), items, optional, mode)
    }

    async fn secret(
        &self,
        payload: &mut Payload,
        name: &str,
        items: Option<&[KeyToPath]>,
        optional: Option<bool>,
        mode: i32,
    ) -> Result<(), VolumeError> {
        let found: Option<Secret> = self.get(name).await?;
        let Some(secret) = found else {
            return self.absent("secret", name, optional);
        };
        let entries = secret.data.unwrap_or_default().into_iter();
        let entries = entries.map(|(key, value)| (key, value.0)).collect();
        self.add(payload, entries, items, optional, mode)
    }

    fn fields(
        &self,
        payload: &mut Payload,
        items: Option<&[DownwardAPIVolumeFile]>,
        mode: i32,
    ) -> Result<(), VolumeError> {
        let any = std::net::Ipv4Addr::UNSPECIFIED.into();
        let place = self.ctx.place(self.ip.unwrap_or(any));
        for item in items.unwrap_or_default() {
            let text = if let Some(field) = &item.field_ref {
                env::field(field, self.pod, &place)
            } else if let Some(resource) = &item.resource_field_ref {
                let container = k8s_openapi::api::core::v1::Container::default();
                env::resource(resource, self.pod, &container, &place)
            } else {
                continue;
            };
            let text = text.map_err(|error| self.missing(error.to_string()))?;
            let mode = item.mode.unwrap_or(mode);
            payload.insert(item.path.clone(), file(text.into_bytes(), mode));
        }
        Ok(())
    }

    /// The chosen keys, or all of them under their names.
    fn add(
        &self,
        payload: &mut Payload,
        mut entries: BTreeMap<String, Vec<u8>>,
        items: Option<&[KeyToPath]>,
        optional: Option<bool>,
        mode: i32,
    ) -> Result<(), VolumeError> {
        let Some(items) = items.filter(|items| !items.is_empty()) else {
            let all = entries.into_iter();
            payload.extend(all.map(|(key, contents)| (key, file(contents, mode))));
            return Ok(());
        };
        for item in items {
            match entries.remove(&item.key) {
                Some(contents) => {
                    let mode = item.mode.unwrap_or(mode);
                    payload.insert(item.path.clone(), file(contents, mode));
                }
                None if optional == Some(true) => {}
                None => {
                    let key = &item.key;
                    return Err(self.missing(format!("references non-existent key: {key}")));
                }
            }
        }
        Ok(())
    }

    async fn get<K>(&self, name: &str) -> Result<Option<K>, VolumeError>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + Debug
            + DeserializeOwned,
    {
        let namespace = self.pod.metadata.namespace.as_deref().unwrap_or("default");
        let api: Api<K> = Api::namespaced(self.ctx.client.clone(), namespace);
        Ok(Box::pin(api.get_opt(name)).await?)
    }

    fn absent(&self, kind: &str, name: &str, optional: Option<bool>) -> Result<(), VolumeError> {
        if optional == Some(true) {
            return Ok(());
        }
        Err(self.missing(format!("{kind} \"{name}\" not found")))
    }

    fn missing(&self, reason: String) -> VolumeError {
        VolumeError::Source {
            volume: self.volume.name.clone(),
            reason,
        }
    }
}

fn file(contents: Vec<u8>, mode: i32) -> File {
    let mode = u32::try_from(mode).unwrap_or(0o644) & 0o7777;
    File { contents, mode }
}
