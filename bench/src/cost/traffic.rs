//! The operations that are measured, and the server that they are done with.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use nix::{
    libc,
    sys::socket::{setsockopt, sockopt},
};

/// Port of the server; that of the service is [`SERVICE_PORT`].
pub(crate) const SERVER_PORT: u16 = 8080;
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

    fn plan(self) -> Plan {
        match self {
            Self::Connect | Self::NodePortLocal | Self::NodePortRemote => {
                Plan { sockets: 16, warm_ups: 20, length: Length::Ticks(4), counts: 2, kept: 2 }
            }
            // What it costs falls with the window, which grows for long: of all sockets the same part counts.
            Self::Bulk => Plan { sockets: 16, warm_ups: 4, length: Length::Times(4), counts: 2, kept: 2 },
            Self::Udp | Self::UdpUnconnected => {
                Plan { sockets: 16, warm_ups: 20, length: Length::Ticks(2), counts: 1, kept: 2 }
            }
            // With half of the sockets, more or less, every packet takes a few hundred instructions more.
            _ => Plan { sockets: 32, warm_ups: 20, length: Length::Ticks(1), counts: 1, kept: 4 },
        }
    }

    /// What one costs, in the network namespace of this thread.
    pub(crate) fn measure(self, to: SocketAddr) -> Result<Measured> {
        let connect = || TcpStream::connect(to);
        let measured = match self {
            Self::Connect | Self::NodePortLocal | Self::NodePortRemote => {
                count(self, || Ok(()), |()| connect_once(to))
            }
            Self::RoundTrip | Self::NodePortLocalRoundTrip | Self::NodePortRemoteRoundTrip => {
                count(self, connect, exchange)
            }
            Self::Udp => {
                let connected = || udp(to).and_then(|socket| socket.connect(to).map(|()| socket));
                count(self, connected, |socket| {
                    socket.send(&[ASK])?;
                    socket.recv(&mut [0; 8]).map(drop)
                })
            }
            Self::UdpUnconnected => count(
                self,
                || udp(to),
                |socket| {
                    socket.send_to(&[ASK], to)?;
                    socket.recv_from(&mut [0; 8]).map(drop)
                },
            ),
            Self::Bulk => {
                let chunk = vec![BULK; CHUNK];
                let kibs = (BULK_LEN / 1_024) as f64;
                count(self, connect, |stream| bulk(stream, &chunk))
                    .map(|all| Measured { kinsn: all.kinsn / kibs, ..all })
            }
        };
        measured.with_context(|| format!("{} to {to}", self.name()))
    }
}

/// What is counted.
struct Plan {
    /// With how many sockets: where a socket's ports put it in the kernel's tables is a matter of luck.
    sockets: usize,
    /// So many of the first operations are not counted, while caches fill.
    warm_ups: u32,
    length: Length,
    /// With each socket.
    counts: usize,
    /// The lowest of one in so many counts stand for all.
    kept: usize,
}

/// How many operations are counted at once.
#[derive(Clone, Copy)]
enum Length {
    Times(u32),
    /// As many as take this number of ticks of the kernel's clock, within which it does the same for that clock.
    Ticks(u32),
}

/// Between two ticks of the kernel's clock (`CONFIG_HZ=250`), in nanoseconds.
const TICK_NS: f64 = 4e6;

/// What an operation costs.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Measured {
    /// Thousand instructions: the mean of the lowest counts ([`Plan::kept`]). What the kernel puts off and then does for many
    /// at a time, such as freeing memory, falls into few counts; and there are sockets with which everything takes a little
    /// more, how many of them is luck.
    pub(crate) kinsn: f64,
    /// How often the operation was done for that.
    pub(crate) done: u32,
}

/// What one `act` costs, counted by the clock, where a nanosecond is an instruction.
fn count<S>(
    op: Op,
    mut open: impl FnMut() -> io::Result<S>,
    mut act: impl FnMut(&mut S) -> io::Result<()>,
) -> io::Result<Measured> {
    let plan = op.plan();
    let mut length = plan.length;
    let mut counts = Vec::new();
    let mut kept = Kept::new()?;
    let mut done = 0;
    let mut many = |socket: &mut S, times: u32| {
        let started = Instant::now();
        (0..times).try_for_each(|_| act(socket))?;
        done += times;
        io::Result::Ok(started.elapsed().as_nanos() as f64 / f64::from(times))
    };
    for _ in 0..plan.sockets {
        let mut socket = open()?;
        kept.more()?;
        many(&mut socket, plan.warm_ups)?;
        let times = match length {
            Length::Times(times) => times,
            Length::Ticks(ticks) => {
                let about = many(&mut socket, plan.warm_ups)?;
                (f64::from(ticks) * TICK_NS / about).round().max(1.0) as u32
            }
        };
        // The same for all.
        length = Length::Times(times);
        for _ in 0..plan.counts {
            counts.push(many(&mut socket, times)? / 1e3);
        }
    }
    Ok(Measured { kinsn: mean_of_lowest(counts, plan.kept), done })
}

/// Connections of this thread's network namespace with itself, each with a byte that nobody reads. Whether the kernel's
/// allocator takes a packet from the slab to which it gave the last one back, or every time from another, which costs more,
/// depends on how many there are, and stays so for long.
struct Kept {
    listener: TcpListener,
    pairs: Vec<(TcpStream, TcpStream)>,
}

impl Kept {
    /// How many more at once: with [`Plan::sockets`] of them, a slab of 16 or 32 is filled in many ways.
    const MORE: usize = 3;

    fn new() -> io::Result<Self> {
        Ok(Self { listener: TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?, pairs: Vec::new() })
    }

    fn more(&mut self) -> io::Result<()> {
        for _ in 0..Self::MORE {
            let mut near = TcpStream::connect(self.listener.local_addr()?)?;
            let (far, _) = self.listener.accept()?;
            near.write_all(&[ASK])?;
            self.pairs.push((near, far));
        }
        Ok(())
    }
}

/// The mean of the lowest of one in `kept` numbers.
fn mean_of_lowest(mut numbers: Vec<f64>, kept: usize) -> f64 {
    numbers.sort_by(f64::total_cmp);
    let lowest = &numbers[..numbers.len().div_ceil(kept)];
    lowest.iter().sum::<f64>() / lowest.len() as f64
}

fn connect_once(to: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect(to)?;
    exchange(&mut stream)?;
    // Reset on close, or the ports are used up by connections that wait.
    setsockopt(&stream, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 })?;
    Ok(())
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
    for address in addresses {
        let at = SocketAddr::new(*address, SERVER_PORT);
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
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_does_not_care_for_what_took_longer() {
        assert_eq!(mean_of_lowest(vec![900.0], 4), 900.0);
        assert_eq!(mean_of_lowest(vec![900.0, 104.0, 102.0, 105.0], 2), 103.0);
        assert_eq!(mean_of_lowest(vec![9.0, 2.0, 3.0, 4.0, 1.0, 8.0, 7.0, 6.0], 4), 1.5);
    }
}
