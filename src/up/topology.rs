//! The machine room of a development cluster: a network namespace with a bridge, and one per node, cabled to it.
//!
//! Nothing of it touches the machine's own namespace, and no namespace has a default route.

use std::{
    fs,
    fs::File,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::AsRawFd as _,
    path::Path,
};

use anyhow::Context as _;
use futures::TryStreamExt as _;
use netlink_packet_route::{
    address::{AddressAttribute, AddressFlags},
    link::{InfoData, InfoVeth},
    route::RouteType,
};
use rtnetlink::{Handle, LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};

use super::ledger::{Item, Ledger};
use crate::{
    paths::{ClusterPaths, FABRIC, node_name},
    system::netns,
};

/// The fabric's own addresses, where the API server and the feed listen.
pub(crate) const FABRIC_V4: Ipv4Addr = Ipv4Addr::new(172, 29, 0, 1);
/// See [`FABRIC_V4`].
pub(crate) const FABRIC_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x29, 0, 0, 0, 0, 0, 1);
/// The most nodes that the fabric's /24 has addresses for.
pub(crate) const NODES_MAX: u8 = 200;
/// A node's link to the fabric, seen from the node.
pub(crate) const UPLINK: &str = "eth0";
const BRIDGE: &str = "fabric";
/// Pod and service prefixes: what no more specific route leads to is refused and never leaves a node.
const UNREACHABLE: [(IpAddr, u8); 4] = [
    (IpAddr::V4(Ipv4Addr::new(10, 244, 0, 0)), 16),
    (IpAddr::V4(Ipv4Addr::new(10, 96, 0, 0)), 16),
    (IpAddr::V6(Ipv6Addr::new(0xfd00, 0x244, 0, 0, 0, 0, 0, 0)), 56),
    (IpAddr::V6(Ipv6Addr::new(0xfd00, 0x96, 0, 0, 0, 0, 0, 0)), 112),
];

/// The addresses of the `index`th node, from 1.
pub(crate) fn node_addresses(index: u8) -> [IpAddr; 2] {
    let host = 10 + index;
    [
        Ipv4Addr::new(172, 29, 0, host).into(),
        Ipv6Addr::new(0xfd00, 0x29, 0, 0, 0, 0, 0, u16::from(host)).into(),
    ]
}

/// Makes the fabric and the namespaces of `nodes` nodes.
pub(crate) async fn build(paths: &ClusterPaths, ledger: &Ledger, nodes: u8) -> anyhow::Result<()> {
    let fabric = paths.netns_name(FABRIC);
    ledger.add(Item::Netns { name: fabric.clone() })?;
    netns::create(paths.netns(FABRIC)).await?;
    ledger.add(Item::Link { netns: fabric.clone(), name: BRIDGE.to_owned() })?;
    netns::inside_async(&paths.netns(FABRIC), make_fabric)
        .await
        .context("cannot make the fabric's bridge")?;
    for index in 1..=nodes {
        let node = node_name(index);
        ledger.add(Item::Netns { name: paths.netns_name(&node) })?;
        netns::create(paths.netns(&node)).await?;
        netns::inside(&paths.netns(&node), set_sysctls).await?;
        ledger.add(Item::Link { netns: fabric.clone(), name: node.clone() })?;
        let (name, target) = (node.clone(), paths.netns(&node));
        netns::inside_async(&paths.netns(FABRIC), move || async move { cable(&name, &target).await })
            .await
            .with_context(|| format!("cannot connect {node} to the fabric"))?;
        netns::inside_async(&paths.netns(&node), move || make_node(index))
            .await
            .with_context(|| format!("cannot set up the network of {node}"))?;
    }
    Ok(())
}

/// In the fabric: a bridge with the fabric's addresses.
async fn make_fabric() -> anyhow::Result<()> {
    set_sysctls()?;
    let netlink = connect()?;
    let bridge = LinkBridge::new(BRIDGE).mcast_snooping(false).up().build();
    netlink.link().add(bridge).execute().await?;
    let index = index_of(&netlink, BRIDGE).await?;
    add_addresses(&netlink, index, [FABRIC_V4.into(), FABRIC_V6.into()]).await?;
    set_up(&netlink, "lo").await
}

