//! What could not be planned as it was asked for.

use std::{fmt, net::IpAddr};

use fairlead_model::{ObjectName, Prefix};

/// Who has blocks of backends.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Owner {
    /// A service.
    Service(ObjectName),
    /// A pod of this node that has host ports.
    Pod(ObjectName),
    /// The node itself: addresses, which belong to nobody in particular.
    Node,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(name) => write!(f, "service {name}"),
            Self::Pod(name) => write!(f, "pod {name}"),
            Self::Node => f.write_str("this node"),
        }
    }
}

/// Something that was left out or left as it was. It is looked at again with every plan.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Problem {
    /// Two owners, or two ports of one, have the same address, port and protocol.
    Taken {
        /// The one that was left out.
        owner: Owner,
        /// Address and port.
        frontend: String,
        /// The one that has it.
        by: Owner,
    },
    /// A node port is outside the range that the node looks up.
    OutOfRange {
        /// Whose node port it is.
        owner: Owner,
        /// The node port.
        port: u16,
        /// Its protocol.
        protocol: &'static str,
        /// First and last port of the range.
        range: (u16, u16),
    },
    /// A port of SCTP would have to become another one.
    SctpPort {
        /// Whose port it is.
        owner: Owner,
        /// The port.
        frontend: String,
        /// The port that it should become.
        to: u16,
    },
    /// A map is full.
    Full {
        /// Whose state is not complete.
        owner: Owner,
        /// Name of the map.
        map: &'static str,
        /// How many entries did not fit.
        missing: usize,
    },
    /// A port is 0.
    PortZero {
        /// Whose port it is.
        owner: Owner,
        /// Its name.
        port: String,
    },
    /// Two ports have the same name and protocol.
    SamePort {
        /// Whose ports they are.
        owner: Owner,
        /// Their name.
        port: String,
    },
    /// No packet can be sent to the address.
    BadAddress {
        /// Whose address it is.
        owner: Owner,
        /// The address.
        address: IpAddr,
    },
    /// The address is of a family that the service does not have.
    ForeignFamily {
        /// Whose address it is.
        owner: Owner,
        /// The address.
        address: IpAddr,
    },
    /// A cluster address is a node's.
    NodeAddress {
        /// Whose address it is.
        owner: Owner,
        /// The address.
        address: IpAddr,
    },
    /// `loadBalancerSourceRanges` says nothing about a family, so everybody of that family may.
    Unrestricted {
        /// Whose address it is.
        owner: Owner,
        /// The address.
        address: IpAddr,
    },
    /// Endpoints have addresses that no packet can be sent to, or their port is 0.
    BadEndpoints {
        /// Whose endpoints they are.
        owner: Owner,
        /// How many there are.
        count: usize,
        /// The slice that has one of them.
        slice: ObjectName,
    },
    /// The map of routes is full.
    NoRoutes {
        /// The pod networks of other nodes that did not fit, in order.
        networks: Vec<Prefix>,
    },
    /// The kernel does not take something.
    Refused {
        /// What it is.
        what: String,
        /// What the kernel says.
        why: String,
    },
    /// A range has no meaning.
    BadRange {
        /// Whose range it is.
        owner: Owner,
        /// The range.
        range: Prefix,
    },
}

impl Problem {
    /// Whether it may end without a change of its owner.
    pub(super) fn may_pass(&self) -> bool {
        matches!(self, Self::Taken { .. } | Self::Full { .. } | Self::NodeAddress { .. })
    }

    /// Whether a larger map would cure it.
    pub fn is_limit(&self) -> bool {
        matches!(self, Self::Full { .. } | Self::NoRoutes { .. })
    }
}

/// How many networks a problem names.
const NAMED: usize = 10;

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Taken { owner, frontend, by } if owner == by => {
                write!(f, "{owner}: two of its ports are {frontend}; the first is served")
            }
            Self::Taken { owner, frontend, by } => {
                write!(f, "{owner} is not served on {frontend}: {by} has that address and port")
            }
            Self::Full { owner, map, missing } => write!(
                f,
                "{owner} is served in part: {missing} more entries do not fit into the eBPF map {map}, which is full"
            ),
            Self::OutOfRange { owner, port, protocol, range: (first, last) } => write!(
                f,
                "{owner} is not served on node port {port}/{protocol}: this node serves {first} to {last}; give it the API \
                 server's --service-node-port-range"
            ),
            Self::SctpPort { owner, frontend, to } => write!(
                f,
                "{owner}: {frontend}/SCTP cannot lead to port {to}, since SCTP packets keep their port here; make the two the \
                 same"
            ),
            Self::PortZero { owner, port } => write!(f, "{owner}: port {port:?} is 0 and is left out"),
            Self::SamePort { owner, port } => {
                write!(f, "{owner}: two ports are called {port:?}; the first is served")
            }
            Self::BadAddress { owner, address } => {
                write!(f, "{owner}: {address} cannot be a service's address and is left out")
            }
            Self::ForeignFamily { owner, address } => {
                write!(f, "{owner}: {address} is left out, the service has no cluster address of its family")
            }
            Self::NodeAddress { owner, address } => {
                write!(f, "{owner}: its cluster address {address} is a node's address and is left out")
            }
            Self::Unrestricted { owner, address } => write!(
                f,
                "{owner}: loadBalancerSourceRanges has no range of the family of {address}, so everybody may use it"
            ),
            Self::BadEndpoints { owner, count, slice } => write!(
                f,
                "{owner}: {count} of its endpoints have an address that cannot be one, or port 0, and are left out; see \
                 EndpointSlice {slice}"
            ),
            Self::Refused { what, why } => write!(f, "this node: {what} is left out: {why}"),
            Self::NoRoutes { networks } => {
                let named = networks.iter().take(NAMED).map(|n| format!("{}/{}", n.address, n.length));
                write!(f, "this node: {}", named.collect::<Vec<_>>().join(", "))?;
                if networks.len() > NAMED {
                    write!(f, " and {} more pod networks", networks.len() - NAMED)?;
                }
                f.write_str(
                    " of other nodes do not fit into the eBPF map ROUTES, which is full; the host's stack carries what is sent \
                     there, and clients from there count as outside; make room with --map-size=routes=ENTRIES",
                )
            }
            Self::BadRange { owner, range } => {
                write!(f, "{owner}: source range {}/{} is left out", range.address, range.length)
            }
        }
    }
}
