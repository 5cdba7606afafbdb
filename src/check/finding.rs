//! One thing that is wrong, and all of them in order.

use std::path::PathBuf;

use sealane_config::model::{ObjectRef, Problem};

use super::codes::{self, Code, Severity};
use super::{objects, routes};
use crate::dns::files::Loaded;
use crate::manifests::{ManifestError, Named};
use crate::state::{Origin, State};

/// One thing that is wrong.
#[derive(Clone, Debug)]
pub(crate) struct Finding {
    /// What kind of problem.
    pub(crate) code: &'static Code,
    /// How bad it is here.
    pub(crate) severity: Severity,
    /// The object, if it is one's.
    pub(crate) object: Option<Named>,
    /// The field, as a path from the object's root; empty for the whole object.
    pub(crate) field: String,
    /// File and line, if it came from a file.
    pub(crate) place: Option<(PathBuf, Option<u64>)>,
    /// What is wrong.
    pub(crate) message: String,
}

/// Everything that was found, in the order of codes and objects.
#[derive(Debug, Default)]
pub(crate) struct Findings(Vec<Finding>);

impl Findings {
    /// Looks for everything that can be wrong.
    pub(crate) fn of(state: &State) -> Self {
        let mut collector = Collector {
            state,
            findings: Vec::new(),
        };
        if let Origin::Files { errors, .. } = &state.origin {
            collector.findings.extend(errors.iter().map(of_manifest));
        }
        for problem in state.snapshot.problems.iter() {
            collector.problem(problem);
        }
        objects::check(&mut collector);
        routes::check(&mut collector);
        let mut findings = collector.findings;
        let order = |finding: &Finding| {
            let object = finding.object.as_ref();
            (
                finding.code.id,
                object.map(|o| (o.namespace.clone(), o.name.clone())),
                finding.place.clone(),
                finding.field.clone(),
                finding.message.clone(),
            )
        };
        findings.sort_by_cached_key(order);
        findings.dedup_by_key(|finding| order(finding));
        Self(findings)
    }

    /// What is wrong with a Corefile, in the order of its lines.
    pub(crate) fn of_corefile(loaded: &Loaded) -> Self {
        let (problems, severity) = match &loaded.outcome {
            Ok((_, warnings)) => (warnings, Some(Severity::Warning)),
            Err(problems) => (problems, None),
        };
        let findings = problems.iter().map(|problem| {
            let code = codes::of_corefile(problem.kind);
            let place = &problem.place;
            Finding {
                code,
                severity: severity.unwrap_or(code.severity),
                object: None,
                field: String::new(),
                place: Some((PathBuf::from(&*place.file), Some(place.line.into()))),
                message: problem.message.clone(),
            }
        });
        let mut findings: Vec<Finding> = findings.collect();
        findings.sort_by(|one, other| one.place.cmp(&other.place));
        Self(findings)
    }

    /// All of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Finding> {
        self.0.iter()
    }

    /// How many are this bad.
    pub(crate) fn count(&self, severity: Severity) -> usize {
        let same = |finding: &&Finding| finding.severity == severity;
        self.iter().filter(same).count()
    }

    /// The worst there is.
    pub(crate) fn worst(&self) -> Option<Severity> {
        self.iter().map(|finding| finding.severity).max()
    }
}

/// Gathers findings about a state.
pub(super) struct Collector<'a> {
    pub(super) state: &'a State,
    findings: Vec<Finding>,
}

impl Collector<'_> {
    /// Something is wrong with an object.
    pub(super) fn add(
        &mut self,
        code: &'static Code,
        object: &ObjectRef,
        field: &str,
        message: String,
    ) {
        let namespace = (!object.namespace.is_empty()).then(|| object.namespace.to_string());
        let key = (object.kind, &*object.namespace, &*object.name);
        let place = self.state.places.find(key, field);
        self.findings.push(Finding {
            code,
            severity: self.severity(code),
            object: Some(Named {
                kind: object.kind.to_owned(),
                namespace,
                name: object.name.to_string(),
            }),
            field: field.to_owned(),
            place: place.map(|(file, line)| (file, Some(line))),
            message,
        });
    }

    /// What files lack may be in the cluster already: a Secret is better not kept in a file, and a
    /// class comes with its controller.
    fn severity(&self, code: &'static Code) -> Severity {
        let elsewhere = [codes::NO_SECRET, codes::UNKNOWN_CLASS];
        if self.state.origin.is_files() && elsewhere.contains(&code) {
            Severity::Warning
        } else {
            code.severity
        }
    }

    fn problem(&mut self, problem: &Problem) {
        let code = codes::of_problem(problem);
        self.add(
            code,
            &problem.object,
            &problem.field,
            problem.message.clone(),
        );
    }

    /// Something is wrong that is no single object's.
    pub(super) fn add_plain(&mut self, code: &'static Code, object: Named, message: String) {
        self.findings.push(Finding {
            code,
            severity: self.severity(code),
            object: Some(object),
            field: String::new(),
            place: None,
            message,
        });
    }

    /// Something is wrong with a manifest.
    pub(super) fn add_manifest(&mut self, code: &'static Code, error: &ManifestError) {
        let mut finding = of_manifest(error);
        finding.code = code;
        finding.severity = code.severity;
        self.findings.push(finding);
    }
}

fn of_manifest(error: &ManifestError) -> Finding {
    let code = codes::of_fault(error.fault);
    Finding {
        code,
        severity: code.severity,
        object: error.object.as_deref().cloned(),
        field: error.field.clone(),
        place: Some((error.file.clone(), error.line)),
        message: error.message.clone(),
    }
}
