//! Services: which frontend an address and port are, and which backend serves a client of it.

use fairlead_abi::{
    Addr16, Be16, DropReason,
    node::ADDRESS_SERVICE,
    service::{
        AffinityKey, AffinityValue, BACKEND_CLUSTER, BACKEND_LOCAL, BackendValue, SCOPE_ADDRESS,
        SCOPE_NODE_PORT, SERVICE_EXTERNAL_LOCAL, SERVICE_HAS_ENDPOINTS, SERVICE_HOST_ALLOWED,
        SERVICE_INSIDE_ONLY, SERVICE_INTERNAL_LOCAL, SERVICE_SOURCE_RANGES, ServiceKey, ServiceValue,
    },
};

/// The maps of services, a clock and chance.
pub trait Services {
    /// The frontend, copied out of the map at once: the kernel may reuse the entry's memory.
    fn service(&self, key: &ServiceKey) -> Option<ServiceValue>;
    /// The backend that a slot names.
    fn slot(&self, slot: u32) -> Option<u32>;
    /// A backend.
    fn backend(&self, index: u32) -> Option<BackendValue>;
    /// What an address is: `ADDRESS_*`, 0 when nothing is known of it.
    fn address(&self, addr: &Addr16) -> u32;
    /// Whether the address is in a network of services' addresses, of which every one that has a service is known.
    fn is_service_network(&self, addr: &Addr16) -> bool;
    /// Which backend a client stays with.
    fn affinity(&self, key: &AffinityKey) -> Option<AffinityValue>;
    /// Remembers it.
    fn keep_affinity(&self, key: &AffinityKey, value: &AffinityValue);
    /// Whether the address is in a source range of the service.
    fn is_allowed(&self, service_id: u32, source: &Addr16) -> bool;
    /// Whether the port, in host order, is in the range of node ports.
    fn is_node_port(&self, port: u16) -> bool;
    /// A uniformly distributed number.
    fn random(&self) -> u32;
    /// Nanoseconds of `CLOCK_MONOTONIC`.
    fn now_ns(&self) -> u64;
}

/// Who opens a connection. What costs something to find out is a function: most services do not ask.
pub trait Client {
    /// It is a pod of the cluster, or a process of this node.
    fn is_inside(&self) -> bool;
    /// It is a process of this node.
    fn is_host(&self) -> bool;
    /// Another node has chosen this one for it, so the backend must be here.
    fn is_sent_here(&self) -> bool;
    /// Its address.
    fn address(&self) -> Addr16;
    /// What session affinity knows it by.
    fn identity(&self) -> Addr16;
    /// A hash of the connection that every node computes alike; none when its source port is not known yet.
    fn hash(&self, with_port: bool) -> Option<u32>;
}

/// What an address and port are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Frontend {
    /// Nothing of a service.
    None,
    /// A service's address, but no port of it.
    NoPort,
    /// An address that a service might have, and none has.
    NoAddress,
    /// A frontend.
    Service(ServiceValue),
}

/// A backend that was chosen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Choice {
    /// Its index.
    pub index: u32,
    /// Where it is.
    pub backend: BackendValue,
}

/// Why a service does not serve a client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// The reason.
    pub reason: DropReason,
    /// The service, or 0.
    pub service_id: u32,
}

impl Refusal {
    /// Whether the client is told; else the semantics of services say "drop": elsewhere the service may well serve, or the
    /// client is not meant to learn of it.
    pub const fn is_told(&self) -> bool {
        matches!(
            self.reason,
            DropReason::NoEndpoints
                | DropReason::NoPort
                | DropReason::UnknownAddress
                | DropReason::Inconsistent
        )
    }
}

/// Finds the frontend on an address and port. Node ports are one entry for all addresses that have one of the flags
/// `serving`, usually [`ADDRESS_NODE_PORT`](fairlead_abi::node::ADDRESS_NODE_PORT).
#[inline(always)]
pub fn frontend<S: Services>(services: &S, addr: &Addr16, port: Be16, proto: u8, serving: u32) -> Frontend {
    let mut key = ServiceKey { addr: *addr, port, proto, scope: SCOPE_ADDRESS };
    if let Some(service) = services.service(&key) {
        return Frontend::Service(service);
    }
    let flags = services.address(addr);
    if flags & serving != 0 && services.is_node_port(port.get()) {
        key.addr = if addr.is_v4() { Addr16::UNSPECIFIED_V4 } else { Addr16::UNSPECIFIED };
        key.scope = SCOPE_NODE_PORT;
        if let Some(service) = services.service(&key) {
            return Frontend::Service(service);
        }
    }
    if flags & ADDRESS_SERVICE != 0 {
        Frontend::NoPort
    } else if is_nobodys(services, addr, flags) {
        Frontend::NoAddress
    } else {
        Frontend::None
    }
}

/// Whether an address of which the maps say `flags` is in a network of services and nobody's.
#[inline(always)]
pub(crate) fn is_nobodys<S: Services>(services: &S, addr: &Addr16, flags: u32) -> bool {
    flags == 0 && services.is_service_network(addr)
}

/// A refusal for want of a service.
#[inline(always)]
pub(crate) const fn no_service(reason: DropReason) -> Refusal {
    Refusal { reason, service_id: 0 }
}

