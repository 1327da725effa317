//! The generic netlink family `IPVS` (`include/uapi/linux/ip_vs.h`), as much of it as we use. There is no crate for it.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use fairlead_model::Protocol;
use fairlead_plan::{
    ipvs::{AffinitySecs, Server},
    select::Target,
};
use netlink_sys::{Socket, protocols::NETLINK_GENERIC};

use super::message::{Answer, Attributes, DUMP, answers, attributes, find, request, u16_at, u32_at};

/// The family that knows the others (`GENL_ID_CTRL`), its command `CTRL_CMD_GETFAMILY` and attributes.
const CONTROL: u16 = 0x10;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;

/// Commands of IPVS (`IPVS_CMD_*`).
mod command {
    pub(super) const NEW_SERVICE: u8 = 1;
    pub(super) const SET_SERVICE: u8 = 2;
    pub(super) const DELETE_SERVICE: u8 = 3;
    pub(super) const GET_SERVICE: u8 = 4;
    pub(super) const NEW_DESTINATION: u8 = 5;
    pub(super) const SET_DESTINATION: u8 = 6;
    pub(super) const DELETE_DESTINATION: u8 = 7;
    pub(super) const GET_DESTINATION: u8 = 8;
}

/// Attributes of commands (`IPVS_CMD_ATTR_*`).
const SERVICE: u16 = 1;
const DESTINATION: u16 = 2;

/// Attributes of a service (`IPVS_SVC_ATTR_*`).
mod service {
    pub(super) const FAMILY: u16 = 1;
    pub(super) const PROTOCOL: u16 = 2;
    pub(super) const ADDRESS: u16 = 3;
    pub(super) const PORT: u16 = 4;
    pub(super) const SCHEDULER: u16 = 6;
    pub(super) const FLAGS: u16 = 7;
    pub(super) const TIMEOUT: u16 = 8;
    pub(super) const NETMASK: u16 = 9;
}

/// Attributes of a destination (`IPVS_DEST_ATTR_*`).
mod destination {
    pub(super) const ADDRESS: u16 = 1;
    pub(super) const PORT: u16 = 2;
    pub(super) const FORWARD_METHOD: u16 = 3;
    pub(super) const WEIGHT: u16 = 4;
    pub(super) const UPPER_THRESHOLD: u16 = 5;
    pub(super) const LOWER_THRESHOLD: u16 = 6;
    pub(super) const FAMILY: u16 = 11;
}

/// `IP_VS_SVC_F_PERSISTENT`.
const PERSISTENT: u32 = 1;
/// `IP_VS_CONN_F_MASQ`: the destination address is translated.
const MASQUERADE: u32 = 0;
/// Round robin, kube-proxy's default.
const SCHEDULER: &[u8] = b"rr\0";

/// A socket in one network namespace.
pub(super) struct Client {
    socket: Socket,
    family: u16,
}

