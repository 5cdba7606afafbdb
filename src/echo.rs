//! `sealane echo`: the demo workload (image `sealane/echo:*`).
//!
//! Answers every request with what it saw and who it is, over HTTP/1.1 and HTTP/2 with prior
//! knowledge. `/healthz` and `/readyz` answer probes and can be switched off and on over HTTP;
//! `?status=` and `?delay=` shape any other answer. With `--udp` it answers datagrams, too.

mod datagrams;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use serde_json::json;
use tokio::net::TcpListener;

/// Largest request body that is read; more is answered with 413.
const MAX_BODY: usize = 64 * 1024;

/// Longest delay that `?delay=` can ask for.
const MAX_DELAY: Duration = Duration::from_secs(60);

/// How long requests in flight may take after SIGTERM.
const DRAIN: Duration = Duration::from_secs(20);

/// Options of `sealane echo`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct EchoOptions {
    /// Port to listen on
    #[arg(long, env = "PORT", default_value_t = 8000)]
    port: u16,
    /// Port on which datagrams are answered, too
    #[arg(long, env = "UDP_PORT", value_name = "PORT")]
    udp: Option<u16>,
    /// Address to listen on (POD_IP where pods share the host's network)
    #[arg(long, env = "POD_IP", default_value_t = IpAddr::V4(Ipv4Addr::UNSPECIFIED))]
    address: IpAddr,
    /// Seconds after start until /readyz says yes
    #[arg(long, default_value_t = 0.0)]
    ready_after: f64,
}

/// Who answers, and whether it says that it is well.
struct Workload {
    pod: String,
    image: String,
    healthy: AtomicBool,
    ready: AtomicBool,
}

impl Workload {
    /// The tag of its image.
    fn tag(&self) -> &str {
        self.image.rsplit_once(':').map_or("", |(_, tag)| tag)
    }
}

/// Runs the workload until SIGTERM or SIGINT, then finishes what is in flight.
///
/// # Errors
/// The address cannot be bound.
pub(crate) async fn run(options: EchoOptions) -> anyhow::Result<()> {
    let address = SocketAddr::new(options.address, options.port);
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}"))?;
    let datagrams = match options.udp {
        Some(port) => Some(datagrams::bind(SocketAddr::new(options.address, port)).await?),
        None => None,
    };
    let workload = Arc::new(Workload {
        pod: host_name(),
        image: std::env::var("SEALANE_IMAGE").unwrap_or_else(|_unset| "sealane/echo".to_owned()),
        healthy: AtomicBool::new(true),
        ready: AtomicBool::new(options.ready_after <= 0.0),
    });
    tracing::info!(%address, pod = workload.pod, image = workload.image, "listening");
    if options.ready_after > 0.0 {
        let workload = Arc::clone(&workload);
        let after = Duration::try_from_secs_f64(options.ready_after).unwrap_or(MAX_DELAY);
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            workload.ready.store(true, Ordering::Relaxed);
        });
    }
    if let Some(datagrams) = datagrams {
        let workload = Arc::clone(&workload);
        tokio::spawn(async move { datagrams::serve(datagrams, &workload).await });
    }
    serve(listener, workload).await;
    Ok(())
}

/// The pod's name: `HOSTNAME`, which the node agent sets, else the kernel's host name.
fn host_name() -> String {
    std::env::var("HOSTNAME").unwrap_or_else(|_unset| {
        rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .into_owned()
    })
}

async fn serve(listener: TcpListener, workload: Arc<Workload>) {
    let mut server = auto::Builder::new(TokioExecutor::new());
    server.http1().timer(TokioTimer::new());
    server.http2().timer(TokioTimer::new());
    let graceful = GracefulShutdown::new();
    let mut stop = std::pin::pin!(crate::signal::terminated());
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _peer)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "accept failed");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                }
            },
            () = &mut stop => break,
        };
        let _ = stream.set_nodelay(true);
        let workload = Arc::clone(&workload);
        let service = service_fn(move |request| answer(Arc::clone(&workload), request));
        let connection = server
            .serve_connection(TokioIo::new(stream), service)
            .into_owned();
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(error, "connection ended");
            }
        });
    }
    drop(listener);
    if tokio::time::timeout(DRAIN, graceful.shutdown())
        .await
        .is_err()
    {
        tracing::warn!("requests were still in flight at the end of the grace period");
    }
}

