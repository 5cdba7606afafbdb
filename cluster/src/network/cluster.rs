//! The cluster's network namespace and the thread that owns it.
//!
//! Making a namespace moves the calling thread into it, so all of that happens on one thread of its
//! own, which also holds the netlink sockets. It handles one request after the other: the kernel
//! serialises these changes anyhow.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, mpsc as std_mpsc};

use ipnet::Ipv4Net;
use nix::sched::{CloneFlags, setns, unshare};
use rtnetlink::Handle;
use tokio::sync::{mpsc, oneshot};

use super::allocate::Allocator;
use super::link::{self, PodLink};
use super::{NetworkError, PodAttachment};

/// Requests that wait for the thread; each takes a few milliseconds.
const QUEUE: usize = 64;

/// Device indexes of the cluster's ends of veth pairs start here.
const FIRST_INDEX: u32 = 1000;

/// What the cluster's network looks like.
#[derive(Clone, Debug)]
pub struct ClusterNetworkOptions {
    /// Where pods get their addresses.
    pub pod_cidr: Ipv4Net,
    /// Where Services get theirs. Must not overlap `pod_cidr`.
    pub service_cidr: Ipv4Net,
    /// The node's address as pods see it; within `pod_cidr` it is not given to a pod.
    pub node_ip: Ipv4Addr,
    /// More addresses on which the node itself listens, such as the cluster DNS's.
    pub local_addresses: Vec<IpAddr>,
}

/// The cluster's network namespace. Clones share it; it ends with the last one, and with the last
/// thread that [entered](Self::enter) it.
#[derive(Clone, Debug)]
pub struct ClusterNetwork {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    requests: mpsc::Sender<Request>,
    netns: OwnedFd,
    node_ip: Ipv4Addr,
}

#[derive(Debug)]
enum Request {
    Attach {
        pod_uid: String,
        ip: Option<IpAddr>,
        reply: oneshot::Sender<Result<PodAttachment, NetworkError>>,
    },
    Detach {
        pod_uid: String,
        reply: oneshot::Sender<()>,
    },
}

impl ClusterNetwork {
    /// Makes the namespace. Needs `CAP_SYS_ADMIN` and `CAP_NET_ADMIN`, see [`super::userns`].
    /// Blocks for some milliseconds.
    ///
    /// # Errors
    /// [`NetworkError::NotPermitted`]; the CIDRs overlap; or the kernel refused.
    pub fn create(options: ClusterNetworkOptions) -> Result<Self, NetworkError> {
        let (pods, services) = (options.pod_cidr, options.service_cidr);
        if pods.contains(&services.network()) || services.contains(&pods.network()) {
            let overlap = io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("pod CIDR {pods} and Service CIDR {services} overlap"),
            );
            return Err(NetworkError::system("lay out the network")(overlap));
        }
        let node_ip = options.node_ip;
        let (requests, receiver) = mpsc::channel(QUEUE);
        let (ready, started) = std_mpsc::sync_channel(1);
        std::thread::Builder::new()
            .name("cluster-network".into())
            .spawn(move || run(options, receiver, &ready))
            .map_err(NetworkError::system("start a thread"))?;
        let netns = started.recv().map_err(|_gone| NetworkError::Closed)??;
        Ok(Self {
            shared: Arc::new(Shared {
                requests,
                netns,
                node_ip,
            }),
        })
    }

    /// Moves the calling thread into the cluster's namespace. Sockets that it and the threads it
    /// starts make from now on belong there.
    ///
    /// # Errors
    /// The system call's.
    pub fn enter(&self) -> Result<(), NetworkError> {
        enter(&self.shared.netns).map_err(NetworkError::system("enter the cluster's namespace"))
    }

    /// The node's address as pods see it.
    pub fn node_ip(&self) -> IpAddr {
        self.shared.node_ip.into()
    }

    pub(super) async fn attach(
        &self,
        pod_uid: &str,
        ip: Option<IpAddr>,
    ) -> Result<PodAttachment, NetworkError> {
        let (reply, answer) = oneshot::channel();
        let request = Request::Attach {
            pod_uid: pod_uid.to_owned(),
            ip,
            reply,
        };
        let sent = self.shared.requests.send(request).await;
        sent.map_err(|_gone| NetworkError::Closed)?;
        answer.await.map_err(|_gone| NetworkError::Closed)?
    }

    pub(super) async fn detach(&self, pod_uid: &str) {
        let (reply, done) = oneshot::channel();
        let pod_uid = pod_uid.to_owned();
        let request = Request::Detach { pod_uid, reply };
        if self.shared.requests.send(request).await.is_ok() {
            // The thread being gone means that the namespace with all its links is, too.
            let _ = done.await;
        }
    }
}

type Ready = std_mpsc::SyncSender<Result<OwnedFd, NetworkError>>;

fn run(options: ClusterNetworkOptions, mut requests: mpsc::Receiver<Request>, ready: &Ready) {
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = ready.send(Err(NetworkError::system("start a runtime")(error)));
            return;
        }
    };
    runtime.block_on(async {
        let started = match Pods::start(options).await {
            Ok(pods) => pods
                .netns
                .try_clone()
                .map_err(NetworkError::system("keep the cluster's namespace"))
                .map(|netns| (pods, netns)),
            Err(error) => Err(error),
        };
        let mut pods = match started {
            Ok((pods, netns)) => {
                // `create` waits for this, so it can only fail if that thread died.
                let _ = ready.send(Ok(netns));
                pods
            }
            Err(error) => {
                let _ = ready.send(Err(error));
                return;
            }
        };
        while let Some(request) = requests.recv().await {
            pods.handle(request).await;
        }
    });
}

