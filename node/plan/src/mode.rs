//! How services are programmed into the kernel.

use std::{fmt, str::FromStr};

/// A way to program services; one planning module each.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum ProxyMode {
    /// Socket and link programs over maps: [`crate::ebpf`].
    #[default]
    Ebpf,
    /// Rules of iptables: [`crate::iptables`].
    Iptables,
    /// A table of nftables: [`crate::nftables`].
    Nftables,
    /// Virtual servers of IPVS: [`crate::ipvs`].
    Ipvs,
}

impl ProxyMode {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Ebpf, Self::Iptables, Self::Nftables, Self::Ipvs];

    /// As `/proxyMode` answers and a flag is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ebpf => "ebpf",
            Self::Iptables => "iptables",
            Self::Nftables => "nftables",
            Self::Ipvs => "ipvs",
        }
    }
}

impl fmt::Display for ProxyMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The name is not a mode.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UnknownMode(String);

impl fmt::Display for UnknownMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = ProxyMode::ALL.map(ProxyMode::as_str).join(", ");
        write!(f, "{:?} is not a proxy mode; use one of {known}", self.0)
    }
}

impl std::error::Error for UnknownMode {}

impl FromStr for ProxyMode {
    type Err = UnknownMode;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|mode| mode.as_str() == name);
        found.ok_or_else(|| UnknownMode(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mode_is_known_by_its_name_and_a_wrong_name_shows_them() {
        for mode in ProxyMode::ALL {
            assert_eq!(mode.as_str().parse(), Ok(mode));
        }
        let wrong = "fast".parse::<ProxyMode>().expect_err("no such mode").to_string();
        assert_eq!(wrong, "\"fast\" is not a proxy mode; use one of ebpf, iptables, nftables, ipvs");
    }
}
