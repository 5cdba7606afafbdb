//! How kube-proxy is started beside what it is compared with.

use std::path::Path;

/// Flags of kube-proxy in nftables mode, as node `node`, that leaves the machine's settings for
/// connection tracking alone.
pub fn kube_proxy_flags(kubeconfig: &Path, node: &str) -> impl Iterator<Item = String> {
    let fixed = [
        "--proxy-mode=nftables",
        "--cluster-cidr=10.0.0.0/8",
        "--metrics-bind-address=127.0.0.1:10249",
        "--healthz-bind-address=127.0.0.1:10256",
        "--conntrack-max-per-core=0",
        "--conntrack-tcp-timeout-established=0",
        "--conntrack-tcp-timeout-close-wait=0",
    ];
    let own = [
        format!("--kubeconfig={}", kubeconfig.display()),
        format!("--hostname-override={node}"),
    ];
    own.into_iter().chain(fixed.map(str::to_owned))
}
