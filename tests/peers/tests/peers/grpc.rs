//! gRPC with a stack that others have written, on both sides of the gateway and of the node proxy
//! (proxy L6, L7, L16, L20).

mod backend;
mod calls;
mod endings;
mod golang;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Uri;
use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use sealane_config::model::AppProtocol;
use sealane_proxy::http::EngineOptions;
use sealane_test_peers::{Front, HOST};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::client::Grpc;
use tonic::codec::Streaming;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status};

use backend::{Backend, Raw};

/// The way of a call to the endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Through the gateway's TLS listener.
    GatewayTls,
    /// Through its plain one, with prior knowledge.
    Gateway,
    /// By the Service's address, which says nothing about what it speaks.
    Node,
    /// The same, but the Service says that it is gRPC.
    NodeDeclared,
}

const WAYS: [Way; 4] = [Way::GatewayTls, Way::Gateway, Way::Node, Way::NodeDeclared];

impl Way {
    fn protocol(self) -> AppProtocol {
        match self {
            Self::Node => AppProtocol::Detect,
            Self::GatewayTls | Self::Gateway | Self::NodeDeclared => AppProtocol::Http2,
        }
    }
}

/// A client's channel and what it leads to.
struct World {
    front: Front,
    backends: Vec<Backend>,
    client: Client,
    way: Way,
}

impl World {
    async fn new(way: Way, backends: usize) -> Self {
        let mut started = Vec::new();
        for _ in 0..backends {
            started.push(Backend::start().await);
        }
        let mut front = Front::with(EngineOptions::default());
        let addrs: Vec<_> = started.iter().map(|backend| backend.addr).collect();
        front.service(way.protocol(), &addrs);
        let client = Client::connect(&front, way).await;
        Self {
            front,
            backends: started,
            client,
            way,
        }
    }

    fn backend(&self) -> &Backend {
        &self.backends[0]
    }

    /// Sets the Service's endpoints.
    fn publish(&mut self, backends: &[usize]) {
        let addrs: Vec<_> = backends.iter().map(|i| self.backends[*i].addr).collect();
        self.front.service(self.way.protocol(), &addrs);
    }
}

/// A client on one connection.
#[derive(Clone)]
struct Client(Grpc<Channel>);

impl Client {
    async fn connect(front: &Front, way: Way) -> Self {
        let addr = match way {
            Way::GatewayTls => front.https,
            Way::Gateway => front.http,
            Way::Node | Way::NodeDeclared => front.vip,
        };
        // A listener for the Service's address appears a moment after its endpoints.
        let connect = move || async move {
            loop {
                match TcpStream::connect(addr).await {
                    Ok(stream) => return stream,
                    Err(_refused) => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            }
        };
        let connector = tower::service_fn(move |_: Uri| async move {
            let stream = connect().await;
            stream.set_nodelay(true)?;
            let stream: Box<dyn Stream> = if way == Way::GatewayTls {
                Box::new(tls(stream).await?)
            } else {
                Box::new(stream)
            };
            Ok::<_, std::io::Error>(TokioIo::new(stream))
        });
        let endpoint = Endpoint::from_shared(format!("http://{HOST}")).unwrap();
        let connecting = endpoint.connect_with_connector(connector);
        let channel = tokio::time::timeout(Duration::from_secs(10), connecting).await;
        Self(Grpc::new(channel.expect("a connection in time").unwrap()))
    }

    async fn unary(&self, ask: impl Into<Bytes>) -> Result<Response<Bytes>, Status> {
        self.unary_request(Request::new(ask.into())).await
    }

    async fn unary_request(&self, request: Request<Bytes>) -> Result<Response<Bytes>, Status> {
        let mut grpc = self.0.clone();
        grpc.ready().await.map_err(failed)?;
        grpc.unary(request, method("Unary"), Raw).await
    }

    async fn down(&self, ask: &str) -> Result<Response<Streaming<Bytes>>, Status> {
        let mut grpc = self.0.clone();
        grpc.ready().await.map_err(failed)?;
        let request = Request::new(Bytes::copy_from_slice(ask.as_bytes()));
        grpc.server_streaming(request, method("Down"), Raw).await
    }

    async fn up(
        &self,
        messages: impl futures_util::Stream<Item = Bytes> + Send + 'static,
    ) -> Result<Response<Bytes>, Status> {
        let mut grpc = self.0.clone();
        grpc.ready().await.map_err(failed)?;
        grpc.client_streaming(Request::new(messages), method("Up"), Raw)
            .await
    }

    async fn both(
        &self,
        messages: impl futures_util::Stream<Item = Bytes> + Send + 'static,
    ) -> Result<Response<Streaming<Bytes>>, Status> {
        let mut grpc = self.0.clone();
        grpc.ready().await.map_err(failed)?;
        grpc.streaming(Request::new(messages), method("Both"), Raw)
            .await
    }
}

fn failed(error: tonic::transport::Error) -> Status {
    Status::unknown(format!("the channel is broken: {error:?}"))
}

fn method(name: &'static str) -> PathAndQuery {
    PathAndQuery::try_from(format!("/peers.Echo/{name}")).unwrap()
}

/// The backend that answered.
fn who<T>(response: &Response<T>) -> usize {
    let name = response.metadata().get("backend").unwrap();
    name.to_str().unwrap().parse().unwrap()
}

/// Both directions of a connection.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

async fn tls(stream: TcpStream) -> std::io::Result<impl Stream> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let name = ServerName::try_from(HOST).unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
}

/// Takes any certificate: who the gateway is, is not the question here.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}
