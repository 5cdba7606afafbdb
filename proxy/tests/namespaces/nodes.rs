//! Two nodes on a bridge, each with pods and a proxy of its own, and a client outside the cluster:
//! traffic policies, and the connections of the nodes themselves.
//!
//! ```text
//! pod 10.244.1.2 ── node 10.100.0.1 ─┐
//!                                    ├─ bridge 10.100.0.254
//! pod 10.244.2.2 ── node 10.100.0.2 ─┤
//!                outside 10.100.0.3 ─┘
//! ```

mod bridge;
mod families;
mod life;
mod own;
mod policies;

use std::io::{ErrorKind, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use sealane_cluster::network::deliver_marked_packets;
use sealane_config::Snapshot;
use sealane_config::model::{
    AppProtocol, Endpoint, Protocol, Service, ServiceKey, ServiceKind, ServicePort, TrafficPolicy,
};
use sealane_config::sockets::HostSockets;
use sealane_proxy::connect::Connector;
use sealane_proxy::intercept::{InterceptOptions, Interceptor, Lost, NodeAddresses};

use crate::world::{PORT, Pod, Proxy, ask, block_on, may_make_namespaces, service_port};

const VIP: IpAddr = v4(10, 96, 1, 1);
const BALANCER: IpAddr = v4(192, 0, 2, 80);
const EXTERNAL: IpAddr = v4(192, 0, 2, 81);
const NODE_PORT: u16 = 30080;

const MARK: u32 = 0x134c;
const OWN_MARK: u32 = 0x134d;

/// How long to wait for something that is not to happen.
const LOST: Duration = Duration::from_millis(300);

const fn v4(a: u8, b: u8, c: u8, d: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(a, b, c, d))
}

/// The network.
struct Nodes {
    one: Node,
    two: Node,
    outside: Pod,
    _hub: Pod,
}

impl Nodes {
    fn new() -> Option<Self> {
        if !may_make_namespaces() {
            return None;
        }
        if Command::new("ip").arg("-V").output().is_err() {
            let required = std::env::var("SEALANE_TEST_REQUIRE").is_ok_and(|what| what == "all");
            assert!(!required, "there is no ip program");
            eprintln!("skipped: there is no ip program");
            return None;
        }
        let hub = Pod::empty(v4(10, 100, 0, 254));
        hub.ip("link add br0 type bridge");
        hub.ip("addr add 10.100.0.254/24 dev br0");
        hub.ip("link set br0 up");
        let join = |last: u8| {
            let member = Pod::empty(v4(10, 100, 0, last));
            let path = member.path();
            hub.ip(&format!(
                "link add p{last} type veth peer name eth0 netns {path}"
            ));
            hub.ip(&format!("link set p{last} master br0 up"));
            member.ip(&format!("addr add 10.100.0.{last}/24 dev eth0"));
            member.ip("link set eth0 up");
            member.wait_for_link("eth0");
            hub.wait_for_link(&format!("p{last}"));
            member.ip("route add default via 10.100.0.254");
            member
        };
        let [one, two] = [1, 2].map(|number| Node::new(number, join(number)));
        one.host.ip("route add 10.244.2.0/24 via 10.100.0.2");
        two.host.ip("route add 10.244.1.0/24 via 10.100.0.1");
        let outside = join(3);
        outside.ip("route add 10.96.0.0/16 via 10.100.0.1");
        Some(Self {
            one,
            two,
            outside,
            _hub: hub,
        })
    }

    /// Where load balancer and external IPs lead the client outside.
    fn balance_to(&self, node: &Node) {
        for ip in [BALANCER, EXTERNAL] {
            let via = node.host.ip;
            self.outside.ip(&format!("route replace {ip}/32 via {via}"));
        }
    }
}

/// A node.
struct Node {
    number: u8,
    host: Pod,
}

impl Node {
    fn new(number: u8, host: Pod) -> Self {
        host.run(|| {
            std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
            block_on(async { deliver_marked_packets(MARK).await.unwrap() });
        });
        Self { number, host }
    }

    /// A pod with this last part of its address.
    fn pod(&self, last: u8) -> Pod {
        let number = self.number;
        let pod = Pod::empty(v4(10, 244, number, last));
        let path = pod.path();
        let host = &self.host;
        host.ip(&format!(
            "link add v{last} type veth peer name eth0 netns {path}"
        ));
        host.ip(&format!("addr add 10.244.{number}.1/32 dev v{last}"));
        host.ip(&format!("link set v{last} up"));
        host.ip(&format!("route add {}/32 dev v{last}", pod.ip));
        pod.ip(&format!("addr add {}/32 dev eth0", pod.ip));
        pod.ip("link set eth0 up");
        pod.wait_for_link("eth0");
        host.wait_for_link(&format!("v{last}"));
        pod.ip(&format!(
            "route add default via 10.244.{number}.1 dev eth0 onlink"
        ));
        pod
    }

