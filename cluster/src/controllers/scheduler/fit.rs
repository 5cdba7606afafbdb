//! Which nodes a pod may run on, as a pure function.
//!
//! Rules: the node is ready and not cordoned; `nodeSelector` and the required node affinity match
//! (the terms are alternatives, the expressions of one term all have to match); every taint with
//! effect NoSchedule or NoExecute is tolerated. Requests are not weighed against capacity: pods of
//! the embedded cluster are processes of one machine.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    Node, NodeSelectorRequirement, NodeSelectorTerm, Pod, Taint, Toleration,
};
use kube::ResourceExt;

/// Taint of a cordoned node; a pod that tolerates it may still be placed there.
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// Why a pod does not fit on a node; the text is the one that users know.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Misfit {
    /// The node is not ready.
    NotReady,
    /// The node is cordoned.
    Unschedulable,
    /// `nodeSelector` or node affinity.
    Affinity,
    /// A taint, `key: value`.
    Taint(String),
}

impl Misfit {
    fn text(&self) -> String {
        match self {
            Self::NotReady => "node(s) were not ready".to_owned(),
            Self::Unschedulable => "node(s) were unschedulable".to_owned(),
            Self::Affinity => "node(s) didn't match Pod's node affinity/selector".to_owned(),
            Self::Taint(taint) => format!("node(s) had untolerated taint {{{taint}}}"),
        }
    }
}

/// The node with the fewest pods on which this one fits, or why there is none.
pub(super) fn choose(
    pod: &Pod,
    nodes: &[Arc<Node>],
    pods_on: impl Fn(&str) -> usize,
) -> Result<String, String> {
    if nodes.is_empty() {
        return Err("no nodes available to schedule pods".to_owned());
    }
    let mut reasons: BTreeMap<Misfit, usize> = BTreeMap::new();
    let mut fitting = Vec::new();
    for node in nodes {
        match misfit(pod, node) {
            None => fitting.push(node.name_any()),
            Some(misfit) => *reasons.entry(misfit).or_default() += 1,
        }
    }
    fitting
        .into_iter()
        .min_by_key(|name| (pods_on(name), name.clone()))
        .ok_or_else(|| {
            let reasons: Vec<String> = reasons
                .iter()
                .map(|(misfit, count)| format!("{count} {}", misfit.text()))
                .collect();
            format!(
                "0/{} nodes are available: {}.",
                nodes.len(),
                reasons.join(", ")
            )
        })
}

fn misfit(pod: &Pod, node: &Node) -> Option<Misfit> {
    let spec = node.spec.as_ref();
    let tolerations = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.tolerations.as_deref());
    let tolerations = tolerations.unwrap_or_default();
    let cordoned = spec.and_then(|spec| spec.unschedulable).unwrap_or(false);
    let cordon = Taint {
        key: UNSCHEDULABLE.to_owned(),
        effect: "NoSchedule".to_owned(),
        ..Taint::default()
    };
    if cordoned && !is_tolerated(&cordon, tolerations) {
        return Some(Misfit::Unschedulable);
    }
    if !is_ready(node) {
        return Some(Misfit::NotReady);
    }
    if !matches_affinity(pod, node) {
        return Some(Misfit::Affinity);
    }
    let taints = spec.and_then(|spec| spec.taints.as_ref());
    taints
        .into_iter()
        .flatten()
        .filter(|taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute"))
        .find(|taint| !is_tolerated(taint, tolerations))
        .map(|taint| {
            Misfit::Taint(format!(
                "{}: {}",
                taint.key,
                taint.value.as_deref().unwrap_or("")
            ))
        })
}

fn is_ready(node: &Node) -> bool {
    let conditions = node
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref());
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// API reference, `Toleration`: no key with `Exists` tolerates everything, no effect every effect.
fn is_tolerated(taint: &Taint, tolerations: &[Toleration]) -> bool {
    tolerations.iter().any(|toleration| {
        let effect = toleration.effect.as_deref().unwrap_or_default();
        let key = toleration.key.as_deref().unwrap_or_default();
        let exists = toleration.operator.as_deref() == Some("Exists");
        let value = toleration.value.as_deref().unwrap_or_default();
        (effect.is_empty() || effect == taint.effect)
            && (key == taint.key || key.is_empty() && exists)
            && (exists || value == taint.value.as_deref().unwrap_or_default())
    })
}

fn matches_affinity(pod: &Pod, node: &Node) -> bool {
    let Some(spec) = &pod.spec else { return true };
    let labels = node.labels();
    let selector = spec.node_selector.iter().flatten();
    if !selector
        .into_iter()
        .all(|(name, value)| labels.get(name) == Some(value))
    {
        return false;
    }
    let required = spec
        .affinity
        .as_ref()
        .and_then(|affinity| affinity.node_affinity.as_ref())
        .and_then(|affinity| {
            affinity
                .required_during_scheduling_ignored_during_execution
                .as_ref()
        });
    required.is_none_or(|required| {
        required
            .node_selector_terms
            .iter()
            .any(|term| matches_term(term, node))
    })
}

/// A term without any expression matches nothing.
fn matches_term(term: &NodeSelectorTerm, node: &Node) -> bool {
    let by_label = term.match_expressions.as_deref().unwrap_or_default();
    let by_field = term.match_fields.as_deref().unwrap_or_default();
    let name = node.name_any();
    !(by_label.is_empty() && by_field.is_empty())
        && by_label
            .iter()
            .all(|rule| matches(rule, node.labels().get(&rule.key).map(String::as_str)))
        && by_field
            .iter()
            .all(|rule| matches(rule, (rule.key == "metadata.name").then_some(name.as_str())))
}

fn matches(rule: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = rule.values.as_deref().unwrap_or_default();
    let listed = value.is_some_and(|value| values.iter().any(|other| other == value));
    let number = || {
        value?
            .parse::<i64>()
            .ok()
            .zip(values.first()?.parse::<i64>().ok())
    };
    match rule.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => number().is_some_and(|(own, bound)| own > bound),
        "Lt" => number().is_some_and(|(own, bound)| own < bound),
        _ => false,
    }
}
