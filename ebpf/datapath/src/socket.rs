//! Sockets: what the cgroup hooks do with the addresses that an application uses and sees.
//!
//! [`connect`] and [`send`] run before the kernel knows a destination, so a connection is translated once and its packets
//! carry the backend's address. [`sender`] and [`peer`] undo it in what the application asks about.

use fairlead_abi::{
    Addr16, Be16, DropReason,
    node::ADDRESS_NODE_PORT,
    service::{BACKEND_SERVING, SCOPE_NODE_PORT, ServiceKey},
    socket::{ORIGIN_OF_BACKEND, ORIGIN_PIN, OriginKey, OriginValue, SocketValue},
};

use crate::{
    is_unspecified, same,
    service::{Choice, Client, Frontend, Refusal, Services, frontend, no_service, select},
};

/// What the hooks remember of sockets.
pub trait Sockets: Services {
    /// What an unconnected socket remembers of an address.
    fn origin(&self, key: &OriginKey) -> Option<OriginValue>;
    /// Remembers it.
    fn remember(&self, key: &OriginKey, origin: &OriginValue);
}

/// What becomes of a destination.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Translation {
    /// It stays what it is.
    None,
    /// The call fails.
    Refused(Refusal),
    /// It is replaced.
    To {
        /// The backend.
        choice: Choice,
        /// The service.
        service_id: u32,
    },
}

/// A connected socket's destination.
#[inline(always)]
pub fn connect<S: Sockets, C: Client>(
    sockets: &S,
    client: &C,
    addr: &Addr16,
    port: Be16,
    proto: u8,
) -> Translation {
    let service = match frontend(sockets, addr, port, proto, ADDRESS_NODE_PORT) {
        Frontend::None => return Translation::None,
        Frontend::NoPort => return refused(DropReason::NoPort),
        Frontend::NoAddress => return refused(DropReason::UnknownAddress),
        Frontend::Service(service) => service,
    };
    match select(sockets, &service, client) {
        Ok(choice) => Translation::To { choice, service_id: service.service_id },
        Err(refusal) => Translation::Refused(refusal),
    }
}

/// What a connected socket remembers of its translation.
#[inline(always)]
pub fn connected(addr: &Addr16, port: Be16, choice: &Choice, service_id: u32) -> SocketValue {
    SocketValue {
        service: *addr,
        service_port: port,
        backend_addr: choice.backend.addr,
        backend_port: choice.backend.port,
        service_id,
        backend: choice.index,
        generation: choice.backend.generation,
        ..SocketValue::default()
    }
}

/// A datagram's destination. The datagrams of one socket to one service stay with their backend while it serves.
#[inline(always)]
pub fn send<S: Sockets, C: Client>(
    sockets: &S,
    client: &C,
    cookie: u64,
    (addr, port, proto): (&Addr16, Be16, u8),
) -> Translation {
    let service = match frontend(sockets, addr, port, proto, ADDRESS_NODE_PORT) {
        Frontend::None => {
            asked_itself(
                sockets,
                &OriginKey { cookie, addr: *addr, port, kind: ORIGIN_OF_BACKEND, _pad: [0; 5] },
            );
            return Translation::None;
        }
        Frontend::NoPort => return refused(DropReason::NoPort),
        Frontend::NoAddress => return refused(DropReason::UnknownAddress),
        Frontend::Service(service) => service,
    };
    let service_id = service.service_id;
    let pin = OriginKey { cookie, addr: *addr, port, kind: ORIGIN_PIN, _pad: [0; 5] };
    let choice = match pinned(sockets, &pin, service_id) {
        Some(choice) => choice,
        None => match select(sockets, &service, client) {
            Ok(choice) => choice,
            Err(refusal) => return Translation::Refused(refusal),
        },
    };
    let backend = &choice.backend;
    let mut value = OriginValue {
        addr: *addr,
        port,
        _pad: [0; 2],
        service_id,
        backend: choice.index,
        generation: backend.generation,
    };
    let key =
        OriginKey { cookie, addr: backend.addr, port: backend.port, kind: ORIGIN_OF_BACKEND, _pad: [0; 5] };
    // Datagrams of one socket repeat; a look-up is cheaper than a write to the map that every CPU shares.
    let known = sockets.origin(&key).is_some_and(|present| is_equal(&present, &value));
    if !known {
        sockets.remember(&key, &value);
        (value.addr, value.port) = (backend.addr, backend.port);
        sockets.remember(&pin, &value);
    }
    Translation::To { choice, service_id }
}

