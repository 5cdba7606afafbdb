//! Bridges behind which TPROXY loses packets.
//!
//! With `net.bridge.bridge-nf-call-iptables` the bridge takes packets through the rules for IP itself,
//! before it hands them up. The socket that TPROXY assigns there is forgotten on the way up, and the
//! rules do not run again: a connection's first segment is lost. There is no sign of it afterwards,
//! and trying it out takes a packet that comes in through a port of the bridge, which only another
//! namespace could send; so the switches are read that decide about it.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;

/// The first bridge of the calling thread's namespace that connects pods, which are in `pods`, and
/// loses what TPROXY assigns. Without `pods` any bridge with ports may connect some.
pub fn lossy_bridge(pods: &[IpNet]) -> Option<String> {
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
            settings.is_dir() && (everywhere || own().iter().any(|path| is_on(path)))
        })
        .filter(|name| {
            let mut own = addresses.iter().filter(|(device, _)| device == name);
            pods.is_empty() || own.any(|(_, ip)| pods.iter().any(|cidr| cidr.contains(ip)))
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
