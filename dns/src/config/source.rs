//! What has to be known of the cluster for the `kubernetes` plugins of a configuration.
//!
//! A process has one view of one cluster, so what decides which objects are read has to be the same
//! in every such plugin. What only decides which of them are answered may differ.

use std::time::Duration;

use sealane_config::watch::WatchOptions;

use super::DnsConfig;
use crate::settings::{ApiServer, DnsSettings, PodsMode};

/// The state of a cluster: what of it, and who is asked.
#[derive(Clone, Debug)]
pub struct ClusterSource {
    /// Kinds and labels.
    pub watch: WatchOptions,
    /// The API server.
    pub api: ApiServer,
    /// How long ports stay closed at most while the state is read.
    pub startup_timeout: Duration,
}

/// Two `kubernetes` plugins want different views.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{second} - 'kubernetes' has other {what} than that of the block at {first}; a server has one \
     view of one cluster: give both the same, or run two servers"
)]
pub struct TwoViews {
    what: &'static str,
    first: String,
    second: String,
}

impl DnsConfig {
    /// Where the state of the cluster comes from; `None` if no block has the `kubernetes` plugin.
    ///
    /// # Errors
    /// [`TwoViews`].
    pub fn cluster_source(&self) -> Result<Option<ClusterSource>, TwoViews> {
        let mut plugins = self.blocks.iter().filter_map(|block| {
            let settings = block.plugins.kubernetes.as_deref()?;
            Some((block, settings))
        });
        let Some((first, settings)) = plugins.next() else {
            return Ok(None);
        };
        for (block, other) in plugins {
            if let Some(what) = difference(settings, other) {
                return Err(TwoViews {
                    what,
                    first: first.place.clone(),
                    second: block.place.clone(),
                });
            }
        }
        let blocks = || self.blocks.iter().map(|block| &block.plugins);
        let verified = |settings: &DnsSettings| settings.pods == PodsMode::Verified;
        let with_pods = self.kubernetes().any(|settings| verified(settings));
        Ok(Some(ClusterSource {
            watch: WatchOptions {
                namespace_labels: settings.namespace_labels.clone(),
                labels: settings.labels.clone(),
                // The search path of a client is that of its pod.
                pods: with_pods || blocks().any(|plugins| plugins.autopath.is_some()),
                ..WatchOptions::names_only()
            },
            api: settings.api.clone(),
            startup_timeout: self
                .kubernetes()
                .map(|settings| settings.startup_timeout)
                .max()
                .unwrap_or_default(),
        }))
    }
}

/// What two plugins have to agree on and do not.
fn difference(one: &DnsSettings, other: &DnsSettings) -> Option<&'static str> {
    if one.labels != other.labels {
        Some("labels")
    } else if one.namespace_labels != other.namespace_labels {
        Some("namespace_labels")
    } else if one.api != other.api {
        Some("API server")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(plugins: &[DnsSettings]) -> DnsConfig {
        let one = |settings: &DnsSettings| DnsConfig::cluster(settings.clone(), Vec::new()).blocks;
        DnsConfig {
            blocks: plugins.iter().flat_map(one).collect(),
            ..DnsConfig::default()
        }
    }

    #[test]
    fn dns_p3_pods_are_watched_only_where_they_are_asked_for() {
        let insecure = DnsSettings::default();
        let verified = DnsSettings {
            pods: PodsMode::Verified,
            startup_timeout: Duration::from_secs(9),
            ..DnsSettings::default()
        };
        let pods = |config: DnsConfig| {
            let source = config.cluster_source().unwrap();
            source.map(|source| (source.watch.pods, source.startup_timeout.as_secs()))
        };
        assert_eq!(pods(config(&[])), None);
        assert_eq!(
            pods(config(std::slice::from_ref(&insecure))),
            Some((false, 5))
        );
        assert_eq!(pods(config(&[insecure, verified])), Some((true, 9)));
    }

    #[test]
    fn dns_kubernetes_plugins_share_one_view() {
        let plain = DnsSettings::default();
        let labels = DnsSettings {
            labels: Some("app=web".into()),
            ..DnsSettings::default()
        };
        let namespaces = DnsSettings {
            namespace_labels: Some("team".into()),
            ..DnsSettings::default()
        };
        let api = DnsSettings {
            api: ApiServer {
                endpoint: Some("https://10.0.0.1:6443".into()),
                ..ApiServer::default()
            },
            ..DnsSettings::default()
        };
        for (other, what) in [
            (labels, "labels"),
            (namespaces, "namespace_labels"),
            (api, "API"),
        ] {
            let alone = config(std::slice::from_ref(&other))
                .cluster_source()
                .unwrap()
                .unwrap();
            assert_eq!(alone.watch.labels, other.labels);
            assert_eq!(alone.watch.namespace_labels, other.namespace_labels);
            assert_eq!(alone.api, other.api);
            let error = config(&[plain.clone(), other])
                .cluster_source()
                .unwrap_err();
            assert!(error.to_string().contains(what), "{error}");
        }
        let narrower = DnsSettings {
            namespaces: vec!["shop".into()],
            ttl: 5,
            ..DnsSettings::default()
        };
        assert!(config(&[plain, narrower]).cluster_source().is_ok());
    }
}
