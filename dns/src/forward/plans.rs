//! The plans of a whole configuration.

use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::future::try_join_all;
use sealane_config::sockets::HostSockets;
use tokio_util::sync::CancellationToken;

use super::plan::{ForwardPlan, ForwardSetupError};
use crate::config::{DnsConfig, ForwardSettings, ServerBlock};
use crate::metrics::Metrics;
use crate::name::Name;

/// The plan of every `forward` line. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct ForwardPlans(Arc<[Planned]>);

#[derive(Debug)]
struct Planned {
    plan: Arc<ForwardPlan>,
    /// Where loops are looked for, if they are.
    loop_zone: Option<Name>,
}

impl ForwardPlans {
    /// Reads the files that the `forward` lines name. `listening` are the addresses at which the
    /// server is reached; upstreams that are among them are dropped.
    ///
    /// # Errors
    /// [`ForwardSetupError`].
    pub fn load(
        config: &DnsConfig,
        listening: &[SocketAddr],
        metrics: &Metrics,
    ) -> Result<Self, ForwardSetupError> {
        let mut planned = Vec::new();
        for block in &config.blocks {
            for settings in &block.plugins.forward {
                planned.push(Planned {
                    plan: ForwardPlan::load(Arc::clone(settings), listening, metrics.clone())?,
                    loop_zone: loop_zone(block, settings),
                });
            }
        }
        Ok(Self(planned.into()))
    }

    /// Keeps the lists of upstreams right until `shutdown`; see [`ForwardPlan::watch`]. One task for
    /// the whole process does that.
    ///
    /// # Errors
    /// [`ForwardSetupError::OnlyOurselves`].
    pub async fn watch(
        &self,
        sockets: HostSockets,
        shutdown: CancellationToken,
    ) -> Result<(), ForwardSetupError> {
        let watches = self.0.iter().map(|planned| {
            let (sockets, shutdown) = (sockets.clone(), shutdown.clone());
            let zone = planned.loop_zone.clone();
            planned.plan.watch(sockets, zone, shutdown)
        });
        try_join_all(watches).await.map(|_done| ())
    }

    /// The plan for a line. One that was not loaded with the configuration is loaded now, for this
    /// worker alone; if that fails, its names cannot be forwarded.
    pub(crate) fn of(
        &self,
        settings: &Arc<ForwardSettings>,
        metrics: &Metrics,
    ) -> Arc<ForwardPlan> {
        let mut planned = self.0.iter().map(|planned| &planned.plan);
        if let Some(plan) = planned.find(|plan| Arc::ptr_eq(plan.settings(), settings)) {
            return Arc::clone(plan);
        }
        let load = |settings| ForwardPlan::load(settings, &[], metrics.clone());
        load(Arc::clone(settings)).unwrap_or_else(|error| {
            tracing::error!(%error, zone = %settings.from, "names cannot be forwarded");
            let nobody = ForwardSettings {
                from: settings.from.clone(),
                except: settings.except.clone(),
                ..ForwardSettings::to(Vec::new())
            };
            load(Arc::new(nobody)).expect("nothing is read for nobody")
        })
    }
}

/// A zone whose names come to the block and go to the forward.
fn loop_zone(block: &ServerBlock, settings: &ForwardSettings) -> Option<Name> {
    if !block.plugins.loop_detection {
        return None;
    }
    let mut zones = block.keys.iter().map(|key| &key.zone);
    zones.find_map(|zone| match zone.is_within(&settings.from) {
        true => Some(zone.clone()),
        false => settings.from.is_within(zone).then(|| settings.from.clone()),
    })
}

impl DnsConfig {
    /// The same configuration, with the plans of its forwards; see [`ForwardPlans::load`].
    ///
    /// # Errors
    /// [`ForwardSetupError`].
    pub fn with_forwards(
        &self,
        listening: &[SocketAddr],
        metrics: &Metrics,
    ) -> Result<Self, ForwardSetupError> {
        Ok(Self {
            forwards: ForwardPlans::load(self, listening, metrics)?,
            ..self.clone()
        })
    }
}