async fn answer(
    workload: Arc<Workload>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    let (probe, switch) = match path.split_once('/').map_or("", |(_, rest)| rest) {
        "healthz" => (&workload.healthy, None),
        "readyz" => (&workload.ready, None),
        "healthz/on" => (&workload.healthy, Some(true)),
        "healthz/off" => (&workload.healthy, Some(false)),
        "readyz/on" => (&workload.ready, Some(true)),
        "readyz/off" => (&workload.ready, Some(false)),
        _ => return Ok(echo(&workload, request).await),
    };
    if let Some(on) = switch {
        if request.method() != Method::PUT && request.method() != Method::POST {
            return Ok(text(
                StatusCode::METHOD_NOT_ALLOWED,
                "use PUT to switch a probe\n",
            ));
        }
        probe.store(on, Ordering::Relaxed);
        return Ok(text(StatusCode::OK, if on { "on\n" } else { "off\n" }));
    }
    Ok(if probe.load(Ordering::Relaxed) {
        text(StatusCode::OK, "ok\n")
    } else {
        text(StatusCode::SERVICE_UNAVAILABLE, "switched off\n")
    })
}

async fn echo(workload: &Workload, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let query: BTreeMap<&str, &str> = head
        .uri
        .query()
        .unwrap_or_default()
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .collect();
    let Ok(body) = Limited::new(body, MAX_BODY).collect().await else {
        return text(StatusCode::PAYLOAD_TOO_LARGE, "the body is over 64 KiB\n");
    };
    if let Some(delay) = query.get("delay").copied().and_then(parse_delay) {
        tokio::time::sleep(delay.min(MAX_DELAY)).await;
    }
    let status = query
        .get("status")
        .and_then(|code| code.parse().ok())
        .and_then(|code: u16| StatusCode::from_u16(code).ok())
        .filter(|status| status.as_u16() >= 200)
        .unwrap_or(StatusCode::OK);
    let mut headers: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (name, value) in &head.headers {
        headers
            .entry(name.as_str())
            .or_default()
            .push(String::from_utf8_lossy(value.as_bytes()).into_owned());
    }
    let seen = json!({
        "pod": workload.pod,
        "image": workload.image,
        "tag": workload.tag(),
        "protocol": format!("{:?}", head.version),
        "method": head.method.as_str(),
        "path": head.uri.path(),
        "query": head.uri.query().unwrap_or_default(),
        "headers": headers,
        "body": String::from_utf8_lossy(&body.to_bytes()),
    });
    let mut response = Response::new(Full::from(format!("{seen:#}\n")));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static("application/json"),
    );
    if let Ok(pod) = header::HeaderValue::from_str(&workload.pod) {
        headers.insert("x-pod", pod);
    }
    response
}

/// A number of milliseconds, or a number with `ms` or `s` behind it.
fn parse_delay(text: &str) -> Option<Duration> {
    let (number, unit) = if let Some(number) = text.strip_suffix("ms") {
        (number, 0.001)
    } else if let Some(number) = text.strip_suffix('s') {
        (number, 1.0)
    } else {
        (text, 0.001)
    };
    Duration::try_from_secs_f64(number.parse::<f64>().ok()? * unit).ok()
}

fn text(status: StatusCode, body: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_are_read_with_and_without_unit() {
        for (text, expected) in [
            ("250", Some(Duration::from_millis(250))),
            ("250ms", Some(Duration::from_millis(250))),
            ("1.5s", Some(Duration::from_millis(1500))),
            ("-1s", None),
            ("soon", None),
        ] {
            assert_eq!(parse_delay(text), expected, "{text}");
        }
    }
}
