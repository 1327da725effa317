//! Names and capacities of maps, names of programs. The object's own names are compared with these in a test.

/// One map: its name in the object (and under the pin directory) and how many entries it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapSpec {
    /// Name in the object file; the pin is `<bpffs>/maps/<name>`.
    pub name: &'static str,
    /// Maximum number of entries (bytes for a ring buffer).
    pub capacity: u32,
}

/// Services: frontends ([`crate::service::ServiceKey`]) to [`crate::service::ServiceValue`]. `HASH`.
pub const SERVICES: MapSpec = MapSpec { name: "SERVICES", capacity: 65_536 };
/// Backends by slot: [`crate::service::BackendValue`]. `ARRAY`.
pub const BACKENDS: MapSpec = MapSpec { name: "BACKENDS", capacity: 131_072 };
/// What a translated socket was aimed at: [`crate::service::OriginKey`] to [`crate::service::OriginValue`]. `LRU_HASH`.
pub const ORIGINS: MapSpec = MapSpec { name: "ORIGINS", capacity: 131_072 };
/// Pods of this node by address: [`crate::Addr16`] to [`crate::pod::PodValue`]. `HASH`.
pub const PODS: MapSpec = MapSpec { name: "PODS", capacity: 2_048 };
/// Which pod a network namespace is: netns cookie (`u64`, `SO_NETNS_COOKIE` of any socket in it) to
/// [`crate::pod::InterfaceValue`]. It attributes what the socket hooks see; a namespace without an entry counts as
/// the host, slot 0. `HASH`.
pub const POD_NETNS: MapSpec = MapSpec { name: "POD_NETNS", capacity: 1_024 };
/// Which pod a host-side interface belongs to: ifindex (`u32`) to [`crate::pod::InterfaceValue`]. `HASH`.
pub const INTERFACES: MapSpec = MapSpec { name: "INTERFACES", capacity: 1_024 };
/// Pod networks of other nodes: prefix to [`crate::route::RouteValue`]. `LPM_TRIE`, key `Key<[u8; 16]>` with the
/// prefix length counted over the 128-bit mapped form.
pub const ROUTES: MapSpec = MapSpec { name: "ROUTES", capacity: 16_384 };
/// Counters per pod slot: [`crate::pod::PodCounters`]. `PERCPU_ARRAY`.
pub const POD_COUNTERS: MapSpec = MapSpec { name: "POD_COUNTERS", capacity: 1_024 };
/// Drops: [`crate::pod::DropKey`] to a `u64` count. `PERCPU_HASH`.
pub const DROPS: MapSpec = MapSpec { name: "DROPS", capacity: 8_192 };
/// Established TCP connections by socket cookie (`u64`) to [`crate::event::ConnectionValue`]. Written and read by
/// the programs only. `LRU_HASH`.
pub const CONNECTIONS: MapSpec = MapSpec { name: "CONNECTIONS", capacity: 65_536 };
/// Event records ([`crate::event::FlowEvent`]). `RINGBUF`, capacity in bytes.
pub const EVENTS: MapSpec = MapSpec { name: "EVENTS", capacity: 1 << 20 };
/// Events that found [`EVENTS`] full, as one `u64`. `PERCPU_ARRAY`.
pub const EVENTS_LOST: MapSpec = MapSpec { name: "EVENTS_LOST", capacity: 1 };

/// Every map that is pinned.
pub const MAPS: &[MapSpec] = &[
    SERVICES,
    BACKENDS,
    ORIGINS,
    PODS,
    POD_NETNS,
    INTERFACES,
    ROUTES,
    POD_COUNTERS,
    DROPS,
    CONNECTIONS,
    EVENTS,
    EVENTS_LOST,
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
    /// `BPF_CGROUP_SOCK_OPS`: connection records.
    pub const SOCK_OPS: &str = "sock_ops";
    /// All of them.
    pub const ALL: &[&str] =
        &[CONNECT4, CONNECT6, SENDMSG4, SENDMSG6, RECVMSG4, RECVMSG6, GETPEERNAME4, GETPEERNAME6, SOCK_OPS];
}

/// Programs on links (TCX).
pub mod link {
    /// Ingress of a pod's host-side veth: what the pod sends.
    pub const FROM_POD: &str = "from_pod";
    /// Egress of a pod's host-side veth: what the host's own stack sends to the pod.
    pub const TO_POD: &str = "to_pod";
    /// Ingress of the uplink: what other nodes send.
    pub const FROM_UPLINK: &str = "from_uplink";
    /// All of them.
    pub const ALL: &[&str] = &[FROM_POD, TO_POD, FROM_UPLINK];
}

/// `.rodata` globals that user space sets before loading.
pub mod globals {
    /// `u32`: the uplink's interface index.
    pub const UPLINK_IFINDEX: &str = "UPLINK_IFINDEX";
    /// `u32`: 1 when connection records are written, else 0.
    pub const FLOW_EVENTS: &str = "FLOW_EVENTS";
    /// `u32`: 0 where the address hooks have no `bpf_set_retval` (before Linux 6.1); a refused call then fails with
    /// `EPERM`.
    pub const SET_RETVAL: &str = "SET_RETVAL";
    /// `u32`: 0 where `sock_ops` has no `bpf_get_netns_cookie` (before Linux 5.15); a socket's pod is then found by its
    /// address alone.
    pub const SOCK_OPS_NETNS: &str = "SOCK_OPS_NETNS";
}
