//! The control plane: our own in this process, or one that is there already and that this machine
//! joins as a node.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use kube::Client;
use sealane_cluster::api::credentials::{self, Credentials};
use sealane_cluster::api::kubelet::{self, Kubelet};
use sealane_cluster::api::{self, ApiOptions, ApiServer, Store};
use sealane_cluster::controllers;
use sealane_cluster::network::PodNetwork;
use sealane_cluster::runtime::{self, NodeAgent};
use sealane_cluster::streams::PodStreams;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::control::NODE;
use super::preflight;
use super::settings::{ControlPlane, PodNetworkMode, Settings};
use crate::cluster_client::{self, ClusterOptions};
use crate::exit::Failure;

/// A control plane that takes requests.
pub(crate) struct Plane {
    /// A client with all rights that there are.
    pub(crate) client: Client,
    /// The kubeconfig for people.
    pub(crate) kubeconfig: PathBuf,
    /// URL of the API.
    pub(crate) url: String,
    /// A token for pods; without it each pod gets one of its ServiceAccount.
    pub(crate) token: Option<String>,
    /// Where the API server reaches the node agent, if it is not in this process.
    pub(crate) kubelet: Option<SocketAddr>,
    kind: Kind,
}

enum Kind {
    Embedded {
        server: ApiServer,
        root_ca_pem: String,
    },
    Joined {
        listener: tokio::net::TcpListener,
        tls: Arc<rustls::ServerConfig>,
    },
}

impl Plane {
    /// Starts or joins it. `listener` is for the embedded API, or for what the API server asks of
    /// the node; both serve until `serving` is cancelled.
    ///
    /// # Errors
    /// The state cannot be opened, or the kubeconfig cannot be used.
    pub(crate) async fn start(
        settings: &Settings,
        data_dir: &Path,
        listener: TcpListener,
        network: &PodNetwork,
        serving: &CancellationToken,
    ) -> Result<Self, Failure> {
        match &settings.control_plane {
            ControlPlane::Embedded { ephemeral } => {
                let store = if *ephemeral {
                    Store::ephemeral()
                } else {
                    Store::open(&data_dir.join("state.redb"))
                        .context("cannot open the cluster's state")?
                };
                Self::embedded(settings, data_dir, store, listener, network, serving).await
            }
            ControlPlane::Joined(kubeconfig) => Box::pin(Self::joined(kubeconfig, listener)).await,
        }
    }

    async fn embedded(
        settings: &Settings,
        data_dir: &Path,
        store: Store,
        listener: TcpListener,
        network: &PodNetwork,
        serving: &CancellationToken,
    ) -> Result<Self, Failure> {
        let addresses = settings.pod_network.addresses();
        let node = addresses.node;
        let host = listener
            .local_addr()
            .context("the API's listener has no address")?;
        // Pods know the API by Service `kubernetes`, whose address is the first one.
        let service = addresses.services.hosts().next().map(IpAddr::V4);
        let names: Vec<IpAddr> = service.into_iter().chain([node.into()]).collect();
        let credentials = Credentials::load_or_create(data_dir, &names)
            .context("cannot make the API's certificates")?;
        let inside = api_for_pods(settings, network, host, node.into())?;
        let options = ApiOptions {
            advertise: Some(inside.addr),
            token: Some(credentials.token().to_owned()),
            ..ApiOptions::default()
        };
        let server = preflight::server(settings, store, options).await?;
        let url = format!("https://{host}");
        let kubeconfig = data_dir.join("kubeconfig");
        credentials
            .write_kubeconfig(&kubeconfig, &url)
            .context("cannot write the kubeconfig")?;
        let tls = credentials.tls();
        let listener = tokio::net::TcpListener::from_std(listener);
        let listener = listener.context("cannot listen for the API")?;
        for listener in [Some(listener), inside.listener].into_iter().flatten() {
            let (tls, server) = (Arc::clone(&tls), server.clone());
            tokio::spawn(api::serve(listener, tls, server, serving.clone()));
        }
        Ok(Self {
            client: server.client(),
            kubeconfig,
            url,
            token: Some(credentials.token().to_owned()),
            kubelet: None,
            kind: Kind::Embedded {
                server,
                root_ca_pem: credentials.ca_pem().to_owned(),
            },
        })
    }