impl Client {
    /// Opens a socket in the namespace of the calling thread. The kernel loads the module if it has one.
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_GENERIC)?;
        socket.bind_auto()?;
        let mut client = Self { socket, family: CONTROL };
        let mut name = Attributes::default();
        name.put(FAMILY_NAME, b"IPVS\0");
        let mut found = None;
        client.ask(GET_FAMILY, 0, &name, |answer| {
            found = find(&attributes(answer), FAMILY_ID).and_then(|value| u16_at(value, 0));
        })?;
        client.family = found.ok_or(io::ErrorKind::NotFound)?;
        Ok(client)
    }

    pub(super) fn servers(&self) -> io::Result<Vec<(Server, AffinitySecs)>> {
        let mut servers = Vec::new();
        self.ask(command::GET_SERVICE, DUMP, &Attributes::default(), |answer| {
            servers.extend(find(&attributes(answer), SERVICE).and_then(read_server));
        })?;
        Ok(servers)
    }

    pub(super) fn endpoints(&self, server: &Server) -> io::Result<BTreeMap<Target, u32>> {
        let mut endpoints = BTreeMap::new();
        let v4 = server.address.is_ipv4();
        self.ask(command::GET_DESTINATION, DUMP, &naming(server), |answer| {
            endpoints
                .extend(find(&attributes(answer), DESTINATION).and_then(|bytes| read_endpoint(bytes, v4)));
        })?;
        Ok(endpoints)
    }

    pub(super) fn put_server(&self, server: &Server, affinity: AffinitySecs) -> io::Result<()> {
        let mut all = Attributes::default();
        all.nest(SERVICE, &whole(server, affinity));
        match self.ask(command::NEW_SERVICE, 0, &all, |_| {}) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.ask(command::SET_SERVICE, 0, &all, |_| {})
            }
            other => other,
        }
    }

    pub(super) fn delete_server(&self, server: &Server) -> io::Result<()> {
        absent_is_fine(self.ask(command::DELETE_SERVICE, 0, &naming(server), |_| {}))
    }

    pub(super) fn put_endpoint(&self, server: &Server, target: &Target, weight: u32) -> io::Result<()> {
        let mut all = naming(server);
        all.nest(DESTINATION, &endpoint(target, Some(weight)));
        match self.ask(command::NEW_DESTINATION, 0, &all, |_| {}) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.ask(command::SET_DESTINATION, 0, &all, |_| {})
            }
            other => other,
        }
    }

    pub(super) fn delete_endpoint(&self, server: &Server, target: &Target) -> io::Result<()> {
        let mut all = naming(server);
        all.nest(DESTINATION, &endpoint(target, None));
        absent_is_fine(self.ask(command::DELETE_DESTINATION, 0, &all, |_| {}))
    }

    /// Sends a request and reads answers until the one that ends it.
    fn ask(
        &self,
        command: u8,
        flags: u16,
        attributes: &Attributes,
        mut read: impl FnMut(&[u8]),
    ) -> io::Result<()> {
        self.socket.send(&request(self.family, command, flags, attributes), 0)?;
        loop {
            let (datagram, _) = self.socket.recv_from_full()?;
            for answer in answers(&datagram) {
                match answer {
                    Answer::Data(bytes) => read(bytes),
                    Answer::End(0) => return Ok(()),
                    Answer::End(code) => return Err(io::Error::from_raw_os_error(code)),
                }
            }
        }
    }
}

fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ESRCH | libc::ENOENT)) => Ok(()),
        other => other,
    }
}

fn key(server: &Server) -> Attributes {
    let mut key = Attributes::default();
    key.put(service::FAMILY, &address_family(server.address).to_ne_bytes())
        .put(service::PROTOCOL, &u16::from(server.protocol.number()).to_ne_bytes())
        .put(service::ADDRESS, &address(server.address))
        .put(service::PORT, &server.port.to_be_bytes());
    key
}

fn naming(server: &Server) -> Attributes {
    let mut naming = Attributes::default();
    naming.nest(SERVICE, &key(server));
    naming
}

fn whole(server: &Server, affinity: AffinitySecs) -> Attributes {
    let mut all = key(server);
    let flags = if affinity == 0 { 0 } else { PERSISTENT };
    // `struct ip_vs_flags`: value and mask.
    let mut value = flags.to_ne_bytes().to_vec();
    value.extend(u32::MAX.to_ne_bytes());
    // Which part of a client's address counts: all of it. IPv4 has a mask, IPv6 a length.
    let netmask = if server.address.is_ipv4() { u32::MAX } else { 128 };
    all.put(service::SCHEDULER, SCHEDULER)
        .put(service::FLAGS, &value)
        .put(service::TIMEOUT, &affinity.to_ne_bytes())
        .put(service::NETMASK, &netmask.to_ne_bytes());
    all
}

