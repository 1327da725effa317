//! Addresses of the node's interfaces, and when they change.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use fairlead_plan::ipvs::INTERFACE;
use futures::{StreamExt, TryStreamExt, channel::mpsc::UnboundedReceiver};
use netlink_packet_route::{
    RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage},
    link::{LinkAttribute, LinkFlags, LinkLayerType, LinkMessage},
};
use rtnetlink::{MulticastGroup, packet_core::NetlinkMessage, sys::SocketAddr};
use tokio::task::JoinHandle;

use super::{Link, Netlink};
use crate::{KernelError, LocalState, state::Interface};

impl Netlink {
    /// What the interfaces of this namespace say, but for the one that has services' addresses for IPVS: whoever made it, they
    /// are not the node's own.
    ///
    /// # Errors
    /// The request fails.
    pub async fn local_state(&self, uplink: u32) -> Result<LocalState, KernelError> {
        let messages: Result<Vec<_>, _> = self.handle().address().get().execute().try_collect().await;
        let messages = messages.map_err(KernelError::netlink("listing addresses"))?;
        let of_services = self.link(INTERFACE).await?.map(|link| link.index);
        // A loopback interface that is down has none, and is there all the same for the socket hooks.
        let loopback = [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)];
        let mut addresses: BTreeMap<IpAddr, bool> = loopback.map(|address| (address, false)).into();
        for message in messages.iter().filter(|message| Some(message.header.index) != of_services) {
            if let Some(address) = own_address(message) {
                *addresses.entry(address).or_default() |= message.header.index == uplink;
            }
        }
        let links: Result<Vec<_>, _> = self.handle().link().get().execute().try_collect().await;
        let links = links.map_err(KernelError::netlink("listing interfaces"))?;
        let mtu = links.iter().map(Link::from).find(|link| link.index == uplink).map_or(0, |link| link.mtu);
        let interfaces = links.iter().map(|link| interface(link, &messages, uplink)).collect();
        Ok(LocalState { addresses, mtu, interfaces })
    }
}

fn interface(message: &LinkMessage, addresses: &[AddressMessage], uplink: u32) -> Interface {
    let header = &message.header;
    let mut found = Interface {
        index: header.index,
        kind: Link::from(message).kind,
        is_ethernet: header.link_layer_type == LinkLayerType::Ether
            && !header.flags.contains(LinkFlags::Loopback),
        is_uplink: header.index == uplink,
        addresses: addresses
            .iter()
            .filter(|address| address.header.index == header.index)
            .filter_map(own_address)
            .collect::<BTreeSet<_>>(),
        ..Interface::default()
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => found.name.clone_from(name),
            LinkAttribute::Controller(index) => found.is_part = *index != 0,
            _ => {}
        }
    }
    found
}

/// The interface's own address, which is `IFA_LOCAL` where it differs from its peer's; none for a link-local one.
fn own_address(message: &AddressMessage) -> Option<IpAddr> {
    let mut own = None;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(address) => own = Some(*address),
            AddressAttribute::Address(address) => own = own.or(Some(*address)),
            _ => {}
        }
    }
    own.filter(|address| !matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local()))
}

/// Tells when an address comes or goes.
#[derive(Debug)]
pub struct AddressChanges {
    messages: UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, SocketAddr)>,
    connection: JoinHandle<()>,
}

impl AddressChanges {
    /// Listens in the namespace of the calling thread; needs a tokio runtime.
    ///
    /// # Errors
    /// No socket.
    pub fn listen() -> Result<Self, KernelError> {
        let groups = [MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr];
        let (connection, _, messages) = rtnetlink::new_multicast_connection(&groups)
            .map_err(KernelError::file("opening netlink socket", "NETLINK_ROUTE"))?;
        Ok(Self { messages, connection: tokio::spawn(connection) })
    }

    /// Returns when something changed; false when nothing will be told any more.
    pub async fn changed(&mut self) -> bool {
        let told = self.messages.next().await.is_some();
        // What has come meanwhile is answered by one look.
        while self.messages.try_recv().is_ok() {}
        told
    }
}

impl Drop for AddressChanges {
    fn drop(&mut self) {
        self.connection.abort();
    }
}
