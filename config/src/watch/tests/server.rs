//! An API server in memory, with the faults that a real one and the network have.

mod protobuf;

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::io::ErrorKind;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::header::{ACCEPT, RETRY_AFTER};
use http::{Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};

use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::Instant;

use kube::Client;

use crate::watch::wire::PROTOBUF;

type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

pub(super) const SERVICES: &str = "/api/v1/services";
pub(super) const SLICES: &str = "/apis/discovery.k8s.io/v1/endpointslices";
pub(super) const NAMESPACES: &str = "/api/v1/namespaces";
pub(super) const PODS: &str = "/api/v1/pods";
pub(super) const INGRESSES: &str = "/apis/networking.k8s.io/v1/ingresses";
pub(super) const CLASSES: &str = "/apis/networking.k8s.io/v1/ingressclasses";
pub(super) const SECRETS: &str = "/api/v1/namespaces/shop/secrets";
pub(super) const CONFIG_MAPS: &str = "/api/v1/namespaces/shop/configmaps";

/// What goes wrong with requests to one path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Nobody answers.
    Unreachable,
    /// This status.
    Status(u16),
    /// Status 429, asking for this many seconds.
    Throttle(u64),
    /// This status for watches only.
    WatchStatus(u16),
    /// This status for the second and later pages of lists.
    PageStatus(u16),
    /// Watches are accepted, but nothing is ever sent on them, not even their end.
    SilentWatch,
}

/// One request as it came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) path: String,
    pub(super) query: BTreeMap<String, String>,
}

impl Seen {
    pub(super) fn is_watch(&self) -> bool {
        self.query.contains_key("watch")
    }

    /// A watch that asks to begin with what there is.
    pub(super) fn is_stream(&self) -> bool {
        self.query.contains_key("sendInitialEvents")
    }

    /// Asks only how many objects there are.
    pub(super) fn is_count(&self) -> bool {
        !self.is_watch() && self.query.contains_key("resourceVersionMatch")
    }
}

#[derive(Debug)]
struct Event {
    path: String,
    version: u64,
    line: Bytes,
    name: String,
}

#[derive(Debug)]
struct Watcher {
    path: String,
    name: Option<String>,
    lines: mpsc::Sender<Bytes>,
}

#[derive(Debug, Default)]
struct Inner {
    version: u64,
    /// By path, namespace and name.
    objects: BTreeMap<(String, String, String), Value>,
    history: Vec<Event>,
    /// Watches from an older version than this get 410.
    compacted: u64,
    watchers: Vec<Watcher>,
    /// Version and resource name of the kinds that came with CRDs.
    custom: Vec<(String, String)>,
    faults: HashMap<String, Fault>,
    seen: Vec<Seen>,
    /// Watches may begin with what there is; otherwise that is refused, as by older servers.
    streams: bool,
    /// Events of EndpointSlices are in protobuf for those who accept that.
    speaks_protobuf: bool,
    /// How often it did.
    protobuf_answers: usize,
    /// Such watches end after so many objects, without having come to their end.
    breaks_after: Option<usize>,
}

/// The server; clones are the same one.
#[derive(Clone, Debug, Default)]
pub(super) struct Server(Arc<Mutex<Inner>>);

