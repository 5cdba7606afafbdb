//! Plain requests, which the proxy relays without making a request of them: where they go, and what
//! their backends are told.

use std::rc::Rc;
use std::time::Duration;

use http::StatusCode;
use sealane_proxy::admission::Place;
use sealane_proxy::http::{Front, PlainHead, Route, Target, is_default};

use crate::decide::decide_plain;
use crate::filters::forwarded::Peer;
use crate::gateway::Inner;
use crate::metrics::RouteMetrics;

/// A client's connection.
pub(crate) struct Plain {
    pub(crate) gateway: Rc<Inner>,
    pub(crate) peer: Rc<Peer>,
    pub(crate) place: Rc<Place>,
}

/// What was decided about a request.
pub(crate) struct PlainRoute {
    target: Target,
    metrics: Rc<RouteMetrics>,
}

impl Front for Plain {
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
        let secure = self.peer.secure;
        let decided = decide_plain(
            &reader.load(),
            head.host,
            head.path(),
            secure,
            engine.balancer(),
        );
        let (rule, target) = decided.filter(|(_, target)| is_default(target))?;
        Some(PlainRoute {
            target,
            metrics: metrics.route(Some(&rule.source)),
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

    fn answered(&self, status: StatusCode, elapsed: Duration) {
        self.metrics.answered(status, elapsed);
    }
}
