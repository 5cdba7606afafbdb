//! Which cluster a command is about, and a client for it.

use std::path::{Path, PathBuf};

use kube::{Client, Config};
use sealane_config::client::{self, ClientError, ClusterAddress, ServerAddress, ServerTls};
use sealane_dns::ApiServer;

use crate::exit::Failure;

/// Flags that say which cluster.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ClusterOptions {
    /// Where the API server is and who we are [default: $KUBECONFIG, ~/.kube/config, the pod's
    /// ServiceAccount]
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig [default: its current one]
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    /// An API server that was named in another way.
    #[arg(skip)]
    server: Option<ServerAddress>,
}

impl ClusterOptions {
    /// The same, or where these say nothing, what a Corefile says.
    pub(crate) fn or(mut self, api: &ApiServer) -> Self {
        if self.kubeconfig.is_some() || self.context.is_some() {
            return self;
        }
        if let Some((file, context)) = &api.kubeconfig {
            self.kubeconfig = Some(file.clone());
            self.context.clone_from(context);
        } else if let Some(url) = &api.endpoint {
            let tls = api.tls.as_ref().map(|tls| ServerTls {
                certificate: tls.certificate.clone(),
                key: tls.key.clone(),
                ca: tls.ca.clone(),
            });
            self.server = Some(ServerAddress {
                url: url.clone(),
                tls,
            });
        }
        self
    }

    /// The cluster of a kubeconfig's current context.
    pub(crate) fn of_file(kubeconfig: &Path) -> Self {
        Self {
            kubeconfig: Some(kubeconfig.to_owned()),
            context: None,
            server: None,
        }
    }

    /// Where the API server is and who we are.
    ///
    /// # Errors
    /// A kubeconfig that cannot be used, or none at all.
    pub(crate) async fn config(&self) -> Result<Config, Failure> {
        let address = ClusterAddress {
            kubeconfig: self.kubeconfig.clone(),
            context: self.context.clone(),
            server: self.server.clone(),
        };
        // Boxed, because configurations are large and are moved from state to state.
        let found = Box::pin(client::configuration(&address)).await;
        found.map_err(failed)
    }

    /// A client that says it is `sealane/VERSION (MODE)`. The API server need not be there yet. Its
    /// connections carry the mark, if one is given.
    ///
    /// # Errors
    /// As for [`Self::config`], or the credentials cannot be used.
    pub(crate) async fn client(&self, mode: &str, mark: Option<u32>) -> Result<Client, Failure> {
        let config = self.config().await?;
        let Some(mark) = mark else {
            return connect(config, mode).await;
        };
        let made = Box::pin(client::connect_marked(config, mode, mark)).await;
        made.map_err(failed)
    }
}

/// A client for what [`ClusterOptions::config`] found.
///
/// # Errors
/// The credentials cannot be used.
pub(crate) async fn connect(config: Config, mode: &str) -> Result<Client, Failure> {
    let made = Box::pin(client::connect(config, mode)).await;
    made.map_err(failed)
}

fn failed(error: ClientError) -> Failure {
    match error {
        ClientError::Kubeconfig { .. } => Failure::Input(vec![error.to_string()]),
        ClientError::NoCluster(_) | ClientError::Unusable { .. } => {
            Failure::Machine(error.to_string())
        }
    }
}
