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
use sealane_config::model::{
    AppProtocol, Endpoint, EndpointAddr, EndpointStats, Protocol, ServiceKey, ServicePort,
};
use sealane_config::{Publisher, Reader, Snapshot, snapshot};
use sealane_proxy::intercept::InterceptOptions;

pub(crate) const TIMEOUT: Duration = Duration::from_secs(5);
pub(crate) const PORT: u16 = 15001;
pub(crate) const DNS: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);

/// A cluster's network.
pub(crate) struct World {
    network: ClusterNetwork,
    runtime: tokio::runtime::Runtime,
    pub(crate) publisher: Publisher,
    pub(crate) reader: Reader,
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
        let (publisher, reader) = snapshot::channel();
        Some(Self {
            network: network.unwrap(),
            runtime: tokio::runtime::Builder::new_current_thread()
                .build()
                .unwrap(),
            publisher,
            reader,
        })
    }

    pub(crate) fn node_ip(&self) -> IpAddr {
        self.network.node_ip()
    }

    pub(crate) fn options(&self) -> InterceptOptions {
        InterceptOptions {
            port: PORT,
            mark: INTERCEPT_MARK,
            node_ips: vec![self.node_ip()],
            local_addresses: vec![DNS.into()],
            pod_cidrs: vec!["10.244.0.0/16".parse().unwrap()],
            service_cidrs: vec!["10.96.0.0/16".parse().unwrap()],
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

/// A pod's namespace.
pub(crate) struct Pod {
    pub(crate) ip: IpAddr,
    netns: OwnedFd,
}

impl Pod {
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
    let endpoint = |&addr: &SocketAddr| {
        Arc::new(Endpoint {
            addr: EndpointAddr(addr),
            target: None,
            node: None,
            zone: None,
            ready: true,
            stats: Arc::new(EndpointStats::default()),
        })
    };
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
    }
}

/// A synced snapshot with these Service ports.
pub(crate) fn snapshot_of(ports: impl IntoIterator<Item = (IpAddr, ServicePort)>) -> Snapshot {
    let mut snapshot = Snapshot {
        synced: true,
        ..Snapshot::default()
    };
    for (ip, port) in ports {
        let port = Arc::new(port);
        let key = (port.protocol, port.port);
        if let Some(number) = port.node_port {
            let port = Arc::clone(&port);
            snapshot.node_ports.insert_mut((key.0, number), port);
        }
        snapshot.vips.insert_mut((ip, key.0, key.1), port);
    }
    snapshot
}
