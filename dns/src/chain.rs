//! The plugins of a server block, on one worker.
//!
//! A query passes these stages; each is asked only if the block has the plugin. The order is
//! CoreDNS's, but for the cache: what is answered from memory has none in front of it.
//!
//! | stage | where | what comes of it |
//! |---|---|---|
//! | acl, any, chaos, rewrite | [`Chain::before`] | an answer, silence, another question, or on |
//! | template, hosts, kubernetes | [`Chain::local`] | an answer, an alias, or on |
//! | cache, forward | [`Chain::forward`] | an answer from the cache, or a wait for an upstream |
//! | whoami | [`Chain::last`] | an answer, if nobody else has one |
//! | rewrite, minimal, loadbalance | [`Chain::conclude`] | names as they were asked for, less of the answer, another order |
//! | prometheus, log, errors | [`Chain::conclude`] | counts and lines |
//!
//! A name that no plugin has is SERVFAIL, as with CoreDNS ("no next plugin found"); one that no
//! block has is REFUSED.

use std::cell::Cell;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use hickory_proto::op::ResponseCode;
use sealane_config::Snapshot;
use sealane_config::sockets::HostSockets;

use crate::answer::encode::{self, Transport};
use crate::answer::packed::{Packed, Serving};
use crate::answer::{Answer, ExtendedError};
use crate::autopath::Search;
use crate::cache::{Cache, Served};
use crate::config::{AclAction, ServerBlock};
use crate::forward::{Forward, ForwardError, ForwardPlan, ForwardPlans};
use crate::lookup::{self, Outcome};
use crate::message::{Edns, Query, Question, class};
use crate::metrics::labels::server_label;
use crate::metrics::{CacheMetrics, QueryMetrics, Writer};
use crate::name::Name;
use crate::observe::Observe;
use crate::plugin::hosts::Hosts;
use crate::plugin::rewrite::{Rewritten, rewrite};
use crate::plugin::template::Templates;
use crate::plugin::{acl, any, chaos, minimal, whoami};
use crate::rcode::forward_failure;
use crate::resolver::{Cached, Fetch, Line, Resolver};
use crate::udp::Reuse;
use crate::wire::Malformed;

mod report;

use report::Report;

/// A server block's plugins with what they remember.
#[derive(Debug)]
pub(crate) struct Chain {
    block: Arc<ServerBlock>,
    plans: Vec<Arc<ForwardPlan>>,
    templates: Templates,
    hosts: Option<Hosts>,
    /// What `chaos` calls this machine.
    host_name: String,
    report: Report,
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
    /// Its length.
    pub(crate) request_size: usize,
    /// When it came.
    pub(crate) started: Instant,
    /// What it is after `rewrite`, if that changed anything.
    pub(crate) rewritten: Option<Box<(Query, Rewritten)>>,
    /// The plugin that has answered.
    pub(crate) writer: Cell<Writer>,
    /// Where it is counted.
    pub(crate) counts: Rc<QueryMetrics>,
}

impl Asked {
    /// What is looked up.
    pub(crate) fn rewritten(&self) -> &Query {
        let rewritten = self.rewritten.as_ref();
        rewritten.map_or(&self.query, |rewritten| &rewritten.0)
    }
}

/// What the plugins say that come before a name is looked up.
pub(crate) enum Before {
    /// This is the answer.
    Done(Answer),
    /// There is to be none.
    Silence,
    /// The name is to be looked up.
    Pass,
}

/// What the plugins that answer from memory say.
#[derive(Clone, Debug, PartialEq, Eq)]
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

impl Reply {
    /// The code, for answers that may be given again.
    pub(crate) fn rcode(&self) -> Option<ResponseCode> {
        match self {
            Self::Plain(answer) => Some(answer.rcode),
            Self::Packed(_) => None,
        }
    }
}

