//! TLS connections that go to a backend as they come (ingress-nginx `ssl-passthrough`).

use sealane_config::model::RouteRule;
use sealane_proxy::http::Target;
use sealane_proxy::tcp::{Ends, reset};
use tokio::net::TcpStream;

use crate::decide;
use crate::gateway::Inner;

/// Relays a connection to a backend of the rule. `hello` is what was read of it.
///
/// It takes no notice of the gateway's end: there is no place in a stream of somebody else's bytes
/// where it could be ended without harm.
pub(crate) async fn serve(
    gateway: &Inner,
    stream: TcpStream,
    hello: Vec<u8>,
    rule: &RouteRule,
    ends: Ends,
) {
    match target(gateway, rule) {
        Ok(target) => {
            gateway
                .passthrough
                .serve(stream, hello, ends, &target)
                .await
        }
        Err(error) => {
            tracing::debug!(%error, source = %rule.source, "no backend for a connection");
            reset(&stream);
        }
    }
}

fn target(gateway: &Inner, rule: &RouteRule) -> Result<Target, sealane_proxy::Error> {
    decide::draw(
        &gateway.reader.load(),
        rule,
        true,
        gateway.engine.balancer(),
    )
}
