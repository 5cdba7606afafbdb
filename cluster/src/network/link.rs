//! Links, addresses and routes over rtnetlink: what the cluster namespace and each pod's consist of.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

use rtnetlink::packet_route::link::{InfoData, InfoKind, InfoVeth};
use rtnetlink::packet_route::route::{RouteScope, RouteType};
use rtnetlink::packet_route::rule::RuleAction;
use rtnetlink::{
    Handle, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder, new_connection,
};

use super::NetworkError;

/// Index of the loopback device, the first one of every namespace.
const LO: u32 = 1;

/// Index of `eth0` in a pod.
const ETH0: u32 = 2;

/// The pods' default gateway. No device has it; both ends of the veth pair have a fixed neighbour
/// entry instead.
const GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);

/// Hardware address of the cluster's end of every veth pair: locally administered, and the same
/// everywhere because each pair is a network of its own.
const GATEWAY_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x01];

/// Packets with this mark are delivered to this machine whatever their destination is, which is
/// what TPROXY needs.
pub const INTERCEPT_MARK: u32 = 1;

/// The routing table for marked packets.
const INTERCEPT_TABLE: u32 = 100;

/// A netlink socket that belongs to the calling thread's present namespace, for as long as the
/// handle lives.
pub(super) fn open() -> io::Result<Handle> {
    let (connection, handle, _messages) = new_connection()?;
    tokio::spawn(connection);
    Ok(handle)
}

/// Brings the loopback device up.
pub(super) async fn loopback_up(netlink: &Handle) -> Result<(), NetworkError> {
    up(netlink, LO).await
}

async fn up(netlink: &Handle, device: u32) -> Result<(), NetworkError> {
    let link = LinkMessageBuilder::<LinkUnspec>::new()
        .index(device)
        .up()
        .build();
    let changed = netlink.link().set(link).execute().await;
    changed.map_err(NetworkError::netlink(format!("bring up device {device}")))
}

/// Gives the loopback device one more address.
pub(super) async fn add_local_address(netlink: &Handle, ip: IpAddr) -> Result<(), NetworkError> {
    let prefix = if ip.is_ipv4() { 32 } else { 128 };
    netlink
        .address()
        .add(LO, ip, prefix)
        .execute()
        .await
        .map_err(NetworkError::netlink(format!("add {ip} to lo")))
}

/// Has packets with this mark delivered to this machine whatever their destination is; the routing
/// table for them has the mark's number, or [`INTERCEPT_TABLE`] for [`INTERCEPT_MARK`]. What is there
/// already, from an earlier run, stays.
pub(super) async fn deliver_marked_packets(
    netlink: &Handle,
    mark: u32,
    with_ipv6: bool,
) -> Result<(), NetworkError> {
    let failed = || NetworkError::netlink("route intercepted packets to the proxy");
    let table = if mark == INTERCEPT_MARK {
        INTERCEPT_TABLE
    } else {
        mark
    };
    let rule = || {
        let rule = netlink.rule().add();
        rule.fw_mark(mark)
            .table_id(table)
            .priority(INTERCEPT_TABLE)
            .action(RuleAction::ToTable)
    };
    let added = rule().v4().execute().await;
    added.or_else(unless_there).map_err(failed())?;
    let everything = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(Ipv4Addr::UNSPECIFIED, 0)
        .output_interface(LO)
        .table_id(table)
        .kind(RouteType::Local)
        .scope(RouteScope::Host)
        .build();
    let added = netlink.route().add(everything).execute().await;
    added.or_else(unless_there).map_err(failed())?;
    if with_ipv6 {
        let added = rule().v6().execute().await;
        added.or_else(unless_there).map_err(failed())?;
        let everything = RouteMessageBuilder::<Ipv6Addr>::new()
            .destination_prefix(Ipv6Addr::UNSPECIFIED, 0)
            .output_interface(LO)
            .table_id(table)
            .kind(RouteType::Local)
            .scope(RouteScope::Host)
            .build();
        let added = netlink.route().add(everything).execute().await;
        added.or_else(unless_there).map_err(failed())?;
    }
    Ok(())
}

