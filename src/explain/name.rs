//! A DNS name: which names a pod's resolver tries, which zone has each, what is answered or who is
//! asked instead.

use std::sync::Arc;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use sealane_config::Snapshot;
use sealane_config::model::{ObjectRef, ServiceKey, ServiceKind};
use sealane_dns::answer::Answer;
use sealane_dns::lookup::{self, Outcome as Found, Said, Zone};
use sealane_dns::message::Question;
use sealane_dns::{DnsConfig, DnsSettings, Name};

use super::model::{Explanation, Mark, Outcome, Phase, Trail};
use super::query::{DEFAULT_NAMESPACE, NameQuery};

/// Dots from which on a name is tried as it stands first (`ndots`), as kubelet writes it.
const NDOTS: usize = 5;

/// Records that are named one by one.
const SHOWN: usize = 20;

/// Explains a query.
pub(crate) fn explain(
    snapshot: &Snapshot,
    resolver: Resolver<'_>,
    query: &NameQuery,
) -> Explanation {
    let mut trail = Trail::default();
    let text = format!("{} {}", query.name, query.record_type);
    let candidates = match candidates(resolver.config, query) {
        Ok(candidates) => candidates,
        Err(why) => {
            trail.step(Phase::Search, Mark::Failed, query.name.clone(), why.clone());
            return trail.end(text, Outcome::Error, None, why);
        }
    };
    let mut last = None;
    for (name, why) in candidates {
        trail.step(Phase::Search, Mark::Note, name.to_string(), why);
        let end = ask(&mut trail, snapshot, resolver, &name, query.record_type);
        let goes_on = end.outcome == Outcome::NotFound;
        last = Some(end);
        if !goes_on {
            break;
        }
    }
    let end = last.unwrap_or(End {
        outcome: Outcome::NotFound,
        summary: "there is no name to ask for".to_owned(),
    });
    trail.end(text, end.outcome, None, end.summary)
}

/// The DNS server that is asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Resolver<'a> {
    /// What it does.
    pub(crate) config: &'a DnsConfig,
    /// Its upstreams are in there; otherwise only the server itself knows them.
    pub(crate) knows_upstreams: bool,
}

/// What a query comes to.
struct End {
    outcome: Outcome,
    summary: String,
}

/// The names that are tried, in order, and why: as a pod's `/etc/resolv.conf` asks for.
fn candidates(config: &DnsConfig, query: &NameQuery) -> Result<Vec<(Name, String)>, String> {
    let typed: Name = query
        .name
        .parse()
        .map_err(|error| format!("`{}` is not a name: {error}", query.name))?;
    let is_absolute = query.name.ends_with('.');
    let asked_by_pod = query.from_namespace.is_some();
    if is_absolute {
        return Ok(vec![(
            typed,
            "it ends with a dot, so nothing is appended".to_owned(),
        )]);
    }
    let Some(settings) = config.kubernetes().next() else {
        let why = "as it stands: the DNS server has no cluster domain".to_owned();
        return Ok(vec![(typed, why)]);
    };
    let mut zones = settings.zones.iter();
    if !asked_by_pod && zones.any(|zone| typed.is_within(zone)) {
        return Ok(vec![(typed, "it is fully qualified".to_owned())]);
    }
    let namespace = query.from_namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE);
    let dots = query.name.matches('.').count();
    let mut names = Vec::new();
    let zone = settings.primary_zone().to_string();
    let zone = zone.trim_end_matches('.');
    for suffix in [
        format!("{namespace}.svc.{zone}"),
        format!("svc.{zone}"),
        zone.to_owned(),
    ] {
        // A name that becomes too long is not asked for.
        if let Ok(name) = format!("{}.{suffix}", query.name).parse() {
            names.push((
                name,
                format!("search {suffix}, of a pod in namespace {namespace}"),
            ));
        }
    }
    let as_it_stands = (
        typed,
        format!("as it stands: {dots} dots, ndots is {NDOTS}"),
    );
    if dots >= NDOTS {
        names.insert(0, as_it_stands);
    } else {
        names.push(as_it_stands);
    }
    Ok(names)
}

