//! Interfaces, addresses, neighbours and routes of one network namespace.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsRawFd, BorrowedFd},
};

use fairlead_model::Prefix;
use fairlead_plan::routes::RouteTable;
use futures::TryStreamExt;
use netlink_packet_route::{
    address::{AddressAttribute, AddressFlags},
    link::{InfoData, InfoVeth, InfoVxlan, LinkAttribute, LinkInfo, LinkMessage},
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType},
};
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};
use tokio::task::JoinHandle;

use crate::KernelError;

/// How our routes are told from others (`ip route show proto 70`; 70 is not in `rt_protos`).
const PROTOCOL: RouteProtocol = RouteProtocol::Other(70);

/// A netlink connection to the namespace of the thread that made it.
#[derive(Debug)]
pub struct Netlink {
    pub(super) handle: Handle,
    connection: JoinHandle<()>,
}

/// An interface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Link {
    /// Index.
    pub index: u32,
    /// Index of its peer, for one end of a veth pair.
    pub peer: Option<u32>,
    /// Link-layer address; zero when it has none.
    pub mac: [u8; 6],
    /// Maximum transmission unit in bytes.
    pub mtu: u32,
    /// What it is (`veth`, `bridge` …); nothing when it is a network card.
    pub kind: Option<String>,
    /// UDP port of a VXLAN interface whose packets name their own destination and may lack a checksum.
    pub vxlan_port: Option<u16>,
}

/// A veth pair to be made: one end here, the other in another namespace.
#[derive(Clone, Copy, Debug)]
pub struct VethPair<'a> {
    /// Name of the end here.
    pub name: &'a str,
    /// Link-layer address of the end here.
    pub mac: [u8; 6],
    /// Name of the end there.
    pub peer_name: &'a str,
    /// Link-layer address of the end there.
    pub peer_mac: [u8; 6],
    /// Namespace of the other end.
    pub peer_namespace: BorrowedFd<'a>,
    /// MTU of both.
    pub mtu: u32,
}

impl Drop for Netlink {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Netlink {
    /// Connects; needs a tokio runtime.
    ///
    /// # Errors
    /// No socket.
    pub fn connect() -> Result<Self, KernelError> {
        let (connection, handle, _) = rtnetlink::new_connection()
            .map_err(KernelError::file("opening netlink socket", "NETLINK_ROUTE"))?;
        Ok(Self { handle, connection: tokio::spawn(connection) })
    }

    /// An interface by name.
    ///
    /// # Errors
    /// The request fails for another reason than that there is none.
    pub async fn link(&self, name: &str) -> Result<Option<Link>, KernelError> {
        let mut links = self.handle.link().get().match_name(name).execute();
        match links.try_next().await {
            Ok(message) => Ok(message.map(|message| Link::from(&message))),
            Err(error) if errno(&error) == libc::ENODEV => Ok(None),
            Err(error) => Err(KernelError::netlink(format!("looking up interface {name}"))(error)),
        }
    }

    /// An interface by index.
    ///
    /// # Errors
    /// The request fails for another reason than that there is none.
    pub async fn link_by_index(&self, index: u32) -> Result<Option<Link>, KernelError> {
        let mut links = self.handle.link().get().match_index(index).execute();
        match links.try_next().await {
            Ok(message) => Ok(message.map(|message| Link::from(&message))),
            Err(error) if errno(&error) == libc::ENODEV => Ok(None),
            Err(error) => Err(KernelError::netlink(format!("looking up interface {index}"))(error)),
        }
    }

    /// An interface that must exist.
    ///
    /// # Errors
    /// It does not.
    pub async fn require_link(&self, name: &str) -> Result<Link, KernelError> {
        self.link(name).await?.ok_or_else(|| KernelError::NoInterface { name: name.to_owned() })
    }

    /// Names of all interfaces.
    ///
    /// # Errors
    /// The request fails.
    pub async fn link_names(&self) -> Result<Vec<String>, KernelError> {
        let links: Result<Vec<_>, _> = self.handle.link().get().execute().try_collect().await;
        let links = links.map_err(KernelError::netlink("listing interfaces"))?;
        let name = |message: LinkMessage| {
            message.attributes.into_iter().find_map(|attribute| match attribute {
                LinkAttribute::IfName(name) => Some(name),
                _ => None,
            })
        };
        Ok(links.into_iter().filter_map(name).collect())
    }

    /// Makes a veth pair across two namespaces.
    ///
    /// # Errors
    /// The request fails.
    pub async fn add_veth(&self, pair: VethPair<'_>) -> Result<(), KernelError> {
        let peer = LinkMessageBuilder::<LinkUnspec>::new()
            .name(pair.peer_name)
            .mtu(pair.mtu)
            .address(pair.peer_mac.to_vec())
            .setns_by_fd(pair.peer_namespace.as_raw_fd())
            .build();
        let message = LinkVeth::new(pair.name, pair.peer_name)
            .mtu(pair.mtu)
            .address(pair.mac.to_vec())
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .build();
        let added = self.handle.link().add(message).execute().await;
        added.map_err(KernelError::netlink(format!("creating veth pair {}", pair.name)))
    }

