//! What passes an interface.

use std::{
    collections::BTreeSet,
    ffi::CString,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use crate::Netns;

/// Listens to an interface from the moment it is made.
#[derive(Debug)]
pub struct Capture {
    socket: OwnedFd,
}

/// Source and destination of a packet.
pub type Pair = (IpAddr, IpAddr);

impl Capture {
    /// Listens to `interface` of a namespace, both directions.
    ///
    /// # Panics
    /// There is no such interface.
    pub fn start(netns: &Netns, interface: &str) -> Self {
        let interface = interface.to_owned();
        netns.run(move || Self::open(&interface)).expect("a packet socket")
    }

    /// Source and destination of every IP packet so far.
    pub fn pairs(&self) -> BTreeSet<Pair> {
        let mut pairs = BTreeSet::new();
        let mut buffer = [0u8; 2_048];
        while let Some(length) = self.receive(&mut buffer) {
            pairs.extend(parse(&buffer[..length]));
        }
        pairs
    }

    #[expect(unsafe_code, reason = "packet sockets have no safe wrapper")]
    fn open(interface: &str) -> io::Result<Self> {
        let every_protocol = u16::try_from(libc::ETH_P_ALL).expect("16 bits").to_be();
        let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        // SAFETY: no pointers; the descriptor is checked and owned at once.
        let socket = unsafe {
            let fd = libc::socket(libc::AF_PACKET, kind, i32::from(every_protocol));
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(fd)
        };
        let name = CString::new(interface)?;
        // SAFETY: `name` is a C string that lives through the call.
        let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
        // SAFETY: all zeros is a valid `sockaddr_ll`.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = u16::try_from(libc::AF_PACKET).expect("16 bits");
        address.sll_protocol = every_protocol;
        address.sll_ifindex = i32::try_from(index).expect("an interface index");
        let length = libc::socklen_t::try_from(size_of_val(&address)).expect("small");
        // SAFETY: `address` is a `sockaddr_ll` of `length` bytes that lives through the call.
        let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) };
        if bound < 0 { Err(io::Error::last_os_error()) } else { Ok(Self { socket }) }
    }

    #[expect(unsafe_code, reason = "packet sockets have no safe wrapper")]
    fn receive(&self, buffer: &mut [u8]) -> Option<usize> {
        // SAFETY: the kernel writes at most `buffer.len()` bytes into `buffer`.
        let length =
            unsafe { libc::recv(self.socket.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
        usize::try_from(length).ok()
    }
}

/// Addresses of an Ethernet frame that carries IP.
fn parse(frame: &[u8]) -> Option<Pair> {
    let v4 = |at: usize| {
        let octets: [u8; 4] = frame.get(at..at + 4)?.try_into().ok()?;
        Some(IpAddr::V4(Ipv4Addr::from(octets)))
    };
    let v6 = |at: usize| {
        let octets: [u8; 16] = frame.get(at..at + 16)?.try_into().ok()?;
        Some(IpAddr::V6(Ipv6Addr::from(octets)))
    };
    match frame.get(12..14)? {
        [0x08, 0x00] => Some((v4(26)?, v4(30)?)),
        [0x86, 0xdd] => Some((v6(22)?, v6(38)?)),
        _ => None,
    }
}
