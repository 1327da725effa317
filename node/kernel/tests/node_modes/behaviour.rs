//! The table: who asks for what, and what comes of it.

use std::collections::BTreeSet;

use fairlead_model::Protocol;

use crate::mode::Mode;

/// Where the client is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Client {
    /// In a pod of the node that is asked.
    Pod,
    /// On that node.
    Node,
    /// On that node, with a loopback address.
    Loopback,
    /// On another machine.
    Outside,
}

/// Which address of the service is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Frontend {
    ClusterAddress,
    NodePort,
    Balancer,
    External,
    /// The cluster address with a port that the service does not have.
    UnknownPort,
    /// An address of the service network that no service has.
    UnknownAddress,
}

/// Whose address the endpoint sees.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Source {
    /// The client's.
    Client,
    /// The node's.
    Node,
    /// The service's.
    Service,
}

/// What comes of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    /// These endpoints answer, and see that source.
    Answered(BTreeSet<&'static str>, Source),
    /// The client is told that nobody is there.
    Refused,
    /// Nothing comes back, or the socket is not permitted to ask.
    Dropped,
}

/// What comes of it, as a constant.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Expected {
    /// An endpoint of any node answers.
    All(Source),
    /// The endpoint of the node answers.
    Near(Source),
    /// The endpoint of the other node answers.
    Far(Source),
    Refused,
    Dropped,
}

/// A row: the same in every mode but for the ones that are named, and for the source, which some modes never change.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    pub(crate) service: u8,
    pub(crate) client: Client,
    pub(crate) frontend: Frontend,
    pub(crate) v4: bool,
    pub(crate) protocol: Protocol,
    expected: Expected,
    but: &'static [(Mode, Expected)],
}

impl Row {
    pub(crate) fn expected(&self, mode: Mode) -> Outcome {
        let keeps = mode.keeps_addresses() && matches!(self.client, Client::Pod | Client::Outside);
        let seen = |source| if keeps { Source::Client } else { source };
        let usual = match self.expected {
            Expected::All(source) => Expected::All(seen(source)),
            Expected::Near(source) => Expected::Near(seen(source)),
            Expected::Far(source) => Expected::Far(seen(source)),
            other => other,
        };
        let but = self.but.iter().find(|(other, _)| *other == mode);
        match but.map_or(usual, |row| row.1) {
            Expected::All(source) => Outcome::Answered(BTreeSet::from(["near", "far"]), source),
            Expected::Near(source) => Outcome::Answered(BTreeSet::from(["near"]), source),
            Expected::Far(source) => Outcome::Answered(BTreeSet::from(["far"]), source),
            Expected::Refused => Outcome::Refused,
            Expected::Dropped => Outcome::Dropped,
        }
    }
}

/// Services: both policies Cluster.
pub(crate) const OPEN: u8 = 1;
/// `externalTrafficPolicy: Local`.
pub(crate) const EXTERNAL_LOCAL: u8 = 2;
/// `internalTrafficPolicy: Local`.
pub(crate) const INTERNAL_LOCAL: u8 = 3;
/// No endpoint anywhere.
pub(crate) const EMPTY: u8 = 4;
/// Both policies Local, and endpoints elsewhere only.
pub(crate) const AWAY: u8 = 5;
/// `loadBalancerSourceRanges` that cover nobody here.
pub(crate) const RESTRICTED: u8 = 6;
/// The client's pod is the only endpoint.
pub(crate) const SELF: u8 = 7;
/// `loadBalancerSourceRanges` that everybody is in.
pub(crate) const EVERYBODY: u8 = 8;

macro_rules! rows {
    ($($service:ident $client:ident $frontend:ident => $expected:expr $(, but $($mode:ident $other:expr),+)?;)*) => {
        /// Every row of both protocols in both families, IPv4 first.
        pub(crate) const ROWS: &[[Row; 4]] = &[ $(
            both($service, Client::$client, Frontend::$frontend, $expected, &[$($((Mode::$mode, $other)),+)?]),
        )* ];
    };
}

