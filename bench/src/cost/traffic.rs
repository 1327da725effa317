//! The operations that are measured, and the server that they are done with.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use nix::{
    libc,
    sys::socket::{setsockopt, sockopt},
};

/// Port of the server; that of the service is [`SERVICE_PORT`].
pub(crate) const SERVER_PORT: u16 = 8080;
/// Another one of it, which no service leads to. For five minutes IPVS takes what the port behind a service answers a client for the
/// service's answer, also when the client has meanwhile asked the server itself, by chance from the same port.
pub(crate) const OWN_PORT: u16 = 8081;
/// Port of every service.
pub(crate) const SERVICE_PORT: u16 = 80;
/// What [`Op::Bulk`] sends at once.
const CHUNK: usize = 64 * 1024;
/// Asks the server for a byte.
const ASK: u8 = b'?';
/// Says that [`BULK_LEN`] bytes follow, this one included.
const BULK: u8 = b'b';
const BULK_LEN: usize = 2 * CHUNK;
/// Longest wait for an answer by the machine's clock.
const WAIT: Duration = Duration::from_secs(5);

/// Something that is done again and again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Op {
    /// A TCP connection is made, a byte goes each way, it is reset.
    Connect,
    /// A byte goes each way on an open TCP connection.
    RoundTrip,
    /// A datagram goes each way between connected sockets.
    Udp,
    /// A datagram goes each way from a socket that is not connected.
    UdpUnconnected,
    /// A KiB is sent on an open TCP connection.
    Bulk,
    /// [`Op::Connect`] by a client outside, to a node port with the server on the node that is asked.
    NodePortLocal,
    /// [`Op::RoundTrip`] of such a connection.
    NodePortLocalRoundTrip,
    /// [`Op::Connect`] by a client outside, to a node port with the server on another node.
    NodePortRemote,
    /// [`Op::RoundTrip`] of such a connection.
    NodePortRemoteRoundTrip,
}

impl Op {
    pub(crate) const ALL: &[Self] =
        &[Self::Connect, Self::RoundTrip, Self::Udp, Self::UdpUnconnected, Self::Bulk];
    /// What a client outside does, with the server near.
    pub(crate) const OUTSIDE_LOCAL: &[Self] = &[Self::NodePortLocal, Self::NodePortLocalRoundTrip];
    /// What a client outside does, with the server far.
    pub(crate) const OUTSIDE_REMOTE: &[Self] = &[Self::NodePortRemote, Self::NodePortRemoteRoundTrip];

    /// Its name in the results.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::RoundTrip => "roundtrip",
            Self::Udp => "udp",
            Self::UdpUnconnected => "udp-unconnected",
            Self::Bulk => "bulk",
            Self::NodePortLocal => "nodeport-local",
            Self::NodePortLocalRoundTrip => "nodeport-local-roundtrip",
            Self::NodePortRemote => "nodeport-remote",
            Self::NodePortRemoteRoundTrip => "nodeport-remote-roundtrip",
        }
    }

    /// What a pod does when it does the same.
    const fn of_a_pod(self) -> Self {
        match self {
            Self::NodePortLocal | Self::NodePortRemote => Self::Connect,
            Self::NodePortLocalRoundTrip | Self::NodePortRemoteRoundTrip => Self::RoundTrip,
            other => other,
        }
    }

    /// Makes what it is done with, in the network namespace of this thread.
    pub(crate) fn open(self, to: SocketAddr) -> io::Result<Session> {
        Ok(match self.of_a_pod() {
            Self::Udp => {
                let socket = udp(to)?;
                socket.connect(to)?;
                Session::Connected(socket)
            }
            Self::UdpUnconnected => Session::Unconnected(udp(to)?, to),
            Self::RoundTrip => Session::Stream(stream(to)?),
            Self::Bulk => Session::Chunks(stream(to)?, vec![BULK; CHUNK]),
            _ => Session::New(to),
        })
    }

    /// How many of its unit are done at once.
    pub(crate) fn units(self) -> f64 {
        if self == Self::Bulk { (BULK_LEN / 1_024) as f64 } else { 1.0 }
    }
}

/// With what an operation is done again and again.
pub(crate) enum Session {
    /// A connection for each.
    New(SocketAddr),
    Stream(TcpStream),
    Chunks(TcpStream, Vec<u8>),
    Connected(UdpSocket),
    Unconnected(UdpSocket, SocketAddr),
}

impl Session {
    /// Does it once.
    pub(crate) fn act(&mut self) -> io::Result<()> {
        match self {
            Self::New(to) => connect_once(*to),
            Self::Stream(stream) => exchange(stream),
            Self::Chunks(stream, chunk) => bulk(stream, chunk),
            Self::Connected(socket) => {
                socket.send(&[ASK])?;
                socket.recv(&mut [0; 8]).map(drop)
            }
            Self::Unconnected(socket, to) => {
                socket.send_to(&[ASK], *to)?;
                socket.recv_from(&mut [0; 8]).map(drop)
            }
        }
    }
}

fn connect_once(to: SocketAddr) -> io::Result<()> {
    exchange(&mut stream(to)?)
}

/// A connection that is reset on close: one that is ended in peace takes its port, and is remembered, for minutes.
fn stream(to: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(to)?;
    setsockopt(&stream, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 })?;
    Ok(stream)
}

fn exchange(stream: &mut TcpStream) -> io::Result<()> {
    stream.write_all(&[ASK])?;
    stream.read_exact(&mut [0])
}

fn bulk(stream: &mut TcpStream, chunk: &[u8]) -> io::Result<()> {
    (0..BULK_LEN / CHUNK).try_for_each(|_| stream.write_all(chunk))?;
    stream.read_exact(&mut [0])
}

fn udp(to: SocketAddr) -> io::Result<UdpSocket> {
    let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0u16; 8].into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.set_read_timeout(Some(WAIT))?;
    Ok(socket)
}

/// Serves on these addresses in the network namespace of this thread; the threads end with the process.
pub(crate) fn serve(addresses: &[IpAddr]) -> Result<()> {
    let ports = |address: &IpAddr| [SERVER_PORT, OWN_PORT].map(|port| SocketAddr::new(*address, port));
    addresses.iter().flat_map(ports).try_for_each(serve_at)
}

fn serve_at(at: SocketAddr) -> Result<()> {
    let listener = TcpListener::bind(at).with_context(|| format!("cannot listen at {at}"))?;
    thread::spawn(move || {
        let mut buffer = vec![0; CHUNK];
        for mut stream in listener.incoming().flatten() {
            // One at a time: a client that resets has gone on already.
            let _reset = answer(&mut stream, &mut buffer);
        }
    });
    let socket = UdpSocket::bind(at).with_context(|| format!("cannot bind to {at}"))?;
    thread::spawn(move || {
        let mut buffer = [0; 8];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let _unreachable = socket.send_to(&buffer[..length], from);
        }
    });
    Ok(())
}

fn answer(stream: &mut TcpStream, buffer: &mut [u8]) -> io::Result<()> {
    loop {
        let mut length = stream.read(buffer)?;
        if length == 0 {
            return Ok(());
        }
        if buffer[0] == BULK {
            while length < BULK_LEN {
                length += match stream.read(buffer)? {
                    0 => return Ok(()),
                    more => more,
                };
            }
        }
        stream.write_all(&[ASK])?;
    }
}