fn endpoint(target: &Target, weight: Option<u32>) -> Attributes {
    let mut all = Attributes::default();
    all.put(destination::ADDRESS, &address(target.address))
        .put(destination::PORT, &target.port.to_be_bytes())
        .put(destination::FAMILY, &address_family(target.address).to_ne_bytes());
    if let Some(weight) = weight {
        all.put(destination::FORWARD_METHOD, &MASQUERADE.to_ne_bytes())
            .put(destination::WEIGHT, &weight.to_ne_bytes())
            .put(destination::UPPER_THRESHOLD, &0u32.to_ne_bytes())
            .put(destination::LOWER_THRESHOLD, &0u32.to_ne_bytes());
    }
    all
}

fn address_family(address: IpAddr) -> u16 {
    let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    u16::try_from(family).expect("a small number")
}

/// `union nf_inet_addr`.
fn address(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&v4.octets());
            bytes
        }
        IpAddr::V6(v6) => v6.octets(),
    }
}

fn read_address(bytes: &[u8], v4: bool) -> Option<IpAddr> {
    if v4 {
        let octets: [u8; 4] = bytes.get(..4)?.try_into().ok()?;
        return Some(Ipv4Addr::from(octets).into());
    }
    let octets: [u8; 16] = bytes.get(..16)?.try_into().ok()?;
    Some(Ipv6Addr::from(octets).into())
}

/// A service with an address; those that go by firewall mark have none.
fn read_server(bytes: &[u8]) -> Option<(Server, AffinitySecs)> {
    let found = attributes(bytes);
    let v4 = i32::from(u16_at(find(&found, service::FAMILY)?, 0)?) == libc::AF_INET;
    let protocol = match u16_at(find(&found, service::PROTOCOL)?, 0)? {
        6 => Protocol::Tcp,
        17 => Protocol::Udp,
        132 => Protocol::Sctp,
        _ => return None,
    };
    let address = read_address(find(&found, service::ADDRESS)?, v4)?;
    let port = u16::from_be(u16_at(find(&found, service::PORT)?, 0)?);
    let flags = find(&found, service::FLAGS).and_then(|value| u32_at(value, 0)).unwrap_or_default();
    let timeout = find(&found, service::TIMEOUT).and_then(|value| u32_at(value, 0)).unwrap_or_default();
    let affinity = if flags & PERSISTENT != 0 { timeout } else { 0 };
    Some((Server { address, port, protocol }, affinity))
}

fn read_endpoint(bytes: &[u8], v4: bool) -> Option<(Target, u32)> {
    let found = attributes(bytes);
    let address = read_address(find(&found, destination::ADDRESS)?, v4)?;
    let port = u16::from_be(u16_at(find(&found, destination::PORT)?, 0)?);
    let weight = u32_at(find(&found, destination::WEIGHT)?, 0)?;
    Some((Target { address, port }, weight))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_and_an_endpoint_are_read_as_they_were_written() {
        for address in ["10.96.0.1", "fd00:96::1"] {
            let address: IpAddr = address.parse().expect("an address");
            let server = Server { address, port: 80, protocol: Protocol::Udp };
            for affinity in [0, 10_800] {
                let bytes = request(0, 0, 0, &whole(&server, affinity));
                let [Answer::Data(body)] = answers(&bytes)[..] else { panic!("one message") };
                assert_eq!(read_server(body), Some((server, affinity)));
            }
            let target = Target { address, port: 8080 };
            let bytes = request(0, 0, 0, &endpoint(&target, Some(1)));
            let [Answer::Data(body)] = answers(&bytes)[..] else { panic!("one message") };
            assert_eq!(read_endpoint(body, address.is_ipv4()), Some((target, 1)));
        }
    }

    /// The control family answers on every kernel; this shows that requests have the form that the kernel wants.
    #[test]
    fn a_family_that_is_not_there_is_not_found() {
        match Client::open() {
            Ok(client) => drop(client.servers()),
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::NotFound, "{error}"),
        }
    }
}
