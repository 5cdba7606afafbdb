//! The file: one redb database with a table of objects as JSON and the version counter.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition};
use serde_json::Value;

use super::{Event, EventType, Key, StoreError};
use crate::api::kinds;

/// `resource/namespace/name` to the object as JSON.
const OBJECTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("objects");
/// Named counters.
const COUNTERS: TableDefinition<'_, &str, u64> = TableDefinition::new("counters");
const REVISION: &str = "revision";
/// Memory for pages of the file, in bytes: objects are read from it only at the start.
const CACHE: usize = 16 << 20;

#[derive(Debug)]
pub(super) struct Disk {
    database: Database,
}

pub(super) struct Loaded {
    pub(super) objects: BTreeMap<Key, Arc<Value>>,
    pub(super) revision: u64,
}

impl Disk {
    pub(super) fn open(path: &Path) -> Result<(Self, Loaded), StoreError> {
        let shown = path.display().to_string();
        let failed = |message: String| StoreError::Open {
            path: shown.clone(),
            message,
        };
        // The file holds Secrets: only its owner may read it.
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(|error| failed(error.to_string()))?;
        let database = Database::builder()
            .set_cache_size(CACHE)
            .create_file(file)
            .map_err(|error| match error {
                DatabaseError::DatabaseAlreadyOpen => StoreError::InUse(shown.clone()),
                other => failed(other.to_string()),
            })?;
        let disk = Self { database };
        let loaded = disk.load().map_err(failed)?;
        Ok((disk, loaded))
    }

    fn load(&self) -> Result<Loaded, String> {
        self.create_tables().map_err(|error| error.to_string())?;
        let read = self.database.begin_read().map_err(|e| e.to_string())?;
        let counters = read.open_table(COUNTERS).map_err(|e| e.to_string())?;
        let revision = counters
            .get(REVISION)
            .map_err(|e| e.to_string())?
            .map_or(0, |value| value.value());
        let table = read.open_table(OBJECTS).map_err(|e| e.to_string())?;
        let mut objects = BTreeMap::new();
        for entry in table.iter().map_err(|e| e.to_string())? {
            let (key, value) = entry.map_err(|e| e.to_string())?;
            let Some(parsed) = parse_key(key.value()) else {
                tracing::warn!(
                    key = key.value(),
                    "stored object of an unknown kind is ignored"
                );
                continue;
            };
            let object = serde_json::from_slice(value.value())
                .map_err(|error| format!("object {}: {error}", key.value()))?;
            objects.insert(parsed, Arc::new(object));
        }
        Ok(Loaded { objects, revision })
    }

    fn create_tables(&self) -> Result<(), redb::Error> {
        let write = self.database.begin_write()?;
        write.open_table(OBJECTS)?;
        write.open_table(COUNTERS)?;
        write.commit()?;
        Ok(())
    }

    /// Writes the changes in one transaction; they are on disk when this returns.
    pub(super) fn write<'a>(
        &self,
        events: impl Iterator<Item = &'a Arc<Event>>,
    ) -> Result<(), String> {
        self.write_all(events).map_err(|error| error.to_string())
    }

    fn write_all<'a>(
        &self,
        events: impl Iterator<Item = &'a Arc<Event>>,
    ) -> Result<(), redb::Error> {
        let write = self.database.begin_write()?;
        {
            let mut objects = write.open_table(OBJECTS)?;
            let mut counters = write.open_table(COUNTERS)?;
            for event in events {
                let key = format_key(&event.key);
                match event.kind {
                    EventType::Deleted => {
                        objects.remove(key.as_str())?;
                    }
                    EventType::Added | EventType::Modified => {
                        let json = event.object.to_string();
                        objects.insert(key.as_str(), json.as_bytes())?;
                    }
                }
                counters.insert(REVISION, event.revision)?;
            }
        }
        write.commit()?;
        Ok(())
    }
}

fn format_key(key: &Key) -> String {
    format!("{}/{}/{}", key.resource, key.namespace, key.name)
}

fn parse_key(text: &str) -> Option<Key> {
    let mut parts = text.splitn(3, '/');
    let resource = kinds::find_storage(parts.next()?)?.storage;
    Some(Key::new(resource, parts.next()?, parts.next()?))
}
