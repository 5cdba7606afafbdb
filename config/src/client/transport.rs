//! How bytes get to the API server: directly or through a proxy, TLS, HTTP/2 or HTTP/1.1 as
//! negotiated; and what every request carries.

use http::{Request, Response, Uri};
use hyper::rt::{Read, Write};
use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::proxy::{SocksV5, Tunnel};
use hyper_util::client::legacy::connect::{Connection, HttpConnector};
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use kube::client::{Body, ConfigExt as _};
use kube::{Config, Error, Result};
use rustls_pki_types::ServerName;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Service, ServiceBuilder};

use super::LinkOptions;
use super::dial::MarkedConnector;
use super::lanes::{Lanes, Stream};

/// Sends requests with one set of credentials. Clones share connections.
pub(super) type Transport = BoxCloneSyncService<Request<Body>, Response<Stream>, BoxError>;

/// Reads credentials and certificates; blocks while an exec plugin runs.
pub(super) fn set_up(config: &Config, link: LinkOptions) -> Result<Transport> {
    if let Some(mark) = link.mark {
        return set_up_over(config, link, MarkedConnector::new(mark, link.interval));
    }
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_keepalive(Some(link.interval));
    set_up_over(config, link, tcp)
}

/// The same on connections that `tcp` makes.
fn set_up_over<C>(config: &Config, link: LinkOptions, tcp: C) -> Result<Transport>
where
    C: Service<Uri> + Clone + Send + Sync + 'static,
    C::Response: Connection + Read + Write + Send + Unpin + 'static,
    C::Future: Send + 'static,
    C::Error: std::error::Error + Send + Sync + 'static,
{
    let Some(proxy) = proxy(config) else {
        return transport(config, link, tcp);
    };
    let (uri, authorization) = (proxy.uri().clone(), proxy.basic_auth().cloned());
    match uri.scheme_str() {
        Some("http") => {
            let mut tunnel = Tunnel::new(uri, tcp);
            if let Some(authorization) = authorization {
                tunnel = tunnel.with_auth(authorization);
            }
            transport(config, link, tunnel)
        }
        Some("socks5") => {
            let mut socks = SocksV5::new(uri, tcp);
            if let Some((user, password)) = proxy.raw_auth() {
                socks = socks.with_auth(user.to_owned(), password.to_owned());
            }
            transport(config, link, socks)
        }
        _ => Err(Error::ProxyProtocolUnsupported {
            proxy_url: Box::new(uri),
        }),
    }
}

/// The proxy on the way to the server: `proxy-url` of the kubeconfig or `HTTPS_PROXY`, unless
/// `NO_PROXY` names the server.
fn proxy(config: &Config) -> Option<Intercept> {
    let exceptions = ["NO_PROXY", "no_proxy"].map(std::env::var);
    let exceptions = exceptions.into_iter().flatten().find(|it| !it.is_empty());
    proxy_unless(config, &exceptions.unwrap_or_default())
}

pub(super) fn proxy_unless(config: &Config, exceptions: &str) -> Option<Intercept> {
    let proxy = config.proxy_url.as_ref()?;
    if exceptions.trim() == "*" {
        return None;
    }
    let matcher = Matcher::builder().all(proxy.to_string()).no(exceptions);
    matcher.build().intercept(&config.cluster_url)
}

/// What every request carries, on connections that `connector` makes.
fn transport<C>(config: &Config, link: LinkOptions, connector: C) -> Result<Transport>
where
    C: Service<Uri> + Clone + Send + Sync + 'static,
    C::Response: Connection + Read + Write + Send + Unpin + 'static,
    C::Future: Send + 'static,
    C::Error: Into<BoxError>,
{
    let lanes = Lanes::new(https(config, connector)?, link);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .service(lanes);
    Ok(Transport::new(service))
}

/// TLS with our certificate, if we have one, and ALPN for both versions of HTTP.
fn https<C>(config: &Config, connector: C) -> Result<HttpsConnector<C>> {
    let tls = config.rustls_client_config()?;
    let mut builder = HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_or_http();
    if let Some(name) = config.tls_server_name.clone() {
        let name = ServerName::try_from(name).map_err(|error| Error::Service(error.into()))?;
        builder = builder.with_server_name_resolver(FixedServerNameResolver::new(name));
    }
    Ok(builder.enable_all_versions().wrap_connector(connector))
}
