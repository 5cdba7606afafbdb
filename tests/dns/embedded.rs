//! The embedded API server without controllers: only what a test writes is there.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;

use sealane_cluster::api::credentials::Credentials;
use sealane_cluster::api::{self, ApiOptions, ApiServer, Store};
use tempfile::TempDir;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::api::Api;
use crate::support::build_programs;

/// A running API server. Dropping it ends it.
pub(crate) struct Embedded {
    pub(crate) api: Api,
    pub(crate) addr: SocketAddr,
    pub(crate) kubeconfig: PathBuf,
    credentials: Credentials,
    /// A directory that goes with it.
    pub(crate) directory: TempDir,
    _serving: DropGuard,
}

impl Embedded {
    /// Starts one on a listener, in whatever network namespace that was made.
    pub(crate) async fn start(listener: TcpListener) -> Self {
        build_programs();
        let directory = tempfile::tempdir().unwrap();
        let credentials = Credentials::load_or_create(directory.path(), &[]).unwrap();
        let options = ApiOptions {
            service_cidr: "10.96.0.0/16".parse().unwrap(),
            token: Some(credentials.token().to_owned()),
            ..ApiOptions::default()
        };
        let server = ApiServer::new(Store::ephemeral(), options);
        server.bootstrap().await.unwrap();
        let addr = listener.local_addr().unwrap();
        listener.set_nonblocking(true).unwrap();
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let kubeconfig = directory.path().join("kubeconfig");
        let url = format!("https://{addr}");
        credentials.write_kubeconfig(&kubeconfig, &url).unwrap();
        let stop = CancellationToken::new();
        let api = Api::new(server.client());
        tokio::spawn(api::serve(
            listener,
            credentials.tls(),
            server,
            stop.clone(),
        ));
        Self {
            api,
            addr,
            kubeconfig,
            credentials,
            directory,
            _serving: stop.drop_guard(),
        }
    }

    /// Starts one on a free loopback port.
    pub(crate) async fn here() -> Self {
        Self::start(TcpListener::bind("127.0.0.1:0").unwrap()).await
    }

    /// A kubeconfig for another way to it.
    pub(crate) fn kubeconfig_for(&self, url: &str) -> PathBuf {
        let path = self.directory.path().join("other-kubeconfig");
        self.credentials.write_kubeconfig(&path, url).unwrap();
        path
    }
}