/// The pods of the cluster, as the thread sees them.
struct Pods {
    netns: OwnedFd,
    netlink: Handle,
    node_ip: Ipv4Addr,
    addresses: Allocator,
    next_index: u32,
    pods: HashMap<String, Pod>,
}

struct Pod {
    link: PodLink,
    netns: OwnedFd,
}

impl Pods {
    /// Moves the thread into a new namespace and sets it up.
    async fn start(options: ClusterNetworkOptions) -> Result<Self, NetworkError> {
        unshare(CloneFlags::CLONE_NEWNET)
            .map_err(|errno| NetworkError::NotPermitted(errno.into()))?;
        let netns = current_netns().map_err(NetworkError::system("open the namespace"))?;
        let netlink = link::open().map_err(NetworkError::system("open a netlink socket"))?;
        set_cluster_sysctls()?;
        link::loopback_up(&netlink).await?;
        let node_ip = options.node_ip;
        link::add_local_address(&netlink, node_ip.into()).await?;
        for ip in &options.local_addresses {
            link::add_local_address(&netlink, *ip).await?;
        }
        let with_ipv6 = Path::new("/proc/sys/net/ipv6").exists();
        link::deliver_marked_packets(&netlink, link::INTERCEPT_MARK, with_ipv6).await?;
        let mut reserved = vec![node_ip];
        reserved.extend(options.local_addresses.iter().filter_map(|ip| match ip {
            IpAddr::V4(ip) => Some(*ip),
            IpAddr::V6(_) => None,
        }));
        Ok(Self {
            netns,
            netlink,
            node_ip,
            addresses: Allocator::new(options.pod_cidr, reserved),
            next_index: FIRST_INDEX,
            pods: HashMap::new(),
        })
    }

    async fn handle(&mut self, request: Request) {
        // A requester may have given up; what it asked for has happened all the same.
        match request {
            Request::Attach { pod_uid, ip, reply } => {
                let attached = self.attach(&pod_uid, ip).await;
                if reply.send(attached).is_err() {
                    self.detach(&pod_uid).await;
                }
            }
            Request::Detach { pod_uid, reply } => {
                self.detach(&pod_uid).await;
                let _ = reply.send(());
            }
        }
    }

    async fn attach(
        &mut self,
        pod_uid: &str,
        ip: Option<IpAddr>,
    ) -> Result<PodAttachment, NetworkError> {
        if !self.pods.contains_key(pod_uid) {
            let ip = self.addresses.take(ip)?;
            match self.create_pod(ip).await {
                Ok(pod) => self.pods.insert(pod_uid.to_owned(), pod),
                Err(error) => {
                    self.addresses.free(ip);
                    return Err(error);
                }
            };
        }
        let pod = &self.pods[pod_uid];
        let netns = pod.netns.try_clone();
        Ok(PodAttachment {
            ip: pod.link.ip.into(),
            netns: Some(netns.map_err(NetworkError::system("hand out the pod's namespace"))?),
        })
    }

    /// If this fails half-way, the new namespace is closed, which takes its links along.
    async fn create_pod(&mut self, ip: Ipv4Addr) -> Result<Pod, NetworkError> {
        let index = self.next_index;
        self.next_index += 1;
        let link = PodLink { ip, index };
        let (netns, netlink) = self.create_namespace()?;
        link.create(&netlink, &self.netlink, self.netns.as_fd(), self.node_ip)
            .await?;
        Ok(Pod { link, netns })
    }

    /// A new namespace and a netlink socket in it. The thread is back in the cluster's afterwards.
    fn create_namespace(&self) -> Result<(OwnedFd, Handle), NetworkError> {
        unshare(CloneFlags::CLONE_NEWNET)
            .map_err(io::Error::from)
            .map_err(NetworkError::system("make a pod's network namespace"))?;
        let made = current_netns().and_then(|netns| {
            // Containers may listen on any port, as with containerd. Losing this only matters to
            // programs that gave up their capabilities.
            let _ = fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0");
            Ok((netns, link::open()?))
        });
        enter(&self.netns).map_err(NetworkError::system("return to the cluster's namespace"))?;
        made.map_err(NetworkError::system("open a pod's namespace"))
    }

    async fn detach(&mut self, pod_uid: &str) {
        let Some(pod) = self.pods.remove(pod_uid) else {
            return;
        };
        if let Err(error) = pod.link.cut(&self.netlink).await {
            tracing::warn!(ip = %pod.link.ip, error = &error as &dyn std::error::Error, "pod not cut off");
        }
        self.addresses.free(pod.link.ip);
    }
}

/// Settings of the cluster's namespace; a new namespace may have inherited anything from the host.
fn set_cluster_sysctls() -> Result<(), NetworkError> {
    for (name, value) in [
        // Pods reach each other through this namespace.
        ("ip_forward", "1"),
        // A pod cannot send from another's address.
        ("conf/all/rp_filter", "1"),
        ("conf/default/rp_filter", "1"),
        // The proxy connects to pods from their clients' addresses. With ports that pods do not
        // choose from (32768 up), it never takes one that the client itself uses.
        ("ip_local_port_range", "10000 29999"),
        // Short connections between the same two pods would use those ports up within a minute.
        ("tcp_tw_reuse", "1"),
    ] {
        fs::write(Path::new("/proc/sys/net/ipv4").join(name), value).map_err(
            NetworkError::system(format!(
                "set the sysctl net.ipv4.{} (in a container, /proc/sys may be read-only)",
                name.replace('/', ".")
            )),
        )?;
    }
    Ok(())
}

/// The calling thread's network namespace.
fn current_netns() -> io::Result<OwnedFd> {
    File::open("/proc/thread-self/ns/net").map(Into::into)
}

fn enter(netns: &OwnedFd) -> io::Result<()> {
    setns(netns, CloneFlags::CLONE_NEWNET).map_err(Into::into)
}
