//! Names and capacities of maps, names of programs. The object's own names are compared with these in a test.

use crate::pod::NearPod;

/// One map: its name in the object (and under the pin directory), how many entries it holds, and how old its layout is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapSpec {
    /// Name in the object file; the pin is `<bpffs>/maps/<name>`.
    pub name: &'static str,
    /// Maximum number of entries (bytes for a ring buffer).
    pub capacity: u32,
    /// The [`crate::LAYOUT_VERSION`] since which its entries have looked, and meant, what they do now. A map that an older
    /// version has left, but not an older one than this, is used again.
    pub since: u32,
}

/// Frontends: [`crate::service::ServiceKey`] to [`crate::service::ServiceValue`]. `HASH`, memory as needed.
pub const SERVICES: MapSpec = MapSpec { name: "SERVICES", capacity: 131_072, since: 2 };
/// Which backends a frontend may choose: [`crate::service::SlotValue`]. `ARRAY`.
pub const SLOTS: MapSpec = MapSpec { name: "SLOTS", capacity: 262_144, since: 2 };
/// Backends: [`crate::service::BackendValue`]. `ARRAY`.
pub const BACKENDS: MapSpec = MapSpec { name: "BACKENDS", capacity: 262_144, since: 2 };
/// Which backend a client stays with: [`crate::service::AffinityKey`] to [`crate::service::AffinityValue`]. `HASH`, memory
/// as needed; the agent removes what has expired.
pub const AFFINITY: MapSpec = MapSpec { name: "AFFINITY", capacity: 65_536, since: 2 };
/// Who may use a load balancer's address: `Key<[u8; 20]>` of a [`crate::service::SourceRange`] to a `u8`. `LPM_TRIE`.
pub const SOURCE_RANGES: MapSpec = MapSpec { name: "SOURCE_RANGES", capacity: 16_384, since: 2 };
/// What an address is: [`crate::Addr16`] to [`crate::node::AddressValue`]. `HASH`, memory as needed.
pub const ADDRESSES: MapSpec = MapSpec { name: "ADDRESSES", capacity: 131_072, since: 2 };
/// This node: [`crate::node::NodeValue`]. `ARRAY`.
pub const NODE: MapSpec = MapSpec { name: "NODE", capacity: 1, since: 2 };
/// The networks of services' addresses, once the node knows every service: [`crate::node::ServiceNetwork`] at its index.
/// `ARRAY`.
pub const SERVICE_NETWORKS: MapSpec = MapSpec { name: "SERVICE_NETWORKS", capacity: 2, since: 3 };
/// Sockets that are aimed at a service: [`crate::socket::SocketValue`], in the socket. `SK_STORAGE`.
pub const SOCKETS: MapSpec = MapSpec { name: "SOCKETS", capacity: 0, since: 2 };
/// Unconnected sockets that ask several services: [`crate::socket::OriginKey`] to [`crate::socket::OriginValue`]. `LRU_HASH`.
pub const ORIGINS: MapSpec = MapSpec { name: "ORIGINS", capacity: 16_384, since: 2 };
/// Connections that the link programs translate: [`crate::conntrack::ConntrackKey`] to
/// [`crate::conntrack::ConntrackValue`], two entries each. `HASH`, memory as needed; the agent removes what has expired, and
/// a full table refuses what is new.
pub const CONNTRACK: MapSpec = MapSpec { name: "CONNTRACK", capacity: 262_144, since: 2 };
/// Ports of fragmented packets: [`crate::conntrack::FragmentKey`] to [`crate::conntrack::FragmentValue`]. `LRU_HASH`.
pub const FRAGMENTS: MapSpec = MapSpec { name: "FRAGMENTS", capacity: 4_096, since: 2 };
/// Pods of this node by address: [`crate::Addr16`] to [`crate::pod::PodValue`]. `HASH`.
pub const PODS: MapSpec = MapSpec { name: "PODS", capacity: 2_048, since: 2 };
/// The same pods where they are found without hashing: [`crate::pod::NearPod`] at [`crate::pod::NearPod::index`] of their
/// address. `ARRAY`.
pub const NEAR_PODS: MapSpec = MapSpec { name: "NEAR_PODS", capacity: 2 * NearPod::PER_FAMILY, since: 3 };
/// Which pod a network namespace is: netns cookie (`u64`, `SO_NETNS_COOKIE` of any socket in it) to
/// [`crate::pod::InterfaceValue`]. It attributes what the socket hooks see; a namespace without an entry counts as
/// the host, slot 0. `HASH`.
pub const POD_NETNS: MapSpec = MapSpec { name: "POD_NETNS", capacity: 1_024, since: 2 };
/// Which pod a host-side interface belongs to: ifindex (`u32`) to [`crate::pod::InterfaceValue`]. `HASH`.
pub const INTERFACES: MapSpec = MapSpec { name: "INTERFACES", capacity: 1_024, since: 2 };
/// Pod networks of other nodes: prefix to [`crate::route::RouteValue`]. `LPM_TRIE`, key `Key<[u8; 16]>` with the
/// prefix length counted over the 128-bit mapped form.
pub const ROUTES: MapSpec = MapSpec { name: "ROUTES", capacity: 16_384, since: 2 };
/// Whether a connection of the pod in a slot was ever translated by the link programs (`u32`, 0 or 1; slot 0 is the host):
/// packets of other pods are not looked up. `ARRAY`.
pub const TRACKED: MapSpec = MapSpec { name: "TRACKED", capacity: 1_024, since: 3 };
/// How many ICMP errors the node may still answer with: [`crate::node::AnswersValue`]. `PERCPU_ARRAY`.
pub const ANSWERS: MapSpec = MapSpec { name: "ANSWERS", capacity: 1, since: 3 };
/// Counters per pod slot: [`crate::pod::PodCounters`]. `PERCPU_ARRAY`.
pub const POD_COUNTERS: MapSpec = MapSpec { name: "POD_COUNTERS", capacity: 1_024, since: 2 };
/// Drops: [`crate::pod::DropKey`] to a `u64` count. `PERCPU_HASH`.
pub const DROPS: MapSpec = MapSpec { name: "DROPS", capacity: 8_192, since: 2 };
/// Event records ([`crate::event::FlowEvent`]). `RINGBUF`, capacity in bytes.
pub const EVENTS: MapSpec = MapSpec { name: "EVENTS", capacity: 1 << 20, since: 2 };
/// Events that found [`EVENTS`] full, as one `u64`. `PERCPU_ARRAY`.
pub const EVENTS_LOST: MapSpec = MapSpec { name: "EVENTS_LOST", capacity: 1, since: 2 };