    fn options(&self) -> InterceptOptions {
        InterceptOptions {
            port: PORT,
            mark: MARK,
            own_mark: Some(OWN_MARK),
            node_ips: self.host.run(|| NodeAddresses::of_devices().unwrap()),
            pod_cidrs: vec!["10.244.0.0/16".parse().unwrap()],
            service_cidrs: vec!["10.96.0.0/16".parse().unwrap()],
            ..InterceptOptions::default()
        }
    }

    fn proxy(&self, snapshot: Snapshot) -> Proxy {
        self.proxy_with(self.options(), snapshot)
    }

    fn proxy_with(&self, options: InterceptOptions, snapshot: Snapshot) -> Proxy {
        let spawn = |work: Box<dyn FnOnce() + Send>| self.host.spawn(work);
        let sockets = (Connector::Direct, HostSockets::here());
        Proxy::start_by(spawn, options, sockets, self.host.again(), snapshot)
    }

    /// How many packets the node's rules have turned away.
    fn lost(&self, what: Lost) -> u64 {
        let options = self.options();
        self.host.run(move || {
            let mut interceptor = Interceptor::open(options).unwrap();
            interceptor.lost(what).unwrap()
        })
    }

    /// Whether an address is the node's.
    fn is_own(&self, ip: &str) -> bool {
        let number = self.number;
        ip == self.host.ip.to_string() || ip == format!("10.244.{number}.1")
    }
}

/// A Service with an address of each kind and these endpoints, of which some are here.
fn service(policy: &TrafficPolicy, endpoints: &[SocketAddr], here: &[SocketAddr]) -> Snapshot {
    service_that_speaks(AppProtocol::Tcp, policy, endpoints, here)
}

fn service_that_speaks(
    app_protocol: AppProtocol,
    policy: &TrafficPolicy,
    endpoints: &[SocketAddr],
    here: &[SocketAddr],
) -> Snapshot {
    let policy = Arc::new(policy.clone());
    let local = here.iter().map(|addr| Arc::new(Endpoint::at(*addr)));
    let port = Arc::new(ServicePort {
        node_port: Some(NODE_PORT),
        local: Some(local.collect()),
        policy: Arc::clone(&policy),
        ..service_port(80, app_protocol, endpoints)
    });
    let service = Service {
        listed_ports: Arc::default(),
        key: ServiceKey::clone(&port.service),
        kind: ServiceKind::ClusterIp,
        cluster_ips: vec![VIP],
        load_balancer_ips: vec![BALANCER],
        external_ips: vec![EXTERNAL],
        policy,
        ports: vec![Arc::clone(&port)],
        endpoints: Arc::new([]),
    };
    let mut snapshot = Snapshot {
        synced: true,
        ..Snapshot::default()
    };
    let key = service.key.clone();
    snapshot.cluster_ips.insert_mut(VIP, key.clone());
    for ip in [VIP, BALANCER, EXTERNAL] {
        let port = Arc::clone(&port);
        snapshot.vips.insert_mut((ip, Protocol::Tcp, 80), port);
    }
    let node_port = (Protocol::Tcp, NODE_PORT);
    snapshot.node_ports.insert_mut(node_port, port);
    snapshot.services.insert_mut(key, Arc::new(service));
    snapshot
}

/// The name of the server that answers, and the address that it sees.
fn seen(client: &Pod, addr: impl Into<SocketAddr>) -> Result<(String, String), ErrorKind> {
    let mut stream = connect(client, addr)?;
    let answer = ask(&mut stream, "hello").map_err(|error| error.kind())?;
    let mut words = answer.split(' ').map(str::to_owned);
    let server = words.next().unwrap_or_default();
    Ok((server, words.next().unwrap_or_default()))
}

/// Connects, and waits for lost packets only for a moment.
fn connect(client: &Pod, addr: impl Into<SocketAddr>) -> Result<TcpStream, ErrorKind> {
    let addr = addr.into();
    client.run(move || {
        let stream = TcpStream::connect_timeout(&addr, LOST).map_err(|error| error.kind())?;
        stream
            .set_read_timeout(Some(crate::world::TIMEOUT))
            .unwrap();
        Ok(stream)
    })
}

/// A server that answers each HTTP/1.1 request with the address of its client.
fn serve_http(pod: &Pod) {
    let ip = pod.ip;
    let listener = pod.run(move || TcpListener::bind((ip, 8000)).unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let client = stream.peer_addr().unwrap().ip().to_string();
                let mut is_head = false;
                while let Ok(line) = crate::world::read_line(&mut stream) {
                    if line.len() > 1 {
                        is_head = true;
                    } else if !std::mem::take(&mut is_head) {
                        return;
                    } else {
                        let length = client.len();
                        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n");
                        if stream.write_all((head + &client).as_bytes()).is_err() {
                            return;
                        }
                    }
                }
            });
        }
    });
}
