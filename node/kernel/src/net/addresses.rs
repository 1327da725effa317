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
use rtnetlink::{
    MulticastGroup,
    packet_core::{NetlinkMessage, NetlinkPayload},
    sys::SocketAddr,
};
use tokio::{sync::watch, task::JoinHandle};

use super::{Link, Netlink};
use crate::{KernelError, LocalState, Uplink, state::Interface};

impl Netlink {
    /// What the interfaces of this namespace say, but for the one that has services' addresses for IPVS: whoever made it, they
    /// are not the node's own.
    ///
    /// # Errors
    /// The request fails.
    pub async fn local_state(&self, uplink: &Uplink) -> Result<LocalState, KernelError> {
        let messages = self.addresses().await?;
        let of_services = self.link(INTERFACE).await?.map(|link| link.index);
        // A loopback interface that is down has none, and is there all the same for the socket hooks.
        let loopback = [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)];
        let mut addresses: BTreeMap<IpAddr, bool> = loopback.map(|address| (address, false)).into();
        for message in messages.iter().filter(|message| Some(message.header.index) != of_services) {
            if let Some(address) = own_address(message) {
                *addresses.entry(address).or_default() |= message.header.index == uplink.index;
            }
        }
        let links: Result<Vec<_>, _> = self.handle().link().get().execute().try_collect().await;
        let links = links.map_err(KernelError::netlink("listing interfaces"))?;
        let of_uplink = links.iter().map(Link::from).find(|link| link.index == uplink.index);
        let mtu = of_uplink.map_or(uplink.mtu, |link| link.mtu);
        let interfaces = links.iter().map(|link| interface(link, &messages, uplink.index)).collect();
        Ok(LocalState { addresses, mtu, interfaces })
    }

    /// Whether an interface has an address of a family, but for a link-local one; one that does not exist has none.
    pub(super) async fn has_address(&self, index: u32, v4: bool) -> Result<bool, KernelError> {
        let messages = self.addresses().await?;
        let mut own = messages.iter().filter(|message| message.header.index == index).filter_map(own_address);
        Ok(own.any(|address| address.is_ipv4() == v4))
    }

    async fn addresses(&self) -> Result<Vec<AddressMessage>, KernelError> {
        let messages = self.handle().address().get().execute().try_collect().await;
        messages.map_err(KernelError::netlink("listing addresses"))
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

/// What has changed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum LocalChange {
    /// An interface has other addresses.
    Addresses,
    /// The uplink came, went, or has other addresses or settings, and routes by it may have gone.
    Uplink,
}

/// Tells when an address or the uplink comes or goes.
#[derive(Debug)]
pub struct LocalChanges {
    uplink: watch::Receiver<Uplink>,
    messages: UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, SocketAddr)>,
    connection: JoinHandle<()>,
}

impl LocalChanges {
    /// Listens in the namespace of the calling thread; needs a tokio runtime.
    ///
    /// # Errors
    /// No socket.
    pub(crate) fn listen(uplink: watch::Receiver<Uplink>) -> Result<Self, KernelError> {
        let groups = [MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr];
        let (connection, _, messages) = rtnetlink::new_multicast_connection(&groups)
            .map_err(KernelError::file("opening netlink socket", "NETLINK_ROUTE"))?;
        Ok(Self { uplink, messages, connection: tokio::spawn(connection) })
    }

    /// Returns when something has changed, the more that did; none when nothing will be told any more.
    pub async fn changed(&mut self) -> Option<LocalChange> {
        loop {
            let (message, _) = self.messages.next().await?;
            let mut change = self.meaning(&message);
            // What has come meanwhile is answered by one look.
            while let Ok((message, _)) = self.messages.try_recv() {
                change = change.max(self.meaning(&message));
            }
            if change.is_some() {
                return change;
            }
        }
    }

    /// What a message is about; nothing when it is about another interface than the uplink.
    fn meaning(&self, message: &NetlinkMessage<RouteNetlinkMessage>) -> Option<LocalChange> {
        let NetlinkPayload::InnerMessage(message) = &message.payload else { return None };
        let uplink = self.uplink.borrow();
        match message {
            RouteNetlinkMessage::NewLink(link) | RouteNetlinkMessage::DelLink(link) => {
                let own = LinkAttribute::IfName(uplink.name.clone());
                link.attributes.contains(&own).then_some(LocalChange::Uplink)
            }
            RouteNetlinkMessage::NewAddress(address) | RouteNetlinkMessage::DelAddress(address) => {
                let of_uplink = address.header.index == uplink.index;
                Some(if of_uplink { LocalChange::Uplink } else { LocalChange::Addresses })
            }
            _ => None,
        }
    }
}

impl Drop for LocalChanges {
    fn drop(&mut self) {
        self.connection.abort();
    }
}