/// Packets that the driver's program has sent to other machines, as one `u64`. `PERCPU_ARRAY`.
pub const CARRIED: MapSpec = MapSpec { name: "CARRIED", capacity: 1, since: 3 };

/// Maps that let go of what was longest not used.
pub const LRU: [MapSpec; 2] = [ORIGINS, FRAGMENTS];
/// How many entries were ever added to each of [`LRU`], as one `u64` at its index: what is not there any more was let
/// go of. `PERCPU_ARRAY`.
pub const ADDED: MapSpec = MapSpec { name: "ADDED", capacity: LRU.len() as u32, since: 3 };

/// Every map that is pinned.
pub const MAPS: &[MapSpec] = &[
    SERVICES,
    SLOTS,
    BACKENDS,
    AFFINITY,
    SOURCE_RANGES,
    ADDRESSES,
    NODE,
    SERVICE_NETWORKS,
    SOCKETS,
    ORIGINS,
    CONNTRACK,
    FRAGMENTS,
    TRACKED,
    ANSWERS,
    PODS,
    NEAR_PODS,
    POD_NETNS,
    INTERFACES,
    ROUTES,
    POD_COUNTERS,
    DROPS,
    EVENTS,
    EVENTS_LOST,
    CARRIED,
    ADDED,
];

/// Programs on the node's cgroup.
pub mod cgroup {
    /// `BPF_CGROUP_INET4_CONNECT`: translates a service address once per connection.
    pub const CONNECT4: &str = "connect4";
    /// `BPF_CGROUP_INET6_CONNECT`.
    pub const CONNECT6: &str = "connect6";
    /// `BPF_CGROUP_UDP4_SENDMSG`: translates an unconnected datagram.
    pub const SENDMSG4: &str = "sendmsg4";
    /// `BPF_CGROUP_UDP6_SENDMSG`.
    pub const SENDMSG6: &str = "sendmsg6";
    /// `BPF_CGROUP_UDP4_RECVMSG`: shows the service address as the sender of a reply.
    pub const RECVMSG4: &str = "recvmsg4";
    /// `BPF_CGROUP_UDP6_RECVMSG`.
    pub const RECVMSG6: &str = "recvmsg6";
    /// `BPF_CGROUP_INET4_GETPEERNAME`: shows the service address as the peer.
    pub const GETPEERNAME4: &str = "getpeername4";
    /// `BPF_CGROUP_INET6_GETPEERNAME`.
    pub const GETPEERNAME6: &str = "getpeername6";
    /// `BPF_CGROUP_INET4_POST_BIND`: keeps processes off the node ports of services.
    pub const POST_BIND4: &str = "post_bind4";
    /// `BPF_CGROUP_INET6_POST_BIND`.
    pub const POST_BIND6: &str = "post_bind6";
    /// `BPF_CGROUP_SOCK_OPS`: connection records.
    pub const SOCK_OPS: &str = "sock_ops";
    /// All of them.
    pub const ALL: &[&str] = &[
        CONNECT4,
        CONNECT6,
        SENDMSG4,
        SENDMSG6,
        RECVMSG4,
        RECVMSG6,
        GETPEERNAME4,
        GETPEERNAME6,
        POST_BIND4,
        POST_BIND6,
        SOCK_OPS,
    ];
}

