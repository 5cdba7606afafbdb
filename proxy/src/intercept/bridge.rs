//! Bridges between pods, behind which TPROXY does not work.
//!
//! With `net.bridge.bridge-nf-call-iptables` the bridge takes packets through the rules for IP itself,
//! before it hands them up. The socket that TPROXY assigns there is forgotten on the way up, and the
//! rules do not run again: a connection's first segment is lost. Without it, an endpoint answers a
//! client on the same bridge directly, so that the answer to a connection that was made from the
//! client's address never comes here.
//!
//! There is no sign of either afterwards, and trying it out takes a packet that comes in through a
//! port of the bridge, which only another namespace could send; so devices and switches are looked at.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;

/// The first bridge of the calling thread's namespace that connects pods: one with an address in
/// `pods`. Without `pods` any bridge may that hands its packets to the rules for IP.
pub fn bridge_between_pods(pods: &[IpNet]) -> Option<String> {
    let everywhere = ["iptables", "ip6tables"].into_iter().any(|which| {
        let switch = format!("/proc/sys/net/bridge/bridge-nf-call-{which}");
        is_on(Path::new(&switch))
    });
    let addresses = device_addresses();
    let devices = fs::read_dir("/sys/class/net").ok()?;
    let mut bridges: Vec<String> = devices
        .filter_map(|device| device.ok()?.file_name().into_string().ok())
        .filter(|name| {
            let settings = Path::new("/sys/class/net").join(name).join("bridge");
            let own = || ["nf_call_iptables", "nf_call_ip6tables"].map(|file| settings.join(file));
            let hands_over = || everywhere || own().iter().any(|path| is_on(path));
            let of_pods = || {
                let mut own = addresses.iter().filter(|(device, _)| device == name);
                own.any(|(_, ip)| pods.iter().any(|cidr| cidr.contains(ip)))
            };
            settings.is_dir() && (of_pods() || (pods.is_empty() && hands_over()))
        })
        .collect();
    bridges.sort_unstable();
    bridges.into_iter().next()
}

fn is_on(switch: &Path) -> bool {
    fs::read_to_string(switch).is_ok_and(|value| value.trim() == "1")
}

fn device_addresses() -> Vec<(String, IpAddr)> {
    let Ok(devices) = nix::ifaddrs::getifaddrs() else {
        return Vec::new();
    };
    let of = |device: nix::ifaddrs::InterfaceAddress| {
        let address = device.address?;
        let v4 = address.as_sockaddr_in().map(|addr| IpAddr::V4(addr.ip()));
        let ip = v4.or_else(|| address.as_sockaddr_in6().map(|addr| IpAddr::V6(addr.ip())));
        Some((device.interface_name, ip?))
    };
    devices.filter_map(of).collect()
}
