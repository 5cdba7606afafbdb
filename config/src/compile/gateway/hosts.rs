//! Hosts into the snapshot: those that have rules, then the names that come from them.

use std::collections::HashSet;

use super::Gateway;
use crate::Snapshot;
use crate::compile::host_certificate::CertificateChoice;
use crate::compile::host_routes::{CompiledHost, HostCompiler, Source};
use crate::compile::problems::{Problems, Unit};
use crate::compile::rank::SourceKey;
use crate::model::HostMatch;

impl Gateway {
    /// Compiles these hosts, and the names that they have besides; returns how many that are.
    pub(super) fn build_hosts(
        &self,
        mut dirty: HashSet<HostMatch>,
        compiler: &HostCompiler<'_>,
        snapshot: &mut Snapshot,
        problems: &mut Problems,
    ) -> usize {
        let further: Vec<HostMatch> = dirty.iter().flat_map(|h| self.names_beside(h)).collect();
        dirty.extend(further);
        let (own, further): (Vec<_>, Vec<_>) = dirty.iter().partition(|host| self.has_rules(host));
        for host in own {
            let sources = self.of_host(host);
            let before = snapshot.routes.get(host).map(AsRef::as_ref);
            let mut compiled = compiler.host(host, &sources, before);
            compiler.not_further(host, &sources, &mut compiled.problems);
            put(host, compiled, snapshot, problems);
        }
        for name in further {
            let compiled = self.further(name, compiler, snapshot);
            put(name, compiled, snapshot, problems);
        }
        dirty.len()
    }

    /// A name that no rule has.
    fn further(
        &self,
        name: &HostMatch,
        compiler: &HostCompiler<'_>,
        snapshot: &Snapshot,
    ) -> CompiledHost {
        let mut problems = Vec::new();
        let naming = self.of_host(name);
        let further = compiler.further(name, &naming, |host| self.of_host(host), &mut problems);
        let found = further.and_then(|it| Some((snapshot.routes.get(it.host())?, it)));
        let Some((routes, further)) = found else {
            let before = snapshot.routes.get(name).map(AsRef::as_ref);
            let mut compiled = compiler.host(name, &naming, before);
            compiled.problems.append(&mut problems);
            return compiled;
        };
        let owners = self.of_host(further.host());
        compiler.further_host(name, &further, routes, (&naming, &owners), problems)
    }

    /// The objects that name a host, the oldest first.
    fn of_host(&self, host: &HostMatch) -> Vec<Source<'_>> {
        let ages = self.index.of_host(host);
        ages.map_or_else(Vec::new, |ages| self.records(ages))
    }

    fn has_rules(&self, host: &HostMatch) -> bool {
        let ages = self.index.of_host(host).into_iter().flatten();
        let mut records = ages.filter_map(|age| self.record(&age.source));
        records.any(|record| record.has_rule_for(host))
    }

    /// Hosts of objects that have one name redirected to another.
    pub(super) fn redirecting_hosts(&self) -> Vec<HostMatch> {
        let is_redirecting = |source: &SourceKey| {
            let names = self.record(source).and_then(|it| it.policy.names.as_ref());
            names.is_some_and(|names| names.www)
        };
        let redirecting = self
            .index
            .iter()
            .filter(|(source, _)| is_redirecting(source));
        redirecting
            .flat_map(|(_, it)| it.hosts.iter().cloned())
            .collect()
    }

    fn names_beside(&self, host: &HostMatch) -> Vec<HostMatch> {
        let ages = self.index.of_host(host).into_iter().flatten();
        let records = ages.filter_map(|age| self.record(&age.source));
        records
            .flat_map(|record| record.names_beside(host))
            .collect()
    }
}

fn put(host: &HostMatch, compiled: CompiledHost, snapshot: &mut Snapshot, problems: &mut Problems) {
    snapshot.routes.set(host, compiled.routes.map(Into::into));
    match compiled.certificate {
        CertificateChoice::None => snapshot.certificates.set(host, None),
        CertificateChoice::Use(it) => snapshot.certificates.set(host, Some(it)),
        CertificateChoice::KeepFrom(secret) => {
            // What another namespace has configured is not this one's to go on with.
            let kept = snapshot.certificates.get(host);
            if kept.is_some_and(|kept| kept.source.namespace != secret.namespace) {
                snapshot.certificates.set(host, None);
            }
        }
    }
    problems.set(Unit::Host(host.clone()), compiled.problems);
}
