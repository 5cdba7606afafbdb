//! A cluster's network with pods, and the snapshot that describes its Services.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
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
        if let Err(error) = prove_capabilities() {
            let required = std::env::var("SEALANE_TEST_REQUIRE").is_ok_and(|what| what == "all");
            assert!(!required, "{error:?}");
            eprintln!("skipped: {error}");
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
            node_ips: vec![self.node_ip()],
            local_addresses: vec![DNS.into()],
            pod_cidrs: vec!["10.244.0.0/16".parse().unwrap()],
            service_cidrs: vec!["10.96.0.0/16".parse().unwrap()],
            egress: true,
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
        let (publisher, reader) = snapshot::channel();
        let shutdown = CancellationToken::new();
        let (options, rules, stop) = (world.options(), reader.clone(), shutdown.clone());
        let interceptor = world.run(move || Interceptor::open(options).unwrap());
        let applied = interceptor.applied();
        let rules = world.spawn(move || block_on(interceptor.run(rules, stop)));
        let (capture, stop) = (Capture::Transparent(world.options()), shutdown.clone());
        let (bound, ready) = std::sync::mpsc::channel();
        let worker = world.spawn(move || {
            let cluster = ["10.244.0.0/16", "10.96.0.0/16"].map(|cidr| cidr.parse().unwrap());
            let connector = Connector::Split {
                cluster: Arc::new(cluster),
                host: host.clone(),
            };
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
        });
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

impl Pod {
    /// A server in the pod that answers each datagram with its name, the client's address and the
    /// text. Closed when the returned value is dropped.
    pub(crate) fn serve_datagrams(&self, name: &'static str, port: u16) -> DatagramServer {
        let addr = (self.ip, port);
        DatagramServer::start(name, self.run(move || UdpSocket::bind(addr).unwrap()))
    }

    /// A socket of the pod that is connected to `addr`.
    pub(crate) fn datagrams(&self, addr: impl Into<SocketAddr>) -> UdpSocket {
        let addr = addr.into();
        self.run(move || datagrams(addr))
    }
}

/// A socket that is connected to `addr`, in the namespace of the calling thread.
pub(crate) fn datagrams(addr: SocketAddr) -> UdpSocket {
    let any: IpAddr = if addr.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    let socket = UdpSocket::bind((any, 0)).unwrap();
    socket.set_read_timeout(Some(TIMEOUT)).unwrap();
    socket.connect(addr).unwrap();
    socket
}

/// Sends a datagram and returns the answer.
pub(crate) fn ask_once(socket: &UdpSocket, text: &str) -> Result<String, io::ErrorKind> {
    socket.send(text.as_bytes()).map_err(|e| e.kind())?;
    let mut answer = vec![0; 65536];
    let length = socket.recv(&mut answer).map_err(|e| e.kind())?;
    answer.truncate(length);
    Ok(String::from_utf8(answer).unwrap())
}

/// A thread that answers datagrams.
pub(crate) struct DatagramServer {
    socket: Arc<UdpSocket>,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl DatagramServer {
    pub(crate) fn start(name: &'static str, socket: UdpSocket) -> Self {
        socket
            .set_read_timeout(Some(Duration::from_millis(20)))
            .unwrap();
        let (socket, stop) = (Arc::new(socket), CancellationToken::new());
        let (served, stopped) = (Arc::clone(&socket), stop.clone());
        let thread = std::thread::spawn(move || {
            let mut text = vec![0; 65536];
            while !stopped.is_cancelled() {
                let Ok((length, client)) = served.recv_from(&mut text) else {
                    continue;
                };
                let answer = format!(
                    "{name} {client} {}",
                    String::from_utf8_lossy(&text[..length])
                );
                // A client may be gone.
                let _ = served.send_to(answer.as_bytes(), client);
            }
        });
        Self {
            socket,
            stop,
            thread: Some(thread),
        }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.socket.local_addr().unwrap()
    }
}

impl Drop for DatagramServer {
    fn drop(&mut self) {
        self.stop.cancel();
        self.thread.take().unwrap().join().unwrap();
    }
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
    while stream.read(&mut byte)? == 1 && byte[0] != b'\n' {
        line.push(byte[0]);
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
        policy: Arc::default(),
        http: Arc::default(),
    }
}

/// A UDP Service port with these endpoints.
pub(crate) fn udp_port(number: u16, endpoints: &[SocketAddr]) -> ServicePort {
    let mut sorted = endpoints.to_vec();
    sorted.sort_unstable();
    let mut port = service_port(number, AppProtocol::Detect, &sorted);
    port.protocol = Protocol::Udp;
    port
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