    /// Sets an interface up.
    ///
    /// # Errors
    /// The request fails.
    pub async fn set_up(&self, index: u32) -> Result<(), KernelError> {
        let message = LinkUnspec::new_with_index(index).up().build();
        let set = self.handle.link().set(message).execute().await;
        set.map_err(KernelError::netlink(format!("setting interface {index} up")))
    }

    /// Sets the largest network packet that an interface takes, in bytes.
    ///
    /// # Errors
    /// The request fails.
    pub async fn set_mtu(&self, index: u32, mtu: u32) -> Result<(), KernelError> {
        let message = LinkUnspec::new_with_index(index).mtu(mtu).build();
        let set = self.handle.link().set(message).execute().await;
        set.map_err(KernelError::netlink(format!("setting the MTU of interface {index}")))
    }

    /// Deletes an interface, and with it its peer. Nothing happens when there is none.
    ///
    /// # Errors
    /// The request fails.
    pub async fn delete_link(&self, name: &str) -> Result<(), KernelError> {
        let Some(link) = self.link(name).await? else { return Ok(()) };
        match self.handle.link().del(link.index).execute().await {
            Err(error) if errno(&error) != libc::ENODEV => {
                Err(KernelError::netlink(format!("deleting interface {name}"))(error))
            }
            _ => Ok(()),
        }
    }

    /// Gives an interface an address, which is usable at once.
    ///
    /// # Errors
    /// The request fails.
    pub async fn add_address(&self, index: u32, address: IpAddr, length: u8) -> Result<(), KernelError> {
        let mut request = self.handle.address().add(index, address, length).replace();
        if address.is_ipv6() {
            let flags = AddressFlags::Nodad | AddressFlags::Permanent;
            request.message_mut().attributes.push(AddressAttribute::Flags(flags));
        }
        let added = request.execute().await;
        added.map_err(KernelError::netlink(format!("adding address {address}/{length} to interface {index}")))
    }

    /// A permanent neighbour entry.
    ///
    /// # Errors
    /// The request fails.
    pub async fn add_neighbour(&self, index: u32, address: IpAddr, mac: [u8; 6]) -> Result<(), KernelError> {
        let request = self.handle.neighbours().add(index, address).link_layer_address(&mac).replace();
        let added = request.execute().await;
        added.map_err(KernelError::netlink(format!("adding neighbour {address} on interface {index}")))
    }

    /// A route to one address that is on the interface's link.
    ///
    /// # Errors
    /// The request fails.
    pub async fn add_host_route(&self, index: u32, address: IpAddr) -> Result<(), KernelError> {
        let length = if address.is_ipv4() { 32 } else { 128 };
        let route = route(Prefix { address, length }).output_interface(index).scope(RouteScope::Link);
        self.replace(route.build(), format!("adding route to {address} on interface {index}")).await
    }

    /// The default route, by a gateway on the interface's link.
    ///
    /// # Errors
    /// The request fails.
    pub async fn add_default_route(&self, index: u32, gateway: IpAddr) -> Result<(), KernelError> {
        let route = with_gateway(route(default_prefix(gateway)), gateway).output_interface(index).onlink();
        self.replace(route.build(), format!("adding default route by {gateway}")).await
    }

    /// A route of ours to a pod network; without a next hop it is unreachable. Nothing happens while the uplink leads
    /// nowhere: it is gone, is down, or has no address. The kernel has forgotten every route by it then, and takes none.
    ///
    /// # Errors
    /// The request fails.
    pub async fn put_route(
        &self,
        prefix: Prefix,
        next_hop: Option<IpAddr>,
        uplink: u32,
    ) -> Result<(), KernelError> {
        let route = match next_hop {
            Some(hop) => with_gateway(route(prefix), hop).output_interface(uplink),
            None => route(prefix).kind(RouteType::Unreachable),
        };
        let Err(error) = self.handle.route().add(route.build()).replace().execute().await else {
            return Ok(());
        };
        let is_down = errno(&error) == libc::ENETDOWN;
        if next_hop.is_some() && (is_down || !self.has_address(uplink, prefix.address.is_ipv4()).await?) {
            return Ok(());
        }
        let what = format!("adding route to {}/{}", prefix.address, prefix.length);
        Err(KernelError::netlink(what)(error))
    }

