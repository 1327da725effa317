//! Ends sockets whose other side is gone (`NETLINK_SOCK_DIAG`, `linux/inet_diag.h`).
//!
//! A connected UDP socket that a socket hook has translated sends to its backend for ever. When the backend stops, the
//! kernel is told to end such sockets: their owners get `ECONNABORTED`, connect again and are given another backend.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, SocketAddr},
};

use fairlead_abi::{Addr16, Be16};
use rtnetlink::sys::{Socket, SocketAddr as Kernel, protocols::NETLINK_SOCK_DIAG};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
/// `NLM_F_REQUEST`.
const REQUEST: u16 = 1;
/// `NLM_F_ACK`.
const ACK: u16 = 4;
/// `NLM_F_DUMP`.
const DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

/// `TCP_ESTABLISHED`, which a connected UDP socket is in, too.
const CONNECTED: u32 = 1 << 1;

/// `struct nlmsghdr`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct Header {
    length: u32,
    kind: u16,
    flags: u16,
    sequence: u32,
    port: u32,
}

/// `struct inet_diag_sockid`.
#[repr(C)]
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct SocketId {
    source_port: Be16,
    destination_port: Be16,
    source: [u32; 4],
    destination: [u32; 4],
    interface: u32,
    cookie: [u32; 2],
}

/// `struct nlmsghdr` and `struct inet_diag_req_v2`.
#[repr(C)]
#[derive(Clone, Copy, IntoBytes, Immutable, KnownLayout)]
struct Request {
    header: Header,
    family: u8,
    protocol: u8,
    extensions: u8,
    pad: u8,
    states: u32,
    id: SocketId,
}

/// The beginning of `struct inet_diag_msg`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout)]
struct Answer {
    family: u8,
    state: u8,
    timer: u8,
    retransmits: u8,
    id: SocketId,
}

/// Ends the UDP sockets of the calling thread's network namespace that are connected to one of `gone`; returns how many
/// there were.
///
/// # Errors
/// The kernel cannot be asked, or was built without `CONFIG_INET_DIAG_DESTROY`.
pub fn end_udp_sockets(gone: &BTreeSet<SocketAddr>) -> io::Result<usize> {
    let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.bind_auto()?;
    socket.connect(&Kernel::new(0, 0))?;
    let mut ended = 0;
    for family in [libc::AF_INET, libc::AF_INET6] {
        let family = u8::try_from(family).unwrap_or_default();
        for id in connected(&socket, family)?.into_iter().filter(|id| gone.contains(&destination(family, id)))
        {
            match destroy(&socket, family, id) {
                Ok(()) => ended += 1,
                // Its owner was faster.
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(ended)
}

/// Where a socket is connected to; an IPv6 socket may be connected to an IPv4 address.
fn destination(family: u8, id: &SocketId) -> SocketAddr {
    let address = if i32::from(family) == libc::AF_INET {
        Addr16::from_v4_be(id.destination[0])
    } else {
        Addr16::from_v6_be(id.destination)
    };
    SocketAddr::new(IpAddr::from(address.to_ip()), id.destination_port.get())
}

/// All connected UDP sockets of a family.
fn connected(socket: &Socket, family: u8) -> io::Result<Vec<SocketId>> {
    send(socket, request(SOCK_DIAG_BY_FAMILY, REQUEST | DUMP, family, SocketId::default()))?;
    let mut found = Vec::new();
    loop {
        for (kind, body) in messages(&receive(socket)?) {
            match kind {
                NLMSG_DONE => return Ok(found),
                NLMSG_ERROR => result(body)?,
                SOCK_DIAG_BY_FAMILY => found.extend(Answer::read_from_prefix(body).ok().map(|(a, _)| a.id)),
                _ => {}
            }
        }
    }
}

fn destroy(socket: &Socket, family: u8, id: SocketId) -> io::Result<()> {
    send(socket, request(SOCK_DESTROY, REQUEST | ACK, family, id))?;
    loop {
        if let Some((_, body)) = messages(&receive(socket)?).find(|(kind, _)| *kind == NLMSG_ERROR) {
            return result(body);
        }
    }
}

fn request(kind: u16, flags: u16, family: u8, id: SocketId) -> Request {
    let length = u32::try_from(size_of::<Request>()).unwrap_or_default();
    let header = Header { length, kind, flags, sequence: 1, port: 0 };
    let protocol = fairlead_abi::service::UDP;
    Request { header, family, protocol, extensions: 0, pad: 0, states: CONNECTED, id }
}

fn send(socket: &Socket, request: Request) -> io::Result<()> {
    socket.send(request.as_bytes(), 0).map(drop)
}

fn receive(socket: &Socket) -> io::Result<Vec<u8>> {
    socket.recv_from_full().map(|(bytes, _)| bytes)
}

/// The messages of a datagram: kind and body.
fn messages(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (header, _) = Header::read_from_prefix(rest).ok()?;
        let length = usize::try_from(header.length).ok()?;
        let body = rest.get(size_of::<Header>()..length)?;
        // Messages are aligned to four bytes.
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((header.kind, body))
    })
}

/// What `NLMSG_ERROR` says; 0 is an acknowledgement.
fn result(body: &[u8]) -> io::Result<()> {
    match i32::read_from_prefix(body) {
        Ok((0, _)) | Err(_) => Ok(()),
        Ok((error, _)) => Err(io::Error::from_raw_os_error(-error)),
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    /// A socket of either family that is connected to one of the other's addresses.
    fn pair(server: &str, client: &str) -> (UdpSocket, UdpSocket, SocketAddr) {
        let server = UdpSocket::bind(server).expect("loopback is up");
        let client = UdpSocket::bind(client).expect("loopback is up");
        let address = server.local_addr().expect("bound");
        let to = match (client.local_addr().expect("bound"), address.ip()) {
            (SocketAddr::V6(_), IpAddr::V4(v4)) => {
                SocketAddr::new(v4.to_ipv6_mapped().into(), address.port())
            }
            _ => address,
        };
        client.connect(to).expect("connects");
        (server, client, address)
    }

    #[test]
    fn a_socket_of_either_family_is_ended_and_its_neighbour_is_not() {
        if !nix::unistd::geteuid().is_root() {
            assert!(std::env::var_os("CI").is_none(), "this test needs root");
            eprintln!("skipped: this test needs root");
            return;
        }
        for (server, client) in
            [("127.0.0.1:0", "127.0.0.1:0"), ("[::1]:0", "[::1]:0"), ("127.0.0.1:0", "[::]:0")]
        {
            let (_gone, stopped, address) = pair(server, client);
            let (_stays, neighbour, _) = pair(server, client);
            assert_eq!(
                end_udp_sockets(&BTreeSet::from([address])).expect("root may"),
                1,
                "{server} {client}"
            );
            let error = stopped.recv(&mut [0; 8]).expect_err("it was ended");
            assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted, "{server} {client}");
            neighbour.send(b"?").expect("still connected");
        }
    }
}
