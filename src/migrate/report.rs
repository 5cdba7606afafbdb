//! What is said about each Ingress and about the ConfigMap.

use std::path::PathBuf;

use k8s_openapi::api::networking::v1::Ingress;
use kube::ResourceExt as _;
use sealane_config::compile::ingress_class;
use sealane_config::ingress_nginx::{self, PREFIX};
use sealane_config::model::{Problem, ProblemKind};
use serde::Serialize;

use super::{routes, snippet};
use crate::state::{INGRESS_NGINX, Origin, State};

/// What becomes of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Verdict {
    /// Nobody notices.
    AsBefore,
    /// Somebody may.
    Differs,
    /// It is not served: answered 503, or not read at all.
    Refused,
}

/// Something worth saying.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Note {
    /// What becomes of it.
    pub(super) verdict: Verdict,
    /// The field, as a path from the object's root.
    pub(super) field: String,
    /// File and line, if it came from a file.
    pub(super) file: Option<PathBuf>,
    pub(super) line: Option<u64>,
    /// What is the matter.
    pub(super) message: String,
    /// What to do about it.
    pub(super) instead: Vec<String>,
}

/// An object and what is said about it.
#[derive(Debug, Serialize)]
pub(super) struct Subject {
    pub(super) namespace: String,
    pub(super) name: String,
    /// The worst of its notes.
    pub(super) verdict: Verdict,
    pub(super) notes: Vec<Note>,
}

/// Everything that is said.
#[derive(Debug)]
pub(super) struct Report {
    /// Ingresses of ingress-nginx.
    pub(super) ingresses: Vec<Subject>,
    /// How many Ingresses are another controller's.
    pub(super) others: usize,
    /// ingress-nginx's ConfigMap, if it is named.
    pub(super) settings: Option<Subject>,
    /// Files and objects that cannot be read, a line each.
    pub(super) unreadable: Vec<String>,
}

impl Report {
    /// Looks at the objects of a state as a gateway would take them over.
    pub(super) fn of(state: &State, without_class: bool) -> Self {
        let all = &state.objects.ingresses;
        let of_nginx = |ingress: &&Ingress| is_of_nginx(state, ingress, without_class);
        let of_nginx: Vec<&Ingress> = all.iter().filter(of_nginx).collect();
        let mut ingresses: Vec<Subject> = of_nginx
            .iter()
            .map(|ingress| {
                let mut notes = annotations(state, ingress);
                notes.extend(routes::notes(state, ingress, &of_nginx));
                subject(ingress.namespace(), ingress.name_any(), notes)
            })
            .collect();
        ingresses.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        let errors = match &state.origin {
            Origin::Files { errors, .. } => &errors[..],
            Origin::Cluster { .. } => &[],
        };
        Self {
            others: all.len() - ingresses.len(),
            ingresses,
            settings: settings(state),
            unreadable: errors.iter().map(ToString::to_string).collect(),
        }
    }

    /// The worst that there is.
    pub(super) fn worst(&self) -> Verdict {
        if !self.unreadable.is_empty() {
            return Verdict::Refused;
        }
        let subjects = self.ingresses.iter().chain(&self.settings);
        let worst = subjects.map(|subject| subject.verdict).max();
        worst.unwrap_or(Verdict::AsBefore)
    }

    /// How many Ingresses this becomes of.
    pub(super) fn count(&self, verdict: Verdict) -> usize {
        let same = |subject: &&Subject| subject.verdict == verdict;
        self.ingresses.iter().filter(same).count()
    }
}

fn subject(namespace: Option<String>, name: String, mut notes: Vec<Note>) -> Subject {
    notes.sort_by(|a, b| (b.verdict, &a.field).cmp(&(a.verdict, &b.field)));
    Subject {
        namespace: namespace.unwrap_or_default(),
        name,
        verdict: notes
            .iter()
            .map(|note| note.verdict)
            .max()
            .unwrap_or(Verdict::AsBefore),
        notes,
    }
}

/// Whether ingress-nginx serves it.
fn is_of_nginx(state: &State, ingress: &Ingress, without_class: bool) -> bool {
    let Some(name) = ingress_class(ingress) else {
        return without_class;
    };
    let class = state
        .objects
        .classes
        .iter()
        .find(|class| class.name_any() == name);
    let spec = class.and_then(|class| class.spec.as_ref());
    spec.and_then(|spec| spec.controller.as_deref()) == Some(INGRESS_NGINX)
}

/// A note about a field of an object.
pub(super) fn note(
    state: &State,
    kind: &str,
    (namespace, name): (&str, &str),
    (verdict, field, message): (Verdict, &str, String),
    instead: Vec<String>,
) -> Note {
    let place = state.places.find((kind, namespace, name), field);
    let (file, line) = place.unzip();
    Note {
        verdict,
        field: field.to_owned(),
        file,
        line,
        message,
        instead,
    }
}