impl Server {
    pub(super) fn client(&self) -> Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let answer = server.answer(&request);
            async move { answer.ok_or_else(|| std::io::Error::from(ErrorKind::ConnectionRefused)) }
        });
        Client::new(service, "default")
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }

    /// Lets watches begin with what there is.
    pub(super) fn stream_lists(&self, breaks_after: Option<usize>) {
        let mut inner = self.lock();
        inner.streams = true;
        inner.breaks_after = breaks_after;
    }

    /// Sends EndpointSlices in protobuf to those who accept that.
    pub(super) fn speak_protobuf(&self) {
        self.lock().speaks_protobuf = true;
    }

    /// How many answers were in protobuf.
    pub(super) fn protobuf_answers(&self) -> usize {
        self.lock().protobuf_answers
    }

    /// Creates or replaces an object.
    pub(super) fn put(&self, path: &str, mut object: Value) {
        let mut inner = self.lock();
        inner.version += 1;
        object["metadata"]["resourceVersion"] = json!(inner.version.to_string());
        let id = id(path, &object);
        let kind = if inner.objects.contains_key(&id) {
            "MODIFIED"
        } else {
            "ADDED"
        };
        inner.objects.insert(id, object.clone());
        inner.record(path, kind, &object);
    }

    pub(super) fn delete(&self, path: &str, namespace: &str, name: &str) {
        let mut inner = self.lock();
        inner.version += 1;
        let id = (path.to_owned(), namespace.to_owned(), name.to_owned());
        let mut object = inner.objects.remove(&id).unwrap();
        object["metadata"]["resourceVersion"] = json!(inner.version.to_string());
        inner.record(path, "DELETED", &object);
    }

    /// Serves these kinds of Gateway API, and no others: version and resource name.
    pub(super) fn serve_custom(&self, kinds: &[(&str, &str)]) {
        let mut inner = self.lock();
        let owned = |(version, plural): &(&str, &str)| ((*version).into(), (*plural).into());
        inner.custom = kinds.iter().map(owned).collect();
        let is_custom = |path: &str| path.starts_with("/apis/gateway.networking.k8s.io/");
        inner.watchers.retain(|watcher| !is_custom(&watcher.path));
    }

    pub(super) fn bookmark(&self, path: &str) {
        let mut inner = self.lock();
        inner.version += 1;
        let version = inner.version.to_string();
        let object = json!({"kind": "Bookmark", "apiVersion": "v1", "metadata": {"resourceVersion": version}});
        inner.send(path, None, &line("BOOKMARK", &object));
    }

    /// Forgets history: whoever resumes from before gets 410.
    pub(super) fn compact(&self) {
        let mut inner = self.lock();
        inner.compacted = inner.version;
        inner.history.clear();
    }

    /// Ends all open watches in order.
    pub(super) fn end_watches(&self) {
        self.lock().watchers.clear();
    }

    /// Sends 410 on the open watches of a path.
    pub(super) fn send_gone(&self, path: &str) {
        let status = status(410);
        let mut inner = self.lock();
        inner.send(path, None, &line("ERROR", &status));
        inner.watchers.retain(|watcher| watcher.path != path);
    }

    pub(super) fn fault(&self, path: &str, fault: Option<Fault>) {
        let mut inner = self.lock();
        match fault {
            Some(fault) => drop(inner.faults.insert(path.to_owned(), fault)),
            None => drop(inner.faults.remove(path)),
        }
    }

    /// The requests so far, for paths that start so.
    pub(super) fn seen(&self, path: &str) -> Vec<Seen> {
        let inner = self.lock();
        let wanted = inner.seen.iter().filter(|seen| seen.path.starts_with(path));
        wanted.cloned().collect()
    }

    pub(super) fn open_watches(&self, path: &str) -> usize {
        let mut inner = self.lock();
        inner.watchers.retain(|watcher| !watcher.lines.is_closed());
        inner
            .watchers
            .iter()
            .filter(|watcher| watcher.path == path)
            .count()
    }

    /// Deletes an object without telling anybody, as servers with bugs have done.
    pub(super) fn lose(&self, path: &str, namespace: &str, name: &str) {
        let mut inner = self.lock();
        let id = (path.to_owned(), namespace.to_owned(), name.to_owned());
        inner.objects.remove(&id).unwrap();
    }

    fn answer(&self, request: &Request<Body>) -> Option<Answer> {
        let answer = self.answer_in_json(request)?;
        let accepted = request.headers().get(ACCEPT);
        let accepts = accepted.is_some_and(|it| it.to_str().unwrap().starts_with(PROTOBUF));
        let mut inner = self.lock();
        if !accepts || !inner.speaks_protobuf {
            return Some(answer);
        }
        inner.protobuf_answers += 1;
        Some(protobuf::of(answer))
    }

    fn answer_in_json(&self, request: &Request<Body>) -> Option<Answer> {
        let mut inner = self.lock();
        let query: BTreeMap<String, String> = request
            .uri()
            .query()
            .unwrap_or_default()
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.replace("%3D", "=")))
            .collect();
        let seen = Seen {
            path: request.uri().path().to_owned(),
            query,
        };
        inner.seen.push(seen.clone());
        let fault = inner.faults.get(&seen.path).copied();
        match fault {
            Some(Fault::Unreachable) => return None,
            Some(Fault::Status(code)) => return Some(refuse(code)),
            Some(Fault::Throttle(seconds)) => {
                let mut answer = refuse(429);
                answer.headers_mut().insert(RETRY_AFTER, seconds.into());
                return Some(answer);
            }
            Some(Fault::WatchStatus(code)) if seen.is_watch() => return Some(refuse(code)),
            Some(Fault::PageStatus(code)) if seen.query.contains_key("continue") => {
                return Some(refuse(code));
            }
            _ => {}
        }
        if let Some(answer) = inner.custom(&seen.path) {
            return Some(answer);
        }
        Some(if seen.is_watch() {
            inner.watch(&seen, fault == Some(Fault::SilentWatch))
        } else {
            inner.list(&seen)
        })
    }
}

