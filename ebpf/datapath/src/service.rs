//! Services: which backend a connection or a datagram goes to, and what the application sees of it.
//!
//! The socket hooks call [`translate`] before the kernel knows a destination, so a connection is translated once and
//! its packets carry the backend's address. [`sender`] and [`peer`] undo it in what the application asks about.

use fairlead_abi::{
    Addr16, Be16, DropReason,
    service::{BackendValue, OriginKey, OriginValue, SERVICE_LOCAL_ONLY, ServiceKey, ServiceValue},
};

use crate::same;

/// The maps that a socket hook uses, and chance.
pub trait Sockets {
    /// The service behind a frontend, copied out of the map at once: the kernel may reuse the entry's memory.
    fn service(&self, key: &ServiceKey) -> Option<ServiceValue>;
    /// A backend slot.
    fn backend(&self, slot: u32) -> Option<BackendValue>;
    /// What a socket that talks to a backend was aimed at.
    fn origin(&self, key: &OriginKey) -> Option<OriginValue>;
    /// Remembers it.
    fn remember(&self, key: &OriginKey, origin: &OriginValue);
    /// A uniformly distributed number.
    fn random(&self) -> u32;
}

/// What a frontend leads to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Selection {
    /// The address is not a service's.
    NotService,
    /// The service cannot serve.
    Refused(Refusal),
    /// This backend.
    Backend {
        /// Its slot.
        slot: u32,
        /// What the slot holds.
        backend: BackendValue,
        /// The service.
        service_id: u32,
    },
}

/// Why a service cannot serve.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// [`DropReason::NoEndpoints`] or [`DropReason::NoLocalEndpoints`].
    pub reason: DropReason,
    /// The service.
    pub service_id: u32,
    /// The service points at a slot that holds no backend, which user space never writes.
    pub inconsistent: bool,
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
        /// Address of the backend.
        addr: Addr16,
        /// Port of the backend.
        port: Be16,
    },
}

/// Chooses a backend of the frontend `key`.
///
/// This is the one place where a backend is chosen. Whatever prefers an earlier choice (session affinity, an
/// unconnected socket that stays with its backend) looks that choice up here, after the service is known and before
/// chance decides, and ignores it when its generation is not the slot's.
#[inline(always)]
pub fn select<S: Sockets>(sockets: &S, key: &ServiceKey) -> Selection {
    let Some(service) = sockets.service(key) else { return Selection::NotService };
    let local_only = service.flags & SERVICE_LOCAL_ONLY != 0;
    let candidates = if local_only { service.local } else { service.active };
    if candidates == 0 {
        // With endpoints elsewhere the policy forbids them; without any the service is down.
        let elsewhere = local_only && service.active > 0;
        let reason = if elsewhere { DropReason::NoLocalEndpoints } else { DropReason::NoEndpoints };
        return Selection::Refused(Refusal { reason, service_id: service.service_id, inconsistent: false });
    }
    let slot = service.first.wrapping_add(below(sockets.random(), candidates));
    match sockets.backend(slot) {
        Some(backend) if backend.generation != 0 => {
            Selection::Backend { slot, backend, service_id: service.service_id }
        }
        _ => Selection::Refused(Refusal {
            reason: DropReason::NoEndpoints,
            service_id: service.service_id,
            inconsistent: true,
        }),
    }
}

/// Translates the destination `key` of the socket with this cookie and remembers what it was.
#[inline(always)]
pub fn translate<S: Sockets>(sockets: &S, cookie: impl FnOnce() -> u64, key: &ServiceKey) -> Translation {
    let (slot, backend, service_id) = match select(sockets, key) {
        Selection::NotService => return Translation::None,
        Selection::Refused(refusal) => return Translation::Refused(refusal),
        Selection::Backend { slot, backend, service_id } => (slot, backend, service_id),
    };
    let remembered = OriginKey { cookie: cookie(), addr: backend.addr, port: backend.port, _pad: [0; 6] };
    let origin = OriginValue {
        addr: key.addr,
        port: key.port,
        proto: key.proto,
        _pad: 0,
        service_id,
        slot,
        backend_generation: backend.generation,
    };
    // Datagrams of one socket repeat; a look-up is cheaper than a write to the map that every CPU shares.
    if !sockets.origin(&remembered).is_some_and(|present| is_equal(&present, &origin)) {
        sockets.remember(&remembered, &origin);
    }
    Translation::To { addr: backend.addr, port: backend.port }
}

/// The service that a datagram from `key`'s backend answers for, if its socket asked one and the backend is still
/// the one that was chosen.
#[inline(always)]
pub fn sender<S: Sockets>(sockets: &S, key: &OriginKey) -> Option<OriginValue> {
    let origin = sockets.origin(key)?;
    let backend = sockets.backend(origin.slot)?;
    (backend.generation == origin.backend_generation).then_some(origin)
}

/// The service that a connected socket was aimed at. The connection itself keeps it true: a backend that is
/// terminating, or whose slot has moved, still is the peer of its connections, and the application must not see
/// its peer change.
#[inline(always)]
pub fn peer<S: Sockets>(sockets: &S, key: &OriginKey) -> Option<OriginValue> {
    sockets.origin(key)
}

/// Maps a uniform 32-bit number to `0..n` without a division (Lemire 2019, without the rejection step: the bias is
/// below `n / 2^32`).
#[inline(always)]
const fn below(random: u32, n: u32) -> u32 {
    ((random as u64 * n as u64) >> 32) as u32
}

#[inline(always)]
fn is_equal(a: &OriginValue, b: &OriginValue) -> bool {
    same(&a.addr, &b.addr)
        && a.port.0 == b.port.0
        && a.proto == b.proto
        && a.service_id == b.service_id
        && a.slot == b.slot
        && a.backend_generation == b.backend_generation
}

#[cfg(test)]
mod tests;
