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

use hickory_proto::op::ResponseCode;
use sealane_config::Snapshot;
use sealane_config::sockets::HostSockets;

use crate::answer::Answer;
use crate::answer::encode::{self, Transport};
use crate::answer::packed::{Packed, Serving};
use crate::autopath::Search;
use crate::cache::{Cache, Served};
use crate::config::ServerBlock;
use crate::forward::{Forward, ForwardError, ForwardPlan, ForwardPlans};
use crate::lookup::{self, Outcome};
use crate::message::{Query, Question};
use crate::metrics::labels::server_label;
use crate::metrics::{CacheMetrics, Metrics};
use crate::name::Name;
use crate::rcode::forward_failure;
use crate::resolver::{Cached, Fetch, Line, Resolver};
use crate::udp::Reuse;
use crate::wire::Malformed;

/// A server block's plugins with what they remember.
#[derive(Debug)]
pub(crate) struct Chain {
    block: Arc<ServerBlock>,
    plans: Vec<Arc<ForwardPlan>>,
    resolver: Resolver<Line>,
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
pub(crate) enum Local {
    /// This is the answer.
    Done(Answer),
    /// The aliases so far lead to a name that is not theirs.
    Alias(Answer, Name),
    /// None of them has the name.
    Pass,
}

/// What the plugins that ask others say.
pub(crate) enum Remote {
    /// This is the answer.
    Done(Served),
    /// This has to be asked; if that fails there is the other.
    Ask(Resolver<Line>, Fetch, Option<Served>),
    /// It cannot be asked.
    Failed(ForwardError),
}

/// An answer, found or fetched.
pub(crate) enum Reply {
    /// To be encoded.
    Plain(Answer),
    /// Encoded already; it is about the name of the query.
    Packed(Served),
}

impl Chain {
    pub(crate) fn new(
        block: Arc<ServerBlock>,
        sockets: &HostSockets,
        forwards: &ForwardPlans,
    ) -> Self {
        let plugins = &block.plugins;
        let plans: Vec<_> = plugins
            .forward
            .iter()
            .map(|line| forwards.of(line))
            .collect();
        let line =
            |plan: &Arc<ForwardPlan>| Line::new(Forward::new(Arc::clone(plan), sockets.clone()));
        let cache = plugins.cache.as_ref().map(|settings| {
            let server = block.keys.first().map(|key| server_label(key, None));
            let server = server.unwrap_or_default();
            let metrics = CacheMetrics::new(&Metrics::default(), &server, &settings.zones);
            Cache::new(settings.clone(), plugins.compat_coredns, metrics)
        });
        let resolver = Resolver::new(plans.iter().map(line).collect(), cache);
        Self {
            plans,
            resolver,
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
                Outcome::Done(answer) | Outcome::Stop(answer) => {
                    let from_snapshot = true;
                    return Local::Done(Answer {
                        from_snapshot,
                        ..answer
                    });
                }
                Outcome::Alias { answer, target } => return Local::Alias(answer, target),
                Outcome::NotMine => {}
            }
        }
        Local::Pass
    }

    /// The search path that a query is the start of, if it is followed here.
    pub(crate) fn search(&self, snapshot: &Snapshot, asked: &Asked) -> Option<Box<Search>> {
        let settings = self.block.plugins.autopath.as_ref()?;
        let (name, client) = (&asked.query.question.name, asked.client.ip());
        Search::new(settings, &snapshot.pods, name, client).map(Box::new)
    }

    /// The name is known to have an address of the family that is not asked for.
    pub(crate) fn has_other_address(&self, asked: &Asked, question: &Question) -> bool {
        self.resolver.has_other_address(&asked.query, question)
    }

    /// The plugins that ask others.
    pub(crate) fn forward(
        &self,
        query: &Query,
        question: &Question,
        client: IpAddr,
        transport: Transport,
    ) -> Remote {
        if !self.block.plugins.recursion.allows(client) {
            return Remote::Failed(ForwardError::NotAllowed);
        }
        if self.plans.iter().any(|plan| plan.came_back(question)) {
            return Remote::Failed(ForwardError::Looped);
        }
        if !self.resolver.takes(&question.name) {
            return Remote::Failed(ForwardError::NoUpstream);
        }
        match self.resolver.cached(query, question) {
            Cached::Hit(served) => Remote::Done(served),
            Cached::Miss(stale) => {
                let stream = transport != Transport::Udp;
                let fetch = Fetch::new(query, question, stream);
                Remote::Ask(self.resolver.clone(), fetch, stale)
            }
        }
    }

    /// Whether a reply may be given to the same query again: not if a plugin looks at the client,
    /// writes something down or has a state of its own.
    pub(crate) fn reuse(&self, reply: &Reply) -> Reuse {
        let Reply::Plain(answer) = reply else {
            return Reuse::No;
        };
        let plugins = &self.block.plugins;
        let is_sure = matches!(answer.rcode, ResponseCode::NoError | ResponseCode::NXDomain);
        let has_others = plugins.client_limit.is_some()
            || plugins.whoami
            || plugins.autopath.is_some()
            || plugins.hosts.is_some()
            || !plugins.acl.is_empty()
            || !plugins.log.is_empty()
            || !plugins.rewrite.is_empty()
            || !plugins.template.is_empty();
        match (
            answer.from_snapshot && is_sure && !has_others,
            plugins.loadbalance,
        ) {
            (false, _) => Reuse::No,
            (true, false) => Reuse::AsIs,
            (true, true) => Reuse::Shuffled,
        }
    }

    /// Appends the reply to `out`.
    pub(crate) fn conclude(&self, asked: &Asked, reply: Reply, out: &mut Vec<u8>) {
        let plugins = &self.block.plugins;
        let (query, transport) = (&asked.query, asked.transport);
        let mut answer = match reply {
            Reply::Plain(answer) => answer,
            Reply::Packed(Served {
                packed, serving, ..
            }) => {
                let shuffle = plugins.loadbalance;
                if self.serves_packed() && packed.reply(query, serving, shuffle, transport, out) {
                    return;
                }
                unpack(&packed, &query.question.name, serving)
            }
        };
        if plugins.loadbalance {
            answer.shuffle();
        }
        encode::reply(query, &answer, transport, out);
    }

    /// No plugin looks at the records of a reply.
    fn serves_packed(&self) -> bool {
        let plugins = &self.block.plugins;
        plugins.rewrite.is_empty() && !plugins.minimal
    }
}

/// The answer about `name`, or the failure that it cannot be read.
pub(crate) fn unpack(packed: &Packed, name: &Name, serving: Serving) -> Answer {
    let answer = packed.unpack(name, serving);
    answer.unwrap_or_else(|Malformed| forward_failure(ForwardError::BadReply))
}
