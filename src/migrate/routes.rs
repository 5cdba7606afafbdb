//! Hosts and paths: where the rules of several Ingresses meet, and what path types come to.

use k8s_openapi::api::networking::v1::{HTTPIngressPath, Ingress};
use kube::ResourceExt as _;
use sealane_config::ingress_nginx::PREFIX;
use sealane_config::model::{PathMatch, Problem, ProblemKind};

use super::report::{Note, Verdict, note};
use crate::state::State;

/// The compiler's problems with an Ingress.
pub(super) fn problems<'a>(
    state: &'a State,
    namespace: &'a str,
    name: &'a str,
) -> impl Iterator<Item = &'a Problem> {
    state.snapshot.problems.iter().filter(move |problem| {
        let object = &problem.object;
        (object.kind, &*object.namespace, &*object.name) == ("Ingress", namespace, name)
    })
}

/// What is to be said of an Ingress' rules. `all` are those of ingress-nginx.
pub(super) fn notes(state: &State, ingress: &Ingress, all: &[&Ingress]) -> Vec<Note> {
    let (namespace, name) = (ingress.namespace().unwrap_or_default(), ingress.name_any());
    let key = (namespace.as_str(), name.as_str());
    let mut notes = Vec::new();
    for problem in problems(state, &namespace, &name) {
        let (verdict, why) = match problem.kind {
            // It is the annotation's.
            ProblemKind::Conflict if is_further_name(problem) => continue,
            ProblemKind::Conflict => conflict(state, ingress, problem, all),
            ProblemKind::BadField => (Verdict::Differs, ""),
            // ingress-nginx has the same trouble, or it is an annotation's.
            _ => continue,
        };
        let message = format!("{}{why}", problem.message);
        let said = (verdict, problem.field.as_str(), message);
        notes.push(note(state, "Ingress", key, said, Vec::new()));
    }
    let mut say = |verdict, field: &str, message: String, instead: Vec<String>| {
        let said = (verdict, field, message);
        notes.push(note(state, "Ingress", key, said, instead));
    };
    if is_regex(ingress) {
        let message = "its paths are regular expressions, which match from the start of a path, in \
                       upper and lower case, and so are all other paths of its hosts";
        say(
            Verdict::AsBefore,
            "spec.rules",
            message.to_owned(),
            Vec::new(),
        );
    }
    for (index, rule) in rules(ingress) {
        let field = format!("spec.rules[{index}]");
        let same_host = |other: &&&Ingress| {
            is_regex(other) && rules(other).any(|(_, theirs)| theirs.host == rule.host)
        };
        if let Some(other) = all.iter().find(same_host).filter(|_| !is_regex(ingress)) {
            let other = format!(
                "{}/{}",
                other.namespace().unwrap_or_default(),
                other.name_any()
            );
            let message = format!(
                "its paths are regular expressions, those of type Exact too, because {other} has \
                 some for the same host"
            );
            say(Verdict::AsBefore, &field, message, Vec::new());
        }
        let paths = rule.http.iter().flat_map(|http| &http.paths);
        for (place, path) in paths.enumerate() {
            let field = format!("{field}.http.paths[{place}]");
            if let Some(message) = by_element(state, key, &field, path) {
                let instead = "write all paths that it is for, or use-regex".to_owned();
                say(Verdict::Differs, &field, message, vec![instead]);
            }
        }
    }
    notes
}

/// It is about a name that another Ingress has rules for or gives to another host, which has nothing
/// to do with age: ingress-nginx leaves such names out, too.
pub(super) fn is_further_name(problem: &Problem) -> bool {
    ["server-alias]", "from-to-www-redirect]"]
        .iter()
        .any(|annotation| problem.field.ends_with(annotation))
}

/// A path that another Ingress has: both give it to the older, but not to the same of two that are as
/// old.
fn conflict(
    state: &State,
    ingress: &Ingress,
    problem: &Problem,
    all: &[&Ingress],
) -> (Verdict, &'static str) {
    if state.origin.is_files() {
        let why = "; files do not say which one is older in the cluster: here the first one is";
        return (Verdict::AsBefore, why);
    }
    let is_named = |other: &&&Ingress| {
        let other = format!(
            "{}/{}",
            other.namespace().unwrap_or_default(),
            other.name_any()
        );
        problem.message.split([' ', ',']).any(|word| word == other)
    };
    let created = |ingress: &Ingress| ingress.metadata.creation_timestamp.clone();
    let tied = all
        .iter()
        .filter(is_named)
        .any(|other| created(other) == created(ingress));
    if tied {
        let why =
            "; both are as old, and then ingress-nginx goes by the last name, Sealane by the first";
        (Verdict::Differs, why)
    } else {
        (Verdict::AsBefore, "")
    }
}

/// Why a path of no type of its own is not taken as by ingress-nginx, if it is not.
fn by_element(
    state: &State,
    key: (&str, &str),
    field: &str,
    path: &HTTPIngressPath,
) -> Option<String> {
    let text = path.path.as_deref().unwrap_or("/");
    if path.path_type != "ImplementationSpecific" || text == "/" {
        return None;
    }
    let table = &state.snapshot.routes;
    let hosts = table
        .exact
        .values()
        .chain(table.wildcard.values())
        .chain(&table.any);
    let mut rules = hosts.flat_map(|host| &host.rules);
    let rule = rules.find(|rule| {
        let source = &rule.source;
        (&*source.namespace, &*source.name, &*rule.field) == (key.0, key.1, field)
    })?;
    matches!(rule.path, PathMatch::Prefix(_))
        .then(|| format!("{text} is matched by path element, so {text}x is no longer part of it"))
}

fn is_regex(ingress: &Ingress) -> bool {
    let annotation = |name: &str| ingress.annotations().get(&format!("{PREFIX}{name}"));
    let is_on = |value: &String| matches!(value.trim(), "1" | "t" | "T" | "true" | "True" | "TRUE");
    annotation("use-regex").is_some_and(is_on)
        || annotation("rewrite-target").is_some_and(|target| !target.trim().is_empty())
}

fn rules(
    ingress: &Ingress,
) -> impl Iterator<Item = (usize, &k8s_openapi::api::networking::v1::IngressRule)> {
    let spec = ingress.spec.iter();
    spec.flat_map(|spec| spec.rules.iter().flatten())
        .enumerate()
}