/// Programs on links (TCX).
pub mod link {
    /// Ingress of a pod's host-side veth: what the pod sends.
    pub const FROM_POD: &str = "from_pod";
    /// Egress of a pod's host-side veth: what the host's own stack sends to the pod.
    pub const TO_POD: &str = "to_pod";
    /// Ingress of the uplink: what other nodes and clients outside send.
    pub const FROM_UPLINK: &str = "from_uplink";
    /// Egress of the uplink: what the host's own stack sends.
    pub const TO_UPLINK: &str = "to_uplink";
    /// Ingress of the overlay: what other nodes hand over together with the client's address.
    pub const FROM_OVERLAY: &str = "from_overlay";
    /// All of them.
    pub const ALL: &[&str] = &[FROM_POD, TO_POD, FROM_UPLINK, TO_UPLINK, FROM_OVERLAY];
}

/// The program in the uplink's driver (XDP).
pub mod driver {
    /// Ingress of the uplink: what goes on to another machine leaves again from here.
    pub const FROM_WIRE: &str = "from_wire";
}

/// Globals that user space sets before loading; all but the first are `.rodata`.
pub mod globals {
    /// `u32`: the uplink's interface index. It is alone in [`CHANGING`], and may be set while the programs run.
    pub const UPLINK_IFINDEX: &str = "UPLINK_IFINDEX";
    /// The section, and with it the map, of what may change.
    pub const CHANGING: &str = ".data";
    /// `u32`: 1 when connection records are written, else 0.
    pub const FLOW_EVENTS: &str = "FLOW_EVENTS";
    /// `u32`: 0 when rules carry services: packets of pods are then counted and left to the host's stack, else 1.
    pub const CARRIES: &str = "CARRIES";
    /// `u32`: 0 where the address hooks have no `bpf_set_retval` (before Linux 6.1); a refused call then fails with
    /// `EPERM`.
    pub const SET_RETVAL: &str = "SET_RETVAL";
    /// `u32`: 0 where `sock_ops` has no `bpf_get_netns_cookie` (before Linux 5.15); a socket's pod is then found by its
    /// address alone.
    pub const SOCK_OPS_NETNS: &str = "SOCK_OPS_NETNS";
    /// `u32`: interface index of the overlay; 0 when there is none.
    pub const OVERLAY_IFINDEX: &str = "OVERLAY_IFINDEX";
    /// `u32`: UDP port of the overlay.
    pub const OVERLAY_PORT: &str = "OVERLAY_PORT";
    /// `u32`: how connections from outside reach backends on other nodes, a `FORWARD_*`.
    pub const FORWARDING: &str = "FORWARDING";
    /// `u32`: with [`FORWARD_BY_STACK`], the bits of a packet's mark that ask the host's stack to masquerade it.
    pub const MASQUERADE_MARK: &str = "MASQUERADE_MARK";
    /// `u64`: cookie of the host's network namespace.
    pub const HOST_NETNS: &str = "HOST_NETNS";
    /// `u32`: 1 when the socket hooks translate for the host's namespace only, else 0.
    pub const SOCKETS_OF_HOST_ONLY: &str = "SOCKETS_OF_HOST_ONLY";
    /// `u32`: first port of the node port range.
    pub const NODE_PORT_FIRST: &str = "NODE_PORT_FIRST";
    /// `u32`: last port of the node port range.
    pub const NODE_PORT_LAST: &str = "NODE_PORT_LAST";
    /// `u32`: first port of the range to masquerade with.
    pub const MASQUERADE_FIRST: &str = "MASQUERADE_FIRST";
    /// `u32`: last port of the range to masquerade with.
    pub const MASQUERADE_LAST: &str = "MASQUERADE_LAST";

    /// [`FORWARDING`]: over the overlay with the client's address, and the replies come back the same way.
    pub const FORWARD_ENCAPSULATED: u32 = 0;
    /// [`FORWARDING`]: over the overlay, and the backend's node answers the client directly.
    pub const FORWARD_DIRECT_RETURN: u32 = 1;
    /// [`FORWARDING`]: with this node's address in place of the client's.
    pub const FORWARD_MASQUERADED: u32 = 2;
    /// [`FORWARDING`]: the pods' network is somebody else's. Whatever is translated goes on through the host's stack, which knows
    /// the way to pods and masquerades what goes to other nodes.
    pub const FORWARD_BY_STACK: u32 = 3;
}
