//! Questions by the batch: one system call reads up to [`BATCH`] of them.
//!
//! Each datagram comes with the address it was sent to (`IP_PKTINFO`), and its answer leaves from there, so that a
//! socket may be bound to a wildcard address. Buffers are made once; a round of reading and answering allocates nothing.
#![expect(unsafe_code, reason = "recvmmsg takes pointers to what it fills")]

use std::{
    io, mem,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket},
    os::fd::{AsRawFd, BorrowedFd},
    ptr,
};

use tokio::io::{Interest, unix::AsyncFd};

/// Most datagrams in one system call. More gains nothing and makes the first of them wait.
pub(crate) const BATCH: usize = 32;
/// Room for one control message: a header and the larger of the two `pktinfo` structures, both aligned.
pub(super) const CONTROL_LEN: usize = 48;
/// Where the data of the first control message begins.
pub(super) const CONTROL_DATA: usize = mem::size_of::<libc::cmsghdr>();

/// `SO_MEMINFO` of Linux, the number of its values, and which of them is drops (linux/sock_diag.h).
const SO_MEMINFO: libc::c_int = 55;
const MEMINFO_VARS: usize = 9;
const MEMINFO_DROPS: usize = 8;

/// Where a datagram came from and which of our addresses it was sent to: what its answer needs.
#[derive(Clone, Copy)]
pub(crate) struct Origin {
    pub(super) name: libc::sockaddr_storage,
    pub(super) name_len: libc::socklen_t,
    pub(super) control: Control,
    pub(super) control_len: usize,
}

/// Memory for control messages, aligned as the kernel wants it.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub(super) struct Control(pub(super) [u8; CONTROL_LEN]);

/// Datagrams that were read, of at most `LEN` bytes each.
pub(crate) struct Batch<const LEN: usize> {
    origins: Box<[Origin]>,
    packets: Box<[[u8; LEN]]>,
    lengths: [usize; BATCH],
    count: usize,
}

impl Default for Origin {
    fn default() -> Self {
        Self {
            // SAFETY: sockaddr_storage is plain old data; all zeroes is the family AF_UNSPEC.
            name: unsafe { mem::zeroed() },
            name_len: 0,
            control: Control([0; CONTROL_LEN]),
            control_len: 0,
        }
    }
}

impl<const LEN: usize> Batch<LEN> {
    pub(crate) fn new() -> Self {
        Self {
            origins: vec![Origin::default(); BATCH].into(),
            packets: vec![[0; LEN]; BATCH].into(),
            lengths: [0; BATCH],
            count: 0,
        }
    }

    /// Reads what is there, at most [`BATCH`] datagrams; says how many. Never waits. A datagram that is longer than
    /// the buffers is cut, and then malformed.
    pub(crate) fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        self.count = 0;
        let mut vectors = [const { libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 } }; BATCH];
        // SAFETY: mmsghdr is plain old data; null pointers with zero lengths are valid.
        let mut headers: [libc::mmsghdr; BATCH] = unsafe { mem::zeroed() };
        let buffers = self.origins.iter_mut().zip(self.packets.iter_mut());
        for ((header, vector), (origin, packet)) in headers.iter_mut().zip(&mut vectors).zip(buffers) {
            *vector = libc::iovec { iov_base: packet.as_mut_ptr().cast(), iov_len: packet.len() };
            header.msg_hdr.msg_name = (&raw mut origin.name).cast();
            header.msg_hdr.msg_namelen = size_of_u32::<libc::sockaddr_storage>();
            header.msg_hdr.msg_iov = vector;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_control = origin.control.0.as_mut_ptr().cast();
            header.msg_hdr.msg_controllen = CONTROL_LEN as _;
        }
        // SAFETY: every header points to buffers of `self` and to `vectors`, of the lengths it says, all of which live
        // and are not looked at until the call is over; there are BATCH headers.
        let read = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                BATCH as u32,
                libc::MSG_DONTWAIT as _,
                ptr::null_mut(),
            )
        };
        let read = usize::try_from(read).map_err(|_| io::Error::last_os_error())?;
        for (index, header) in headers[..read].iter().enumerate() {
            self.lengths[index] = (header.msg_len as usize).min(LEN);
            let origin = &mut self.origins[index];
            origin.name_len = header.msg_hdr.msg_namelen;
            origin.control_len = header.msg_hdr.msg_controllen;
            origin.answer_by_any_interface();
        }
        self.count = read;
        Ok(read)
    }

    /// A datagram that was read.
    pub(crate) fn packet(&self, index: usize) -> &[u8] {
        &self.packets[index][..self.lengths[index]]
    }

    /// The whole buffer it is in, for its answer to be written in its place.
    pub(crate) fn buffer(&mut self, index: usize) -> &mut [u8; LEN] {
        &mut self.packets[index]
    }

    /// What was written in its place.
    pub(crate) fn answer(&self, index: usize, len: usize) -> &[u8] {
        &self.packets[index][..len]
    }

    /// Where it came from.
    pub(crate) fn origin(&self, index: usize) -> &Origin {
        &self.origins[index]
    }
}

