//! The ConfigMaps that are referred to: by the gateway's own options, and by Ingresses.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1;

use super::referred::{Referent, Referred};
use super::store::{Decoded, ObjectKey};

/// A ConfigMap that is referred to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigMapRecord {
    /// `data`; what is in `binaryData` is no text and not for us.
    pub(super) data: BTreeMap<String, String>,
}

impl ConfigMapRecord {
    /// Reads a ConfigMap.
    pub fn read(map: v1::ConfigMap) -> Self {
        Self {
            data: map.data.unwrap_or_default(),
        }
    }
}

/// What is known of the ConfigMaps that are referred to.
pub(super) type ConfigMaps = Referred<ConfigMapState>;

/// What is known of one ConfigMap.
#[derive(Debug, Default)]
pub(super) struct ConfigMapState {
    /// The API server has said something about it, if only that it does not exist.
    pub(super) is_known: bool,
    /// Its last version: it stays when the ConfigMap is deleted, as certificates do.
    pub(super) good: Option<ConfigMapRecord>,
    /// Why there is no current version.
    pub(super) problem: Option<&'static str>,
}

impl Referent for ConfigMapState {
    type Record = ConfigMapRecord;

    fn apply(&mut self, _key: &ObjectKey, decoded: Decoded<ConfigMapRecord>) -> bool {
        let mut is_changed = !std::mem::replace(&mut self.is_known, true);
        let problem = match decoded {
            Ok(Some(record)) => {
                is_changed |= self.good.as_ref() != Some(&record);
                self.good = Some(record);
                None
            }
            Ok(None) => Some("does not exist"),
            Err(_undecodable) => Some("cannot be decoded"),
        };
        is_changed | (std::mem::replace(&mut self.problem, problem) != problem)
    }

    fn is_known(&self) -> bool {
        self.is_known
    }
}
