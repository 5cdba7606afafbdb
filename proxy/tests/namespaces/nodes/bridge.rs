//! Pods behind a bridge.

use std::net::TcpStream;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use sealane_proxy::intercept::{Method, bridge_between_pods};

use super::*;

const SWITCH: &str = "/proc/sys/net/bridge/bridge-nf-call-iptables";

/// A node whose pods are joined by a bridge.
struct Bridged {
    node: Node,
    pods: [Pod; 2],
}

impl Bridged {
    fn new(number: u8) -> Option<(Nodes, Self)> {
        let nodes = Nodes::new()?;
        let host = Pod::empty(v4(10, 244, number, 1));
        host.ip("link add cni0 type bridge");
        host.ip(&format!("addr add 10.244.{number}.1/24 dev cni0"));
        host.ip("link set cni0 up");
        let pods = [2, 3].map(|last| {
            let pod = Pod::empty(v4(10, 244, number, last));
            let path = pod.path();
            host.ip(&format!(
                "link add v{last} type veth peer name eth0 netns {path}"
            ));
            host.ip(&format!("link set v{last} master cni0 up"));
            pod.ip(&format!("addr add {}/24 dev eth0", pod.ip));
            pod.ip("link set eth0 up");
            pod.wait_for_link("eth0");
            host.wait_for_link(&format!("v{last}"));
            pod.ip(&format!("route add default via 10.244.{number}.1"));
            pod
        });
        let node = Node::new(number, host);
        Some((nodes, Self { node, pods }))
    }

    /// With and without knowing where pods are, what is seen by a process of the node, whose `/sys` shows its own namespace.
    fn found(&self) -> (Option<String>, Option<String>) {
        self.node.host.run(|| {
            unshare(CloneFlags::CLONE_NEWNS).unwrap();
            let none = None::<&str>;
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
            mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), none).unwrap();
            (
                bridge_between_pods(&["10.244.0.0/16".parse().unwrap()]),
                bridge_between_pods(&[]),
            )
        })
    }
}

#[test]
fn proxy_i4_a_bridge_between_pods_is_found_and_redirected_around() {
    let Some((_nodes, bridged)) = Bridged::new(9) else {
        return;
    };
    let [client, server] = &bridged.pods;
    server.serve_lines("server", 8000);
    let endpoint = [(server.ip, 8000).into()];
    let host = &bridged.node.host;
    let bridge = Some("cni0".to_owned());
    let Ok(()) = host.run(|| std::fs::write(SWITCH, "1")) else {
        assert_eq!(bridged.found(), (bridge, None), "no br_netfilter");
        return;
    };
    assert_eq!(bridged.found(), (bridge.clone(), bridge.clone()));
    for (switch, method, expected) in [
        ("1", Method::Transparent, Err(ErrorKind::TimedOut)),
        ("1", Method::Redirect, Ok("server".to_owned())),
        ("0", Method::Transparent, Err(ErrorKind::ConnectionReset)),
        ("0", Method::Redirect, Ok("server".to_owned())),
    ] {
        host.run(move || std::fs::write(SWITCH, switch).unwrap());
        let options = InterceptOptions {
            method,
            ..bridged.node.options()
        };
        let snapshot = service(&TrafficPolicy::default(), &endpoint, &[]);
        let mut proxy = bridged.node.proxy_with(options, snapshot);
        let from_pod = seen(client, (VIP, 80)).map(|(server, _)| server);
        assert_eq!(from_pod, expected, "{method:?} with {switch}");
        proxy.publish(service(&TrafficPolicy::default(), &[], &[]));
        let refused = connect(client, (VIP, 80)).map(|_: TcpStream| ());
        assert_eq!(
            refused,
            Err(ErrorKind::ConnectionRefused),
            "{method:?} with {switch}"
        );
    }
    for family in ["iptables", "ip6tables"] {
        let switch = format!("/proc/sys/net/bridge/bridge-nf-call-{family}");
        host.run(move || std::fs::write(switch, "0").unwrap());
    }
    assert_eq!(bridged.found(), (bridge, None));
}
