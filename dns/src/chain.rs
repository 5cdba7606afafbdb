//! The plugins of a server block, on one worker.
//!
//! A query passes these stages; each is asked only if the block has the plugin. The order is
//! CoreDNS's, but for the cache: what is answered from memory has none in front of it.
//!
//! | stage | where | what comes of it |
//! |---|---|---|
//! | acl, rewrite | `Front::start` before the walk; rewrites are undone in [`Chain::conclude`] | an answer, silence, another question, or on |
//! | template, hosts, kubernetes | [`Chain::local`] | an answer, an alias, or on |
//! | cache, forward | [`Chain::forward`] | an answer from the cache, or a wait for an upstream |
//! | loadbalance | [`Chain::conclude`] | another order of the answer |
//!
//! A name that no plugin has is SERVFAIL, as with CoreDNS ("no next plugin found"); one that no
//! block has is REFUSED.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use sealane_config::Snapshot;
use sealane_config::sockets::HostSockets;

use crate::answer::Answer;
use crate::answer::encode::{self, Transport};
use crate::cache::Key;
use crate::config::{ForwardSettings, ServerBlock, Upstream};
use crate::forward::{ForwardError, Forwarder};
use crate::lookup::{self, Outcome};
use crate::message::{Query, Question};
use crate::resolv_conf::upstreams_from_resolv_conf;

/// A server block's plugins with what they remember.
#[derive(Debug)]
pub(crate) struct Chain {
    block: Arc<ServerBlock>,
    forwards: Vec<(Arc<ForwardSettings>, Forwarder)>,
}

/// A query on its way.
#[derive(Debug)]
pub(crate) struct Asked {
    /// As it came.
    pub(crate) query: Query,
    /// Who asks.
    pub(crate) client: SocketAddr,
    /// Over what.
    pub(crate) transport: Transport,
}

/// What the plugins that answer from memory say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Local {
    /// This is the answer.
    Done(Answer),
    /// The aliases so far lead to a name that is not theirs.
    Alias(Answer, crate::Name),
    /// None of them has the name.
    Pass,
}

/// What the plugins that ask others say.
pub(crate) enum Remote {
    /// This is the answer.
    Done(Answer),
    /// This has to be asked.
    Ask(Forwarder, Key),
    /// It cannot be asked.
    Failed(ForwardError),
}

impl Chain {
    pub(crate) fn new(block: Arc<ServerBlock>, sockets: &HostSockets) -> Self {
        let forwards = block.plugins.forward.iter().map(|settings| {
            let forwarder = Forwarder::new(sockets.clone(), &upstreams(settings));
            (Arc::clone(settings), forwarder)
        });
        Self {
            forwards: forwards.collect(),
            block,
        }
    }

    pub(crate) fn block(&self) -> &Arc<ServerBlock> {
        &self.block
    }

    /// The plugins that answer from memory.
    pub(crate) fn local(&self, snapshot: &Snapshot, question: &Question) -> Local {
        if let Some(settings) = &self.block.plugins.kubernetes {
            match lookup::answer(snapshot, settings, question) {
                Outcome::Done(answer) | Outcome::Stop(answer) => return Local::Done(answer),
                Outcome::Alias { answer, target } => return Local::Alias(answer, target),
                Outcome::NotMine => {}
            }
        }
        Local::Pass
    }

    /// The plugins that ask others.
    pub(crate) fn forward(&self, query: &Query, question: &Question, client: IpAddr) -> Remote {
        if !self.block.plugins.recursion.allows(client) {
            return Remote::Failed(ForwardError::NotAllowed);
        }
        let mut forwards = self.forwards.iter();
        let Some((_, forwarder)) = forwards.find(|(settings, _)| settings.takes(&question.name))
        else {
            return Remote::Failed(ForwardError::NoUpstream);
        };
        let key = Key {
            name: question.name.to_lowercase(),
            record_type: question.record_type,
            dnssec_ok: query.dnssec_ok(),
            checking_disabled: query.checking_disabled(),
        };
        match forwarder.cached(&key) {
            Some(cached) => Remote::Done(cached),
            None => Remote::Ask(forwarder.clone(), key),
        }
    }

    /// Appends the reply to `out`.
    pub(crate) fn conclude(&self, asked: &Asked, mut answer: Answer, out: &mut Vec<u8>) {
        if self.block.plugins.loadbalance {
            answer.shuffle();
        }
        encode::reply(&asked.query, &answer, asked.transport, out);
    }
}

/// The addresses of plain upstreams, those that files name included.
fn upstreams(settings: &ForwardSettings) -> Vec<SocketAddr> {
    let plain = settings
        .upstreams
        .iter()
        .filter_map(|upstream| match upstream {
            Upstream::Plain(addr) => Some(*addr),
            Upstream::Tls(addr, _) | Upstream::Https(addr, _) => {
                tracing::warn!(%addr, "upstreams over TLS are not asked");
                None
            }
        });
    let mut addrs: Vec<SocketAddr> = plain.collect();
    for file in &settings.files {
        let text = std::fs::read_to_string(file).unwrap_or_else(|error| {
            tracing::warn!(file = %file.display(), %error, "cannot read upstreams");
            String::new()
        });
        addrs.extend(upstreams_from_resolv_conf(&text, &[]));
    }
    addrs
}
