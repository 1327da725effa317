//! Answers by the batch: one system call sends them, those for one client as one packet.
#![expect(unsafe_code, reason = "sendmmsg takes pointers to what it reads")]

use std::{
    io, mem,
    os::fd::{AsRawFd, BorrowedFd},
    ptr,
};

use super::{
    BATCH,
    batch::{CONTROL_DATA, CONTROL_LEN, Origin},
    train::{Train, Trains},
};

/// What is sent, to an origin or to the peer of a connected socket.
type Message<'a> = (Option<&'a Origin>, &'a [u8]);

/// Room for one control message of two bytes, aligned.
const SEGMENT_SPACE: usize = CONTROL_DATA + 8;

/// Control messages of a train: the address it leaves from, and the size of its datagrams.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct TrainControl([u8; CONTROL_LEN + SEGMENT_SPACE]);

/// Sends messages, at most [`BATCH`]; says how many the kernel took. Those for one origin travel together, where they
/// may. Never waits: what does not fit into the queue is lost, as it would be on the wire.
pub(crate) fn send<'a>(socket: BorrowedFd<'_>, messages: impl Iterator<Item = Message<'a>>) -> usize {
    let mut list: [Message<'a>; BATCH] = [(None, &[]); BATCH];
    let mut count = 0;
    for (slot, message) in list.iter_mut().zip(messages) {
        *slot = message;
        count += 1;
    }
    let list = &list[..count];
    let trains = couple(list);
    let mut rest: [Message<'a>; BATCH] = [(None, &[]); BATCH];
    let mut left = 0;
    let sent = depart(socket, list, &trains, |train| {
        for number in trains.members(train) {
            rest[left] = list[usize::from(number)];
            left += 1;
        }
    });
    // A way on which there can be no trains: without checksums, through a tunnel of IPsec, with tiny packets.
    let rest = &rest[..left];
    if rest.is_empty() { sent } else { sent + depart(socket, rest, &apart(rest), |_| ()) }
}

/// Those for one origin together.
fn couple(list: &[Message<'_>]) -> Trains {
    let mut trains = Trains::new();
    let mut peers = [None; BATCH];
    for ((number, (origin, bytes)), index) in (0..).zip(list).zip(0..) {
        peers[index] = origin.and_then(Origin::peer);
        trains.add(number, bytes.len(), |other| {
            let other = usize::from(other);
            let same = |own: &Origin| list[other].0.is_some_and(|other| own.leaves_as(other));
            peers[index].is_some() && peers[other] == peers[index] && origin.is_some_and(same)
        });
    }
    trains
}

/// Each by itself.
fn apart(list: &[Message<'_>]) -> Trains {
    let mut trains = Trains::new();
    (0..).zip(list).for_each(|(number, (_, bytes))| trains.add(number, bytes.len(), |_| false));
    trains
}

/// Sends trains; says how many messages the kernel took, and which trains of more than one it did not.
fn depart(
    socket: BorrowedFd<'_>,
    list: &[Message<'_>],
    trains: &Trains,
    mut refused: impl FnMut(Train),
) -> usize {
    let mut vectors = [const { libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 } }; BATCH];
    let in_order = trains.trains().iter().flat_map(|train| trains.members(*train));
    for (vector, number) in vectors.iter_mut().zip(in_order) {
        let bytes = list[usize::from(number)].1;
        *vector = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    }
    // No more than half of them have company.
    let mut controls = [const { TrainControl([0; CONTROL_LEN + SEGMENT_SPACE]) }; BATCH / 2];
    let mut free = controls.iter_mut();
    // SAFETY: mmsghdr is plain old data; null pointers with zero lengths are valid.
    let mut headers: [libc::mmsghdr; BATCH] = unsafe { mem::zeroed() };
    let (first_vector, mut at) = (vectors.as_mut_ptr(), 0);
    for (header, train) in headers.iter_mut().zip(trains.trains()) {
        let header = &mut header.msg_hdr;
        header.msg_iov = first_vector.wrapping_add(at);
        header.msg_iovlen = train.len.into();
        at += usize::from(train.len);
        let Some(origin) = list[usize::from(train.first)].0 else { continue };
        header.msg_name = (&raw const origin.name).cast_mut().cast();
        header.msg_namelen = origin.name_len;
        header.msg_control = origin.control.0.as_ptr().cast_mut().cast();
        header.msg_controllen = origin.control_len as _;
        if train.len > 1
            && let Some(control) = free.next()
        {
            header.msg_controllen = control.fill(origin, train.size) as _;
            header.msg_control = control.0.as_mut_ptr().cast();
        }
    }
    let mut sent = 0;
    transmit(socket, &mut headers[..trains.trains().len()], |index, taken| {
        let train = trains.trains()[index];
        match (taken, train.len) {
            (true, len) => sent += usize::from(len),
            (false, 1) => {}
            (false, _) => refused(train),
        }
    });
    sent
}

/// Sends what headers point to; says of each whether the kernel took it.
fn transmit(socket: BorrowedFd<'_>, headers: &mut [libc::mmsghdr], mut done: impl FnMut(usize, bool)) {
    let (mut at, mut told) = (0, 0);
    while at < headers.len() {
        let rest = &mut headers[at..];
        // SAFETY: the headers point to origins, controls, vectors and messages that outlive the call; sending reads them
        // and writes only `msg_len`.
        let taken = unsafe {
            libc::sendmmsg(socket.as_raw_fd(), rest.as_mut_ptr(), rest.len() as u32, libc::MSG_DONTWAIT as _)
        };
        match usize::try_from(taken) {
            Ok(taken) if taken > 0 => {
                (at..at + taken).for_each(|index| done(index, true));
                at += taken;
            }
            // A connected socket tells what became of an earlier message; this one was not sent yet.
            Err(_) if told != at + 1 && is_refused() => told = at + 1,
            // The first of them cannot be sent; the others are none the worse.
            _ => {
                done(at, false);
                at += 1;
            }
        }
    }
}

fn is_refused() -> bool {
    io::Error::last_os_error().kind() == io::ErrorKind::ConnectionRefused
}

impl TrainControl {
    /// Writes the control messages of a train to an origin; gives their length.
    fn fill(&mut self, origin: &Origin, size: u16) -> usize {
        // Control messages begin where the last one's room ends (cmsg(3)).
        let at = origin.control_len.min(CONTROL_LEN).next_multiple_of(mem::size_of::<usize>());
        self.0[..at].copy_from_slice(&origin.control.0[..at]);
        // struct cmsghdr: a size_t, then two ints.
        let parts = [
            &(CONTROL_DATA + mem::size_of::<u16>()).to_ne_bytes()[..],
            &libc::SOL_UDP.to_ne_bytes(),
            &libc::UDP_SEGMENT.to_ne_bytes(),
            &size.to_ne_bytes(),
        ];
        let mut end = at;
        for part in parts {
            self.0[end..end + part.len()].copy_from_slice(part);
            end += part.len();
        }
        at + SEGMENT_SPACE
    }
}

#[cfg(test)]
mod tests {
    use std::{net::UdpSocket, os::fd::AsFd, time::Duration};

    use super::*;
    use crate::listen::batch::{Batch, ask_for_destination, set_option};

    /// Not in every libc: linux/udp.h and asm-generic/socket.h.
    const UDP_GRO: i32 = 104;
    const SO_NO_CHECK: i32 = 11;

    /// A server whose clients have asked as often as is said, and these clients.
    fn asked<const N: usize>(server: &str, times: [usize; N]) -> (UdpSocket, Batch<8>, [UdpSocket; N]) {
        let socket = UdpSocket::bind(server).unwrap();
        ask_for_destination(socket.as_fd(), server.contains('[')).unwrap();
        let mut address = socket.local_addr().unwrap();
        address.set_ip(if address.is_ipv4() {
            [127, 9, 8, 7].into()
        } else {
            std::net::Ipv6Addr::LOCALHOST.into()
        });
        let clients = times.map(|times| {
            let any = if address.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" };
            let client = UdpSocket::bind(any).unwrap();
            client.connect(address).unwrap();
            client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            (0..times).for_each(|_| assert_eq!(client.send(b"?").unwrap(), 1));
            client
        });
        let mut batch = Batch::new();
        assert_eq!(batch.receive(socket.as_fd()).unwrap(), times.iter().sum::<usize>());
        (socket, batch, clients)
    }

    fn received(client: &UdpSocket, count: usize) -> Vec<Vec<u8>> {
        let mut buffer = [0; 4096];
        let mut read = || client.recv(&mut buffer).map(|size| buffer[..size].to_vec()).unwrap();
        let mut all: Vec<Vec<u8>> = (0..count).map(|_| read()).collect();
        all.sort();
        all
    }

    #[test]
    fn every_answer_arrives_by_itself_at_whoever_asked() {
        for server in ["127.9.8.7:0", "0.0.0.0:0", "[::]:0"] {
            let (socket, batch, [one, two, three]) = asked(server, [2, 1, 4]);
            let answers: [&[u8]; 7] = [b"short", b"longer", b"else", b"aa", b"bb", b"cc", b"d"];
            let messages =
                answers.iter().enumerate().map(|(index, bytes)| (Some(batch.origin(index)), *bytes));
            assert_eq!(send(socket.as_fd(), messages), 7, "{server}");
            assert_eq!(received(&one, 2), [&b"longer"[..], b"short"], "{server}");
            assert_eq!(received(&two, 1), [b"else"], "{server}");
            assert_eq!(received(&three, 4), [&b"aa"[..], b"bb", b"cc", b"d"], "{server}");
        }
    }

    #[test]
    fn answers_for_one_client_are_one_packet() {
        let (socket, batch, [client]) = asked("127.9.8.7:0", [3]);
        // This client takes a packet as it comes.
        set_option(client.as_fd(), libc::SOL_UDP, UDP_GRO).unwrap();
        let answers = ["AAAA", "BBBB", "CC"];
        let messages =
            answers.iter().enumerate().map(|(index, text)| (Some(batch.origin(index)), text.as_bytes()));
        assert_eq!(send(socket.as_fd(), messages), 3);
        assert_eq!(received(&client, 1), [b"AAAABBBBCC"]);
    }

    #[test]
    fn where_answers_cannot_travel_together_each_travels_alone() {
        let (socket, batch, [client, other]) = asked("127.9.8.7:0", [3, 1]);
        // The kernel takes no datagrams apart that have no checksum.
        set_option(socket.as_fd(), libc::SOL_SOCKET, SO_NO_CHECK).unwrap();
        let messages = (0..4).map(|index| (Some(batch.origin(index)), &b"same"[..]));
        assert_eq!(send(socket.as_fd(), messages), 4);
        assert_eq!(received(&client, 3), [b"same"; 3]);
        assert_eq!(received(&other, 1), [b"same"]);
    }
}