const fn both(
    service: u8,
    client: Client,
    frontend: Frontend,
    expected: Expected,
    but: &'static [(Mode, Expected)],
) -> [Row; 4] {
    let v4 = Row { service, client, frontend, v4: true, protocol: Protocol::Tcp, expected, but };
    let v6 = Row { v4: false, ..v4 };
    [v4, Row { protocol: Protocol::Udp, ..v4 }, v6, Row { protocol: Protocol::Udp, ..v6 }]
}

use Expected::{All, Dropped, Far, Near, Refused};
use Source::{Client as Own, Node as Masqueraded};

rows! {
    OPEN Pod ClusterAddress => All(Own);
    OPEN Pod NodePort => All(Masqueraded);
    OPEN Pod Balancer => All(Masqueraded);
    OPEN Pod External => All(Masqueraded);
    OPEN Node ClusterAddress => All(Masqueraded);
    OPEN Node NodePort => All(Masqueraded);
    OPEN Node Balancer => All(Masqueraded);
    OPEN Outside ClusterAddress => All(Masqueraded);
    OPEN Outside NodePort => All(Masqueraded);
    OPEN Outside Balancer => All(Masqueraded);
    OPEN Outside External => All(Masqueraded);
    // An external Local policy keeps the client's address and does not concern clients of the node. IPVS has one list of
    // endpoints for everybody, and the balancer's address on an interface of the node, which so is its own source.
    EXTERNAL_LOCAL Pod ClusterAddress => All(Own);
    EXTERNAL_LOCAL Pod NodePort => All(Own), but Ipvs Near(Own);
    EXTERNAL_LOCAL Pod Balancer => All(Own), but Ipvs Near(Own);
    EXTERNAL_LOCAL Node ClusterAddress => All(Masqueraded);
    EXTERNAL_LOCAL Node NodePort => All(Masqueraded), but Ipvs Near(Masqueraded);
    EXTERNAL_LOCAL Node Balancer => All(Masqueraded), but Ipvs Near(Source::Service);
    EXTERNAL_LOCAL Outside ClusterAddress => All(Masqueraded);
    EXTERNAL_LOCAL Outside NodePort => Near(Own);
    EXTERNAL_LOCAL Outside Balancer => Near(Own);
    // An internal Local policy concerns the cluster address and nothing else.
    INTERNAL_LOCAL Pod ClusterAddress => Near(Own);
    INTERNAL_LOCAL Pod NodePort => All(Masqueraded);
    INTERNAL_LOCAL Node ClusterAddress => Near(Masqueraded);
    INTERNAL_LOCAL Outside ClusterAddress => Near(Masqueraded), but Ebpf Near(Own), EbpfLinks Near(Own);
    INTERNAL_LOCAL Outside NodePort => All(Masqueraded);
    // No endpoint anywhere: the client is told at once.
    EMPTY Pod ClusterAddress => Refused;
    EMPTY Pod NodePort => Refused;
    EMPTY Pod Balancer => Refused;
    EMPTY Node ClusterAddress => Refused;
    EMPTY Node NodePort => Refused;
    // kube-proxy's rules for external addresses see what comes to the node and through it, not what it sends itself.
    EMPTY Node Balancer => Refused, but Iptables Dropped;
    EMPTY Outside ClusterAddress => Refused;
    EMPTY Outside NodePort => Refused;
    EMPTY Outside Balancer => Refused;
    EMPTY Outside External => Refused;
    // Endpoints, but none that the policy allows: others may still know better, so nothing is said. IPVS takes those of other
    // nodes; who is outside then hears from an address that was not asked.
    AWAY Pod ClusterAddress => Dropped, but Ipvs Far(Own);
    AWAY Node ClusterAddress => Dropped, but Ipvs Far(Masqueraded);
    AWAY Outside NodePort => Dropped;
    AWAY Outside Balancer => Dropped;
    // Clients of the node are not outside, so the external policy does not concern them here either.
    AWAY Pod NodePort => Far(Own);
    AWAY Pod Balancer => Far(Own);
    AWAY Node NodePort => Far(Masqueraded);
    // Source ranges concern the balancer's address alone.
    RESTRICTED Pod ClusterAddress => All(Own);
    RESTRICTED Outside NodePort => All(Masqueraded);
    RESTRICTED Pod NodePort => All(Masqueraded);
    RESTRICTED Outside Balancer => Dropped;
    RESTRICTED Outside External => All(Masqueraded);
    RESTRICTED Pod Balancer => Dropped;
    EVERYBODY Pod Balancer => All(Masqueraded);
    EVERYBODY Node Balancer => All(Masqueraded);
    EVERYBODY Outside Balancer => All(Masqueraded);
    // A packet that comes back to its pod must not have the pod's address as its source; a socket that is connected to its
    // own pod sends none.
    SELF Pod ClusterAddress => Near(Masqueraded), but Ebpf Near(Own), EbpfLinks Near(Source::Service),
        EbpfMasquerade Near(Source::Service);
    SELF Pod Balancer => Near(Masqueraded), but Ebpf Near(Own), EbpfLinks Near(Source::Service),
        EbpfMasquerade Near(Source::Service);
}

