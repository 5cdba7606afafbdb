//! Events (`core/v1`): what happened to an object, for people.
//!
//! Rules: the same event again only raises `count`; from the tenth different message about one
//! object and reason within ten minutes on they are combined into one event, "(combined from similar
//! events): …" with the latest message; one object may cause 25 at once and one more every five
//! minutes. Recording never holds up a controller: when the queue is full the event is dropped.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::clock;
use super::error::{Error, during};

/// Events that wait to be written.
const QUEUE: usize = 1024;
/// How many objects and messages are remembered.
const REMEMBERED: usize = 4096;
/// Different messages within [`SIMILAR_WINDOW`] from which on they are combined.
const SIMILAR: usize = 10;
/// See [`SIMILAR`].
const SIMILAR_WINDOW: Duration = Duration::from_secs(600);
/// Events that one object may cause at once.
const BURST: f64 = 25.0;
/// Time in which an object earns one more event.
const REFILL: Duration = Duration::from_secs(300);
/// Start of a combined message.
const COMBINED: &str = "(combined from similar events): ";

/// Whether an event is good or bad news.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Kind {
    /// As intended.
    Normal,
    /// Something to look at.
    Warning,
}

impl Kind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// One event to record.
#[derive(Clone, Debug)]
struct Note {
    component: &'static str,
    object: ObjectReference,
    kind: Kind,
    reason: &'static str,
    message: String,
}

/// Where a controller reports events; cheap to clone.
#[derive(Clone)]
pub(crate) struct Recorder {
    component: &'static str,
    notes: mpsc::Sender<Note>,
}

impl Recorder {
    /// Records an event about an object.
    pub(crate) fn record(
        &self,
        object: ObjectReference,
        kind: Kind,
        reason: &'static str,
        message: String,
    ) {
        let note = Note {
            component: self.component,
            object,
            kind,
            reason,
            message,
        };
        if let Err(error) = self.notes.try_send(note) {
            tracing::debug!(component = self.component, %error, "event dropped");
        }
    }

    /// The same recorder under another component's name.
    pub(crate) fn named(&self, component: &'static str) -> Self {
        Self {
            component,
            notes: self.notes.clone(),
        }
    }
}

/// The writing end.
pub(crate) struct Writer {
    notes: mpsc::Receiver<Note>,
}

/// A recorder and the writer that has to run for it.
pub(crate) fn channel(component: &'static str) -> (Recorder, Writer) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    (
        Recorder {
            component,
            notes: sender,
        },
        Writer { notes: receiver },
    )
}

impl Writer {
    /// Writes events until shut down. An event that cannot be written is logged and lost.
    pub(crate) async fn run(mut self, client: Client, shutdown: CancellationToken) {
        let mut memory = Memory::default();
        loop {
            let note = tokio::select! {
                () = shutdown.cancelled() => return,
                note = self.notes.recv() => note,
            };
            let Some(note) = note else { return };
            let Some(step) = memory.step(note, Instant::now()) else {
                continue;
            };
            match write(&client, &step).await {
                Ok(()) => memory.written(&step),
                Err(error) if error.is_not_found() || error.is_namespace_terminating() => {
                    tracing::debug!(reason = step.note.reason, error = %error.message(), "event lost");
                }
                Err(error) => {
                    tracing::warn!(reason = step.note.reason, error = %error.message(), "event lost");
                }
            }
        }
    }
}

/// What is about to be written: a new event, or a higher count of one that exists.
#[derive(Debug)]
struct Step {
    note: Note,
    /// Identity of the event: messages of one series share it.
    series: SeriesKey,
    name: String,
    count: i32,
    first: Timestamp,
}

#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct SimilarKey {
    component: &'static str,
    object: String,
    kind: Kind,
    reason: &'static str,
}

#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct SeriesKey {
    similar: SimilarKey,
    /// None for the combined event.
    message: Option<String>,
}

#[derive(Default)]
struct Memory {
    similar: HashMap<SimilarKey, (Vec<String>, Instant)>,
    series: HashMap<SeriesKey, (String, i32, Timestamp, Instant)>,
    budget: HashMap<(&'static str, String), (f64, Instant)>,
}

impl Memory {
    fn step(&mut self, mut note: Note, now: Instant) -> Option<Step> {
        let object = identity(&note.object);
        let similar = SimilarKey {
            component: note.component,
            object: object.clone(),
            kind: note.kind,
            reason: note.reason,
        };
        let combined = self.is_combined(&similar, &note.message, now);
        if !self.spend((note.component, object), now) {
            return None;
        }
        let series = SeriesKey {
            similar,
            message: (!combined).then(|| note.message.clone()),
        };
        if combined {
            note.message.insert_str(0, COMBINED);
        }
        let (name, count, first) = match self.series.get(&series) {
            Some((name, count, first, _)) => (name.clone(), count.saturating_add(1), *first),
            None => (event_name(&note.object), 1, Timestamp::now()),
        };
        Some(Step {
            note,
            series,
            name,
            count,
            first,
        })
    }