    async fn joined(file: &Path, listener: TcpListener) -> Result<Self, Failure> {
        let config = ClusterOptions::of_file(file).config().await?;
        let roots = config.root_cert.clone().filter(|roots| !roots.is_empty());
        let roots = roots.ok_or_else(|| {
            Failure::Input(vec![format!(
                "kubeconfig {}: it names no certificate authority, by which calls of the API server are told from others'",
                file.display()
            )])
        })?;
        let url = config.cluster_url.to_string();
        let client = cluster_client::connect(config, "up").await?;
        client
            .apiserver_version()
            .await
            .with_context(|| format!("cannot reach the API server {url}"))?;
        let address = listener
            .local_addr()
            .context("the node's listener has no address")?;
        let tls = credentials::kubelet_tls(roots.into_iter().map(Into::into), address.ip())
            .context("cannot use the certificate authority of the kubeconfig")?;
        let listener = tokio::net::TcpListener::from_std(listener);
        Ok(Self {
            client: connecting_here(client),
            kubeconfig: file.to_owned(),
            url,
            token: None,
            kubelet: Some(address),
            kind: Kind::Joined {
                listener: listener.context("cannot listen for the API server")?,
                tls,
            },
        })
    }

    /// Takes back what the API still says of pods that ran before: nothing of them runs yet. Without that,
    /// they would be taken for ready, and get requests.
    ///
    /// # Errors
    /// The API does not answer, or refuses a change.
    pub(crate) async fn begin_anew(&self) -> kube::Result<()> {
        runtime::withdraw_readiness(&self.client, NODE).await?;
        match self.kind {
            Kind::Embedded { .. } => controllers::withdraw_endpoints(&self.client, NODE).await,
            // The control plane's own controllers follow its pods.
            Kind::Joined { .. } => Ok(()),
        }
    }

    /// Lets the API server reach the node agent, and starts the controllers if they are ours. The
    /// handle is theirs; they stop with `control`.
    pub(crate) fn attach(
        self,
        agent: Arc<NodeAgent>,
        control: CancellationToken,
        serving: CancellationToken,
    ) -> Option<JoinHandle<()>> {
        match self.kind {
            Kind::Embedded {
                server,
                root_ca_pem,
            } => {
                server.set_streams(agent as Arc<dyn PodStreams>);
                let options = controllers::Options { root_ca_pem };
                Some(tokio::spawn(controllers::run(
                    self.client,
                    options,
                    control,
                )))
            }
            Kind::Joined { listener, tls } => {
                let kubelet = Kubelet {
                    client: self.client,
                    node: NODE.into(),
                    streams: agent,
                };
                tokio::spawn(kubelet::serve(listener, tls, kubelet, serving));
                None
            }
        }
    }
}

/// A client that opens its connections on the current runtime, whoever sends the request: the node
/// agent's thread is in a network namespace from where the API server cannot be reached.
fn connecting_here(client: Client) -> Client {
    let runtime = tokio::runtime::Handle::current();
    let namespace = client.default_namespace().to_owned();
    let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
        let client = client.clone();
        let sent = runtime.spawn(async move { client.send(request).await });
        async move { Ok::<_, tower::BoxError>(sent.await??) }
    });
    Client::new(service, namespace)
}

/// Where pods reach the API.
struct ApiInside {
    addr: SocketAddr,
    listener: Option<tokio::net::TcpListener>,
}

/// In the cluster's namespace the API needs a listener of its own.
fn api_for_pods(
    settings: &Settings,
    network: &PodNetwork,
    host: SocketAddr,
    node: IpAddr,
) -> Result<ApiInside, Failure> {
    if settings.pod_network == PodNetworkMode::Loopback {
        return Ok(ApiInside {
            addr: host,
            listener: None,
        });
    }
    let network = network.clone();
    let listener = std::thread::spawn(move || {
        super::enter(&network)?;
        let addr = SocketAddr::new(node, host.port());
        Ok::<_, anyhow::Error>(sealane_config::sockets::tcp_listener(addr)?)
    })
    .join()
    .map_err(|_panicked| anyhow::anyhow!("the thread that listens for pods failed"))?
    .context("cannot listen for pods' calls to the API")?;
    let listener = tokio::net::TcpListener::from_std(listener.into())
        .context("cannot listen for pods' calls to the API")?;
    Ok(ApiInside {
        addr: listener
            .local_addr()
            .context("the API's listener has no address")?,
        listener: Some(listener),
    })
}
