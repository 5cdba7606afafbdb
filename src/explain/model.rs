//! An explanation: the decisions on the way of a request or a name, in order, and what they come to.
//! It is what `-o json` prints and what a running instance answers with.

use std::path::PathBuf;

use sealane_config::model::ObjectRef;
use serde::{Deserialize, Serialize};

/// Version of the JSON: grows when a field changes its meaning or goes.
const SCHEMA: u32 = 1;

/// Why something goes where it goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Explanation {
    /// Version of the form.
    pub(crate) version: u32,
    /// What was asked.
    pub(crate) query: String,
    /// Where the state came from, and what that means for the answer.
    pub(crate) source: String,
    /// The decisions, in order.
    pub(crate) steps: Vec<Step>,
    /// What they come to.
    pub(crate) outcome: Outcome,
    /// The status of the answer, of an HTTP request that is not answered by an endpoint.
    pub(crate) status: Option<u16>,
    /// The outcome in one sentence.
    pub(crate) summary: String,
}

/// What the decisions come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    /// An endpoint, a record or another resolver answers.
    Served,
    /// The client is sent elsewhere.
    Redirected,
    /// Nothing takes it.
    NotFound,
    /// It is taken, and answered with an error.
    Error,
}

/// One decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Step {
    /// What is decided.
    pub(crate) phase: Phase,
    /// What came of it.
    pub(crate) mark: Mark,
    /// What was looked at.
    pub(crate) what: String,
    /// Why it came out like this.
    pub(crate) why: String,
    /// The object that it follows from.
    pub(crate) object: Option<Object>,
    /// The object's field.
    pub(crate) field: Option<String>,
    /// Its place, if the state came from files.
    pub(crate) file: Option<PathBuf>,
    /// The line there.
    pub(crate) line: Option<u64>,
}

/// What is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Phase {
    /// Which listener takes the connection.
    Listener,
    /// Which certificate is shown.
    Certificate,
    /// Whether the message is one that is served.
    Gate,
    /// The path's normal form.
    Path,
    /// Whose rules are tried.
    Host,
    /// Which rule takes it.
    Rule,
    /// What is done to it.
    Filter,
    /// Which Service port it goes to.
    Backend,
    /// Which Service it is.
    Service,
    /// Which addresses lead there.
    Address,
    /// Which endpoints can take it.
    Endpoint,
    /// Which routes lead to the Service.
    Route,
    /// Which names are tried.
    Search,
    /// Which zone has the name.
    Zone,
    /// What is answered.
    Record,
    /// Who is asked instead.
    Forward,
}

impl Phase {
    /// For people.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Listener => "listener",
            Self::Certificate => "certificate",
            Self::Gate => "message",
            Self::Path => "path",
            Self::Host => "host",
            Self::Rule => "rule",
            Self::Filter => "filter",
            Self::Backend => "backend",
            Self::Service => "service",
            Self::Address => "address",
            Self::Endpoint => "endpoints",
            Self::Route => "routes",
            Self::Search => "search",
            Self::Zone => "zone",
            Self::Record => "record",
            Self::Forward => "forward",
        }
    }
}

/// What came of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Mark {
    /// This is it.
    Chosen,
    /// It was considered, and is not it.
    Rejected,
    /// It ends here, with an error.
    Failed,
    /// Good to know.
    Note,
}

/// An object by kind, namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Object {
    /// Kind.
    pub(crate) kind: String,
    /// Namespace; empty for cluster-scoped objects.
    pub(crate) namespace: String,
    /// Name.
    pub(crate) name: String,
}

impl From<&ObjectRef> for Object {
    fn from(object: &ObjectRef) -> Self {
        Self {
            kind: object.kind.to_owned(),
            namespace: object.namespace.to_string(),
            name: object.name.to_string(),
        }
    }
}

/// Writes an explanation down as the decisions are taken.
#[derive(Debug, Default)]
pub(super) struct Trail {
    steps: Vec<Step>,
}

impl Trail {
    /// A step that follows from no object.
    pub(super) fn step(
        &mut self,
        phase: Phase,
        mark: Mark,
        what: impl Into<String>,
        why: impl Into<String>,
    ) -> &mut Step {
        self.steps.push(Step {
            phase,
            mark,
            what: what.into(),
            why: why.into(),
            object: None,
            field: None,
            file: None,
            line: None,
        });
        let last = self.steps.len() - 1;
        &mut self.steps[last]
    }

    /// Ends it.
    pub(super) fn end(
        self,
        query: String,
        outcome: Outcome,
        status: Option<u16>,
        summary: impl Into<String>,
    ) -> Explanation {
        Explanation {
            version: SCHEMA,
            query,
            source: String::new(),
            steps: self.steps,
            outcome,
            status,
            summary: summary.into(),
        }
    }
}

impl Step {
    /// The object, and its field, that the step follows from.
    pub(super) fn of(&mut self, object: &ObjectRef, field: &str) -> &mut Self {
        self.object = Some(object.into());
        self.field = Some(field.to_owned()).filter(|field| !field.is_empty());
        self
    }
}