/// That something exists already is no failure.
fn unless_there(error: rtnetlink::Error) -> Result<(), rtnetlink::Error> {
    match &error {
        rtnetlink::Error::NetlinkError(message) if message.raw_code() == -nix::libc::EEXIST => {
            Ok(())
        }
        _ => Err(error),
    }
}

/// One pod's link.
#[derive(Clone, Copy, Debug)]
pub(super) struct PodLink {
    /// The pod's address.
    pub(super) ip: Ipv4Addr,
    /// Device index of the cluster's end, unique over the cluster's life.
    pub(super) index: u32,
}

impl PodLink {
    /// Joins a pod's namespace to the cluster's. `pod` and `cluster` are netlink sockets in the
    /// two; `cluster_netns` is the latter.
    pub(super) async fn create(
        self,
        pod: &Handle,
        cluster: &Handle,
        cluster_netns: BorrowedFd<'_>,
        node_ip: Ipv4Addr,
    ) -> Result<(), NetworkError> {
        self.create_pair(pod, cluster_netns).await?;
        loopback_up(pod).await?;
        let ip = self.ip;
        let failed = || NetworkError::netlink(format!("set up the network of pod {ip}"));

        let added = pod.address().add(ETH0, ip.into(), 32).execute().await;
        added.map_err(failed())?;
        add_neighbour(pod, ETH0, GATEWAY, GATEWAY_MAC).await?;
        let default = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(Ipv4Addr::UNSPECIFIED, 0)
            .gateway(GATEWAY)
            .output_interface(ETH0)
            .onlink()
            .build();
        let added = pod.route().add(default).execute().await;
        added.map_err(failed())?;

        up(cluster, self.index).await?;
        add_neighbour(cluster, self.index, ip, self.pod_mac()).await?;
        let to_pod = self.route().pref_source(node_ip).build();
        let added = cluster.route().add(to_pod).execute().await;
        added.map_err(failed())
    }

    /// Cuts a pod off: nothing reaches it any more when this returns, and what it still sends is
    /// dropped, because there is no way back (strict `rp_filter`). The link itself goes away with
    /// the pod's namespace, where the kernel takes many together; removing it here would hold up
    /// every other change of the network for some 20 ms.
    pub(super) async fn cut(self, cluster: &Handle) -> Result<(), NetworkError> {
        let deleted = cluster.route().del(self.route().build()).execute().await;
        deleted.map_err(NetworkError::netlink(format!(
            "remove the route to pod {}",
            self.ip
        )))
    }

    /// Made from the pod's side, so that `eth0` never shows up in the cluster's namespace. The
    /// indexes are chosen here, which saves looking them up. Only one end can be made up: the
    /// kernel configures the other one before it joins the two.
    async fn create_pair(
        self,
        pod: &Handle,
        cluster_netns: BorrowedFd<'_>,
    ) -> Result<(), NetworkError> {
        let cluster_end = LinkMessageBuilder::<LinkUnspec>::new()
            .name(format!("sl{}", self.index))
            .index(self.index)
            .address(GATEWAY_MAC.to_vec())
            .setns_by_fd(cluster_netns.as_raw_fd())
            .build();
        let pair = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
            .name("eth0")
            .index(ETH0)
            .address(self.pod_mac().to_vec())
            .up()
            .set_info_data(InfoData::Veth(InfoVeth::Peer(cluster_end)))
            .build();
        let added = pod.link().add(pair).execute().await;
        added.map_err(NetworkError::netlink(format!(
            "make the veth pair of pod {}",
            self.ip
        )))
    }

    fn route(self) -> RouteMessageBuilder<Ipv4Addr> {
        RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(self.ip, 32)
            .output_interface(self.index)
            .scope(RouteScope::Link)
    }

    fn pod_mac(self) -> [u8; 6] {
        let [a, b, c, d] = self.ip.octets();
        [0x02, 0x01, a, b, c, d]
    }
}

/// A neighbour entry that never expires, so that no ARP is needed.
async fn add_neighbour(
    netlink: &Handle,
    device: u32,
    ip: Ipv4Addr,
    mac: [u8; 6],
) -> Result<(), NetworkError> {
    netlink
        .neighbours()
        .add(device, ip.into())
        .link_layer_address(&mac)
        .execute()
        .await
        .map_err(NetworkError::netlink(format!("add neighbour {ip}")))
}
