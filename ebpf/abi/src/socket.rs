//! What the socket hooks remember of a socket.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{Addr16, Be16};

/// A service that a socket is aimed at, kept in the socket itself: it is there as long as the socket is, and gone with it.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct SocketValue {
    /// When the connection was established: nanoseconds of `CLOCK_MONOTONIC`; 0 until it is.
    pub start_ns: u64,
    /// The service address it is aimed at, or [`Addr16::UNSPECIFIED`] when it is aimed at no service.
    pub service: Addr16,
    /// Address of the backend.
    pub backend_addr: Addr16,
    /// Port of `service`.
    pub service_port: Be16,
    /// Port of the backend.
    pub backend_port: Be16,
    /// As [`crate::event::FlowEvent::role`]; 0 until the connection is established.
    pub role: u8,
    /// `AIM_*`.
    pub aim: u8,
    /// Not 0: it has sent datagrams to other services besides, which are under [`OriginKey`].
    pub others: u8,
    /// Reserved, 0.
    pub _pad: u8,
    /// [`crate::service::ServiceValue::service_id`], or 0.
    pub service_id: u32,
    /// Index in `BACKENDS`.
    pub backend: u32,
    /// [`crate::service::BackendValue::generation`] when it was chosen.
    pub generation: u32,
    /// Reserved, 0.
    pub _pad2: u32,
}

/// [`SocketValue::aim`]: it was connected to the service.
pub const AIM_CONNECTED: u8 = 0;
/// [`SocketValue::aim`]: it has sent datagrams to the service, the first that it asked.
pub const AIM_ASKED: u8 = 1;
/// [`SocketValue::aim`]: it has, and after that to the same backend by another address, the backend's own or another
/// service's. The backend stays chosen for the service, but does not answer for it now.
pub const AIM_PAST: u8 = 2;

const _: () = assert!(size_of::<SocketValue>() == 64);

/// [`OriginKey::kind`]: the key holds a backend's address, the value the service's: who a datagram's sender is. The
/// backend's again, without a service, if the socket has asked it by that since.
pub const ORIGIN_OF_BACKEND: u8 = 0;
/// [`OriginKey::kind`]: the key holds a service's address, the value the backend's: where the socket's datagrams go.
pub const ORIGIN_PIN: u8 = 1;

/// An unconnected socket and an address that it talks to, for a service that is not the first that it has asked.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct OriginKey {
    /// Socket cookie.
    pub cookie: u64,
    /// Address.
    pub addr: Addr16,
    /// Port.
    pub port: Be16,
    /// `ORIGIN_*`.
    pub kind: u8,
    /// Reserved, 0.
    pub _pad: [u8; 5],
}

const _: () = assert!(size_of::<OriginKey>() == 32);

/// The other side of the translation.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct OriginValue {
    /// Address.
    pub addr: Addr16,
    /// Port.
    pub port: Be16,
    /// Reserved, 0.
    pub _pad: [u8; 2],
    /// [`crate::service::ServiceValue::service_id`], or 0.
    pub service_id: u32,
    /// Index in `BACKENDS` of the backend that was chosen.
    pub backend: u32,
    /// [`crate::service::BackendValue::generation`] at that moment; the entry is void when the backend's differs.
    pub generation: u32,
}

const _: () = assert!(size_of::<OriginValue>() == 32);
