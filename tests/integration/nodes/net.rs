//! Network namespaces: two nodes and a machine outside of the cluster on one bridge, and pods that are
//! joined to their node by a routed veth pair.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;

use nix::sched::{CloneFlags, setns, unshare};
use sealane_cluster::network::userns::prove_capabilities;

use crate::support::skip;

/// Where Services get their addresses.
pub(super) const SERVICE_CIDRS: [&str; 2] = ["10.96.0.0/16", "fd00:96::/112"];

/// Where pods get their addresses.
pub(super) const POD_CIDRS: [&str; 2] = ["10.244.0.0/16", "fd00:244::/32"];

/// Machines on the bridge, with the last part of their addresses there.
const MACHINES: [(&str, u8); 3] = [(NODE_A, 1), (NODE_B, 2), (OUTSIDE, 9)];

/// The nodes.
pub(super) const NODE_A: &str = "node-a";
pub(super) const NODE_B: &str = "node-b";

/// The machine outside of the cluster.
pub(super) const OUTSIDE: &str = "outside";

/// The pods of a node.
const PODS: [(&str, [&str; 3]); 2] = [(NODE_A, ["a1", "a2", "a3"]), (NODE_B, ["b1", "b2", "b3"])];

/// A network namespace, which lives as long as this and whatever runs in it.
pub(super) struct Namespace {
    netns: OwnedFd,
}

impl Namespace {
    fn new() -> Self {
        let made = std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            // No waiting for the proof that an address is unique, no search for routers.
            for name in ["accept_dad", "router_solicitations"] {
                for device in ["all", "default"] {
                    sysctl(&format!("ipv6/conf/{device}/{name}"), "0");
                }
            }
            File::open("/proc/thread-self/ns/net").unwrap()
        });
        let netns: OwnedFd = made.join().unwrap().into();
        let namespace = Self { netns };
        namespace.ip("link set lo up");
        namespace
    }

    /// Moves the calling thread into the namespace.
    pub(super) fn enter(&self) {
        setns(&self.netns, CloneFlags::CLONE_NEWNET).unwrap();
    }

    /// Starts a thread in the namespace.
    pub(super) fn spawn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let netns = self.netns.try_clone().unwrap();
        std::thread::spawn(move || {
            setns(&netns, CloneFlags::CLONE_NEWNET).unwrap();
            work()
        })
    }

    /// Runs something in the namespace.
    pub(super) fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        self.spawn(work).join().unwrap()
    }

    /// Runs `ip` commands, one a line.
    fn ip(&self, script: &str) {
        let script = script.to_owned();
        self.run(move || {
            let mut ip = Command::new("ip")
                .args(["-batch", "-"])
                .stdin(Stdio::piped())
                .spawn()
                .unwrap();
            ip.stdin
                .take()
                .unwrap()
                .write_all(script.as_bytes())
                .unwrap();
            assert!(ip.wait().unwrap().success(), "{script}");
        });
    }

    /// How other processes name it.
    fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.netns.as_raw_fd())
    }
}

fn sysctl(name: &str, value: &str) {
    std::fs::write(format!("/proc/sys/net/{name}"), value).unwrap();
}

/// Somewhere with an address of each family.
pub(super) struct Place {
    pub(super) namespace: Arc<Namespace>,
    pub(super) v4: Ipv4Addr,
    pub(super) v6: Ipv6Addr,
    /// The node that a pod runs on; none for machines.
    pub(super) node: Option<&'static str>,
}

impl Place {
    /// The address of a family.
    pub(super) fn ip(&self, family: Family) -> IpAddr {
        match family {
            Family::V4 => self.v4.into(),
            Family::V6 => self.v6.into(),
        }
    }
}

/// A family of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

/// The whole network.
pub(super) struct Net {
    places: BTreeMap<&'static str, Place>,
    _hub: Namespace,
}

impl Net {
    /// Makes it, if this machine lets us.
    pub(super) fn new() -> Option<Self> {
        if let Err(error) = prove_capabilities() {
            skip(&error.to_string());
            return None;
        }
        let hub = Namespace::new();
        hub.ip("link add br0 type bridge mcast_snooping 0\nlink set br0 up");
        let mut places = BTreeMap::new();
        for (name, number) in MACHINES {
            places.insert(name, machine(&hub, name, number));
        }
        places[OUTSIDE].namespace.ip(&routes_from_outside());
        for ((node, pods), number) in PODS.into_iter().zip(1..) {
            let other = 3 - number;
            places[node].namespace.ip(&format!(
                "route add 10.244.{other}.0/24 via 10.0.0.{other}\n\
                 route add fd00:244:{other}::/48 via fd00::{other}\n\
                 route add default via 10.0.0.9\n\
                 route add ::/0 via fd00::9\n"
            ));
            for (pod, host) in pods.into_iter().zip(2..) {
                let made = joined_pod(&places[node].namespace, node, pod, number, host);
                places.insert(pod, made);
            }
        }
        Some(Self { places, _hub: hub })
    }

