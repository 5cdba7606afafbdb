//! Options of `sealane up`, and what they come to.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use clap::ValueEnum;
use ipnet::Ipv4Net;
use sealane_cluster::runtime::images::ImageMap;
use sealane_config::compile::ServedClasses;

use crate::classes::ClassOptions;
use crate::exit::Failure;
use crate::gateway_settings::SettingsOptions;
use crate::manifests::{self, Manifest};
use crate::serve::workers::{self, AccessLogOptions};

/// Options as given.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct UpOptions {
    /// Manifests to apply: a file or a directory (repeatable)
    #[arg(short = 'f', long = "filename", value_name = "PATH")]
    filename: Vec<PathBuf>,
    /// What an image stands for: `NAME:TAG=COMMAND ARG…` (repeatable; without `:TAG` any tag; `*` allowed)
    #[arg(long = "image", value_name = "RULE")]
    image: Vec<String>,
    /// A YAML file of image rules, `NAME:TAG: COMMAND ARG…` a line
    #[arg(long = "images", value_name = "FILE")]
    images: Option<PathBuf>,
    /// Where state, logs, credentials and the kubeconfig are kept [default: ~/.local/share/sealane]
    #[arg(long, value_name = "DIR", env = "SEALANE_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// Keep the cluster's objects in memory only
    #[arg(long)]
    ephemeral: bool,
    /// Be a node of the control plane that this kubeconfig names, instead of bringing one
    #[arg(long, value_name = "FILE", conflicts_with_all = ["ephemeral", "api"])]
    kubeconfig: Option<PathBuf>,
    /// How pods are joined: network namespaces, or addresses of the loopback interface
    #[arg(long, value_enum, default_value_t = PodNetworkMode::Namespaces)]
    pod_network: PodNetworkMode,
    /// Address of the gateway for HTTP
    #[arg(long, default_value = "127.0.0.1:8080")]
    http: SocketAddr,
    /// Address of the gateway for HTTPS
    #[arg(long, default_value = "127.0.0.1:8443")]
    https: SocketAddr,
    /// Address of the cluster's DNS, UDP and TCP
    #[arg(long, default_value = "127.0.0.1:1053")]
    dns: SocketAddr,
    /// Address of the Kubernetes API
    #[arg(long, default_value = "127.0.0.1:6443")]
    api: SocketAddr,
    /// Address of the admin listener: /livez /readyz /metrics /version /debug
    #[arg(long, default_value = "127.0.0.1:9900")]
    admin: SocketAddr,
    #[command(flatten)]
    classes: ClassOptions,
    /// Worker threads of the data plane [default: one a core]
    #[arg(long)]
    workers: Option<usize>,
    /// Seconds to wait for pods before the summary is printed anyway
    #[arg(long, default_value_t = 60)]
    wait: u64,
    /// Print nothing but errors
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    access_log: AccessLogOptions,
    #[command(flatten)]
    gateway: SettingsOptions,
    /// How the summary is printed
    #[arg(long, short, value_enum, default_value_t = Output::Table)]
    output: Output,
}

/// How pods are joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PodNetworkMode {
    /// Each pod has a network namespace and an address of its own; works without root where user
    /// namespaces are allowed
    Namespaces,
    /// Each pod has an address 127.x.y.z in POD_IP to listen on; works everywhere
    Loopback,
}

/// Form of the summary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people
    Table,
    /// One JSON object on standard output
    Json,
}

/// Where the Kubernetes API comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ControlPlane {
    /// This process has its own.
    Embedded {
        /// Objects are kept in memory only.
        ephemeral: bool,
    },
    /// An API server that is there already, with its own controllers and scheduler: the file says
    /// where and as whom.
    Joined(PathBuf),
}

/// Options checked.
#[derive(Debug)]
pub(crate) struct Settings {
    /// Objects to apply.
    pub(crate) manifests: Vec<Manifest>,
    /// What images stand for.
    pub(crate) images: ImageMap,
    /// State, logs, credentials, kubeconfig.
    pub(crate) data_dir: PathBuf,
    /// Where the Kubernetes API comes from.
    pub(crate) control_plane: ControlPlane,
    /// How pods are joined.
    pub(crate) pod_network: PodNetworkMode,
    /// Gateway, plain.
    pub(crate) http: SocketAddr,
    /// Gateway, TLS.
    pub(crate) https: SocketAddr,
    /// DNS.
    pub(crate) dns: SocketAddr,
    /// Kubernetes API, or the node's own API for a joined control plane.
    pub(crate) api: SocketAddr,
    /// Admin.
    pub(crate) admin: SocketAddr,
    /// Which IngressClasses are served.
    pub(crate) classes: ServedClasses,
    /// Data-plane threads.
    pub(crate) workers: usize,
    /// How long to wait for pods before the summary.
    pub(crate) wait: std::time::Duration,
    /// Print nothing but errors.
    pub(crate) quiet: bool,
    /// Whether to write a line for each request.
    pub(crate) access_log: AccessLogOptions,
    /// The gateway as a whole.
    pub(crate) gateway: SettingsOptions,
    /// Form of the summary.
    pub(crate) output: Output,
}

