//! The zones that are answered from the snapshot.

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use sealane_config::Snapshot;

use crate::answer::Answer;
use crate::name::Name;
use crate::rcode::{LocalFailure, local_failure};
use crate::record::{RData, Record, Soa};
use crate::settings::DnsSettings;

mod cluster;
mod endpoint;
mod nameserver;
pub(crate) mod reverse;

/// One step of a lookup.
#[derive(Clone, Copy)]
pub(crate) struct Lookup<'a> {
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) settings: &'a DnsSettings,
    pub(crate) name: &'a Name,
    pub(crate) record_type: RecordType,
}

/// What a zone says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// This is the answer.
    Done(Answer),
    /// The name stands for another one.
    Alias(Name),
    /// The name is of this zone, but cannot be answered now.
    Stop(Answer),
    /// Ask the next zone.
    NotMine,
}

/// A zone, in the order in which they are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Zone {
    /// Services and pods below the cluster's domain.
    Cluster,
    /// Names of addresses.
    Reverse,
}

impl Zone {
    pub(crate) const CHAIN: [Self; 2] = [Self::Cluster, Self::Reverse];

    pub(crate) fn find(self, lookup: &Lookup<'_>) -> Found {
        match self {
            Self::Cluster => cluster::find(lookup),
            Self::Reverse => reverse::find(lookup),
        }
    }
}

impl Lookup<'_> {
    /// The SOA record of a zone, named as the client typed it. Its serial is the time of the last
    /// change; a negative answer may be kept as long as a positive one, at most five minutes.
    fn soa(&self, zone: &Name) -> Record {
        let ttl = self.settings.ttl;
        let below = |labels: &[&str]| {
            let name = Name::prepend(labels.iter().copied(), zone);
            name.unwrap_or_else(|| zone.clone())
        };
        Record {
            name: zone.clone(),
            ttl: ttl.min(MAX_SOA_TTL),
            data: RData::Soa(Box::new(Soa {
                mname: below(&["ns", "dns"]),
                rname: below(&["hostmaster"]),
                serial: self.snapshot.changed_at as u32,
                refresh: 7200,
                retry: 1800,
                expire: 86_400,
                minimum: ttl,
            })),
        }
    }

    /// The name exists, without records of this type.
    fn no_data(&self, zone: &Name) -> Found {
        Found::Done(self.no_data_of(zone))
    }

    /// The same as an answer.
    pub(crate) fn no_data_of(&self, zone: &Name) -> Answer {
        let mut answer = Answer::local(ResponseCode::NoError);
        answer.authority.push(self.soa(zone));
        answer
    }

    /// The name is not known: it goes on to the next plugin, or does not exist. As long as not
    /// everything was listed, nobody can know that, and the next plugin's NXDOMAIN would be
    /// remembered.
    fn missing(&self, zone: &Name) -> Found {
        let goes_on = || self.settings.fallthrough.allows(self.name);
        if !self.snapshot.synced {
            if self.settings.compat_coredns && goes_on() {
                return Found::NotMine;
            }
            let soa = self.soa(zone);
            return Found::Stop(local_failure(LocalFailure::NotSynced, Some(soa)));
        }
        if goes_on() {
            return Found::NotMine;
        }
        let soa = self.soa(zone);
        let mut answer = Answer::local(ResponseCode::NXDomain);
        answer.authority.push(soa);
        Found::Done(answer)
    }

    /// These records, or none of this type if there are none.
    fn records(&self, zone: &Name, records: Vec<Record>) -> Found {
        if records.is_empty() {
            return self.no_data(zone);
        }
        let mut answer = Answer::local(ResponseCode::NoError);
        answer.answers = records;
        Found::Done(answer)
    }

    /// A record that is owned by the name as typed.
    fn record(&self, data: RData) -> Record {
        Record {
            name: self.name.clone(),
            ttl: self.settings.ttl,
            data,
        }
    }

    /// A and AAAA queries: whether the address is of the family asked for.
    fn wants(&self, addr: std::net::IpAddr) -> bool {
        match self.record_type {
            RecordType::A => addr.is_ipv4(),
            RecordType::AAAA => addr.is_ipv6(),
            _ => false,
        }
    }
}

/// Seconds for which an SOA record may be kept at most.
const MAX_SOA_TTL: u32 = 300;
