//! Which cluster a command is about, and a client for it.

use std::path::PathBuf;

use kube::Client;
use sealane_config::client::{self, ClientError, ClusterAddress};

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
}

impl ClusterOptions {
    /// A client that says it is `sealane/VERSION (MODE)`. The API server need not be there yet.
    ///
    /// # Errors
    /// A kubeconfig that cannot be used, or none at all.
    pub(crate) async fn client(&self, mode: &str) -> Result<Client, Failure> {
        let address = ClusterAddress {
            kubeconfig: self.kubeconfig.clone(),
            context: self.context.clone(),
        };
        let failed = |error: ClientError| match error {
            ClientError::Kubeconfig { .. } => Failure::Input(vec![error.to_string()]),
            ClientError::NoCluster(_) | ClientError::Unusable { .. } => {
                Failure::Machine(error.to_string())
            }
        };
        let config = client::configuration(&address).await.map_err(failed)?;
        client::connect(config, mode).await.map_err(failed)
    }
}
