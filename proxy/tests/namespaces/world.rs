//! A cluster's network with pods, and the snapshot that describes its Services.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};
use sealane_cluster::network::userns::prove_capabilities;
use sealane_cluster::network::{ClusterNetwork, ClusterNetworkOptions, INTERCEPT_MARK, PodNetwork};
use sealane_config::model::{AppProtocol, Endpoint, Protocol, ServiceKey, ServicePort};
use sealane_config::model::{Service, ServiceKind};
use sealane_config::sockets::HostSockets;
use sealane_config::{Publisher, Snapshot, snapshot};
use sealane_proxy::connect::Connector;
use sealane_proxy::http::{Engine, EngineOptions};
use sealane_proxy::intercept::{InterceptOptions, Interceptor, Method};
use sealane_proxy::node::{Capture, NodeProxy};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub(crate) const TIMEOUT: Duration = Duration::from_secs(5);
pub(crate) const PORT: u16 = 15001;
pub(crate) const DNS: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);

/// A cluster's network.
pub(crate) struct World {
    network: ClusterNetwork,
    /// How connections are intercepted.
    pub(crate) method: Method,
    runtime: tokio::runtime::Runtime,
}

impl World {
    pub(crate) fn new() -> Option<Self> {
        if !may_make_namespaces() {
            return None;
        }
        let network = ClusterNetwork::create(ClusterNetworkOptions {
            pod_cidr: "10.244.0.0/16".parse().unwrap(),
            service_cidr: "10.96.0.0/16".parse().unwrap(),
            node_ip: Ipv4Addr::new(10, 244, 0, 1),
            local_addresses: vec![DNS.into()],
        });
        Some(Self {
            network: network.unwrap(),
            method: Method::Transparent,
            runtime: tokio::runtime::Builder::new_current_thread()
                .build()
                .unwrap(),
        })
    }

    pub(crate) fn node_ip(&self) -> IpAddr {
        self.network.node_ip()
    }

    pub(crate) fn options(&self) -> InterceptOptions {
        InterceptOptions {
            method: self.method,
            port: PORT,
            mark: INTERCEPT_MARK,
            node_ips: vec![self.node_ip()].into(),
            local_addresses: vec![DNS.into()],
            pod_cidrs: vec!["10.244.0.0/16".parse().unwrap()],
            service_cidrs: vec!["10.96.0.0/16".parse().unwrap()],
            egress: true,
            ..InterceptOptions::default()
        }
    }

    pub(crate) fn pod(&self, name: &str) -> Pod {
        let network = PodNetwork::Namespaces(self.network.clone());
        let attachment = self.runtime.block_on(network.attach(name, None)).unwrap();
        Pod {
            ip: attachment.ip,
            netns: attachment.netns.unwrap(),
        }
    }

    /// Starts a thread in the cluster's namespace.
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let network = self.network.clone();
        std::thread::spawn(move || {
            network.enter().unwrap();
            work()
        })
    }

    /// Runs something in the cluster's namespace.
    pub(crate) fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        self.spawn(work).join().unwrap()
    }
}

/// A running node proxy.
pub(crate) struct Proxy {
    publisher: Publisher,
    applied: watch::Receiver<u64>,
    /// A namespace that stands for the host's.
    pub(crate) outside: Pod,
    shutdown: CancellationToken,
    threads: Vec<JoinHandle<()>>,
}

impl Proxy {
    /// Starts a worker and the rules, and waits until the rules are in force.
    pub(crate) fn start(world: &World, snapshot: Snapshot) -> Self {
        Self::start_with_outside(world, snapshot, Ipv4Addr::new(192, 0, 2, 1).into())
    }

    /// The same with an address for the host.
    pub(crate) fn start_with_outside(world: &World, snapshot: Snapshot, address: IpAddr) -> Self {
        let outside = Pod::host(address);
        let host = outside.run(|| HostSockets::spawn().unwrap());
        let cluster = ["10.244.0.0/16", "10.96.0.0/16"].map(|cidr| cidr.parse().unwrap());
        let connector = Connector::Split {
            cluster: Arc::new(cluster),
            host: host.clone(),
        };
        let spawn = |work: Box<dyn FnOnce() + Send>| world.spawn(work);
        let sockets = (connector, host);
        Self::start_by(spawn, world.options(), sockets, outside, snapshot)
    }