impl Origin {
    /// Who sent the datagram.
    pub(crate) fn peer(&self) -> Option<SocketAddr> {
        match i32::from(self.name.ss_family) {
            libc::AF_INET => {
                // SAFETY: the kernel wrote a sockaddr_in, and sockaddr_storage is large and aligned enough for it.
                let name = unsafe { &*(&raw const self.name).cast::<libc::sockaddr_in>() };
                let ip = Ipv4Addr::from(u32::from_be(name.sin_addr.s_addr));
                Some(SocketAddrV4::new(ip, u16::from_be(name.sin_port)).into())
            }
            libc::AF_INET6 => {
                // SAFETY: as above, with a sockaddr_in6.
                let name = unsafe { &*(&raw const self.name).cast::<libc::sockaddr_in6>() };
                let ip = Ipv6Addr::from(name.sin6_addr.s6_addr);
                let port = u16::from_be(name.sin6_port);
                Some(SocketAddrV6::new(ip, port, u32::from_be(name.sin6_flowinfo), name.sin6_scope_id).into())
            }
            _ => None,
        }
    }

    /// Whether its answers leave from the same address as those to another origin.
    pub(super) fn leaves_as(&self, other: &Self) -> bool {
        let control = |origin: &Self| origin.control_len.min(CONTROL_LEN);
        self.control.0[..control(self)] == other.control.0[..control(other)]
    }

    /// Which of our addresses was asked; none when the socket does not tell.
    pub(crate) fn local(&self) -> Option<IpAddr> {
        let data = self.control.0.get(CONTROL_DATA..self.control_len)?;
        match self.control_kind()? {
            // struct in_pktinfo: interface, address to answer from, address of the header.
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => Some(IpAddr::from(*data.get(8..)?.first_chunk::<4>()?)),
            // struct in6_pktinfo: address, interface.
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => Some(IpAddr::from(*data.first_chunk::<16>()?)),
            _ => None,
        }
    }

    /// Level and type of the control message, if there is one.
    fn control_kind(&self) -> Option<(i32, i32)> {
        if self.control_len < CONTROL_DATA {
            return None;
        }
        // struct cmsghdr: a size_t, then two ints.
        let at = mem::size_of::<libc::size_t>();
        let number = |at: usize| self.control.0[at..].first_chunk().map(|bytes| i32::from_ne_bytes(*bytes));
        Some((number(at)?, number(at + 4)?))
    }

    /// The answer goes where routes lead, not where the question came in; only link-local addresses need their link.
    fn answer_by_any_interface(&mut self) {
        let interface = match self.control_kind() {
            Some((libc::IPPROTO_IP, libc::IP_PKTINFO)) => 0,
            Some((libc::IPPROTO_IPV6, libc::IPV6_PKTINFO)) => match self.local() {
                Some(IpAddr::V6(address)) if !address.is_unicast_link_local() => 16,
                _ => return,
            },
            _ => return,
        };
        self.control.0[CONTROL_DATA + interface..][..4].fill(0);
    }
}

/// Datagrams that a socket's queue in the kernel had no room for.
pub(crate) fn kernel_drops(socket: BorrowedFd<'_>) -> u64 {
    let mut info = [0_u32; MEMINFO_VARS];
    let mut length = size_of_u32::<[u32; MEMINFO_VARS]>();
    // SAFETY: the kernel writes at most `length` bytes, which is the size of `info`; both live through the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_MEMINFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result == 0 { info[MEMINFO_DROPS].into() } else { 0 }
}

