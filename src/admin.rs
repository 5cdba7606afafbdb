//! The admin listener: liveness, readiness, metrics and a look inside, over plain HTTP/1.1.
//!
//! Two things can be changed, from this machine only: the log level and whether the process runs.
//! A request that a browser sends for a page of somebody else's is refused, whatever it asks for.
//! It runs beside the data plane, on the threads for control work.

mod change;
mod debug;
mod histograms;
mod listener;
mod metrics;
mod pages;
mod readiness;

#[cfg(test)]
mod tests;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use http::header::{ACCEPT, ACCEPT_ENCODING, ALLOW, ORIGIN};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode};
use hyper::body::Incoming;
use tokio_util::sync::CancellationToken;

pub(crate) use listener::{Answer, accept, answer};
pub(crate) use metrics::{
    Exposition, MetricsHandle, answer as metrics_answer, install as install_metrics,
};
pub(crate) use pages::{Pages, Scope};
pub(crate) use readiness::{Pending, Readiness};

/// Serves until `stop`.
///
/// # Errors
/// The listener cannot be used.
pub(crate) async fn serve(
    listeners: Vec<(TcpListener, Scope)>,
    pages: Pages,
    stop: CancellationToken,
) -> std::io::Result<()> {
    metrics::describe(pages.mode);
    let upkeep = metrics::upkeep(pages.metrics.clone());
    let pages = Arc::new(pages);
    let accepting = listeners.into_iter().map(|(listener, scope)| {
        let listener = tokio::net::TcpListener::from_std(listener);
        let pages = Arc::clone(&pages);
        async move {
            let respond = move |request, peer| {
                let pages = Arc::clone(&pages);
                async move { respond(&pages, scope, request, peer).await }
            };
            accept(listener?, respond).await;
            Ok(())
        }
    });
    let serving = futures_util::future::try_join_all(accepting);
    tokio::select! {
        served = serving => served.map(drop),
        () = upkeep => Ok(()),
        () = stop.cancelled() => Ok(()),
    }
}

async fn respond(
    pages: &Pages,
    scope: Scope,
    request: Request<Incoming>,
    peer: SocketAddr,
) -> Answer {
    if is_of_another_site(request.headers()) {
        return answer(StatusCode::FORBIDDEN, "not for other sites' pages\n");
    }
    let uri = request.uri();
    if let Some(change) = change::Change::at(uri.path()).filter(|_| scope == Scope::All) {
        return change.respond(request, peer).await;
    }
    if request.method() != Method::GET {
        return only(HeaderValue::from_static("GET"));
    }
    if uri.path() == "/metrics" {
        let headers = request.headers();
        let exposition = Exposition::wanted(headers.get(ACCEPT), headers.get(ACCEPT_ENCODING));
        return metrics::answer(&pages.metrics, exposition);
    }
    let page = pages.get(scope, uri.path(), uri.query().unwrap_or_default());
    let mut answer = answer(page.status, page.body);
    let media_type = HeaderValue::from_static(page.media_type);
    let headers = answer.headers_mut();
    headers.insert(http::header::CONTENT_TYPE, media_type);
    answer
}

/// The path is there, the method is not.
fn only(allowed: HeaderValue) -> Answer {
    let mut refused = answer(
        StatusCode::METHOD_NOT_ALLOWED,
        format!("{} only\n", allowed.to_str().unwrap_or_default()),
    );
    refused.headers_mut().insert(ALLOW, allowed);
    refused
}

/// A browser says so. Without this any page that somebody on this machine looks at could ask us to
/// shut down.
fn is_of_another_site(headers: &HeaderMap) -> bool {
    const SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
    let site = headers.get(SITE);
    headers.contains_key(ORIGIN) || site.is_some_and(|site| site != "none" && site != "same-origin")
}