    /// Starts a worker and the rules on threads that `spawn` starts in a namespace.
    pub(crate) fn start_by(
        spawn: impl Fn(Box<dyn FnOnce() + Send>) -> JoinHandle<()>,
        options: InterceptOptions,
        (connector, host): (Connector, HostSockets),
        outside: Pod,
        snapshot: Snapshot,
    ) -> Self {
        let (publisher, reader) = snapshot::channel();
        let shutdown = CancellationToken::new();
        let (started, ready) = std::sync::mpsc::channel();
        let (rules, stop) = (reader.clone(), shutdown.clone());
        let for_rules = options.clone();
        let rules = spawn(Box::new(move || {
            let interceptor = Interceptor::open(for_rules).unwrap();
            started.send(interceptor.applied()).unwrap();
            block_on(interceptor.run(rules, stop));
        }));
        let applied = ready.recv().unwrap();
        let (bound, ready) = std::sync::mpsc::channel();
        let stop = shutdown.clone();
        let worker = spawn(Box::new(move || {
            let connector = connector.of_node(&options);
            let capture = Capture::Transparent(options);
            block_on(async {
                let engine = Engine::new(connector.clone(), EngineOptions::default());
                let proxy = NodeProxy::bind(capture, reader, engine, connector, host);
                let proxy = proxy.unwrap();
                bound.send(()).unwrap();
                // Connections that tests leave open are cut off.
                tokio::select! {
                    () = proxy.run(stop.clone()) => {}
                    () = stop.cancelled() => {}
                }
            });
        }));
        ready.recv().unwrap();
        let mut proxy = Self {
            publisher,
            applied,
            outside,
            shutdown,
            threads: vec![rules, worker],
        };
        proxy.publish(snapshot);
        proxy
    }

    /// Publishes a snapshot and waits for nothing.
    pub(crate) fn announce(&mut self, snapshot: Snapshot) {
        self.publisher.publish(snapshot);
    }

    /// Publishes a snapshot and waits until the rules follow it.
    pub(crate) fn publish(&mut self, snapshot: Snapshot) {
        let generation = self.publisher.publish(snapshot);
        let applied = &self.applied;
        eventually(|| *applied.borrow(), |applied| *applied >= generation);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shutdown.cancel();
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
    }
}

/// Runs a worker's future.
pub(crate) fn block_on(future: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, future);
}

/// A pod's namespace.
pub(crate) struct Pod {
    pub(crate) ip: IpAddr,
    netns: OwnedFd,
}

impl Pod {
    /// An empty namespace for something with this address.
    pub(crate) fn empty(ip: IpAddr) -> Self {
        let netns = std::thread::spawn(|| {
            nix::sched::unshare(CloneFlags::CLONE_NEWNET).unwrap();
            std::fs::File::open("/proc/thread-self/ns/net").unwrap()
        });
        let empty = Self {
            ip,
            netns: netns.join().unwrap().into(),
        };
        empty.ip("link set lo up");
        empty
    }

    /// Another handle of the same namespace.
    pub(crate) fn again(&self) -> Self {
        Self {
            ip: self.ip,
            netns: self.netns.try_clone().unwrap(),
        }
    }

    /// The namespace as `ip` takes it.
    pub(crate) fn path(&self) -> String {
        let number = std::os::fd::AsRawFd::as_raw_fd(&self.netns);
        format!("/proc/{}/fd/{number}", std::process::id())
    }