/// Has the runtime watch a socket for what arrives, and for errors: a host that says that nobody listens.
pub(crate) fn watch(socket: UdpSocket) -> io::Result<AsyncFd<UdpSocket>> {
    // SAFETY: the socket owns its descriptor, keeps it open for as long as it lives, and never names another one.
    Ok(unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE | Interest::ERROR) }?)
}

/// Makes a socket tell which address a datagram was sent to.
pub(crate) fn ask_for_destination(socket: BorrowedFd<'_>, ipv6: bool) -> io::Result<()> {
    let (level, name) = if ipv6 {
        (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO)
    } else {
        (libc::IPPROTO_IP, libc::IP_PKTINFO)
    };
    set_option(socket, level, name)
}

/// The queue of a socket in the kernel: as long as asked when this process may, else as long as the machine allows.
pub(crate) fn set_receive_queue(socket: BorrowedFd<'_>, bytes: i32) {
    for name in [libc::SO_RCVBUFFORCE, libc::SO_RCVBUF] {
        // A shorter queue is no error.
        if set_number(socket, libc::SOL_SOCKET, name, bytes).is_ok() {
            return;
        }
    }
}

pub(super) fn set_option(socket: BorrowedFd<'_>, level: i32, name: i32) -> io::Result<()> {
    set_number(socket, level, name, 1)
}

fn set_number(socket: BorrowedFd<'_>, level: i32, name: i32, value: i32) -> io::Result<()> {
    // SAFETY: the option's value is an int that lives through the call, and its length is that of an int.
    let result = unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), size_of_u32::<i32>())
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Sizes of C structures, as the kernel takes them.
const fn size_of_u32<T>() -> u32 {
    mem::size_of::<T>() as u32
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::listen::send;

    fn exchange(server: &str, asked: &str) -> (SocketAddr, SocketAddr, IpAddr) {
        let socket = UdpSocket::bind(server).unwrap();
        ask_for_destination(socket.as_fd(), asked.contains('[')).unwrap();
        let port = socket.local_addr().unwrap().port();
        let asked: SocketAddr = asked.replace("PORT", &port.to_string()).parse().unwrap();
        let client = UdpSocket::bind(SocketAddr::new(asked.ip(), 0)).unwrap();
        let mut batch = Batch::<8>::new();
        for round in 0..2 * BATCH {
            client.send_to(&[u8::try_from(round).unwrap(); 5], asked).unwrap();
        }
        for round in 0..2 {
            assert_eq!(batch.receive(socket.as_fd()).unwrap(), BATCH);
            for index in 0..BATCH {
                assert_eq!(batch.packet(index), &[u8::try_from(round * BATCH + index).unwrap(); 5]);
            }
            let answers = (0..BATCH).map(|index| (Some(batch.origin(index)), batch.packet(index)));
            assert_eq!(send(socket.as_fd(), answers), BATCH);
        }
        let error = batch.receive(socket.as_fd()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        let mut buffer = [0; 8];
        let (_, from) = client.recv_from(&mut buffer).unwrap();
        let peer = batch.origin(0).peer().unwrap();
        assert_eq!(peer, client.local_addr().unwrap());
        (from, asked, batch.origin(0).local().unwrap())
    }

    #[test]
    fn what_the_kernel_had_no_room_for_is_counted() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        set_number(socket.as_fd(), libc::SOL_SOCKET, libc::SO_RCVBUF, 4096).unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(kernel_drops(socket.as_fd()), 0);
        for _ in 0..100 {
            client.send_to(&[0; 100], socket.local_addr().unwrap()).unwrap();
        }
        let mut batch = Batch::<128>::new();
        let read: usize = std::iter::from_fn(|| batch.receive(socket.as_fd()).ok()).sum();
        assert!(read < 100);
        assert_eq!(kernel_drops(socket.as_fd()), 100 - read as u64);
    }

    #[test]
    fn an_answer_of_a_wildcard_socket_leaves_from_the_address_that_was_asked() {
        for (server, asked) in
            [("0.0.0.0:0", "127.0.0.1:PORT"), ("0.0.0.0:0", "127.9.8.7:PORT"), ("[::]:0", "[::1]:PORT")]
        {
            let (from, asked, local) = exchange(server, asked);
            assert_eq!((from, local), (asked, asked.ip()));
        }
    }
}
