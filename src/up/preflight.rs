//! Tries the manifests on an API server in memory before anything starts, so that a bad one is an
//! error with file and line and nothing has to be undone.

use anyhow::Context as _;
use sealane_cluster::api::{ApiOptions, ApiServer, Store};

use super::apply::{ApplyError, apply};
use super::settings::{ControlPlane, PodNetworkMode, Settings};
use crate::exit::Failure;

/// Checks that the embedded API would take all manifests. One that is joined may have more kinds and
/// rules, and says so itself when it gets them.
///
/// # Errors
/// Every object that it refuses, with the field's line.
pub(crate) fn check(settings: &Settings) -> Result<(), Failure> {
    let joined = matches!(settings.control_plane, ControlPlane::Joined(_));
    if settings.manifests.is_empty() || joined {
        return Ok(());
    }
    // Current-thread: the process must stay single-threaded until it entered a user namespace.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start a runtime")?;
    runtime.block_on(async {
        let server = server(settings, Store::ephemeral(), ApiOptions::default()).await?;
        apply(&server.client(), &settings.manifests)
            .await
            .map(drop)
            .map_err(refused)
    })
}

/// An API server with the cluster's first objects.
///
/// # Errors
/// The store cannot be written.
pub(crate) async fn server(
    settings: &Settings,
    store: Store,
    options: ApiOptions,
) -> Result<ApiServer, Failure> {
    let addresses = settings.pod_network.addresses();
    let services = addresses.services.to_string();
    let options = ApiOptions {
        service_cidr: services.parse().map_err(anyhow::Error::msg)?,
        allow_loopback_endpoints: settings.pod_network == PodNetworkMode::Loopback,
        ..options
    };
    let server = ApiServer::new(store, options);
    server
        .bootstrap()
        .await
        .context("cannot write the cluster's first objects")?;
    Ok(server)
}

/// The failure for manifests that the API refused.
pub(crate) fn refused(error: ApplyError) -> Failure {
    match error {
        ApplyError::Refused(errors) => {
            Failure::Input(errors.iter().map(ToString::to_string).collect())
        }
        ApplyError::Discovery(_) => Failure::Other(error.into()),
    }
}