impl Inner {
    fn record(&mut self, path: &str, kind: &str, object: &Value) {
        let name = text(object, "name");
        let line = line(kind, object);
        self.send(path, Some(&name), &line);
        self.history.push(Event {
            path: path.to_owned(),
            version: self.version,
            line,
            name,
        });
    }

    fn send(&mut self, path: &str, name: Option<&str>, line: &Bytes) {
        let concerned = |watcher: &&Watcher| {
            let named = |(wanted, name): (&String, &str)| wanted == name;
            watcher.path == path && watcher.name.as_ref().zip(name).is_none_or(named)
        };
        for watcher in self.watchers.iter().filter(concerned) {
            // A watcher that went away is cleaned up later.
            let _ = watcher.lines.try_send(line.clone());
        }
    }

    /// The answer to what concerns kinds that come with CRDs, unless it is a list or watch of one
    /// that is served.
    fn custom(&self, path: &str) -> Option<Answer> {
        let mut parts = path
            .strip_prefix("/apis/gateway.networking.k8s.io/")?
            .split('/');
        let version = parts.next()?;
        let served = self.custom.iter().filter(|(of, _)| of == version);
        let mut plurals = served.map(|(_, plural)| plural);
        if let Some(wanted) = parts.next() {
            let is_served = plurals.any(|plural| plural == wanted);
            return (!is_served).then(|| refuse(404));
        }
        let resources: Vec<Value> = plurals
            .map(|plural| json!({"name": plural, "singularName": "", "namespaced": true, "kind": "K", "verbs": ["list", "watch"]}))
            .collect();
        if resources.is_empty() {
            return Some(refuse(404));
        }
        let group_version = format!("gateway.networking.k8s.io/{version}");
        let document = json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources});
        Some(whole(StatusCode::OK, &document))
    }

    fn list(&self, seen: &Seen) -> Answer {
        let wanted = selected(seen);
        let all: Vec<&Value> = self
            .objects
            .iter()
            .filter(|((path, _, name), _)| {
                *path == seen.path && wanted.as_ref().is_none_or(|wanted| wanted == name)
            })
            .map(|(_, object)| object)
            .collect();
        let number = |name: &str| seen.query.get(name).and_then(|text| text.parse().ok());
        let start: usize = number("continue").unwrap_or_default();
        let end = all.len().min(start + number("limit").unwrap_or(usize::MAX));
        let exact = seen
            .query
            .get("resourceVersionMatch")
            .is_some_and(|wanted| wanted == "Exact");
        let mut version = self.version;
        if exact {
            version = seen.query["resourceVersion"].parse().unwrap();
            let is_later = |event: &Event| event.path == seen.path && event.version > version;
            // What was there before is not kept.
            if version < self.compacted || self.history.iter().any(is_later) {
                return refuse(410);
            }
        }
        let mut metadata = json!({"resourceVersion": version.to_string()});
        if end < all.len() {
            metadata["continue"] = json!(end.to_string());
            metadata["remainingItemCount"] = json!(all.len() - end);
        }
        let list = json!({"kind": "List", "metadata": metadata, "items": all[start..end]});
        whole(StatusCode::OK, &list)
    }

    fn watch(&mut self, seen: &Seen, is_silent: bool) -> Answer {
        if seen.is_stream() {
            return self.stream(seen);
        }
        let from: u64 = seen.query["resourceVersion"].parse().unwrap();
        let seconds: u64 = seen.query["timeoutSeconds"].parse().unwrap();
        let (sender, lines) = mpsc::channel(4096);
        let name = selected(seen);
        if from < self.compacted {
            let _ = sender.try_send(line("ERROR", &status(410)));
        } else if is_silent {
            // Kept open by the body, which never ends.
            return stream_body(lines, Some(sender), Duration::MAX);
        } else {
            for event in self.history.iter().filter(|event| event.version > from) {
                let is_named = name.as_ref().is_none_or(|name| *name == event.name);
                if event.path == seen.path && is_named {
                    let _ = sender.try_send(event.line.clone());
                }
            }
            self.watchers.push(Watcher {
                path: seen.path.clone(),
                name,
                lines: sender,
            });
        }
        stream_body(lines, None, Duration::from_secs(seconds))
    }
}

