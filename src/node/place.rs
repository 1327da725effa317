//! Where a node is: the defaults of what was not given.

use std::{
    net::{IpAddr, SocketAddr, ToSocketAddrs as _, UdpSocket},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use nix::ifaddrs::getifaddrs;

use crate::{identity::host_name, paths::BPFFS};

/// What was given; the rest is found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    pub(crate) name: Option<String>,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) uplink: Option<String>,
    pub(crate) state: Option<PathBuf>,
    pub(crate) run: Option<PathBuf>,
    pub(crate) bpffs: Option<PathBuf>,
    pub(crate) cgroup: Option<String>,
}

/// A node's name, addresses and directories.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    pub(crate) name: String,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) uplink: String,
    pub(crate) state: PathBuf,
    pub(crate) run: PathBuf,
    pub(crate) bpffs: PathBuf,
    /// Below the root of every hierarchy, without a slash in front.
    pub(crate) cgroup: String,
}

/// Takes what was given and finds the rest; `api` is the API server's host.
pub(crate) fn find(wanted: Wanted, api: &str) -> anyhow::Result<Place> {
    let name = wanted.name.map_or_else(host_name, Ok)?;
    let addresses = match wanted.addresses.as_slice() {
        [] => vec![address_towards(api)?],
        given => checked(given)?,
    };
    let uplink = wanted.uplink.map_or_else(|| interface_with(&addresses), Ok)?;
    let below = |root: &str| Path::new(root).join("fairlead").join(&name);
    let nodes = |root: &str| Path::new(root).join("fairlead/nodes").join(&name);
    Ok(Place {
        uplink,
        state: wanted.state.unwrap_or_else(|| nodes("/var/lib")),
        run: wanted.run.unwrap_or_else(|| nodes("/run")),
        bpffs: wanted.bpffs.unwrap_or_else(|| below(BPFFS)),
        cgroup: wanted.cgroup.unwrap_or_else(|| format!("fairlead/{name}")).trim_matches('/').to_owned(),
        addresses,
        name,
    })
}

/// At most one address per family, as the Node object has it.
fn checked(given: &[IpAddr]) -> anyhow::Result<Vec<IpAddr>> {
    if given.iter().filter(|a| a.is_ipv4()).count() > 1 || given.iter().filter(|a| a.is_ipv6()).count() > 1 {
        bail!("--node-ip is given twice for one address family; give at most one IPv4 and one IPv6 address");
    }
    Ok(given.to_vec())
}

/// The address from which this machine reaches `host`. Connecting a UDP socket asks the routing table and sends nothing.
fn address_towards(host: &str) -> anyhow::Result<IpAddr> {
    let find = || -> anyhow::Result<IpAddr> {
        let target =
            (host.trim_matches(['[', ']']), 9).to_socket_addrs()?.next().context("it has no address")?;
        let any: SocketAddr = if target.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0; 8], 0).into() };
        let socket = UdpSocket::bind(any)?;
        socket.connect(target)?;
        Ok(socket.local_addr()?.ip())
    };
    find().with_context(|| {
        format!("cannot find the address that leads to the API server {host}; give --node-ip")
    })
}

fn interface_with(addresses: &[IpAddr]) -> anyhow::Result<String> {
    let interfaces = getifaddrs().context("cannot list this machine's interfaces; give --uplink")?;
    let has = |address: &nix::sys::socket::SockaddrStorage| {
        let v4 = address.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
        let v6 = address.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip()));
        v4.or(v6).is_some_and(|address| addresses.contains(&address))
    };
    let mut found = interfaces.filter(|interface| interface.address.as_ref().is_some_and(has));
    let found = found.next().with_context(|| {
        let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
        format!("no interface has the address {}; give --node-ip or --uplink", addresses.join(" or "))
    })?;
    Ok(found.interface_name)
}

#[cfg(test)]
mod tests {
    use super::{address_towards, checked, interface_with};

    #[test]
    fn the_address_and_interface_are_those_that_reach_the_api() {
        let address = address_towards("127.0.0.1").unwrap();
        assert_eq!(address.to_string(), "127.0.0.1");
        assert_eq!(interface_with(&[address]).unwrap(), "lo");
        let message = interface_with(&["192.0.2.1".parse().unwrap()]).unwrap_err().to_string();
        assert!(message.contains("192.0.2.1") && message.contains("--node-ip"), "{message}");
    }

    #[test]
    fn one_address_per_family() {
        let list = |texts: &[&str]| texts.iter().map(|t| t.parse().unwrap()).collect::<Vec<_>>();
        assert!(checked(&list(&["192.0.2.1", "fd00::1"])).is_ok());
        assert!(checked(&list(&["192.0.2.1", "192.0.2.2"])).is_err());
    }
}
