//! What all parts of the agent share.

use std::path::PathBuf;

use k8s_openapi::api::core::v1::{Container, Pod};
use kube::Client;

use super::AgentOptions;
use super::env::Place;
use super::resolve::ClusterDns;
use super::tokens::Tokens;
use crate::controllers::events::Recorder;
use crate::network::PodNetwork;

/// Client, network and settings of the agent.
pub(super) struct Context {
    pub(super) client: Client,
    pub(super) network: PodNetwork,
    pub(super) options: AgentOptions,
    pub(super) recorder: Recorder,
    pub(super) machine: Machine,
    pub(super) tokens: Tokens,
    /// Where `sealane up` was started: relative programs of images count from here.
    pub(super) working_dir: PathBuf,
}

/// What the machine has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Machine {
    /// Processors.
    pub(super) cpus: u64,
    /// Memory in bytes.
    pub(super) memory: u64,
}

impl Machine {
    /// Looks at this machine.
    pub(super) fn detect() -> Self {
        let cpus = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
        let info = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let total = info.lines().find_map(|line| {
            let kib = line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?;
            kib.parse::<u64>().ok()
        });
        Self {
            cpus,
            memory: total.unwrap_or(0) * 1024,
        }
    }
}

impl Context {
    /// The cluster's DNS.
    pub(super) fn dns(&self) -> ClusterDns {
        ClusterDns {
            server: self.options.cluster_dns,
            domain: self.options.cluster_domain.clone(),
        }
    }

    /// Where a pod with this address runs.
    pub(super) fn place(&self, pod_ip: std::net::IpAddr) -> Place {
        Place {
            pod_ip,
            host_ip: self.options.node_ip,
            cpus: self.machine.cpus,
            memory: self.machine.memory,
        }
    }

    /// The pod's directory, with the logs of its containers.
    pub(super) fn pod_dir(&self, pod: &Pod) -> PathBuf {
        let dir = self.log_dir(pod, "x");
        dir.parent().map_or(dir.clone(), Into::into)
    }

    /// Directory of a container's logs.
    pub(super) fn log_dir(&self, pod: &Pod, container: &str) -> PathBuf {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let meta = &pod.metadata;
        super::logs::directory(
            &self.options.data_dir,
            &text(&meta.namespace),
            &text(&meta.name),
            &text(&meta.uid),
            container,
        )
    }

    /// Directory of a pod's volumes.
    pub(super) fn volume_dir(&self, pod: &Pod) -> PathBuf {
        self.pod_dir(pod).join(".volumes")
    }

    /// A directory for a container's own files.
    pub(super) fn scratch_dir(&self, pod: &Pod, container: &Container) -> PathBuf {
        self.pod_dir(pod).join(".scratch").join(&container.name)
    }
}
