//! Plain requests, which the proxy relays without making a request of them: where they go, and what
//! their backends are told.

use std::rc::Rc;
use std::time::Duration;

use http::header::{ALT_SVC, STRICT_TRANSPORT_SECURITY};
use http::{HeaderValue, StatusCode, Version};
use sealane_proxy::admission::Place;
use sealane_proxy::http::{Front, OwnField, PlainHead, Route, Target, is_default};

use crate::client_auth;
use crate::decide::decide_plain;
use crate::filters::alternative;
use crate::filters::forwarded::Peer;
use crate::gateway::Inner;
use crate::matching;
use crate::metrics::RouteMetrics;

/// A client's connection.
#[derive(Clone)]
pub(crate) struct Plain {
    pub(crate) gateway: Rc<Inner>,
    pub(crate) peer: Rc<Peer>,
    pub(crate) place: Rc<Place>,
}

/// What was decided about a request.
pub(crate) struct PlainRoute {
    target: Target,
    hsts: Option<HeaderValue>,
    /// `Alt-Svc`.
    alternative: Option<HeaderValue>,
    metrics: Rc<RouteMetrics>,
}

impl Front for Plain {
    const STREAMS: bool = true;

    type Route = PlainRoute;

    fn route(&self, head: &PlainHead<'_>) -> Option<PlainRoute> {
        let Inner {
            reader,
            engine,
            metrics,
            ..
        } = &*self.gateway;
        if engine.access_log().is_some() {
            return None;
        }
        self.place.used();
        let (secure, snapshot) = (self.peer.secure, reader.load());
        let settings = &snapshot.gateway;
        // What a proxy says is read where there is a request to read it from, and a list is written
        // where there is one to write it into.
        if settings.proxies.believes(self.peer.ip) || settings.proxies.standard {
            return None;
        }
        let belongs = |host: &str| {
            let session = self.peer.session.as_deref();
            client_auth::belongs(&snapshot, host, None, session, head.version).is_ok()
        };
        if head.version == Version::HTTP_2 && !belongs(&matching::host_name(head.host)) {
            return None;
        }
        let decided = decide_plain(&snapshot, head.host, head.path(), secure, engine.balancer());
        let decided = decided.filter(|decided| is_default(&decided.target))?;
        Some(PlainRoute {
            metrics: metrics.route(Some(&decided.rule.source)),
            target: decided.target,
            hsts: decided.hsts,
            alternative: self
                .gateway
                .alternative
                .as_ref()
                .filter(|_| alternative::is_for(&self.peer, settings))
                .cloned(),
        })
    }

    fn passes(&self, name: &str) -> bool {
        !Peer::owns(name)
    }

    fn write_fields(&self, head: &PlainHead<'_>, out: &mut Vec<u8>) {
        let random = self.gateway.engine.balancer();
        self.peer
            .write_plain(head, || [random.random(), random.random()], out);
    }
}

impl Route for PlainRoute {
    fn target(&self) -> &Target {
        &self.target
    }

    fn answer_field(&self) -> Option<OwnField<'_>> {
        let hsts = self.hsts.as_ref()?;
        Some((STRICT_TRANSPORT_SECURITY.as_str(), hsts.as_bytes()))
    }

    fn added_field(&self) -> Option<OwnField<'_>> {
        let alternative = self.alternative.as_ref()?;
        Some((ALT_SVC.as_str(), alternative.as_bytes()))
    }

    fn answered(&self, status: StatusCode, elapsed: Duration) {
        self.metrics.answered(status, elapsed);
    }
}
