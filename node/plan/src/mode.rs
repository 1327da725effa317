//! How services are programmed into the kernel.

use std::{fmt, str::FromStr};

/// A way to program services; one planning module each.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ProxyMode {
    /// Socket and link programs over maps: [`crate::ebpf`].
    #[default]
    Ebpf,
}

/// Modes that kube-proxy knows and this build does not have.
const NOT_BUILT_IN: &[&str] = &["iptables", "nftables", "ipvs"];

impl ProxyMode {
    /// As `/proxyMode` answers and a flag is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ebpf => "ebpf",
        }
    }
}

impl fmt::Display for ProxyMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The name is not a mode that can be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UnknownMode(String);

impl fmt::Display for UnknownMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if NOT_BUILT_IN.contains(&self.0.as_str()) {
            write!(f, "proxy mode {:?} is not part of this build; use \"ebpf\"", self.0)
        } else {
            write!(f, "{:?} is not a proxy mode; use \"ebpf\"", self.0)
        }
    }
}

impl std::error::Error for UnknownMode {}

impl FromStr for ProxyMode {
    type Err = UnknownMode;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "ebpf" => Ok(Self::Ebpf),
            other => Err(UnknownMode(other.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_of_kube_proxy_that_is_absent_is_named_as_such() {
        assert_eq!("ebpf".parse(), Ok(ProxyMode::Ebpf));
        let absent = "nftables".parse::<ProxyMode>().expect_err("not built in").to_string();
        assert!(absent.contains("not part of this build"), "{absent}");
        let wrong = "fast".parse::<ProxyMode>().expect_err("no such mode").to_string();
        assert!(wrong.contains("not a proxy mode"), "{wrong}");
    }
}