fn ask(
    trail: &mut Trail,
    snapshot: &Snapshot,
    resolver: Resolver<'_>,
    name: &Name,
    record_type: RecordType,
) -> End {
    let Some(block) = resolver.config.block_of(name) else {
        let why = "no server block has it: REFUSED";
        trail.step(Phase::Zone, Mark::Failed, name.to_string(), why);
        return End {
            outcome: Outcome::Error,
            summary: format!("REFUSED: {name} is not served"),
        };
    };
    let Some(settings) = &block.plugins.kubernetes else {
        return forwarded(trail, resolver, name);
    };
    let question = Question::new(name.clone(), record_type);
    let found = lookup::answer_observed(snapshot, settings, &question, |step| {
        let what = match step.zone {
            Zone::Cluster => format!("cluster zone {}", settings.primary_zone()),
            Zone::Reverse => "reverse zones".to_owned(),
        };
        let (mark, why) = match step.said {
            Said::NotMine => {
                let zones = match step.zone {
                    Zone::Cluster => &settings.zones,
                    Zone::Reverse => &settings.reverse_zones,
                };
                let why = match zones.iter().any(|zone| step.name.is_within(zone)) {
                    true => format!("{} is not known and falls through", step.name),
                    false => format!("{} is not below it", step.name),
                };
                (Mark::Rejected, why)
            }
            Said::Alias(target) => (Mark::Chosen, format!("{} stands for {target}", step.name)),
            Said::Answer(_) => (Mark::Chosen, format!("{} is below it", step.name)),
        };
        let service = service_of(settings, step.name).filter(|_| step.zone == Zone::Cluster);
        let step = trail.step(Phase::Zone, mark, what, why);
        if let Some(key) = service.filter(|key| snapshot.services.contains_key(key)) {
            step.of(&object(&key), "");
        }
    });
    match found {
        Found::Done(answer) | Found::Stop(answer) => {
            answered(trail, snapshot, settings, name, &answer, record_type)
        }
        Found::Alias { answer, target } => {
            records(trail, &answer);
            forwarded(trail, resolver, &target)
        }
        Found::NotMine => forwarded(trail, resolver, name),
    }
}

fn answered(
    trail: &mut Trail,
    snapshot: &Snapshot,
    settings: &DnsSettings,
    name: &Name,
    answer: &Answer,
    record_type: RecordType,
) -> End {
    match answer.rcode {
        ResponseCode::NoError if !answer.answers.is_empty() => {
            records(trail, answer);
            let count = answer.answers.len();
            let noun = if count == 1 { "record" } else { "records" };
            End {
                outcome: Outcome::Served,
                summary: format!("NOERROR: {count} {noun} for {name}"),
            }
        }
        ResponseCode::NoError => {
            let why = format!("the name exists and has no {record_type} record");
            trail.step(Phase::Record, Mark::Rejected, "NODATA", why);
            End {
                outcome: Outcome::NotFound,
                summary: format!("NODATA: {name} has no {record_type} record"),
            }
        }
        ResponseCode::NXDomain => {
            let why = absent(snapshot, settings, name);
            trail.step(Phase::Record, Mark::Rejected, "NXDOMAIN", why.clone());
            End {
                outcome: Outcome::NotFound,
                summary: format!("NXDOMAIN: {why}"),
            }
        }
        rcode => {
            let why = answer
                .error
                .as_ref()
                .map_or("no reason is given", |error| &error.text);
            let code = rcode.to_str();
            trail.step(Phase::Record, Mark::Failed, code, why);
            End {
                outcome: Outcome::Error,
                summary: format!("{code}: {why}"),
            }
        }
    }
}

fn records(trail: &mut Trail, answer: &Answer) {
    for record in answer.answers.iter().take(SHOWN) {
        let why = format!("may be kept for {} s", record.ttl);
        trail.step(Phase::Record, Mark::Chosen, record.to_string(), why);
    }
    if let Some(left @ 1..) = answer.answers.len().checked_sub(SHOWN) {
        trail.step(
            Phase::Record,
            Mark::Chosen,
            format!("{left} more records"),
            "",
        );
    }
}