    /// Runs `ip` in the namespace, and returns what it says.
    pub(crate) fn ip(&self, arguments: &str) -> String {
        let arguments = arguments.to_owned();
        self.run(move || {
            let mut ip = std::process::Command::new("ip");
            let output = ip.args(arguments.split(' ')).output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "ip {arguments}: {said}");
            String::from_utf8(output.stdout).unwrap()
        })
    }

    /// Waits until a link whose ends were both set up takes packets. Until the kernel comes to it, for all
    /// namespaces once a second if there are many, it loses them.
    pub(crate) fn wait_for_link(&self, device: &str) {
        eventually(
            || self.ip(&format!("-oneline link show dev {device}")),
            |link| link.contains(" state UP "),
        );
    }

    /// A namespace of its own that is joined to nothing and has one more address.
    fn host(address: IpAddr) -> Self {
        let netns = std::thread::spawn(move || {
            nix::sched::unshare(CloneFlags::CLONE_NEWNET).unwrap();
            block_on(async {
                let (connection, netlink, _) = rtnetlink::new_connection().unwrap();
                tokio::spawn(connection);
                let lo = rtnetlink::LinkMessageBuilder::<rtnetlink::LinkUnspec>::new()
                    .index(1)
                    .up()
                    .build();
                netlink.link().set(lo).execute().await.unwrap();
                let added = netlink.address().add(1, address, 32).execute().await;
                added.unwrap();
            });
            std::fs::File::open("/proc/thread-self/ns/net").unwrap()
        });
        Self {
            ip: address,
            netns: netns.join().unwrap().into(),
        }
    }

    /// A pod with a link to another namespace, its default route for both families: their addresses
    /// are 10.9.0.1 and fd09::1, 10.9.0.2 and fd09::2.
    pub(crate) fn with_peer() -> Option<(Self, Self)> {
        if !may_make_namespaces() {
            return None;
        }
        let peer = std::thread::spawn(|| {
            nix::sched::unshare(CloneFlags::CLONE_NEWNET).unwrap();
            std::fs::File::open("/proc/thread-self/ns/net").unwrap()
        });
        let peer = OwnedFd::from(peer.join().unwrap());
        let theirs = peer.try_clone().unwrap();
        let pod = std::thread::spawn(move || {
            nix::sched::unshare(CloneFlags::CLONE_NEWNET).unwrap();
            block_on(link_to(theirs));
            std::fs::File::open("/proc/thread-self/ns/net").unwrap()
        });
        let [pod, peer] = [(1, pod.join().unwrap().into()), (2, peer)].map(|(last, netns)| Self {
            ip: Ipv4Addr::new(10, 9, 0, last).into(),
            netns,
        });
        peer.run(|| block_on(set_up(2, false)));
        pod.run(|| block_on(set_up(1, true)));
        Some((pod, peer))
    }

    /// Starts a thread in the pod.
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let netns = self.netns.try_clone().unwrap();
        std::thread::spawn(move || {
            setns(&netns, CloneFlags::CLONE_NEWNET).unwrap();
            work()
        })
    }

    /// Runs something in the pod.
    pub(crate) fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        self.spawn(work).join().unwrap()
    }

    /// Connects from the pod; an error comes with the time that it took.
    pub(crate) fn connect(
        &self,
        addr: impl Into<SocketAddr>,
    ) -> Result<TcpStream, (io::ErrorKind, Duration)> {
        let addr = addr.into();
        self.run(move || {
            let begun = Instant::now();
            let stream = TcpStream::connect_timeout(&addr, TIMEOUT)
                .map_err(|error| (error.kind(), begun.elapsed()))?;
            stream.set_read_timeout(Some(TIMEOUT)).unwrap();
            Ok(stream)
        })
    }

    /// A server in the pod that answers each line with its name, the client's address and the line.
    /// It ends with the process.
    pub(crate) fn serve_lines(&self, name: &'static str, port: u16) {
        let ip = self.ip;
        let listener = self.run(move || TcpListener::bind((ip, port)).unwrap());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                std::thread::spawn(move || {
                    let client = stream.peer_addr().unwrap().ip();
                    while let Ok(line) = read_line(&mut stream) {
                        let answer = format!("{name} {client} {line}\n");
                        if line.is_empty() || stream.write_all(answer.as_bytes()).is_err() {
                            break;
                        }
                    }
                });
            }
        });
    }
}

/// The IPv6 addresses of [`Pod::with_peer`].
pub(crate) fn v6(last: u16) -> IpAddr {
    std::net::Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, last).into()
}

/// Makes a pair of devices, of which one goes to the other namespace.
async fn link_to(other: OwnedFd) {
    use rtnetlink::packet_route::link::{InfoData, InfoKind, InfoVeth};
    let (connection, netlink, _) = rtnetlink::new_connection().unwrap();
    tokio::spawn(connection);
    let there = rtnetlink::LinkMessageBuilder::<rtnetlink::LinkUnspec>::new()
        .name("eth0".to_owned())
        .setns_by_fd(std::os::fd::AsRawFd::as_raw_fd(&other))
        .build();
    let pair =
        rtnetlink::LinkMessageBuilder::<rtnetlink::LinkVeth>::new_with_info_kind(InfoKind::Veth)
            .name("eth0".to_owned())
            .set_info_data(InfoData::Veth(InfoVeth::Peer(there)))
            .build();
    netlink.link().add(pair).execute().await.unwrap();
}