impl UpOptions {
    /// Reads every file that the options name and checks every value.
    ///
    /// # Errors
    /// All problems at once, a line each.
    pub(crate) fn check(self) -> Result<Settings, Failure> {
        let mut problems = Vec::new();
        let manifests = manifests::load(&self.filename).unwrap_or_else(|errors| {
            problems.extend(errors.iter().map(ToString::to_string));
            Vec::new()
        });
        let images = self.image_map(&mut problems);
        let workers = workers::count(self.workers).unwrap_or_else(|problem| {
            problems.push(problem);
            1
        });
        let data_dir = self.data_dir.or_else(default_data_dir).unwrap_or_else(|| {
            problems.push("neither XDG_DATA_HOME nor HOME is set: give --data-dir DIR".to_owned());
            PathBuf::new()
        });
        problems.extend(self.gateway.problem());
        if !problems.is_empty() {
            return Err(Failure::Input(problems));
        }
        // A joined control plane learns the node's port from the Node object.
        let api = match &self.kubeconfig {
            Some(_) => SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            None => self.api,
        };
        // In a cluster of our own nobody else can be there to serve them.
        let classes = self.classes.served(match &self.kubeconfig {
            Some(_) => ServedClasses::default(),
            None => ServedClasses::with_ingress_nginx(),
        });
        Ok(Settings {
            classes,
            manifests,
            images,
            data_dir: std::path::absolute(&data_dir).unwrap_or(data_dir),
            control_plane: match self.kubeconfig {
                Some(file) => ControlPlane::Joined(std::path::absolute(&file).unwrap_or(file)),
                None => ControlPlane::Embedded {
                    ephemeral: self.ephemeral,
                },
            },
            pod_network: self.pod_network,
            http: self.http,
            https: self.https,
            dns: self.dns,
            api,
            admin: self.admin,
            workers,
            wait: std::time::Duration::from_secs(self.wait),
            quiet: self.quiet,
            access_log: self.access_log,
            gateway: self.gateway,
            output: self.output,
        })
    }
}

impl UpOptions {
    /// The rules of the file and then of the flags, which win.
    fn image_map(&self, problems: &mut Vec<String>) -> ImageMap {
        let mut images = ImageMap::new();
        if let Some(file) = &self.images {
            let added = std::fs::read_to_string(file)
                .map_err(|error| error.to_string())
                .and_then(|text| images.add_file(&text).map_err(|error| error.to_string()));
            if let Err(error) = added {
                problems.push(format!("{}: {error}", file.display()));
            }
        }
        for rule in &self.image {
            if let Err(error) = images.add_flag(rule) {
                problems.push(format!("--image: {error}"));
            }
        }
        images
    }
}

/// `$XDG_DATA_HOME/sealane`, by the XDG base directory specification.
pub(crate) fn default_data_dir() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    set("XDG_DATA_HOME")
        .map(PathBuf::from)
        .filter(|dir| dir.is_absolute())
        .or_else(|| set("HOME").map(|home| PathBuf::from(home).join(".local/share")))
        .map(|dir| dir.join("sealane"))
}

/// Addresses of the embedded cluster; they differ between the two pod networks because loopback
/// mode can only use 127.0.0.0/8.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Addresses {
    /// Pods.
    pub(crate) pods: Ipv4Net,
    /// Services.
    pub(crate) services: Ipv4Net,
    /// The node.
    pub(crate) node: Ipv4Addr,
    /// Cluster DNS as pods see it.
    pub(crate) dns: IpAddr,
}

impl PodNetworkMode {
    /// The addresses used in this mode.
    pub(crate) fn addresses(self) -> Addresses {
        const fn net(a: u8, b: u8) -> Ipv4Net {
            Ipv4Net::new_assert(Ipv4Addr::new(a, b, 0, 0), 16)
        }
        match self {
            Self::Namespaces => Addresses {
                pods: net(10, 244),
                services: net(10, 96),
                node: Ipv4Addr::new(10, 244, 0, 1),
                dns: Ipv4Addr::new(10, 96, 0, 10).into(),
            },
            Self::Loopback => Addresses {
                pods: net(127, 244),
                services: net(127, 96),
                node: Ipv4Addr::LOCALHOST,
                dns: Ipv4Addr::new(127, 96, 0, 10).into(),
            },
        }
    }
}
