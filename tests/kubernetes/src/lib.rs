//! A real Kubernetes control plane for tests: kube-apiserver on etcd, with kube-controller-manager
//! and kube-scheduler if wanted, on free loopback ports.
//!
//! The programs are built once from the Go module beside this crate ([`programs`]); a machine
//! without Go cannot, and [`ControlPlane::start`] says so in [`Unavailable`], which a test prints as
//! the reason why it is skipped. Everything that was started ends with the [`ControlPlane`], and in
//! any case with the test process.

mod control_plane;
mod coredns;
mod etcd;
mod fault_proxy;
mod kube_proxy;
mod kubeconfig;
mod node_namespace;
mod pki;
mod population;
mod port;
mod process;
mod programs;
mod size;

pub use control_plane::{ControlPlane, Options};
pub use coredns::{COREDNS_VERSION, coredns};
pub use fault_proxy::{FaultProxy, Network};
pub use kube_proxy::kube_proxy_flags;
pub use node_namespace::NodeNamespace;
pub use population::{create, node, objects};
pub use port::free_port;
pub use process::Process;
pub use programs::{Program, Unavailable, path};
pub use size::Size;