    fn is_combined(&mut self, key: &SimilarKey, message: &str, now: Instant) -> bool {
        evict(&mut self.similar, |(_, last)| *last);
        let (messages, last) = self
            .similar
            .entry(key.clone())
            .or_insert_with(|| (Vec::new(), now));
        if now.duration_since(*last) > SIMILAR_WINDOW {
            messages.clear();
        }
        *last = now;
        if messages.len() < SIMILAR && !messages.iter().any(|known| known == message) {
            messages.push(message.to_owned());
        }
        messages.len() >= SIMILAR
    }

    fn spend(&mut self, key: (&'static str, String), now: Instant) -> bool {
        evict(&mut self.budget, |(_, last)| *last);
        let (tokens, last) = self.budget.entry(key).or_insert((BURST, now));
        let earned = now.duration_since(*last).as_secs_f64() / REFILL.as_secs_f64();
        *tokens = (*tokens + earned).min(BURST);
        *last = now;
        if *tokens < 1.0 {
            return false;
        }
        *tokens -= 1.0;
        true
    }

    fn written(&mut self, step: &Step) {
        evict(&mut self.series, |(_, _, _, last)| *last);
        let value = (step.name.clone(), step.count, step.first, Instant::now());
        self.series.insert(step.series.clone(), value);
    }
}

/// Makes room for one more by forgetting the older half.
fn evict<K: Clone + Eq + std::hash::Hash, V>(
    map: &mut HashMap<K, V>,
    last: impl Fn(&V) -> Instant,
) {
    if map.len() < REMEMBERED {
        return;
    }
    let mut times: Vec<Instant> = map.values().map(&last).collect();
    times.sort_unstable();
    let middle = times[times.len() / 2];
    map.retain(|_, value| last(value) > middle);
}

fn identity(object: &ObjectReference) -> String {
    format!(
        "{}/{}/{}/{}",
        object.kind.as_deref().unwrap_or_default(),
        object.namespace.as_deref().unwrap_or_default(),
        object.name.as_deref().unwrap_or_default(),
        object.uid.as_deref().unwrap_or_default(),
    )
}

fn event_name(object: &ObjectReference) -> String {
    let nanos = Timestamp::now().as_nanosecond();
    format!("{}.{nanos:x}", object.name.as_deref().unwrap_or("unknown"))
}

/// Events about cluster-scoped objects live in `default`.
fn event_namespace(object: &ObjectReference) -> &str {
    object
        .namespace
        .as_deref()
        .filter(|namespace| !namespace.is_empty())
        .unwrap_or("default")
}

async fn write(client: &Client, step: &Step) -> Result<(), Error> {
    let api: Api<Event> = Api::namespaced(client.clone(), event_namespace(&step.note.object));
    if step.count > 1 {
        let patch = json!({
            "count": step.count,
            "message": step.note.message,
            "lastTimestamp": clock::now(),
        });
        match api
            .patch(&step.name, &PatchParams::default(), &Patch::Merge(patch))
            .await
        {
            Ok(_) => return Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(during("patch", format!("Event {}", step.name))(error)),
        }
    }
    api.create(&PostParams::default(), &event(step))
        .await
        .map(drop)
        .map_err(during("create", format!("Event {}", step.name)))
}

fn event(step: &Step) -> Event {
    let Note {
        component,
        object,
        kind,
        reason,
        message,
    } = step.note.clone();
    Event {
        metadata: ObjectMeta {
            name: Some(step.name.clone()),
            namespace: Some(event_namespace(&object).to_owned()),
            ..ObjectMeta::default()
        },
        involved_object: object,
        type_: Some(kind.as_str().to_owned()),
        reason: Some(reason.to_owned()),
        message: Some(message),
        count: Some(step.count),
        first_timestamp: Some(clock::whole_seconds(step.first)),
        last_timestamp: Some(clock::now()),
        source: Some(EventSource {
            component: Some(component.to_owned()),
            host: None,
        }),
        reporting_component: Some(component.to_owned()),
        reporting_instance: Some(String::new()),
        ..Event::default()
    }
}

#[cfg(test)]
mod tests;
