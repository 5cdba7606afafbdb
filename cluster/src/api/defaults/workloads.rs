//! Defaults of workloads: the apps and batch groups and ReplicationControllers.

use serde_json::{Value, json};

use super::{Fields, filled, is, pod, set};
use crate::api::json::{ensure_map, maps_mut};

pub(super) fn apply(kind: &str, fields: &mut Fields) {
    if kind == "Job" {
        labels_from_template(fields);
    }
    let Some(spec) = ensure_map(fields, "spec") else {
        return;
    };
    match kind {
        "Deployment" => deployment(spec),
        "ReplicaSet" => set(spec, "replicas", 1),
        "StatefulSet" => stateful_set(spec),
        "DaemonSet" => daemon_set(spec),
        "Job" => job(spec),
        "CronJob" => return cron_job(spec),
        _ => return,
    }
    template(spec);
}

fn template(spec: &mut Fields) {
    if let Some(template) = ensure_map(spec, "template") {
        pod::template(template);
    }
}

fn deployment(spec: &mut Fields) {
    set(spec, "replicas", 1);
    set(spec, "revisionHistoryLimit", 10);
    set(spec, "progressDeadlineSeconds", 600);
    if let Some(strategy) = ensure_map(spec, "strategy") {
        set(strategy, "type", "RollingUpdate");
        if is(strategy, "type", "RollingUpdate")
            && let Some(rolling) = ensure_map(strategy, "rollingUpdate")
        {
            set(rolling, "maxUnavailable", "25%");
            set(rolling, "maxSurge", "25%");
        }
    }
}

fn stateful_set(spec: &mut Fields) {
    set(spec, "replicas", 1);
    set(spec, "revisionHistoryLimit", 10);
    set(spec, "podManagementPolicy", "OrderedReady");
    if let Some(strategy) = ensure_map(spec, "updateStrategy") {
        if !strategy.contains_key("type") {
            set(strategy, "type", "RollingUpdate");
            set(strategy, "rollingUpdate", json!({}));
        }
        if is(strategy, "type", "RollingUpdate")
            && let Some(Value::Object(rolling)) = strategy.get_mut("rollingUpdate")
        {
            set(rolling, "partition", 0);
        }
    }
    if let Some(retention) = ensure_map(spec, "persistentVolumeClaimRetentionPolicy") {
        set(retention, "whenDeleted", "Retain");
        set(retention, "whenScaled", "Retain");
    }
    for claim in maps_mut(spec, "volumeClaimTemplates") {
        super::volume(claim, None);
    }
}

fn daemon_set(spec: &mut Fields) {
    set(spec, "revisionHistoryLimit", 10);
    if let Some(strategy) = ensure_map(spec, "updateStrategy") {
        set(strategy, "type", "RollingUpdate");
        if is(strategy, "type", "RollingUpdate")
            && let Some(rolling) = ensure_map(strategy, "rollingUpdate")
        {
            set(rolling, "maxUnavailable", 1);
            set(rolling, "maxSurge", 0);
        }
    }
}

fn job(spec: &mut Fields) {
    // Without both it is a job for one pod; with parallelism alone it is a work queue.
    if !spec.contains_key("parallelism") {
        set(spec, "completions", 1);
    }
    set(spec, "parallelism", 1);
    let per_index = spec.contains_key("backoffLimitPerIndex");
    set(spec, "backoffLimit", if per_index { i32::MAX } else { 6 });
    set(spec, "completionMode", "NonIndexed");
    set(spec, "suspend", false);
    set(spec, "manualSelector", false);
    let policy = match spec.get_mut("podFailurePolicy") {
        Some(Value::Object(policy)) => {
            for rule in maps_mut(policy, "rules") {
                maps_mut(rule, "onPodConditions").for_each(|c| set(c, "status", "True"));
            }
            "Failed"
        }
        _ => "TerminatingOrFailed",
    };
    set(spec, "podReplacementPolicy", policy);
}

fn cron_job(spec: &mut Fields) {
    set(spec, "concurrencyPolicy", "Allow");
    set(spec, "suspend", false);
    set(spec, "successfulJobsHistoryLimit", 3);
    set(spec, "failedJobsHistoryLimit", 1);
    // Only the pod template: the rest of a job gets its defaults when the job is made.
    if let Some(job) = ensure_map(spec, "jobTemplate")
        && let Some(spec) = ensure_map(job, "spec")
    {
        template(spec);
    }
}

pub(super) fn replication_controller(fields: &mut Fields) {
    labels_from_template(fields);
    let Some(spec) = ensure_map(fields, "spec") else {
        return;
    };
    set(spec, "replicas", 1);
    if let Some(labels) = template_labels(spec)
        && !filled(spec, "selector")
    {
        spec.insert("selector".to_owned(), labels);
    }
    template(spec);
}

fn labels_from_template(fields: &mut Fields) {
    let labels = fields
        .get("spec")
        .and_then(Value::as_object)
        .and_then(template_labels);
    if let Some(labels) = labels
        && let Some(metadata) = ensure_map(fields, "metadata")
        && !filled(metadata, "labels")
    {
        metadata.insert("labels".to_owned(), labels);
    }
}

fn template_labels(spec: &Fields) -> Option<Value> {
    spec.get("template")?
        .pointer("/metadata/labels")
        .filter(|labels| labels.is_object())
        .cloned()
}