/// In the fabric: a cable from the bridge to a node's namespace.
async fn cable(node: &str, target: &Path) -> anyhow::Result<()> {
    let netlink = connect()?;
    let target = File::open(target)?;
    let peer = LinkMessageBuilder::<LinkUnspec>::new().name(UPLINK).setns_by_fd(target.as_raw_fd()).build();
    let bridge = index_of(&netlink, BRIDGE).await?;
    let cable = LinkVeth::new(node, UPLINK)
        .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
        .controller(bridge)
        .up()
        .build();
    netlink.link().add(cable).execute().await?;
    Ok(())
}

/// In a node: addresses on the uplink, and no way out for what nobody answers to.
async fn make_node(index: u8) -> anyhow::Result<()> {
    let netlink = connect()?;
    set_up(&netlink, "lo").await?;
    set_up(&netlink, UPLINK).await?;
    let uplink = index_of(&netlink, UPLINK).await?;
    add_addresses(&netlink, uplink, node_addresses(index)).await?;
    for (address, length) in UNREACHABLE {
        let route = match address {
            IpAddr::V4(address) => RouteMessageBuilder::<Ipv4Addr>::new()
                .destination_prefix(address, length)
                .kind(RouteType::Unreachable)
                .build(),
            IpAddr::V6(address) => RouteMessageBuilder::<Ipv6Addr>::new()
                .destination_prefix(address, length)
                .kind(RouteType::Unreachable)
                .build(),
        };
        netlink.route().add(route).execute().await?;
    }
    Ok(())
}

/// Gives a link of the fabric its addresses, which can be listened on at once. Without duplicate address detection switched
/// off for the address itself, the kernel holds it back until a work queue has found that there is nothing to detect.
async fn add_addresses(netlink: &Handle, link: u32, addresses: [IpAddr; 2]) -> anyhow::Result<()> {
    for address in addresses {
        let length = if address.is_ipv4() { 24 } else { 64 };
        let mut request = netlink.address().add(link, address, length);
        if address.is_ipv6() {
            let flags = AddressFlags::Nodad | AddressFlags::Permanent;
            request.message_mut().attributes.push(AddressAttribute::Flags(flags));
        }
        request.execute().await?;
    }
    Ok(())
}

/// Forwarding on; addresses usable at once and only those that were given. `default` is for links made later.
fn set_sysctls() -> anyhow::Result<()> {
    for (key, value) in [
        ("ipv4/ip_forward", "1"),
        ("ipv6/conf/all/forwarding", "1"),
        ("ipv6/conf/default/forwarding", "1"),
        ("ipv6/conf/default/accept_dad", "0"),
        ("ipv6/conf/default/accept_ra", "0"),
        ("ipv4/conf/all/rp_filter", "0"),
        ("ipv4/conf/default/rp_filter", "0"),
    ] {
        let path = format!("/proc/sys/net/{key}");
        fs::write(&path, value).with_context(|| format!("cannot write {value} to {path}"))?;
    }
    Ok(())
}

fn connect() -> anyhow::Result<Handle> {
    let (connection, netlink, _) = rtnetlink::new_connection().context("cannot open a netlink socket")?;
    // Ends with the runtime of this namespace's thread.
    tokio::spawn(connection);
    Ok(netlink)
}

async fn index_of(netlink: &Handle, name: &str) -> anyhow::Result<u32> {
    let mut found = netlink.link().get().match_name(name.to_owned()).execute();
    let link = found.try_next().await?.with_context(|| format!("the link {name} is not there"))?;
    Ok(link.header.index)
}

async fn set_up(netlink: &Handle, name: &str) -> anyhow::Result<()> {
    let index = index_of(netlink, name).await?;
    let up = LinkMessageBuilder::<LinkUnspec>::new().index(index).up().build();
    netlink.link().set(up).execute().await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{NODES_MAX, node_addresses};

    #[test]
    fn node_addresses_count_up_in_both_families() {
        let text = |index| node_addresses(index).map(|a| a.to_string());
        assert_eq!(text(1), ["172.29.0.11", "fd00:29::b"]);
        assert_eq!(text(2), ["172.29.0.12", "fd00:29::c"]);
        assert_eq!(text(NODES_MAX), ["172.29.0.210", "fd00:29::d2"]);
    }
}
