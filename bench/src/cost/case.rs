//! What is measured, as a table.

use self::Asked::{Closely, Everywhere, Inside, Outside};
use super::place::Pair;

/// How client and server reach each other.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Way {
    /// With nothing of ours between them.
    Pair(fn() -> Pair),
    /// Through a service, which an agent in the mode of this name programs.
    Agent,
}

/// For which numbers of services a case is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Sizes {
    /// The first.
    First,
    /// The first and the last: its cost does not depend on the number, which is to be seen.
    Ends,
    /// All of them.
    All,
}

/// Who asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Asked {
    /// A pod.
    Inside,
    /// A pod; with the first number of services it asks another one itself, too, and the programs are measured one by one.
    Closely,
    /// A client outside of the cluster, with the first number of services.
    Outside,
    /// All that.
    Everywhere,
}

impl Asked {
    /// Whether a pod does.
    pub(crate) fn inside(self) -> bool {
        self != Self::Outside
    }

    /// Whether there is a closer look at what a pod asks.
    pub(crate) fn closely(self) -> bool {
        matches!(self, Self::Closely | Self::Everywhere)
    }

    /// Whether a client outside does.
    pub(crate) fn outside(self) -> bool {
        matches!(self, Self::Outside | Self::Everywhere)
    }
}

/// A case.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    /// How the packets go; the agent's modes have its names.
    pub(crate) mode: &'static str,
    /// Which tier translates, or what is left out.
    pub(crate) path: &'static str,
    pub(crate) way: Way,
    /// Flags of the agent.
    pub(crate) flags: &'static [&'static str],
    pub(crate) sizes: Sizes,
    pub(crate) asked: Asked,
    /// Whether it is measured over IPv6 as well as over IPv4.
    pub(crate) ipv6: bool,
}

impl Case {
    /// The same for who is in a hurry: pods that ask services over IPv4. Nothing if it is a variant of another case.
    pub(crate) fn in_brief(&self) -> Option<Self> {
        let of_its_own = matches!(self.path, "" | "socket");
        of_its_own.then_some(Self { asked: Asked::Inside, ipv6: false, ..*self })
    }
}

/// All of them. Those with rules come last: while any namespace has rules, the kernel asks in every namespace.
pub(crate) const CASES: &[Case] = &[
    pair("loopback", Pair::on_loopback),
    pair("none", Pair::routed),
    agent("ebpf", "socket", &[], Sizes::All, Everywhere),
    agent("ebpf", "socket-without-flows", &["--without-flows"], Sizes::First, Inside),
    agent("ebpf", "link", &["--sockets-of-host-only"], Sizes::Ends, Closely),
    agent("ebpf", "direct", &["--forwarding=direct"], Sizes::First, Outside),
    agent("ebpf", "masquerade", &["--forwarding=masquerade"], Sizes::First, Outside),
    agent("nftables", "", &[], Sizes::All, Everywhere),
    agent("ipvs", "", &[], Sizes::All, Everywhere),
    agent("iptables", "", &[], Sizes::All, Everywhere),
];

const fn pair(mode: &'static str, make: fn() -> Pair) -> Case {
    Case { mode, path: "", way: Way::Pair(make), flags: &[], sizes: Sizes::First, asked: Inside, ipv6: true }
}

const fn agent(
    mode: &'static str,
    path: &'static str,
    flags: &'static [&'static str],
    sizes: Sizes,
    asked: Asked,
) -> Case {
    Case { mode, path, way: Way::Agent, flags, sizes, asked, ipv6: true }
}

impl Sizes {
    /// Which of these numbers.
    pub(crate) fn of(self, all: &[u32]) -> Vec<u32> {
        let mut some = match self {
            Self::First => all.iter().take(1).copied().collect(),
            Self::Ends => all.first().into_iter().chain(all.last()).copied().collect(),
            Self::All => all.to_vec(),
        };
        some.dedup();
        some
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_of_services_is_measured_once() {
        assert_eq!(Sizes::First.of(&[1, 10, 100]), [1]);
        assert_eq!(Sizes::Ends.of(&[1, 10, 100]), [1, 100]);
        assert_eq!(Sizes::Ends.of(&[1]), [1]);
        assert_eq!(Sizes::All.of(&[1, 10]), [1, 10]);
    }

    #[test]
    fn in_brief_every_mode_is_there_once() {
        let modes = |cases: &mut dyn Iterator<Item = Case>| cases.map(|case| case.mode).collect::<Vec<_>>();
        let mut all = modes(&mut CASES.iter().copied());
        all.dedup();
        assert_eq!(modes(&mut CASES.iter().filter_map(Case::in_brief)), all);
    }

    #[test]
    fn no_two_cases_have_the_same_name_and_every_mode_of_the_agent_is_there() {
        let names: std::collections::BTreeSet<_> = CASES.iter().map(|case| (case.mode, case.path)).collect();
        assert_eq!(names.len(), CASES.len());
        for mode in fairlead_agent::ProxyMode::ALL {
            assert!(CASES.iter().any(|case| case.mode == mode.as_str()), "{mode}");
        }
    }
}
