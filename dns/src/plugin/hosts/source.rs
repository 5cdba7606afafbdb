//! The tables of the process, one for each file and its settings.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::SystemTime;

use super::table::Table;
use crate::config::HostsSettings;
use crate::metrics::{Gauge, Metrics, names};

/// Longest file that is read, bytes.
const MAX_FILE: u64 = 256 << 20;

/// Those in use.
static SOURCES: Mutex<Vec<Weak<Source>>> = Mutex::new(Vec::new());

/// A table and where it comes from.
#[derive(Debug)]
pub(super) struct Source {
    settings: HostsSettings,
    /// Where its size is told.
    metrics: Metrics,
    /// Changes with the table.
    pub(super) version: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    table: Arc<Table>,
    read: Option<Stamp>,
    /// That the file cannot be read was said already.
    is_told: bool,
    entries: Gauge,
    reloaded: Gauge,
}

/// By which a file that has changed is known.
#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    length: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Source {
    /// The one with these settings, read if it is the first.
    pub(super) fn shared(settings: &HostsSettings, metrics: &Metrics) -> Arc<Self> {
        let mut sources = lock(&SOURCES);
        sources.retain(|source| source.strong_count() > 0);
        let mut known = sources.iter().filter_map(Weak::upgrade);
        let is_same =
            |source: &Arc<Self>| source.settings == *settings && source.metrics.is_same(metrics);
        if let Some(known) = known.find(is_same) {
            return known;
        }
        let file = settings.file.as_deref().map(Path::to_string_lossy);
        let source = Arc::new(Self {
            settings: settings.clone(),
            metrics: metrics.clone(),
            version: AtomicU64::new(0),
            state: Mutex::new(State {
                table: Arc::new(Table::new(settings, "")),
                read: None,
                is_told: false,
                entries: metrics.gauge(&names::HOSTS_ENTRIES, &[&file.unwrap_or_default()]),
                reloaded: metrics.gauge(&names::HOSTS_RELOAD, &[]),
            }),
        });
        let entries = lock(&source.state).table.entries;
        lock(&source.state).entries.set(entries as f64);
        source.refresh();
        sources.push(Arc::downgrade(&source));
        source
    }

    pub(super) fn table(&self) -> Arc<Table> {
        Arc::clone(&lock(&self.state).table)
    }

    /// Reads the file if it has changed. One that cannot be read leaves what is known.
    pub(super) fn refresh(&self) {
        let Some(file) = &self.settings.file else {
            return;
        };
        let mut state = lock(&self.state);
        match read(file, state.read.as_ref()) {
            Ok(None) => state.is_told = false,
            Ok(Some((stamp, text))) => {
                state.table = Arc::new(Table::new(&self.settings, &text));
                state.read = Some(stamp);
                state.is_told = false;
                state.entries.set(state.table.entries as f64);
                let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
                state.reloaded.set(now.as_secs_f64());
                self.version.fetch_add(1, Ordering::Release);
            }
            Err(error) => {
                if !std::mem::replace(&mut state.is_told, true) {
                    tracing::warn!(file = %file.display(), %error, "cannot read hosts");
                }
            }
        }
    }
}

/// The file's text, unless it is the one that was read.
fn read(file: &Path, read: Option<&Stamp>) -> io::Result<Option<(Stamp, String)>> {
    let metadata = fs::metadata(file)?;
    let stamp = Stamp {
        modified: metadata.modified().ok(),
        length: metadata.len(),
    };
    if read == Some(&stamp) {
        return Ok(None);
    }
    if !metadata.is_file() || stamp.length > MAX_FILE {
        return Err(io::Error::other("it is no regular file of at most 256 MiB"));
    }
    let text = String::from_utf8_lossy(&fs::read(file)?).into_owned();
    Ok(Some((stamp, text)))
}
