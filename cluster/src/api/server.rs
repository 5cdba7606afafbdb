//! The service: one request in, one answer out.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::Value;

use super::body::ApiBody;
use super::path::{self, ResourcePath, Target};
use super::query::Query;
use super::status::ApiError;
use super::{Store, discovery, kinds::Subresource, openapi, review};
use crate::api::ServiceCidr;
use crate::streams::PodStreams;

/// Largest request body (T9).
pub(crate) const BODY_LIMIT: usize = 3 * 1024 * 1024;

/// Time a client has to send its body.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What `GET /version` says.
#[derive(Clone, Debug)]
pub struct VersionInfo {
    /// Such as `1`.
    pub major: String,
    /// Such as `34`.
    pub minor: String,
    /// Such as `v1.34.4+sealane`.
    pub git_version: String,
}

impl Default for VersionInfo {
    /// The Kubernetes version whose behaviour is implemented.
    fn default() -> Self {
        Self {
            major: "1".to_owned(),
            minor: "34".to_owned(),
            git_version: concat!("v1.34.4+sealane.", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }
}

/// How the server behaves.
#[derive(Clone)]
pub struct ApiOptions {
    /// Range of ClusterIPs.
    pub service_cidr: ServiceCidr,
    /// Range of node ports.
    pub node_ports: RangeInclusive<u16>,
    /// EndpointSlices may hold 127.0.0.0/8 addresses, because pods have such addresses.
    pub allow_loopback_endpoints: bool,
    /// Address at which pods reach this server, for the Service `default/kubernetes`.
    pub advertise: Option<SocketAddr>,
    /// Bearer token for requests over the network; without it only client certificates are accepted.
    pub token: Option<String>,
    /// What `GET /version` says.
    pub version: VersionInfo,
}

impl Default for ApiOptions {
    fn default() -> Self {
        Self {
            service_cidr: ServiceCidr::default(),
            node_ports: 30_000..=32_767,
            allow_loopback_endpoints: false,
            advertise: None,
            token: None,
            version: VersionInfo::default(),
        }
    }
}

impl fmt::Debug for ApiOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiOptions")
            .field("service_cidr", &self.service_cidr)
            .field("node_ports", &self.node_ports)
            .field("advertise", &self.advertise)
            .field("token", &self.token.as_ref().map(|_| "…"))
            .finish_non_exhaustive()
    }
}

/// The API server; clones share it.
#[derive(Clone)]
pub struct ApiServer {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    options: ApiOptions,
    streams: RwLock<Option<Arc<dyn PodStreams>>>,
}

impl fmt::Debug for ApiServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiServer")
            .field("options", &self.inner.options)
            .finish_non_exhaustive()
    }
}

/// A request below a resource, without its body.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) path: ResourcePath,
    pub(super) query: Query,
    pub(super) parts: Parts,
}

impl ApiServer {
    /// A server over a store. Call [`ApiServer::bootstrap`] before serving.
    pub fn new(store: Store, options: ApiOptions) -> Self {
        Self {
            inner: Arc::new(Inner {
                store,
                options,
                streams: RwLock::new(None),
            }),
        }
    }

    /// A client that calls this server directly, without sockets. Must be called inside a runtime.
    pub fn client(&self) -> kube::Client {
        kube::Client::new(self.clone(), "default")
    }

    /// Registers the node agent for logs and exec.
    pub fn set_streams(&self, streams: Arc<dyn PodStreams>) {
        *self
            .inner
            .streams
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Some(streams);
    }

    pub(super) fn streams(&self) -> Option<Arc<dyn PodStreams>> {
        self.inner
            .streams
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The store behind the server.
    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    /// How the server behaves.
    pub fn options(&self) -> &ApiOptions {
        &self.inner.options
    }

    /// Answers one request; errors become Status objects.
    pub async fn respond<B>(self, request: Request<B>) -> Response<ApiBody>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let (parts, body) = request.into_parts();
        match self.route(parts, body).await {
            Ok(response) => response,
            Err(error) => error_response(&error),
        }
    }