fn forwarded(trail: &mut Trail, resolver: Resolver<'_>, name: &Name) -> End {
    if !resolver.knows_upstreams {
        let why = "no zone of ours has it; the DNS server asks the upstreams of its settings";
        trail.step(Phase::Forward, Mark::Chosen, name.to_string(), why);
        return End {
            outcome: Outcome::Served,
            summary: format!("{name} is forwarded to the upstreams of the DNS server"),
        };
    }
    let forward = resolver.config.block_of(name).and_then(|block| {
        let mut forwards = block.plugins.forward.iter();
        forwards.find(|forward| forward.takes(name))
    });
    let mut upstreams: Vec<String> = Vec::new();
    if let Some(forward) = forward {
        upstreams.extend(forward.upstreams.iter().map(ToString::to_string));
        let files = forward.files.iter();
        upstreams.extend(files.map(|file| format!("those of {}", file.display())));
    }
    if upstreams.is_empty() {
        let why = "no zone of ours has it, and no upstream is configured: SERVFAIL";
        trail.step(Phase::Forward, Mark::Failed, name.to_string(), why);
        return End {
            outcome: Outcome::Error,
            summary: format!("SERVFAIL: nobody can be asked for {name}"),
        };
    }
    let list = upstreams.join(", ");
    let why = format!("no zone of ours has it; asked: {list}");
    trail.step(Phase::Forward, Mark::Chosen, name.to_string(), why);
    End {
        outcome: Outcome::Served,
        summary: format!("{name} is forwarded to {list}"),
    }
}

fn object(key: &ServiceKey) -> ObjectRef {
    ObjectRef {
        kind: "Service",
        namespace: Arc::clone(&key.namespace),
        name: Arc::clone(&key.name),
    }
}

/// The labels of a name left of the cluster's domain, in lower case.
fn left_of_zone(settings: &DnsSettings, name: &Name) -> Option<Vec<String>> {
    let (left, _) = name.split_longest_zone(&settings.zones)?;
    let lower = name.to_lowercase();
    let labels = lower.labels().take(left);
    Some(
        labels
            .map(|label| String::from_utf8_lossy(label).into_owned())
            .collect(),
    )
}

/// The Service that a name of the form `…SERVICE.NAMESPACE.svc.ZONE` is about.
fn service_of(settings: &DnsSettings, name: &Name) -> Option<ServiceKey> {
    let labels = left_of_zone(settings, name)?;
    let [.., service, namespace, kind] = labels.as_slice() else {
        return None;
    };
    (kind == "svc").then(|| ServiceKey {
        namespace: namespace.as_str().into(),
        name: service.as_str().into(),
    })
}

/// Why a name of the cluster's zone does not exist.
fn absent(snapshot: &Snapshot, settings: &DnsSettings, name: &Name) -> String {
    let labels = left_of_zone(settings, name).unwrap_or_default();
    let Some(key) = service_of(settings, name) else {
        return match labels.as_slice() {
            [.., namespace, kind] if matches!(kind.as_str(), "svc" | "pod") => {
                format!("there is no namespace {namespace}")
            }
            _ => "names here end in NAMESPACE.svc or NAMESPACE.pod".to_owned(),
        };
    };
    if !snapshot.namespaces.contains_key(&key.namespace) {
        return format!("there is no namespace {}", key.namespace);
    }
    let Some(service) = snapshot.services.get(&key) else {
        return format!("namespace {} has no Service {}", key.namespace, key.name);
    };
    let ready = service
        .endpoints
        .iter()
        .filter(|endpoint| endpoint.ready)
        .count();
    let below = labels.len() > 3;
    match &service.kind {
        ServiceKind::Headless if ready == 0 => {
            let all = service.endpoints.len();
            format!("Service {key} is headless and none of its {all} endpoints is ready")
        }
        ServiceKind::ExternalName(_) if below => {
            format!("Service {key} is an alias and has no names below it")
        }
        _ if below => format!("Service {key} has no such port, and no ready endpoint of that name"),
        _ => format!("Service {key} has no address"),
    }
}