    /// A machine or a pod.
    pub(super) fn place(&self, name: &str) -> &Place {
        let place = self.places.get(name);
        place.unwrap_or_else(|| panic!("nothing is called {name}"))
    }

    /// The pods.
    pub(super) fn pods(&self) -> impl Iterator<Item = (&'static str, &Place)> {
        let places = self.places.iter().map(|(name, place)| (*name, place));
        places.filter(|(_, place)| place.node.is_some())
    }

    /// Who has an address.
    pub(super) fn name_of(&self, ip: IpAddr) -> String {
        let mut places = self.places.iter();
        let found = places.find(|(_, place)| place.v4 == ip || place.v6 == ip);
        found.map_or_else(|| ip.to_string(), |(name, _)| (*name).to_owned())
    }
}

/// The way from outside to pods, to Services, and to the addresses that a load balancer or an
/// administrator has given to a Service: each is led to one node.
fn routes_from_outside() -> String {
    let mut routes = String::new();
    for (number, node) in [(1, NODE_A), (2, NODE_B)] {
        let [v4, v6] = external_prefixes(node);
        for (to, via) in [
            (format!("10.244.{number}.0/24"), format!("10.0.0.{number}")),
            (format!("fd00:244:{number}::/48"), format!("fd00::{number}")),
            (format!("{v4}0/24"), format!("10.0.0.{number}")),
            (format!("{v6}0/112"), format!("fd00::{number}")),
        ] {
            routes += &format!("route add {to} via {via}\n");
        }
    }
    let [v4, v6] = SERVICE_CIDRS;
    routes + &format!("route add {v4} via 10.0.0.1\nroute add {v6} via fd00::1\n")
}

/// The beginnings of the addresses outside of the cluster's ranges that are led to a node.
pub(super) fn external_prefixes(node: &str) -> [&'static str; 2] {
    match node {
        NODE_A => ["192.0.2.", "fd00:192::"],
        NODE_B => ["198.51.100.", "fd00:198::"],
        other => panic!("{other} is not a node"),
    }
}

/// A machine on the bridge. Nodes forward, and have the machine outside as their gateway, from where
/// nothing goes on; strict filtering of source addresses is what
/// distributions have, and the harder case.
fn machine(hub: &Namespace, name: &'static str, number: u8) -> Place {
    let namespace = Namespace::new();
    if name == OUTSIDE {
        namespace.run(|| sysctl("ipv4/ip_forward", "0"));
    } else {
        namespace.run(|| {
            for (name, value) in [
                ("ipv4/ip_forward", "1"),
                ("ipv6/conf/all/forwarding", "1"),
                ("ipv4/conf/all/rp_filter", "1"),
                ("ipv4/conf/default/rp_filter", "1"),
                // One refusal a second would be lost among many tests.
                ("ipv4/icmp_ratelimit", "0"),
                ("ipv6/icmp/ratelimit", "0"),
            ] {
                sysctl(name, value);
            }
        });
    }
    namespace.ip(&format!(
        "link add eth0 type veth peer name {name} netns {hub}\n\
         addr add 10.0.0.{number}/24 dev eth0\n\
         addr add fd00::{number}/64 dev eth0 nodad\n\
         link set eth0 up\n",
        hub = hub.path()
    ));
    hub.ip(&format!("link set {name} master br0 up"));
    Place {
        namespace: Arc::new(namespace),
        v4: Ipv4Addr::new(10, 0, 0, number),
        v6: Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, number.into()),
        node: None,
    }
}

/// A pod of the node with this number, with the gateway addresses that routed links use.
fn joined_pod(node: &Namespace, on: &'static str, name: &str, number: u8, host: u8) -> Place {
    let pod = Namespace::new();
    let v4 = Ipv4Addr::new(10, 244, number, host);
    let v6 = Ipv6Addr::new(0xfd00, 0x244, number.into(), 0, 0, 0, 0, host.into());
    pod.ip(&format!(
        "link add eth0 type veth peer name {name} netns {node}\n\
         addr add {v4}/32 dev eth0\n\
         addr add {v6}/128 dev eth0 nodad\n\
         link set eth0 up\n",
        node = node.path()
    ));
    node.ip(&format!(
        "addr add 169.254.1.1/32 dev {name}\n\
         addr add fe80::1/64 dev {name} nodad\n\
         link set {name} up\n\
         route add {v4}/32 dev {name} src 10.0.0.{number}\n\
         route add {v6}/128 dev {name} src fd00::{number}\n"
    ));
    pod.ip("route add 169.254.1.1 dev eth0\n\
         route add default via 169.254.1.1\n\
         route add ::/0 via fe80::1 dev eth0\n");
    Place {
        namespace: Arc::new(pod),
        v4,
        v6,
        node: Some(on),
    }
}