/// Rows that differ by family, and by the nature of the modes.
pub(crate) const SPECIAL: &[[Row; 2]] = &[
    one(OPEN, Client::Loopback, Frontend::NodePort, true, All(Masqueraded), RULES_WITHOUT_LOOPBACK),
    one(OPEN, Client::Loopback, Frontend::NodePort, false, Refused, SOCKETS_ON_LOOPBACK),
    // iptables knows ports only; the packet is routed like any other, here to a machine that does not answer.
    one(OPEN, Client::Pod, Frontend::UnknownPort, true, Refused, &[(Mode::Iptables, Dropped)]),
    one(OPEN, Client::Pod, Frontend::UnknownPort, false, Refused, &[(Mode::Iptables, Dropped)]),
    // Rules for addresses do not concern what has none: it is routed, or dropped in nftables mode.
    one(OPEN, Client::Pod, Frontend::UnknownAddress, true, Refused, RULES_KNOW_SERVICES_ONLY),
    one(OPEN, Client::Pod, Frontend::UnknownAddress, false, Refused, RULES_KNOW_SERVICES_ONLY),
    one(OPEN, Client::Node, Frontend::UnknownAddress, true, Refused, RULES_KNOW_SERVICES_ONLY),
];

const RULES_KNOW_SERVICES_ONLY: &[(Mode, Expected)] =
    &[(Mode::Iptables, Dropped), (Mode::Nftables, Dropped), (Mode::Ipvs, Dropped)];
/// iptables alone lets packets from 127.0.0.1 leave loopback (`route_localnet`).
const RULES_WITHOUT_LOOPBACK: &[(Mode, Expected)] = &[(Mode::Nftables, Refused), (Mode::Ipvs, Refused)];
/// A socket is aimed at the endpoint before it has an address, so nothing has to leave loopback; there is no
/// `route_localnet` for ::1.
const SOCKETS_ON_LOOPBACK: &[(Mode, Expected)] =
    &[(Mode::Ebpf, ON_LOOPBACK), (Mode::EbpfLinks, ON_LOOPBACK), (Mode::EbpfMasquerade, ON_LOOPBACK)];
const ON_LOOPBACK: Expected = All(Masqueraded);

const fn one(
    service: u8,
    client: Client,
    frontend: Frontend,
    v4: bool,
    expected: Expected,
    but: &'static [(Mode, Expected)],
) -> [Row; 2] {
    let row = Row { service, client, frontend, v4, protocol: Protocol::Tcp, expected, but };
    [row, Row { protocol: Protocol::Udp, ..row }]
}