impl Inner {
    /// What there is, one change that happened meanwhile, and the bookmark that ends it.
    fn stream(&mut self, seen: &Seen) -> Answer {
        if !self.streams {
            return refuse(422);
        }
        let seconds: u64 = seen.query["timeoutSeconds"].parse().unwrap();
        let (sender, lines) = mpsc::channel(4096);
        let name = selected(seen);
        let wanted = self.objects.iter().filter(|((path, _, of), _)| {
            *path == seen.path && name.as_ref().is_none_or(|name| name == of)
        });
        let mut last = None;
        for (index, (_, object)) in wanted.enumerate() {
            if self.breaks_after == Some(index) {
                return stream_body(lines, None, Duration::from_secs(seconds));
            }
            let _ = sender.try_send(line("ADDED", object));
            last = Some(object);
        }
        if let Some(last) = last {
            let _ = sender.try_send(line("MODIFIED", last));
        }
        let end = json!({"kind": "Bookmark", "apiVersion": "v1", "metadata": {
            "resourceVersion": self.version.to_string(),
            "annotations": {"k8s.io/initial-events-end": "true"},
        }});
        let _ = sender.try_send(line("BOOKMARK", &end));
        self.watchers.push(Watcher {
            path: seen.path.clone(),
            name,
            lines: sender,
        });
        stream_body(lines, None, Duration::from_secs(seconds))
    }
}

fn stream_body(
    lines: mpsc::Receiver<Bytes>,
    keep: Option<mpsc::Sender<Bytes>>,
    life: Duration,
) -> Answer {
    let end = Instant::now().checked_add(life);
    let body = stream::unfold((lines, keep), move |(mut lines, keep)| async move {
        let next = match end {
            Some(end) => tokio::time::timeout_at(end, lines.recv())
                .await
                .ok()
                .flatten(),
            None => lines.recv().await,
        };
        Some((Ok(Frame::data(next?)), (lines, keep)))
    });
    Response::new(BodyExt::boxed_unsync(StreamBody::new(body)))
}

/// The name that a request is for, if it is for one.
fn selected(seen: &Seen) -> Option<String> {
    let selector = seen.query.get("fieldSelector")?;
    let name = selector.strip_prefix("metadata.name=")?;
    Some(name.to_owned())
}

fn id(path: &str, object: &Value) -> (String, String, String) {
    (
        path.to_owned(),
        text(object, "namespace"),
        text(object, "name"),
    )
}

fn text(object: &Value, field: &str) -> String {
    object["metadata"][field]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

fn line(kind: &str, object: &Value) -> Bytes {
    let mut line = json!({"type": kind, "object": object}).to_string();
    line.push('\n');
    line.into()
}

fn status(code: u16) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "refused", "reason": "Test", "code": code})
}

fn refuse(code: u16) -> Answer {
    whole(StatusCode::from_u16(code).unwrap(), &status(code))
}

fn whole(status: StatusCode, body: &Value) -> Answer {
    let body = Full::new(Bytes::from(body.to_string()));
    let mut answer = Response::new(body.boxed_unsync());
    *answer.status_mut() = status;
    answer
}