/// Chooses a backend for a new connection of the client.
///
/// This is the one place where a backend is chosen: who may, from which window, an earlier choice that still stands
/// (session affinity), then the Maglev table or chance.
#[inline(always)]
pub fn select<S: Services, C: Client>(
    services: &S,
    service: &ServiceValue,
    client: &C,
) -> Result<Choice, Refusal> {
    let refused = |reason| Err(Refusal { reason, service_id: service.service_id });
    if service.flags & SERVICE_SOURCE_RANGES != 0 && !may_use(services, service, client) {
        return refused(DropReason::SourceNotAllowed);
    }
    if service.flags & SERVICE_INSIDE_ONLY != 0 && !client.is_inside() {
        return refused(DropReason::OutsideNotAllowed);
    }
    let local_only = is_local_only(service, client);
    let (first, count) = window(service, local_only);
    if count == 0 {
        let elsewhere = service.flags & SERVICE_HAS_ENDPOINTS != 0;
        return refused(if elsewhere { DropReason::NoLocalEndpoints } else { DropReason::NoEndpoints });
    }
    if service.affinity_secs == 0 {
        let choice = pick(services, service, client, (first, count), local_only);
        return choice.map_or_else(|| refused(DropReason::Inconsistent), Ok);
    }
    let key = AffinityKey { client: client.identity(), service_id: service.service_id };
    let now = services.now_ns();
    let choice = match remembered(services, service, &key, now, local_only) {
        Some(choice) => choice,
        None => match pick(services, service, client, (first, count), local_only) {
            Some(choice) => choice,
            None => return refused(DropReason::Inconsistent),
        },
    };
    let value = AffinityValue { used_ns: now, backend: choice.index, generation: choice.backend.generation };
    services.keep_affinity(&key, &value);
    Ok(choice)
}

/// Whether the client gets backends of this node only.
#[inline(always)]
fn is_local_only<C: Client>(service: &ServiceValue, client: &C) -> bool {
    service.flags & SERVICE_INTERNAL_LOCAL != 0
        || service.flags & SERVICE_EXTERNAL_LOCAL != 0 && !client.is_inside()
        || client.is_sent_here()
}

/// The first slot of the backends to choose from, and how many there are.
#[inline(always)]
fn window(service: &ServiceValue, local_only: bool) -> (u32, u32) {
    if local_only {
        (service.first, service.local)
    } else {
        (service.first.wrapping_add(service.skip), service.active)
    }
}

/// Whether [`select`] gives a connection of the client the same backend whenever and on whichever node it is asked, as long as
/// the backends stay: there is one, or a Maglev table.
#[inline(always)]
pub(crate) fn is_certain<C: Client>(service: &ServiceValue, client: &C) -> bool {
    service.table_len != 0 || window(service, is_local_only(service, client)).1 == 1
}

#[inline(always)]
fn may_use<S: Services, C: Client>(services: &S, service: &ServiceValue, client: &C) -> bool {
    if client.is_host() {
        return service.flags & SERVICE_HOST_ALLOWED != 0;
    }
    services.is_allowed(service.service_id, &client.address())
}

/// The backend that the client stays with, unless the time is over or the backend may not be chosen any more.
#[inline(always)]
fn remembered<S: Services>(
    services: &S,
    service: &ServiceValue,
    key: &AffinityKey,
    now: u64,
    local_only: bool,
) -> Option<Choice> {
    let value = services.affinity(key)?;
    // The end of the time is not part of it.
    if value.used_ns.wrapping_add(service.affinity_secs as u64 * 1_000_000_000) <= now {
        return None;
    }
    let backend = services.backend(value.backend)?;
    let needed = if local_only { BACKEND_LOCAL } else { BACKEND_CLUSTER };
    let stands = backend.generation == value.generation && backend.flags & needed != 0;
    stands.then_some(Choice { index: value.backend, backend })
}

#[inline(always)]
fn pick<S: Services, C: Client>(
    services: &S,
    service: &ServiceValue,
    client: &C,
    (first, count): (u32, u32),
    local_only: bool,
) -> Option<Choice> {
    let slot = if service.table_len == 0 {
        first.wrapping_add(below(services.random(), count))
    } else {
        // A client that stays with its backend must not be told apart by its ports.
        match client.hash(service.affinity_secs == 0) {
            Some(hash) if local_only => first.wrapping_add(below(hash, count)),
            Some(hash) => service.table.wrapping_add(below(hash, service.table_len)),
            None => first.wrapping_add(below(services.random(), count)),
        }
    };
    let index = services.slot(slot)?;
    let backend = services.backend(index)?;
    (backend.generation != 0).then_some(Choice { index, backend })
}

/// Maps a uniform 32-bit number to `0..n` without a division (Lemire 2019, without the rejection step: the bias is
/// below `n / 2^32`).
#[inline(always)]
pub(crate) const fn below(random: u32, n: u32) -> u32 {
    ((random as u64 * n as u64) >> 32) as u32
}

/// Mixes words into a hash: the finalizer of MurmurHash3, which every node computes alike.
#[inline(always)]
pub(crate) const fn mix(hash: u32, word: u32) -> u32 {
    let mut h = hash ^ word;
    h ^= h >> 16;
    h = h.wrapping_mul(0x85eb_ca6b);
    h ^= h >> 13;
    h = h.wrapping_mul(0xc2b2_ae35);
    h ^ (h >> 16)
}

#[cfg(test)]
mod tests;