/// What becomes of an Ingress' annotations.
fn annotations(state: &State, ingress: &Ingress) -> Vec<Note> {
    let (namespace, object) = (ingress.namespace().unwrap_or_default(), ingress.name_any());
    let problems: Vec<&Problem> = routes::problems(state, &namespace, &object).collect();
    let mut notes = Vec::new();
    for (full, value) in ingress.annotations() {
        let Some(name) = full.strip_prefix(PREFIX) else {
            continue;
        };
        let field = format!("metadata.annotations[{full}]");
        let Some((verdict, message)) = becomes(&problems, &field, full, value) else {
            continue;
        };
        let instead = if name.ends_with("-snippet") {
            snippet::replacements(value)
        } else {
            // A value that cannot be used is corrected, and what differs is said already.
            let bad = |problem: &&Problem| {
                problem.field == field && problem.kind == ProblemKind::BadAnnotation
            };
            let known = ingress_nginx::annotation(name);
            known
                .filter(|known| verdict != Verdict::AsBefore && message != known.differs)
                .filter(|_| !problems.iter().any(bad))
                .map(|known| known.instead.to_owned())
                .filter(|instead| !instead.is_empty())
                .into_iter()
                .collect()
        };
        let said = (verdict, field.as_str(), message);
        notes.push(note(state, "Ingress", (&namespace, &object), said, instead));
    }
    notes
}

/// What becomes of one annotation, and why; `None`: it is served as before.
fn becomes(
    problems: &[&Problem],
    field: &str,
    full: &str,
    value: &str,
) -> Option<(Verdict, String)> {
    if let Some(problem) = problems.iter().find(|problem| problem.field == field) {
        let verdict = match problem.kind {
            ProblemKind::RefusedAnnotation => Verdict::Refused,
            ProblemKind::Conflict if routes::is_further_name(problem) => Verdict::AsBefore,
            _ => Verdict::Differs,
        };
        return Some((verdict, problem.message.clone()));
    }
    let name = full.strip_prefix(PREFIX)?;
    let known = ingress_nginx::annotation(name);
    if ingress_nginx::is_without_effect(name) {
        let why = known.map_or("nothing to do", |known| known.instead);
        return Some((Verdict::AsBefore, why.to_owned()));
    }
    let lists = |problem: &&&Problem| {
        let is_list = problem.kind == ProblemKind::UnknownAnnotation;
        is_list && problem.message.split([' ', ',']).any(|word| word == full)
    };
    if let Some(list) = problems.iter().find(lists) {
        let (verdict, message) = match known {
            _ if list.message.contains("canary") => (
                Verdict::AsBefore,
                "the Ingress that this is a canary of says it for both",
            ),
            Some(_) => (Verdict::Differs, "it has no effect"),
            None => (
                Verdict::Differs,
                "ingress-nginx has no such annotation, or it is not known here: it has no effect",
            ),
        };
        return Some((verdict, message.to_owned()));
    }
    let differs = known.and_then(|known| known.differs_with(value));
    differs.map(|differs| (Verdict::Differs, differs.to_owned()))
}

/// What becomes of the ConfigMap.
fn settings(state: &State) -> Option<Subject> {
    let key = state.objects.settings.as_ref()?;
    let (namespace, name) = (key.namespace.to_string(), key.name.to_string());
    let object = (namespace.as_str(), name.as_str());
    let problems: Vec<&Problem> = state
        .snapshot
        .problems
        .iter()
        .filter(|problem| problem.object.kind == "ConfigMap")
        .filter(|problem| (&*problem.object.namespace, &*problem.object.name) == object)
        .collect();
    let mut notes = Vec::new();
    let found = state
        .objects
        .config_maps
        .get(&(namespace.clone(), name.clone()));
    let data = found
        .and_then(Option::as_ref)
        .and_then(|map| map.data.as_ref());
    if data.is_none() {
        let message = "there is no such ConfigMap, or nothing in it".to_owned();
        let said = (Verdict::Differs, "data", message);
        notes.push(note(state, "ConfigMap", object, said, Vec::new()));
    }
    for (key, value) in data.into_iter().flatten() {
        let field = format!("data[{key}]");
        let of_it = |problem: &&&Problem| {
            let listed = problem.field == "data"
                && problem.kind == ProblemKind::UnsupportedSetting
                && problem.message.split([' ', ',']).any(|word| word == key);
            problem.field == field || listed
        };
        let Some(problem) = problems.iter().find(of_it) else {
            continue;
        };
        notes.push(setting(state, object, (key, value, &field), problem));
    }
    Some(subject(Some(namespace), name, notes))
}

/// A key of the ConfigMap that is not simply served.
fn setting(
    state: &State,
    object: (&str, &str),
    (key, value, field): (&str, &str, &str),
    problem: &Problem,
) -> Note {
    let known = ingress_nginx::setting(key);
    let is_listed = problem.field == "data";
    let verdict = match problem.kind {
        ProblemKind::UnsupportedSetting if !is_listed => Verdict::Refused,
        _ if known.is_some_and(|known| known.inward) => Verdict::AsBefore,
        _ => Verdict::Differs,
    };
    let message = match known {
        Some(known) if verdict == Verdict::AsBefore => known.instead.to_owned(),
        Some(_) if is_listed => "it has no effect".to_owned(),
        None if is_listed => {
            "ingress-nginx has no such setting, or it is not known here".to_owned()
        }
        _ => problem.message.clone(),
    };
    let mut instead = Vec::new();
    if key.ends_with("-snippet") {
        instead = snippet::replacements(value);
    }
    let is_bad = problem.kind == ProblemKind::BadField;
    let general = known.filter(|_| instead.is_empty() && verdict != Verdict::AsBefore && !is_bad);
    instead.extend(general.map(|known| known.instead.to_owned()));
    note(
        state,
        "ConfigMap",
        object,
        (verdict, field, message),
        instead,
    )
}