    async fn route<B>(&self, parts: Parts, body: B) -> Result<Response<ApiBody>, ApiError>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let target = path::parse(parts.uri.path())?;
        let query = Query::parse(parts.uri.query());
        match target {
            Target::Resource(path) => {
                let call = Call { path, query, parts };
                let body = read_body(body).await?;
                Box::pin(self.resource(call, body)).await
            }
            Target::Review(review) if parts.method == Method::POST => {
                let body = read_body(body).await?;
                review::answer(review, &parts, &body)
            }
            _ if parts.method != Method::GET && parts.method != Method::HEAD => {
                Err(ApiError::method_not_allowed())
            }
            Target::Review(_) => Err(ApiError::method_not_allowed()),
            Target::CoreVersions => discovery::core(&parts),
            Target::Groups => discovery::groups(&parts),
            Target::Group(group) => discovery::group(group),
            Target::GroupVersion(group, version) => discovery::resources(group, version),
            Target::OpenApiIndex => openapi::index(),
            Target::OpenApi(group, version) => openapi::document(group, version),
            Target::Version => Ok(json_response(200, &version(&self.inner.options.version))),
            Target::Health(check) => Ok(health(check, &query)),
        }
    }

    async fn resource(&self, call: Call, body: Bytes) -> Result<Response<ApiBody>, ApiError> {
        let method = call.parts.method.clone();
        let named = call.path.name.is_some();
        match (call.path.subresource, method.as_str(), named) {
            (None, "GET" | "HEAD", named) => {
                if call.path.watch || call.query.flag("watch") {
                    self.watch(&call)
                } else if named {
                    self.get(&call).await
                } else {
                    self.list(&call).await
                }
            }
            (None, "POST", false) => self.create(&call, &body).await,
            (None, "PUT", true) => self.replace(&call, &body).await,
            (None, "PATCH", true) => self.patch(&call, &body).await,
            (None, "DELETE", true) => self.delete(&call, &body).await,
            (None, "DELETE", false) if call.path.resource.plural != "namespaces" => {
                self.delete_collection(&call, &body).await
            }
            (Some(Subresource::Status), "GET", _) => self.get(&call).await,
            (Some(Subresource::Status | Subresource::Finalize), "PUT", _) => {
                self.replace(&call, &body).await
            }
            (Some(Subresource::Status), "PATCH", _) => self.patch(&call, &body).await,
            (Some(Subresource::Scale), "GET", _) => self.get_scale(&call),
            (Some(Subresource::Scale), "PUT", _) => self.replace_scale(&call, &body).await,
            (Some(Subresource::Scale), "PATCH", _) => self.patch_scale(&call, &body).await,
            (Some(Subresource::Log), "GET", _) => self.log(&call).await,
            (Some(Subresource::Exec), "GET" | "POST", _) => self.exec(call).await,
            (Some(Subresource::Binding), "POST", _) => self.bind(&call, &body).await,
            (Some(Subresource::Eviction), "POST", _) => self.evict(&call, &body).await,
            _ => Err(ApiError::method_not_allowed()),
        }
    }
}

impl<B> tower::Service<Request<B>> for ApiServer
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<ApiBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let server = self.clone();
        Box::pin(async move { Ok(server.respond(request).await) })
    }
}

async fn read_body<B>(body: B) -> Result<Bytes, ApiError>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let whole = Limited::new(body, BODY_LIMIT).collect();
    match tokio::time::timeout(BODY_TIMEOUT, whole).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(ApiError::too_large(BODY_LIMIT)),
        Ok(Err(error)) => Err(ApiError::bad_request(format!(
            "cannot read the request body: {error}"
        ))),
        Err(_) => Err(ApiError::bad_request(
            "timed out while reading the request body",
        )),
    }
}

/// A JSON answer.
pub(super) fn json_response(code: u16, value: &impl serde::Serialize) -> Response<ApiBody> {
    match serde_json::to_vec(value) {
        Ok(bytes) => bytes_response(code, "application/json", bytes),
        Err(error) => error_response(&ApiError::internal(error.to_string())),
    }
}

/// An answer of any type.
pub(super) fn bytes_response(
    code: u16,
    content_type: &'static str,
    bytes: impl Into<Bytes>,
) -> Response<ApiBody> {
    let mut response = Response::new(ApiBody::full(bytes));
    *response.status_mut() =
        StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// The one place where an error becomes an answer.
pub(super) fn error_response(error: &ApiError) -> Response<ApiBody> {
    if error.code >= 500 && error.code != 504 {
        tracing::warn!(code = error.code, error = %error.message, "request failed");
    }
    if error.plain_text {
        return bytes_response(
            error.code,
            "text/plain; charset=utf-8",
            error.message.clone(),
        );
    }
    let body = error.status().to_string();
    let mut response = bytes_response(error.code, "application/json", body);
    if matches!(error.code, 429 | 504) {
        response
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

fn version(version: &VersionInfo) -> Value {
    serde_json::json!({
        "major": version.major,
        "minor": version.minor,
        "gitVersion": version.git_version,
        "gitCommit": "",
        "gitTreeState": "",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
    })
}

fn health(check: &str, query: &Query) -> Response<ApiBody> {
    let text = if query.get("verbose").is_some() {
        format!("[+]ping ok\n[+]store ok\n{check} check passed\n")
    } else {
        "ok".to_owned()
    };
    bytes_response(200, "text/plain; charset=utf-8", text)
}