impl Chain {
    pub(crate) fn new(
        block: Arc<ServerBlock>,
        sockets: &HostSockets,
        forwards: &ForwardPlans,
        observe: &Observe,
    ) -> Self {
        let plugins = &block.plugins;
        let templates = Templates::new(&plugins.template).unwrap_or_else(|error| {
            // Reading a Corefile has checked them.
            tracing::error!(block = block.place, %error, "templates are left out");
            Templates::default()
        });
        let hosts = plugins.hosts.as_ref();
        let hosts = hosts.map(|settings| Hosts::new(settings, &observe.metrics));
        let host_name = nix::unistd::gethostname().ok();
        let host_name = host_name.and_then(|name| name.into_string().ok());
        let report = Report::new(plugins, observe);
        let plans: Vec<_> = plugins
            .forward
            .iter()
            .map(|line| forwards.of(line, &observe.metrics))
            .collect();
        let line =
            |plan: &Arc<ForwardPlan>| Line::new(Forward::new(Arc::clone(plan), sockets.clone()));
        let cache = plugins.cache.as_ref().map(|settings| {
            let addr = block.bind.first().copied();
            let key = block.keys.first();
            let server = key.map(|key| server_label(key.scheme, addr, key.port));
            let server = server.unwrap_or_default();
            let metrics = CacheMetrics::new(&observe.metrics, &server, &settings.zones);
            Cache::new(settings.clone(), plugins.compat_coredns, metrics)
        });
        let resolver = Resolver::new(plans.iter().map(line).collect(), cache);
        Self {
            plans,
            templates,
            hosts,
            host_name: host_name.unwrap_or_else(|| "localhost".to_owned()),
            report,
            resolver,
            block,
        }
    }

    pub(crate) fn block(&self) -> &Arc<ServerBlock> {
        &self.block
    }

    /// Answers are to be CoreDNS's also where that departs from an RFC.
    pub(crate) fn is_compatible(&self) -> bool {
        self.block.plugins.compat_coredns
    }

    /// The plugins that come before a name is looked up.
    pub(crate) fn before(&self, asked: &mut Asked) -> Before {
        let plugins = &self.block.plugins;
        let question = &asked.query.question;
        if !plugins.acl.is_empty() {
            let action = acl::decide(&plugins.acl, question, asked.client.ip());
            asked.counts.acl(action);
            asked.writer.set(Writer::Acl);
            match acl::reply(action) {
                Some(answer) => return Before::Done(answer),
                None if action == AclAction::Drop => return Before::Silence,
                None => {}
            }
        }
        if plugins.any
            && let Some(answer) = any::answer(question)
        {
            asked.writer.set(Writer::Any);
            return Before::Done(answer);
        }
        if question.class == class::CH {
            asked.writer.set(Writer::Chaos);
            let settings = plugins.chaos.as_ref();
            let answer = settings.and_then(|it| chaos::answer(it, &self.host_name, question));
            return Before::Done(answer.unwrap_or_else(|| {
                asked.writer.set(Writer::Server);
                Answer::code(ResponseCode::Refused, None)
            }));
        }
        asked.writer.set(Writer::Server);
        if plugins.rewrite.is_empty() {
            return Before::Pass;
        }
        match rewrite(&plugins.rewrite, question) {
            Ok(rewritten) => {
                asked.rewritten = rewritten.map(|rewritten| {
                    let mut query = asked.query.clone();
                    query.question = rewritten.question.clone();
                    Box::new((query, rewritten))
                });
                Before::Pass
            }
            Err(error) => {
                let error = ExtendedError {
                    code: 0,
                    text: error.to_string().into(),
                };
                Before::Done(Answer::code(ResponseCode::ServFail, Some(error)))
            }
        }
    }

