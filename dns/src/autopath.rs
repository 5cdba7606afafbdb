//! `autopath @kubernetes`: the search path of a pod is followed here instead of by the pod.
//!
//! A pod that means `www.example.com` asks for `www.example.com.NAMESPACE.svc.ZONE` first, and for
//! the next name of its search path each time that there is none. The namespace in the name says which
//! pod's search path that can be the start of, so all of it is tried at the first question.
//!
//! Rules:
//! - Only for a client whose address is that of one pod, not of a node, in the namespace that the name
//!   says. An address that another pod had until a moment ago leads to the ordinary answer at worst:
//!   the name that its new owner asks for has the new owner's namespace.
//! - The path is NAMESPACE.svc.ZONE, svc.ZONE, ZONE, the node's own path, and the name as it stands.
//! - It ends at the first name that exists, whatever the type: a name without AAAA records is as good
//!   an end for AAAA as it is for A, so that both lead to the same name (RFC 4074). Some upstreams say
//!   of such a name that it does not exist; that is not believed if it is known to have an address.
//! - It ends at a failure, too: going on would find another name than the one that is meant.
//! - The answer is an alias from the name that was asked for to the one that was found, with what was
//!   found. It is made for each query and kept nowhere.
//! - If there is none at all, the answer is the one for the first name.

use std::net::IpAddr;

use hickory_proto::op::ResponseCode;
use sealane_config::model::Pods;

use crate::answer::Answer;
use crate::config::AutopathSettings;
use crate::name::Name;
use crate::record::{RData, Record};

/// A search path on its way.
#[derive(Debug)]
pub(crate) struct Search {
    /// Names that are still to be tried, the next one last.
    left: Vec<Name>,
    /// The name that is tried.
    current: Name,
    /// The name that was asked for, and its answer once that has turned out not to exist.
    asked: Name,
    first: Option<Answer>,
}

impl Search {
    /// The search path that a question is the start of.
    pub(crate) fn new(
        settings: &AutopathSettings,
        pods: &Pods,
        name: &Name,
        client: IpAddr,
    ) -> Option<Self> {
        let (left, zone) = name.split_longest_zone(&settings.zones)?;
        // At least one label, the namespace and `svc`.
        let base = left.checked_sub(2).filter(|base| *base > 0)?;
        let mut labels = name.labels().skip(base);
        let (namespace, svc) = (labels.next()?, labels.next()?);
        if !svc.eq_ignore_ascii_case(b"svc") {
            return None;
        }
        let [pod] = &**pods.get(&client.to_canonical())? else {
            return None;
        };
        if pod.host_network || !namespace.eq_ignore_ascii_case(pod.namespace.as_bytes()) {
            return None;
        }
        let services = name.without_labels(base + 1);
        let root = Name::root();
        let host = settings.host_search.iter();
        let path = [&services, &zone].into_iter().chain(host).chain([&root]);
        let mut left: Vec<Name> = path.filter_map(|suffix| name.onto(base, suffix)).collect();
        left.reverse();
        Some(Self {
            left,
            current: name.clone(),
            asked: name.clone(),
            first: None,
        })
    }

    /// The name that is to be looked up now.
    pub(crate) fn name(&self) -> &Name {
        &self.current
    }

    /// The name does not exist. Goes on to the next one; at the end returns the answer for the first.
    pub(crate) fn next(&mut self, missing: Answer) -> Option<Answer> {
        let first = self.first.get_or_insert(missing);
        match self.left.pop() {
            Some(next) => {
                self.current = next;
                None
            }
            None => Some(first.clone()),
        }
    }

    /// The answer with the alias that leads to it.
    pub(crate) fn finish(&self, mut answer: Answer) -> Answer {
        if self.first.is_none() || !is_found(&answer) {
            return answer;
        }
        let records = answer.answers.iter().chain(&answer.authority);
        let ttl = records.map(|record| record.ttl).min().unwrap_or(0);
        let alias = Record {
            name: self.asked.clone(),
            ttl,
            data: RData::Cname(self.current.clone()),
        };
        answer.answers.insert(0, alias);
        // AA is about the first name of the answer (RFC 1035 section 4.1.1).
        answer.authoritative = true;
        answer.authentic = false;
        answer
    }
}

/// The name exists.
fn is_found(answer: &Answer) -> bool {
    answer.rcode == ResponseCode::NoError
}

#[cfg(test)]
mod tests;