    /// Deletes a route of ours to a pod network. Nothing happens when there is none.
    ///
    /// # Errors
    /// The request fails.
    pub async fn delete_route(&self, prefix: Prefix) -> Result<(), KernelError> {
        for message in self.dump(prefix.address.is_ipv6()).await? {
            if own_route(&message).is_some_and(|(found, _)| found == prefix) {
                let deleted = self.handle.route().del(message).execute().await;
                match deleted {
                    Err(error) if errno(&error) != libc::ESRCH => {
                        let what = format!("deleting route to {}/{}", prefix.address, prefix.length);
                        return Err(KernelError::netlink(what)(error));
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Routes of ours to pod networks.
    ///
    /// # Errors
    /// The request fails.
    pub async fn own_routes(&self) -> Result<RouteTable, KernelError> {
        let mut routes = self.dump(false).await?;
        routes.extend(self.dump(true).await?);
        Ok(routes.iter().filter_map(own_route).collect())
    }

    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }

    pub(super) async fn add_link(&self, message: LinkMessage, what: String) -> Result<(), KernelError> {
        self.handle.link().add(message).execute().await.map_err(KernelError::netlink(what))
    }

    async fn dump(&self, v6: bool) -> Result<Vec<RouteMessage>, KernelError> {
        let filter = if v6 {
            RouteMessageBuilder::<Ipv6Addr>::new().build()
        } else {
            RouteMessageBuilder::<Ipv4Addr>::new().build()
        };
        let routes = self.handle.route().get(filter).execute().try_collect().await;
        routes.map_err(KernelError::netlink("listing routes"))
    }

    async fn replace(&self, message: RouteMessage, what: String) -> Result<(), KernelError> {
        self.handle.route().add(message).replace().execute().await.map_err(KernelError::netlink(what))
    }
}

impl From<&LinkMessage> for Link {
    fn from(message: &LinkMessage) -> Self {
        let mut link = Self {
            index: message.header.index,
            peer: None,
            mac: [0; 6],
            mtu: 0,
            kind: None,
            vxlan_port: None,
        };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::Link(index) => link.peer = Some(*index),
                LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
                LinkAttribute::LinkInfo(infos) => {
                    link.vxlan_port = infos.iter().find_map(vxlan_port);
                    link.kind = infos.iter().find_map(kind);
                }
                LinkAttribute::Address(mac) => link.mac = mac.as_slice().try_into().unwrap_or_default(),
                _ => {}
            }
        }
        link
    }
}

fn kind(info: &LinkInfo) -> Option<String> {
    match info {
        LinkInfo::Kind(kind) => Some(kind.to_string()),
        _ => None,
    }
}

/// The port of an `external` VXLAN interface that takes IPv6 packets without a checksum.
fn vxlan_port(info: &LinkInfo) -> Option<u16> {
    let LinkInfo::Data(InfoData::Vxlan(data)) = info else { return None };
    let has = |wanted: &InfoVxlan| data.contains(wanted);
    let ours = has(&InfoVxlan::CollectMetadata(true)) && has(&InfoVxlan::UDPZeroCsumRX(true));
    let port = data.iter().find_map(|info| match info {
        InfoVxlan::Port(port) => Some(*port),
        _ => None,
    });
    port.filter(|_| ours)
}

fn route(prefix: Prefix) -> RouteMessageBuilder<IpAddr> {
    let route = RouteMessageBuilder::<IpAddr>::new().protocol(PROTOCOL);
    route.destination_prefix(prefix.address, prefix.length).expect("a prefix has a length of its family")
}

fn default_prefix(of: IpAddr) -> Prefix {
    match of {
        IpAddr::V4(_) => Prefix { address: Ipv4Addr::UNSPECIFIED.into(), length: 0 },
        IpAddr::V6(_) => Prefix { address: Ipv6Addr::UNSPECIFIED.into(), length: 0 },
    }
}

fn with_gateway(route: RouteMessageBuilder<IpAddr>, gateway: IpAddr) -> RouteMessageBuilder<IpAddr> {
    route.gateway(gateway).expect("a next hop is of the family of its prefix")
}

/// Prefix and next hop of a route that [`Netlink::put_route`] made; routes to single pods are not such.
fn own_route(message: &RouteMessage) -> Option<(Prefix, Option<IpAddr>)> {
    if message.header.protocol != PROTOCOL {
        return None;
    }
    let address = |address: &RouteAddress| match address {
        RouteAddress::Inet(v4) => Some(IpAddr::V4(*v4)),
        RouteAddress::Inet6(v6) => Some(IpAddr::V6(*v6)),
        _ => None,
    };
    let mut destination = None;
    let mut gateway = None;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(found) => destination = address(found),
            RouteAttribute::Gateway(found) => gateway = address(found),
            _ => {}
        }
    }
    let prefix = Prefix { address: destination?, length: message.header.destination_prefix_length };
    let unreachable = message.header.kind == RouteType::Unreachable;
    (gateway.is_some() || unreachable).then_some((prefix, gateway))
}

/// The error number the kernel answered with, or 0.
pub(crate) fn errno(error: &rtnetlink::Error) -> i32 {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.code.map_or(0, |code| -code.get()),
        _ => 0,
    }
}
