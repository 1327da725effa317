//! Sockets: what the cgroup hooks do with the addresses that an application uses and sees.
//!
//! [`connect`] and [`send`] run before the kernel knows a destination, so a connection is translated once and its packets
//! carry the backend's address. [`sender`] and [`peer`] undo it in what the application asks about.

use fairlead_abi::{
    Addr16, Be16, DropReason,
    node::ADDRESS_NODE_PORT,
    service::{BACKEND_SERVING, SCOPE_NODE_PORT, ServiceKey},
    socket::{
        AIM_ASKED, AIM_CONNECTED, AIM_PAST, ORIGIN_OF_BACKEND, ORIGIN_PIN, OriginKey, OriginValue,
        SocketValue,
    },
};

use crate::{
    is_unspecified, same,
    service::{Choice, Client, Frontend, Refusal, Services, frontend, no_service, select},
};

/// What the hooks remember of sockets, beside what is kept in a [`Socket`] itself.
pub trait Sockets: Services {
    /// What an unconnected socket remembers of an address.
    fn origin(&self, key: &OriginKey) -> Option<OriginValue>;
    /// Remembers it.
    fn remember(&self, key: &OriginKey, origin: &OriginValue);
}

/// The socket that a hook runs for.
pub trait Socket: Client {
    /// Identifies it among all that there ever were.
    fn cookie(&self) -> u64;
    /// What is kept in it. Most sockets have nothing to do with services and keep nothing, which costs little to find out.
    fn kept(&self) -> Option<SocketValue>;
    /// Keeps that instead; [`SocketValue::others`] stays if it was set.
    fn keep(&self, value: &SocketValue);
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
pub fn connect<S: Services, C: Client>(
    services: &S,
    client: &C,
    addr: &Addr16,
    port: Be16,
    proto: u8,
) -> Translation {
    let service = match frontend(services, addr, port, proto, ADDRESS_NODE_PORT) {
        Frontend::None => return Translation::None,
        Frontend::NoPort => return refused(DropReason::NoPort),
        Frontend::NoAddress => return refused(DropReason::UnknownAddress),
        Frontend::Service(service) => service,
    };
    match select(services, &service, client) {
        Ok(choice) => Translation::To { choice, service_id: service.service_id },
        Err(refusal) => Translation::Refused(refusal),
    }
}

/// The socket is connected to a service now.
#[inline(always)]
pub fn connected<C: Socket>(socket: &C, addr: &Addr16, port: Be16, choice: &Choice, service_id: u32) {
    socket.keep(&aimed(AIM_CONNECTED, addr, port, choice, service_id));
}

/// The socket is connected to what is no service; it may have had to do with one before.
#[inline(always)]
pub fn connected_past_services<S: Sockets, C: Socket>(sockets: &S, socket: &C, addr: &Addr16, port: Be16) {
    let Some(kept) = socket.kept() else { return };
    socket.keep(&SocketValue::default());
    if kept.others != 0 {
        other_backend_asked(sockets, socket.cookie(), addr, port);
    }
}

#[inline(always)]
fn aimed(aim: u8, addr: &Addr16, port: Be16, choice: &Choice, service_id: u32) -> SocketValue {
    SocketValue {
        service: *addr,
        service_port: port,
        backend_addr: choice.backend.addr,
        backend_port: choice.backend.port,
        aim,
        service_id,
        backend: choice.index,
        generation: choice.backend.generation,
        ..SocketValue::default()
    }
}

/// A datagram's destination. The datagrams of one socket to one service stay with their backend while it serves.
#[inline(always)]
pub fn send<S: Sockets, C: Socket>(
    sockets: &S,
    socket: &C,
    (addr, port, proto): (&Addr16, Be16, u8),
) -> Translation {
    let service = match frontend(sockets, addr, port, proto, ADDRESS_NODE_PORT) {
        Frontend::None => {
            backend_asked(sockets, socket, addr, port);
            return Translation::None;
        }
        Frontend::NoPort => return refused(DropReason::NoPort),
        Frontend::NoAddress => return refused(DropReason::UnknownAddress),
        Frontend::Service(service) => service,
    };
    let service_id = service.service_id;
    let kept = socket.kept().unwrap_or_default();
    let is_first = kept.service_id == 0 || kept.aim != AIM_CONNECTED && is_service_of(&kept, addr, port);
    let pin = OriginKey { cookie: 0, addr: *addr, port, kind: ORIGIN_PIN, _pad: [0; 5] };
    let chosen = if is_first {
        (kept.service_id, kept.backend, kept.generation)
    } else {
        let pinned = sockets.origin(&OriginKey { cookie: socket.cookie(), ..pin }).unwrap_or_default();
        (pinned.service_id, pinned.backend, pinned.generation)
    };
    let standing = standing(sockets, service_id, chosen);
    let choice = match standing {
        Some(choice) => choice,
        None => match select(sockets, &service, socket) {
            Ok(choice) => choice,
            Err(refusal) => return Translation::Refused(refusal),
        },
    };
    let is_kept = is_first
        && (standing.is_some() && kept.aim == AIM_ASKED || {
            socket.keep(&aimed(AIM_ASKED, addr, port, &choice, service_id));
            // Of two threads that ask two services at once, one has been first.
            socket.kept().is_some_and(|kept| is_service_of(&kept, addr, port))
        });
    if !is_kept {
        other_service_asked(sockets, socket, pin, &choice, service_id);
    }
    Translation::To { choice, service_id }
}

/// The backend that was chosen for the service, if it still serves it.
#[inline(always)]
fn standing<S: Sockets>(
    sockets: &S,
    service_id: u32,
    (chosen_for, index, generation): (u32, u32, u32),
) -> Option<Choice> {
    if chosen_for != service_id {
        return None;
    }
    let backend = sockets.backend(index)?;
    let stands = backend.generation == generation && backend.flags & BACKEND_SERVING != 0;
    stands.then_some(Choice { index, backend })
}

/// Remembers that the socket asks a service that is not the one that it keeps itself.
#[inline(always)]
fn other_service_asked<S: Sockets, C: Socket>(
    sockets: &S,
    socket: &C,
    pin: OriginKey,
    choice: &Choice,
    service_id: u32,
) {
    let backend = &choice.backend;
    let pin = OriginKey { cookie: socket.cookie(), ..pin };
    let mut value = OriginValue {
        addr: pin.addr,
        port: pin.port,
        _pad: [0; 2],
        service_id,
        backend: choice.index,
        generation: backend.generation,
    };
    let key = origin_key(pin.cookie, &backend.addr, backend.port);
    let mut kept = socket.kept().unwrap_or_default();
    if kept.aim == AIM_ASKED && is_backend_of(&kept, &backend.addr, backend.port) {
        kept.aim = AIM_PAST;
        socket.keep(&kept);
    }
    // Datagrams of one socket repeat; a look-up is cheaper than a write to the map that every CPU shares.
    if sockets.origin(&key).is_some_and(|present| is_equal(&present, &value)) {
        return;
    }
    socket.keep(&SocketValue { others: 1, ..kept });
    sockets.remember(&key, &value);
    (value.addr, value.port) = (backend.addr, backend.port);
    sockets.remember(&pin, &value);
}

/// What is no service is asked. If it is a backend that the socket has asked by a service, it answers for itself from now
/// on: whoever was asked last is who answers.
#[inline(always)]
fn backend_asked<S: Sockets, C: Socket>(sockets: &S, socket: &C, addr: &Addr16, port: Be16) {
    let Some(kept) = socket.kept() else { return };
    if kept.aim == AIM_ASKED && is_backend_of(&kept, addr, port) {
        socket.keep(&SocketValue { aim: AIM_PAST, ..kept });
    }
    if kept.others != 0 {
        other_backend_asked(sockets, socket.cookie(), addr, port);
    }
}

/// The entry is changed rather than removed, so that the next such datagram only looks.
#[inline(always)]
fn other_backend_asked<S: Sockets>(sockets: &S, cookie: u64, addr: &Addr16, port: Be16) {
    let key = origin_key(cookie, addr, port);
    if let Some(origin) = sockets.origin(&key)
        && origin.service_id != 0
    {
        sockets.remember(&key, &OriginValue { addr: *addr, port, service_id: 0, ..origin });
    }
}

/// The service that a datagram's sender answers for: the one that the socket asked, or is connected to, if the sender still
/// is the backend that was chosen and has not been asked by another address since.
#[inline(always)]
pub fn sender<S: Sockets, C: Socket>(
    sockets: &S,
    socket: &C,
    addr: &Addr16,
    port: Be16,
) -> Option<(Addr16, Be16)> {
    let kept = socket.kept()?;
    if kept.aim != AIM_PAST && is_backend_of(&kept, addr, port) {
        let answers =
            kept.aim == AIM_CONNECTED || sockets.backend(kept.backend)?.generation == kept.generation;
        return answers.then_some((kept.service, kept.service_port));
    }
    if kept.others == 0 {
        return None;
    }
    let origin = sockets.origin(&origin_key(socket.cookie(), addr, port))?;
    let backend = sockets.backend(origin.backend)?;
    (backend.generation == origin.generation).then_some((origin.addr, origin.port))
}

/// The service that a connected socket was aimed at, as long as the backend is its peer. The connection itself keeps it
/// true: a backend that is terminating still is the peer of its connections, and the application must not see its peer
/// change.
#[inline(always)]
pub fn peer<C: Socket>(socket: &C, addr: &Addr16, port: Be16) -> Option<(Addr16, Be16)> {
    let kept = socket.kept()?;
    let translated = kept.aim == AIM_CONNECTED && is_backend_of(&kept, addr, port);
    translated.then_some((kept.service, kept.service_port))
}

#[inline(always)]
fn is_service_of(kept: &SocketValue, addr: &Addr16, port: Be16) -> bool {
    kept.service_id != 0 && same(&kept.service, addr) && kept.service_port.0 == port.0
}

#[inline(always)]
fn is_backend_of(kept: &SocketValue, addr: &Addr16, port: Be16) -> bool {
    kept.service_id != 0 && same(&kept.backend_addr, addr) && kept.backend_port.0 == port.0
}

#[inline(always)]
fn origin_key(cookie: u64, addr: &Addr16, port: Be16) -> OriginKey {
    OriginKey { cookie, addr: *addr, port, kind: ORIGIN_OF_BACKEND, _pad: [0; 5] }
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
