//! Where client and server are.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::PathBuf,
};

use fairlead_testkit::Netns;
use serde::{Deserialize, Serialize};

/// A network namespace and the addresses in it, IPv4 first.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Spot {
    pub(crate) netns: PathBuf,
    pub(crate) addresses: Vec<IpAddr>,
}

/// Client and server that reach each other.
pub(crate) struct Pair {
    pub(crate) client: Spot,
    pub(crate) server: Spot,
    /// What was made for them.
    _namespaces: Vec<Netns>,
}

impl Pair {
    /// Both in one namespace, on its loopback: the floor.
    pub(crate) fn on_loopback() -> Self {
        let netns = Netns::new("lo");
        let addresses = vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        let spot = Spot { netns: netns.path(), addresses };
        Self { client: spot.clone(), server: spot, _namespaces: vec![netns] }
    }

    /// Each in a namespace with a wire to a third, which routes between them as kernels do.
    pub(crate) fn routed() -> Self {
        let router = Netns::new("router");
        router.run(|| {
            for name in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
                std::fs::write(format!("/proc/sys/net/{name}"), "1").expect("a kernel that forwards");
            }
        });
        let (client, server) = (Netns::new("client"), Netns::new("server"));
        let spots = [(&client, 1), (&server, 2)].map(|(netns, octet)| wire(&router, netns, octet));
        let [at_client, at_server] = spots;
        Self { client: at_client, server: at_server, _namespaces: vec![client, server, router] }
    }
}

/// Joins a namespace to the router with networks of their own.
fn wire(router: &Netns, netns: &Netns, octet: u8) -> Spot {
    let (inside, outside) = ("eth0", format!("wire{octet}"));
    let ends = ["link", "add", &outside, "type", "veth", "peer", "name", inside, "netns", netns.name()];
    router.ip(&ends);
    for (end, device, host) in [(router, outside.as_str(), 1), (netns, inside, 2)] {
        end.ip(&["addr", "add", &format!("10.9.{octet}.{host}/24"), "dev", device]);
        end.ip(&["addr", "add", &format!("fd00:9:{octet}::{host}/64"), "dev", device, "nodad"]);
        end.ip(&["link", "set", device, "up"]);
    }
    netns.ip(&["route", "add", "default", "via", &format!("10.9.{octet}.1")]);
    netns.ip(&["-6", "route", "add", "default", "via", &format!("fd00:9:{octet}::1")]);
    let v6 = Ipv6Addr::new(0xfd00, 9, u16::from(octet), 0, 0, 0, 0, 2);
    Spot { netns: netns.path(), addresses: vec![Ipv4Addr::new(10, 9, octet, 2).into(), v6.into()] }
}
