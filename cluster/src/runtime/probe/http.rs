//! `httpGet`: good is 200–399; redirects on the same host are followed, one to another host is a
//! success that is warned about; certificates are not verified.

use std::sync::Arc;
use std::time::Duration;

use ::http::header::{ACCEPT, CONNECTION, HOST, LOCATION, USER_AGENT};
use ::http::{HeaderName, HeaderValue, Response, Uri};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::{Attempt, connect, lookup, tls};

/// Most redirects that are followed.
const MAX_REDIRECTS: usize = 10;

/// By this name programs know that a probe asks.
const AGENT: &str = concat!("kube-probe/", env!("CARGO_PKG_VERSION"));

/// What to ask.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) tls: bool,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) path: String,
    pub(super) headers: Vec<(String, String)>,
}

impl Request {
    fn target(&self) -> String {
        if self.path.starts_with('/') {
            self.path.clone()
        } else {
            format!("/{}", self.path)
        }
    }

    fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    fn url(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}{}", self.authority(), self.target())
    }
}

/// Asks, following redirects, all of it within `limit`.
pub(super) async fn probe(request: &Request, limit: Duration) -> Attempt {
    match timeout(limit, follow(request.clone(), limit)).await {
        Ok(attempt) => attempt,
        Err(_elapsed) => Attempt::Failure(format!(
            "Get \"{}\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)",
            request.url()
        )),
    }
}

async fn follow(mut request: Request, limit: Duration) -> Attempt {
    let host = request.host.clone();
    for _ in 0..=MAX_REDIRECTS {
        let response = match send(&request, limit).await {
            Ok(response) => response,
            Err(message) => {
                return Attempt::Failure(format!("Get \"{}\": {message}", request.url()));
            }
        };
        let status = response.status();
        let location = response.headers().get(LOCATION);
        match location.and_then(|location| location.to_str().ok()) {
            Some(location) if status.is_redirection() && status != 304 => {
                match redirect(&request, location) {
                    Some(next) if next.host == host => request = next,
                    Some(_) => {
                        return Attempt::Warning(format!(
                            "Probe terminated redirects, Response body: {}",
                            status.canonical_reason().unwrap_or_default()
                        ));
                    }
                    None => {
                        return Attempt::Failure(format!(
                            "Get \"{}\": failed to parse Location header {location:?}",
                            request.url()
                        ));
                    }
                }
            }
            _ if status.is_success() || status.is_redirection() => return Attempt::Success,
            _ => {
                let code = status.as_u16();
                return Attempt::Failure(format!("HTTP probe failed with statuscode: {code}"));
            }
        }
    }
    let url = request.url();
    Attempt::Failure(format!(
        "Get \"{url}\": stopped after {MAX_REDIRECTS} redirects"
    ))
}

fn redirect(from: &Request, location: &str) -> Option<Request> {
    let uri: Uri = location.parse().ok()?;
    let mut next = from.clone();
    if let Some(authority) = uri.authority() {
        next.tls = uri.scheme_str() == Some("https");
        next.host = authority.host().trim_matches(['[', ']']).to_owned();
        let default = if next.tls { 443 } else { 80 };
        next.port = authority.port_u16().unwrap_or(default);
    }
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    next.path = if path.starts_with('/') {
        path.to_owned()
    } else {
        let target = from.target();
        let base = target.rsplit_once('/').map_or("", |(base, _)| base);
        format!("{base}/{path}")
    };
    Some(next)
}

async fn send(request: &Request, limit: Duration) -> Result<Response<Incoming>, String> {
    let address = match request.host.parse::<std::net::IpAddr>() {
        Ok(ip) => (ip, request.port).into(),
        Err(_name) => {
            let any = std::net::Ipv4Addr::UNSPECIFIED.into();
            lookup(Some(&request.host), any, request.port).await?
        }
    };
    let stream = connect(address, limit).await?;
    if !request.tls {
        return exchange(stream, request).await;
    }
    let name = ServerName::try_from(request.host.clone()).map_err(|error| error.to_string())?;
    let config = tls::unverified().map_err(|error| error.to_string())?;
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream);
    let stream = stream.await.map_err(|error| error.to_string())?;
    Box::pin(exchange(stream, request)).await
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: &Request,
) -> Result<Response<Incoming>, String> {
    let text = |error: hyper::Error| match error.is_incomplete_message() {
        true => "EOF".to_owned(),
        false => error.to_string(),
    };
    let message = build(request)?;
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.map_err(text)?;
    // The connection ends with this function: nobody reads the body.
    let mut connection = std::pin::pin!(connection);
    let mut answer = std::pin::pin!(sender.send_request(message));
    tokio::select! {
        biased;
        answer = &mut answer => answer.map_err(text),
        ended = &mut connection => match ended {
            Ok(()) => answer.await.map_err(text),
            Err(error) => Err(text(error)),
        },
    }
}

fn build(request: &Request) -> Result<::http::Request<String>, String> {
    let mut message = ::http::Request::get(request.target())
        .header(CONNECTION, "close")
        .body(String::new())
        .map_err(|error| error.to_string())?;
    let headers = message.headers_mut();
    for (name, value) in &request.headers {
        let name = HeaderName::try_from(name).map_err(|error| error.to_string())?;
        let value = HeaderValue::try_from(value).map_err(|error| error.to_string())?;
        headers.append(name, value);
    }
    let host = HeaderValue::try_from(request.authority()).map_err(|error| error.to_string())?;
    headers.entry(HOST).or_insert(host);
    let agent = HeaderValue::from_static(AGENT);
    headers.entry(USER_AGENT).or_insert(agent);
    let accept = HeaderValue::from_static("*/*");
    headers.entry(ACCEPT).or_insert(accept);
    Ok(message)
}
