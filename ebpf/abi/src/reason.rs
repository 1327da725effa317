//! Why a packet or a connection was not let through.

macro_rules! reasons {
    ($($number:literal $variant:ident $name:literal $doc:literal),* $(,)?) => {
        /// A reason for a drop or a refusal. Numbers are stable: they are in pinned maps and in records.
        #[repr(u32)]
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum DropReason { $(#[doc = $doc] $variant = $number),* }

        impl DropReason {
            /// Every reason, in the order of its number.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The reason with this number.
            pub const fn from_number(number: u32) -> Option<Self> {
                match number { $($number => Some(Self::$variant),)* _ => None }
            }

            /// Name in metrics and in `fairlead flows`.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }

            /// One sentence for a person.
            pub const fn description(self) -> &'static str {
                match self { $(Self::$variant => $doc),* }
            }
        }
    };
}

reasons! {
    1 NoEndpoints "no-endpoints" "The service has no ready endpoint.",
    2 NoLocalEndpoints "no-local-endpoints" "The service's traffic policy is Local and this node has no endpoint of it.",
    3 SourceNotOwned "source-not-owned" "The pod sent a packet from an address that is not its own.",
    4 Malformed "malformed" "The packet's headers are truncated or contradict each other.",
    5 UnknownPod "unknown-pod" "The destination is in this node's pod network, but no pod has the address.",
    6 TtlExceeded "ttl-exceeded" "The packet's hop limit ran out.",
    7 NoPort "no-such-port" "The address is a service's, but no service has this port of it.",
    8 SourceNotAllowed "source-not-allowed" "The client is in none of the service's loadBalancerSourceRanges.",
    9 ConntrackFull "conntrack-full" "The table of translated connections is full.",
    10 PortsExhausted "snat-ports-exhausted" "Every port to masquerade with is in use towards this backend.",
    11 UnknownConnection "unknown-connection" "The packet is of a connection whose beginning was not seen.",
    12 UnknownFragment "unknown-fragment" "The fragment's first part, which has the ports, was not seen.",
    13 TooBig "packet-too-big" "The packet does not fit the way to its backend; the sender was told.",
    14 PortReserved "port-reserved" "A process wanted to bind a port that is a service's node port.",
    15 Inconsistent "inconsistent" "The maps contradict each other; please report it.",
    16 UnknownAddress "unknown-address" "The address is in the service network, but no service has it.",
    17 OutsideNotAllowed "outside-not-allowed" "A client outside the cluster asked for a cluster address, which the node denies (--deny-outside-cluster-ips).",
}

#[cfg(test)]
mod tests {
    use super::DropReason;

    #[test]
    fn numbers_and_names_are_unique_and_come_back() {
        for (index, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(DropReason::from_number(*reason as u32), Some(*reason));
            assert!(DropReason::ALL[..index].iter().all(|other| other.name() != reason.name()));
        }
        assert_eq!(DropReason::from_number(0), None, "0 stands for nothing refused");
    }
}