/// From now on this backend, if the socket has asked a service that it is one of, answers for itself: whoever was asked
/// last is who answers. The entry is changed rather than removed, so that the next such datagram only looks.
#[inline(always)]
fn asked_itself<S: Sockets>(sockets: &S, key: &OriginKey) {
    if let Some(origin) = sockets.origin(key)
        && origin.service_id != 0
    {
        sockets.remember(key, &OriginValue { addr: key.addr, port: key.port, service_id: 0, ..origin });
    }
}

#[inline(always)]
fn pinned<S: Sockets>(sockets: &S, pin: &OriginKey, service_id: u32) -> Option<Choice> {
    let value = sockets.origin(pin)?;
    let backend = sockets.backend(value.backend)?;
    let stands = value.service_id == service_id
        && backend.generation == value.generation
        && backend.flags & BACKEND_SERVING != 0;
    stands.then_some(Choice { index: value.backend, backend })
}

/// Whom a datagram from `key`'s backend answers for, if its unconnected socket asked a service and the backend is still
/// the one that was chosen: the service, or itself if the socket has asked that since.
#[inline(always)]
pub fn sender<S: Sockets>(sockets: &S, key: &OriginKey) -> Option<OriginValue> {
    let origin = sockets.origin(key)?;
    let backend = sockets.backend(origin.backend)?;
    (backend.generation == origin.generation).then_some(origin)
}

/// The service that a connected socket was aimed at, as long as the backend is its peer. The connection itself keeps it
/// true: a backend that is terminating still is the peer of its connections, and the application must not see its peer
/// change.
#[inline(always)]
pub fn peer(socket: &SocketValue, addr: &Addr16, port: Be16) -> Option<(Addr16, Be16)> {
    let translated =
        socket.service_id != 0 && same(&socket.backend_addr, addr) && socket.backend_port.0 == port.0;
    translated.then_some((socket.service, socket.service_port))
}

/// Whether a process of this node may listen at the address: it may not where a service's node port is, which would take
/// the connections that the process waits for.
#[inline(always)]
pub fn may_bind<S: Services>(services: &S, addr: &Addr16, port: Be16, proto: u8) -> bool {
    if !services.is_node_port(port.get()) {
        return true;
    }
    let any = is_unspecified(addr) || same(addr, &Addr16::UNSPECIFIED_V4);
    if !any && services.address(addr) & ADDRESS_NODE_PORT == 0 {
        return true;
    }
    let taken = |addr| services.service(&ServiceKey { addr, port, proto, scope: SCOPE_NODE_PORT }).is_some();
    if addr.is_v4() {
        return !taken(Addr16::UNSPECIFIED_V4);
    }
    // A socket on `::` takes IPv4 connections, too; whether it wants to is not known here.
    !(taken(Addr16::UNSPECIFIED) || any && taken(Addr16::UNSPECIFIED_V4))
}

const fn refused(reason: DropReason) -> Translation {
    Translation::Refused(no_service(reason))
}

#[inline(always)]
fn is_equal(a: &OriginValue, b: &OriginValue) -> bool {
    same(&a.addr, &b.addr)
        && a.port.0 == b.port.0
        && a.service_id == b.service_id
        && a.backend == b.backend
        && a.generation == b.generation
}

#[cfg(test)]
mod tests;