/// Brings the devices of one end up; `routed` makes the other end its way out.
async fn set_up(last: u8, routed: bool) {
    use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags};
    let (connection, netlink, _) = rtnetlink::new_connection().unwrap();
    tokio::spawn(connection);
    let name = std::ffi::CString::new("eth0").unwrap();
    let eth0 = nix::net::if_::if_nametoindex(name.as_c_str()).unwrap();
    for index in [1, eth0] {
        let up = rtnetlink::LinkMessageBuilder::<rtnetlink::LinkUnspec>::new()
            .index(index)
            .up();
        netlink.link().set(up.build()).execute().await.unwrap();
    }
    let v4 = Ipv4Addr::new(10, 9, 0, last);
    netlink
        .address()
        .add(eth0, v4.into(), 24)
        .execute()
        .await
        .unwrap();
    let mut address = netlink.address().add(eth0, v6(last.into()), 64);
    let flags = AddressAttribute::Flags(AddressFlags::Nodad);
    address.message_mut().attributes.push(flags);
    address.execute().await.unwrap();
    if !routed {
        return;
    }
    let gateway = Ipv4Addr::new(10, 9, 0, 3 - last);
    let route = rtnetlink::RouteMessageBuilder::<Ipv4Addr>::new()
        .gateway(gateway)
        .build();
    netlink.route().add(route).execute().await.unwrap();
    let IpAddr::V6(gateway) = v6(3 - u16::from(last)) else {
        return;
    };
    let route = rtnetlink::RouteMessageBuilder::<std::net::Ipv6Addr>::new()
        .gateway(gateway)
        .build();
    netlink.route().add(route).execute().await.unwrap();
}

/// Whether this machine lets us make namespaces; skips the test if not.
pub(crate) fn may_make_namespaces() -> bool {
    let Err(error) = prove_capabilities() else {
        return true;
    };
    let required = std::env::var("SEALANE_TEST_REQUIRE").is_ok_and(|what| what == "all");
    assert!(!required, "{error:?}");
    eprintln!("skipped: {error}");
    false
}

/// Sends a line and returns the answer's.
pub(crate) fn ask(stream: &mut TcpStream, line: &str) -> io::Result<String> {
    stream.write_all(format!("{line}\n").as_bytes())?;
    read_line(stream)
}

/// Reads up to a newline, byte by byte so that nothing behind it is taken.
pub(crate) fn read_line(stream: &mut TcpStream) -> io::Result<String> {
    let mut line = Vec::new();
    let mut byte = [0];
    loop {
        match stream.read(&mut byte) {
            Ok(1) if byte[0] != b'\n' => line.push(byte[0]),
            Ok(_) => break,
            // A signal ends reads with a timeout, whatever becomes of it.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(String::from_utf8(line).unwrap())
}

/// Waits until something holds, and says what was seen last if it never does.
pub(crate) fn eventually<T: std::fmt::Debug>(
    mut look: impl FnMut() -> T,
    holds: impl Fn(&T) -> bool,
) -> T {
    let begun = Instant::now();
    loop {
        let seen = look();
        if holds(&seen) {
            return seen;
        }
        assert!(begun.elapsed() < TIMEOUT, "still {seen:?}");
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

/// A Service port with these endpoints.
pub(crate) fn service_port(
    number: u16,
    app_protocol: AppProtocol,
    endpoints: &[SocketAddr],
) -> ServicePort {
    let endpoint = |&addr: &SocketAddr| Arc::new(Endpoint::at(addr));
    ServicePort {
        service: ServiceKey {
            namespace: "default".into(),
            name: "api".into(),
        },
        name: "".into(),
        port: number,
        protocol: Protocol::Tcp,
        node_port: None,
        app_protocol,
        endpoints: endpoints.iter().map(endpoint).collect(),
        local: None,
        everywhere: None,
        policy: Arc::default(),
        http: Arc::default(),
    }
}

/// A synced snapshot with one Service for each of these ports.
pub(crate) fn snapshot_of(ports: impl IntoIterator<Item = (IpAddr, ServicePort)>) -> Snapshot {
    let mut snapshot = Snapshot {
        synced: true,
        ..Snapshot::default()
    };
    for (ip, mut port) in ports {
        port.service.name = format!("{ip}-{}", port.port).into();
        let port = Arc::new(port);
        let key = (port.protocol, port.port);
        if let Some(number) = port.node_port {
            let port = Arc::clone(&port);
            snapshot.node_ports.insert_mut((key.0, number), port);
        }
        let service = Service {
            listed_ports: Arc::default(),
            key: port.service.clone(),
            kind: ServiceKind::ClusterIp,
            cluster_ips: vec![ip],
            load_balancer_ips: Vec::new(),
            external_ips: Vec::new(),
            policy: Arc::default(),
            ports: vec![Arc::clone(&port)],
            endpoints: Arc::new([]),
        };
        snapshot.cluster_ips.insert_mut(ip, service.key.clone());
        let services = &mut snapshot.services;
        services.insert_mut(service.key.clone(), Arc::new(service));
        snapshot.vips.insert_mut((ip, key.0, key.1), port);
    }
    snapshot
}
