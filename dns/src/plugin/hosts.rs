//! `hosts`: names from a file in the form of `/etc/hosts`, and from the Corefile.
//!
//! The file is looked at every few seconds and read again when its time or size has changed. What was
//! read is shared by all workers of the process, because such files can be large (block lists): each
//! worker keeps a reference to the table, and asks for another when the table's version has changed.
//!
//! An exact name comes before a wildcard, and of wildcards (`*.example.org`) the one with most labels
//! counts. A name without an address of the type asked for has no data; one that is not known goes to
//! the next plugin if `fallthrough` says so, and fails otherwise, because there is no SOA record that
//! a denial could be made with.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use tokio_util::task::AbortOnDropHandle;

use crate::answer::{Answer, ExtendedError};
use crate::chain::Local;
use crate::config::HostsSettings;
use crate::message::Question;
use crate::metrics::Metrics;
use crate::record::{RData, Record};
use crate::zone::reverse;

mod source;
mod table;

use source::Source;
use table::Table;

/// The plugin on one worker.
#[derive(Debug)]
pub(crate) struct Hosts {
    settings: HostsSettings,
    source: Arc<Source>,
    _follower: Option<AbortOnDropHandle<()>>,
    version: Cell<u64>,
    table: RefCell<Arc<Table>>,
}

impl Hosts {
    /// Reads the file, unless another worker has read it already.
    /// Followed from then on, if there is a runtime.
    pub(crate) fn new(settings: &HostsSettings, metrics: &Metrics) -> Self {
        let source = Source::shared(settings, metrics);
        let runtime = tokio::runtime::Handle::try_current().ok();
        let is_followed = !settings.reload.is_zero() && settings.file.is_some();
        let follower = runtime.filter(|_| is_followed).map(|runtime| {
            let source = Arc::downgrade(&source);
            AbortOnDropHandle::new(runtime.spawn(follow(source, settings.reload)))
        });
        Self {
            settings: settings.clone(),
            _follower: follower,
            version: Cell::new(source.version.load(Ordering::Acquire)),
            table: RefCell::new(source.table()),
            source,
        }
    }

    /// The answer from the table.
    pub(crate) fn answer(&self, question: &Question) -> Local {
        self.update();
        let table = self.table.borrow();
        let is_own = self
            .settings
            .zones
            .iter()
            .any(|zone| question.name.is_within(zone));
        if question.record_type == RecordType::PTR {
            let addr = reverse::address(&question.name);
            let names = addr.map_or(&[][..], |addr| table.names(addr));
            // Zones of addresses need not be among the plugin's.
            return match names {
                [] => Local::Pass,
                names => self.found(question, names.iter().cloned().map(RData::Ptr)),
            };
        }
        if !is_own {
            return Local::Pass;
        }
        match table.addresses(&question.name) {
            Some(addrs) => {
                let wants = |addr: &&IpAddr| match question.record_type {
                    RecordType::A => addr.is_ipv4(),
                    RecordType::AAAA => addr.is_ipv6(),
                    _ => false,
                };
                let addrs = addrs.iter().filter(wants);
                self.found(
                    question,
                    addrs.map(|addr| match addr {
                        IpAddr::V4(addr) => RData::A(*addr),
                        IpAddr::V6(addr) => RData::Aaaa(*addr),
                    }),
                )
            }
            None if self.settings.fallthrough.allows(&question.name) => Local::Pass,
            None => Local::Done(Answer::code(
                ResponseCode::ServFail,
                Some(ExtendedError {
                    code: 0,
                    text: "the name is not in hosts, and there is no fallthrough".into(),
                }),
            )),
        }
    }

    fn found(&self, question: &Question, data: impl Iterator<Item = RData>) -> Local {
        let mut answer = Answer::local(ResponseCode::NoError);
        let record = |data| Record {
            name: question.name.clone(),
            ttl: self.settings.ttl,
            data,
        };
        answer.answers = data.map(record).collect();
        Local::Done(answer)
    }

    /// Takes the newest table.
    fn update(&self) {
        let version = self.source.version.load(Ordering::Acquire);
        if version != self.version.replace(version) {
            *self.table.borrow_mut() = self.source.table();
        }
    }
}

/// Looks at the file until nobody needs it. Reading happens on a thread for such things.
async fn follow(source: Weak<Source>, period: Duration) {
    loop {
        tokio::time::sleep(period).await;
        let Some(source) = source.upgrade() else {
            return;
        };
        // It ends early only if the runtime does.
        let _ = tokio::task::spawn_blocking(move || source.refresh()).await;
    }
}

#[cfg(test)]
mod tests;
