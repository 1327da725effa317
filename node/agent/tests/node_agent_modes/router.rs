//! A router that advertises itself.

use std::{
    net::{Ipv6Addr, SocketAddrV6},
    os::fd::AsRawFd,
};

use fairlead_testkit::{Netns, topology::UPLINK};
use nix::{
    net::if_::if_nametoindex,
    sys::socket::{
        AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn6, sendto, setsockopt, socket,
        sockopt::Ipv6MulticastHops,
    },
};

/// A router advertisement (RFC 4861 section 4.2): hop limit 64, a lifetime of half an hour, nothing else. The kernel fills in
/// the checksum.
const ADVERTISEMENT: [u8; 16] = [134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// Tells everybody on the uplink to use this node as their default router.
pub(crate) fn advertise(router: &Netns) {
    router.run(|| {
        let raw = socket(AddressFamily::Inet6, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::IcmpV6);
        let raw = raw.expect("root may have one");
        // One that has come through a router does not count (section 6.1.2).
        setsockopt(&raw, Ipv6MulticastHops, &255).expect("a number of hops");
        let index = if_nametoindex(UPLINK).expect("it has one");
        let everybody = SockaddrIn6::from(SocketAddrV6::new(ALL_NODES, 0, 0, index));
        sendto(raw.as_raw_fd(), &ADVERTISEMENT, &everybody, MsgFlags::empty()).expect("sends");
    });
}
