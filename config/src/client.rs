//! The client for a real cluster's API server.
//!
//! Where the server is and who we are is read as kubectl and client-go read it (kubeconfig, or the
//! ServiceAccount of the pod); kube's own layers do that. What differs from kube's client is how
//! requests travel, because a data plane's watches are open for its whole life:
//!
//! - HTTP/2 wherever the server offers it, so that all watches share a connection ([`lanes`]).
//! - PINGs also while nothing else is sent. A connection that died without a word (a firewall that
//!   forgot it, a node that lost power) is noticed in [`KEEP_ALIVE_INTERVAL`] and
//!   [`KEEP_ALIVE_TIMEOUT`]; TCP alone would wait for a quarter of an hour.
//! - Credentials are read again when the server no longer accepts them ([`renew`]).

mod dial;
mod lanes;
mod renew;
mod transport;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::time::Duration;

use http::HeaderValue;
use http::header::USER_AGENT;
use kube::config::{
    AuthInfo, Cluster, Context, KubeConfigOptions, Kubeconfig, NamedAuthInfo, NamedCluster,
    NamedContext,
};
use kube::{Client, Config};

use crate::defaults::{KEEP_ALIVE_INTERVAL, KEEP_ALIVE_TIMEOUT};
use renew::Connection;

/// Where the API server is, as the command line says it.
#[derive(Clone, Debug, Default)]
pub struct ClusterAddress {
    /// The kubeconfig; without one those of `KUBECONFIG`, or the user's, or the pod's
    /// ServiceAccount.
    pub kubeconfig: Option<PathBuf>,
    /// The context in it; without one the current one.
    pub context: Option<String>,
    /// The server itself, if it is not to be looked up in a kubeconfig.
    pub server: Option<ServerAddress>,
}

/// An API server that is named by its URL.
#[derive(Clone, Debug)]
pub struct ServerAddress {
    /// URL.
    pub url: String,
    /// How both sides know each other.
    pub tls: Option<ServerTls>,
}

/// Files for the connection to an API server, PEM.
#[derive(Clone, Debug)]
pub struct ServerTls {
    /// The client's certificate chain.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Authority of the server's certificate.
    pub ca: PathBuf,
}

/// Why there is no client.
///
/// The reasons are texts, because kube's errors already repeat their causes.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The kubeconfig that was named cannot be used.
    #[error("kubeconfig {file}: {reason}")]
    Kubeconfig {
        /// Its path.
        file: String,
        /// What is wrong.
        reason: String,
    },
    /// Neither a kubeconfig nor a ServiceAccount.
    #[error(
        "no cluster: {0}; give --kubeconfig FILE, set KUBECONFIG, or run in a pod with a ServiceAccount"
    )]
    NoCluster(String),
    /// Credentials, certificates or the proxy cannot be used.
    #[error("cannot set up a client for {url}: {reason}")]
    Unusable {
        /// URL of the API server.
        url: String,
        /// What is wrong.
        reason: String,
    },
}

/// How connections are made and kept alive.
#[derive(Clone, Copy, Debug)]
struct LinkOptions {
    /// A PING is sent after this time without a frame.
    interval: Duration,
    /// How long its answer may take.
    timeout: Duration,
    /// `SO_MARK` of the connections.
    mark: Option<u32>,
}

impl Default for LinkOptions {
    fn default() -> Self {
        Self {
            interval: KEEP_ALIVE_INTERVAL,
            timeout: KEEP_ALIVE_TIMEOUT,
            mark: None,
        }
    }
}

/// Reads where the API server is and who we are.
///
/// # Errors
/// The kubeconfig cannot be used, or there is no cluster at all.
pub async fn configuration(address: &ClusterAddress) -> Result<Config, ClientError> {
    let options = KubeConfigOptions {
        context: address.context.clone(),
        ..KubeConfigOptions::default()
    };
    if let Some(server) = &address.server {
        let made = Config::from_custom_kubeconfig(server.kubeconfig(), &options).await;
        return made.map_err(|error| ClientError::Unusable {
            url: server.url.clone(),
            reason: error.to_string(),
        });
    }
    if let Some(file) = &address.kubeconfig {
        let kubeconfig = Kubeconfig::read_from(file).map_err(|error| unusable(file, &error))?;
        return Config::from_custom_kubeconfig(kubeconfig, &options)
            .await
            .map_err(|error| unusable(file, &error));
    }
    let no_cluster = |error: &dyn std::error::Error| ClientError::NoCluster(error.to_string());
    if address.context.is_some() {
        let config = Config::from_kubeconfig(&options).await;
        return config.map_err(|error| no_cluster(&error));
    }
    Config::infer().await.map_err(|error| no_cluster(&error))
}

impl ServerAddress {
    /// A kubeconfig that says the same.
    fn kubeconfig(&self) -> Kubeconfig {
        let name = || "server".to_owned();
        let text = |path: &Path| Some(path.to_string_lossy().into_owned());
        let (mut cluster, mut user) = (Cluster::default(), AuthInfo::default());
        cluster.server = Some(self.url.clone());
        if let Some(tls) = &self.tls {
            cluster.certificate_authority = text(&tls.ca);
            user.client_certificate = text(&tls.certificate);
            user.client_key = text(&tls.key);
        }
        Kubeconfig {
            clusters: vec![NamedCluster {
                name: name(),
                cluster: Some(cluster),
                ..NamedCluster::default()
            }],
            auth_infos: vec![NamedAuthInfo {
                name: name(),
                auth_info: Some(user),
                ..NamedAuthInfo::default()
            }],
            contexts: vec![NamedContext {
                name: name(),
                context: Some(Context {
                    cluster: name(),
                    user: Some(name()),
                    ..Context::default()
                }),
                ..NamedContext::default()
            }],
            current_context: Some(name()),
            ..Kubeconfig::default()
        }
    }
}

fn unusable(file: &Path, error: &dyn std::error::Error) -> ClientError {
    ClientError::Kubeconfig {
        file: file.display().to_string(),
        reason: error.to_string(),
    }
}

/// A client for that API server. `mode` is the subcommand, for the server's audit log. Nothing is
/// sent yet. Has to be called in a runtime.
///
/// # Errors
/// Credentials or certificates cannot be read, or the kind of proxy is not supported.
pub async fn connect(config: Config, mode: &str) -> Result<Client, ClientError> {
    connect_with(named(config, mode), LinkOptions::default()).await
}

/// The same with connections that carry a mark (`SO_MARK`), which takes `CAP_NET_ADMIN`: the kernel's
/// rules for Services, which are there before the state is that this client fetches, leave them alone.
///
/// # Errors
/// As for [`connect`].
pub async fn connect_marked(config: Config, mode: &str, mark: u32) -> Result<Client, ClientError> {
    let link = LinkOptions {
        mark: Some(mark),
        ..LinkOptions::default()
    };
    connect_with(named(config, mode), link).await
}

fn named(mut config: Config, mode: &str) -> Config {
    let agent = format!("sealane/{} ({mode})", env!("CARGO_PKG_VERSION"));
    if let Ok(agent) = HeaderValue::try_from(agent) {
        config.headers.push((USER_AGENT, agent));
    }
    config
}

async fn connect_with(config: Config, link: LinkOptions) -> Result<Client, ClientError> {
    let namespace = config.default_namespace.clone();
    let url = config.cluster_url.to_string();
    let connection = Connection::open(config, link).await;
    let connection = connection.map_err(|error| ClientError::Unusable {
        url,
        reason: error.to_string(),
    })?;
    Ok(Client::new(connection, namespace))
}