    /// The plugins that answer from memory.
    pub(crate) fn local(&self, snapshot: &Snapshot, asked: &Asked, question: &Question) -> Local {
        if !self.block.plugins.template.is_empty() {
            let said = self.templates.answer(question, asked.client.ip());
            if said.is_match {
                asked.counts.template(question);
            }
            if said.local != Local::Pass {
                asked.writer.set(Writer::Template);
                return said.local;
            }
        }
        if let Some(hosts) = &self.hosts {
            let found = hosts.answer(question);
            if found != Local::Pass {
                asked.writer.set(Writer::Hosts);
                return found;
            }
        }
        if let Some(settings) = &self.block.plugins.kubernetes {
            let outcome = lookup::answer(snapshot, settings, question);
            if !matches!(outcome, Outcome::NotMine) {
                asked.writer.set(Writer::Kubernetes);
            }
            match outcome {
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
        let (name, client) = (&asked.rewritten().question.name, asked.client.ip());
        Search::new(settings, &snapshot.pods, name, client).map(Box::new)
    }

    /// The name is known to have an address of the family that is not asked for.
    pub(crate) fn has_other_address(&self, asked: &Asked, question: &Question) -> bool {
        self.resolver.has_other_address(asked.rewritten(), question)
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

    /// Puts into an OPT record what the block says of itself (`bufsize`, `nsid`).
    pub(crate) fn describe(&self, edns: &mut Edns) {
        let plugins = &self.block.plugins;
        edns.our_size = plugins.bufsize;
        if edns.wants_nsid {
            edns.nsid.clone_from(&plugins.nsid);
        }
    }

    /// The plugin that is asked when no other one has the name.
    pub(crate) fn last(&self, asked: &Asked) -> Option<Answer> {
        self.block.plugins.whoami.then(|| {
            asked.writer.set(Writer::Whoami);
            let question = &asked.rewritten().question;
            whoami::answer(question, asked.client, asked.transport.is_udp())
        })
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

    /// Appends the reply to `out`, and reports it.
    pub(crate) fn conclude(&self, asked: &Asked, reply: Reply, out: &mut Vec<u8>) {
        let plugins = &self.block.plugins;
        let (query, transport) = (&asked.query, asked.transport);
        let start = out.len();
        let writer = self.last_writer(asked);
        let mut answer = match reply {
            Reply::Plain(answer) => answer,
            Reply::Packed(Served {
                packed, serving, ..
            }) => {
                let shuffle = plugins.loadbalance;
                let is_enough = self.serves_packed(asked, packed.rcode());
                if is_enough && packed.reply(query, serving, shuffle, transport, out) {
                    let reply = &out[start..];
                    self.report.count(asked, packed.rcode(), reply, writer);
                    return;
                }
                unpack(&packed, &asked.rewritten().question.name, serving)
            }
        };
        if let Some(rewritten) = &asked.rewritten {
            rewritten.1.undo(&mut answer);
        }
        if plugins.minimal {
            minimal::minimize(&mut answer);
        }
        if plugins.loadbalance {
            answer.shuffle();
        }
        encode::reply(query, &answer, transport, out);
        self.report.record(asked, &answer, &out[start..], writer);
    }

    /// No plugin looks at the records of a reply with this code.
    fn serves_packed(&self, asked: &Asked, rcode: ResponseCode) -> bool {
        let is_changed = asked.rewritten.is_some() || self.block.plugins.minimal;
        !is_changed && !self.report.looks_inside(rcode)
    }

    /// The last plugin that a reply goes through on its way out in CoreDNS, which is the one that it
    /// is put down to.
    pub(crate) fn last_writer(&self, asked: &Asked) -> Writer {
        let plugins = &self.block.plugins;
        match asked.writer.get() {
            early @ (Writer::Server | Writer::Acl | Writer::Any | Writer::Chaos) => early,
            _ if plugins.loadbalance => Writer::Loadbalance,
            _ if plugins.cache.is_some() => Writer::Cache,
            _ if asked.rewritten.is_some() => Writer::Rewrite,
            _ if plugins.minimal => Writer::Minimal,
            origin => origin,
        }
    }
}

/// The answer about `name`, or the failure that it cannot be read.
pub(crate) fn unpack(packed: &Packed, name: &Name, serving: Serving) -> Answer {
    let answer = packed.unpack(name, serving);
    answer.unwrap_or_else(|Malformed| forward_failure(ForwardError::BadReply))
}
