//! A router between a client and the nodes whose next link takes less than the others: whoever sends too much hears of it,
//! though the packet that the router complains of was translated.

use fairlead_abi::names::globals::{FORWARD_DIRECT_RETURN, FORWARD_ENCAPSULATED, FORWARD_MASQUERADED};
use fairlead_testkit::netns::command;

use crate::{
    outside::{BALANCER, NODE_PORT, PLACES, PORT, World, socket, tcp, udp},
    support::{Netns, fill_in_checksums, ip},
};

/// What fits through the link to the client.
const NARROW: u32 = 1_300;

/// The client's networks, the router's addresses there and on the nodes' link.
const NETWORKS: [&str; 2] = ["192.0.2.0/24", "2001:db8:2::/64"];
const ROUTER: [&str; 2] = ["172.29.0.9", "fd00:29::9"];

/// A router on the nodes' link, and a client behind it.
struct Behind {
    _router: Netns,
    client: Netns,
}

impl Behind {
    fn new(world: &World) -> Self {
        let (router, client) = (Netns::new("router"), Netns::new("far"));
        let (lan, near, far) = (world.lan.name(), router.name(), client.name());
        ip(&format!("link add port4 netns {lan} type veth peer name uplink netns {near}"));
        ip(&format!("link add narrow netns {near} mtu {NARROW} type veth peer name uplink netns {far}"));
        world.lan.run(|| ip("link set port4 master lan up"));
        router.run(|| {
            for forwarding in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
                std::fs::write(format!("/proc/sys/net/{forwarding}"), "1").unwrap();
            }
            fill_in_checksums("uplink");
            ip("link set uplink up");
            ip("link set narrow up");
            ip("address add 172.29.0.9/24 dev uplink");
            ip("address add fd00:29::9/64 dev uplink nodad");
            ip("address add 192.0.2.1/24 dev narrow");
            ip("address add 2001:db8:2::1/64 dev narrow nodad");
            for (family, balancer) in BALANCER.iter().enumerate() {
                ip(&format!("route add {balancer} via {}", world.a.address(family)));
            }
        });
        client.run(|| {
            ip(&format!("link set uplink mtu {NARROW} up"));
            ip("address add 192.0.2.7/24 dev uplink");
            ip("address add 2001:db8:2::7/64 dev uplink nodad");
            // It asks for segments as long as the nodes' link takes, as if the narrow link were not its own.
            ip("route add default via 192.0.2.1 advmss 1460");
            ip("route add default via 2001:db8:2::1 advmss 1440");
        });
        for node in [&world.a, &world.b] {
            node.netns.run(|| {
                for (network, router) in NETWORKS.iter().zip(ROUTER) {
                    ip(&format!("route add {network} via {router}"));
                }
            });
        }
        Self { _router: router, client }
    }
}

#[test]
fn a_router_with_a_narrow_link_is_heard_by_whoever_answers_through_a_service() {
    for forwarding in [FORWARD_ENCAPSULATED, FORWARD_DIRECT_RETURN, FORWARD_MASQUERADED] {
        let mut world = World::new(forwarding);
        let behind = Behind::new(&world);
        for place in PLACES {
            for family in [0, 1] {
                let (address, server) = world.serve_at(place, family, 0);
                let frontends = [socket(&world.a.address(family), NODE_PORT), socket(BALANCER[family], PORT)];
                for to in frontends {
                    let context = format!("{place:?} by {to}, forwarding {forwarding}");
                    forget(&server);
                    let seen = tcp(&server, address, to, behind.client.name(), &context);
                    let route = command("ip", &["-n", &server, "route", "get", &seen.to_string()]);
                    assert!(route.contains(&format!("mtu {NARROW}")), "{context}: it has learnt: {route}");
                    forget(&server);
                    udp(&server, address, to, behind.client.name(), &context);
                }
            }
        }
    }
}

/// Makes the stack of a namespace forget what it has learnt of ways.
fn forget(netns: &str) {
    for family in ["-4", "-6"] {
        command("ip", &[family, "-n", netns, "route", "flush", "cache"]);
    }
}
