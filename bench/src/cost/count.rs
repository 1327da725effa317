//! Counting what an operation costs, so that two machines with different random numbers agree.
//!
//! The kernel's allocator and its hash tables can be in better and worse states, each for as long as a socket lives or longer.
//! So there are many counts, each with a socket of its own and with more of the kernel's objects in use beside it, and those that
//! stand for all are means of a part of them ([`Plan::eighths`]).

use std::{
    io::{self, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    ops::Range,
    time::Instant,
};

use anyhow::{Context, Result};

use super::traffic::{Op, Session};

/// How an operation is counted.
struct Plan {
    /// With how many sockets: where a socket's ports put it in the kernel's tables is a matter of luck.
    sockets: usize,
    /// So many of the first operations are not counted, while caches fill.
    warm_ups: u32,
    length: Length,
    /// With each socket.
    counts: usize,
    /// Which eighths of the counts, in their order, stand for all. What the kernel puts off and then does for many at a time, such as
    /// freeing memory, falls into few counts; and there are sockets with which everything takes a little more, how many of them is luck.
    eighths: Range<usize>,
}

/// How many operations are counted at once.
#[derive(Clone, Copy)]
enum Length {
    Times(u32),
    /// As many as take this number of ticks of the kernel's clock, within which it does the same for that clock.
    Ticks(u32),
}

impl Plan {
    fn of(op: Op) -> Self {
        let (sockets, warm_ups) = (32, 20);
        match op {
            Op::Connect | Op::NodePortLocal | Op::NodePortRemote => {
                Self { sockets: 16, warm_ups, length: Length::Ticks(2), counts: 2, eighths: 0..4 }
            }
            // A few counts are far below the rest.
            Op::Bulk => Self { sockets, warm_ups: 4, length: Length::Times(4), counts: 2, eighths: 1..3 },
            // A quarter of the sockets, more or less, are cheaper than most.
            Op::NodePortRemoteRoundTrip => {
                Self { sockets, warm_ups, length: Length::Ticks(1), counts: 1, eighths: 0..4 }
            }
            // With half of the sockets, more or less, every packet takes a few hundred instructions more.
            _ => Self { sockets, warm_ups, length: Length::Ticks(1), counts: 1, eighths: 0..2 },
        }
    }
}

/// Between two ticks of the kernel's clock (`CONFIG_HZ=250`), in nanoseconds.
const TICK_NS: f64 = 4e6;
/// Nobody waits for so long unless a packet was lost: the least time after which one is sent again (`TCP_RTO_MIN`), in nanoseconds.
const LOST_NS: f64 = 2e8;

/// Thousand instructions for one operation, in the network namespace of this thread, where a nanosecond is an instruction.
pub(crate) fn measure(op: Op, to: SocketAddr) -> Result<f64> {
    count(op, to).with_context(|| format!("{} to {to}", op.name()))
}

fn count(op: Op, to: SocketAddr) -> Result<f64> {
    let plan = Plan::of(op);
    let mut length = plan.length;
    let mut counts = Vec::new();
    let mut kept = Kept::new()?;
    for _ in 0..plan.sockets {
        let mut session = op.open(to)?;
        kept.more()?;
        each(&mut session, plan.warm_ups)?;
        let times = match length {
            Length::Times(times) => times,
            Length::Ticks(ticks) => {
                let about = each(&mut session, plan.warm_ups)?;
                (f64::from(ticks) * TICK_NS / about).round().max(1.0) as u32
            }
        };
        // The same for all.
        length = Length::Times(times);
        for _ in 0..plan.counts {
            let each = each(&mut session, times)?;
            if each * f64::from(times) > LOST_NS {
                let took = each * f64::from(times) / 1e6;
                eprintln!("{} to {to}: a packet was lost, {times} took {took:.0} ms", op.name());
            }
            counts.push(each);
        }
    }
    Ok(mean_of_eighths(counts, plan.eighths) / op.units() / 1e3)
}

/// Nanoseconds for each of so many operations.
fn each(session: &mut Session, times: u32) -> io::Result<f64> {
    let started = Instant::now();
    (0..times).try_for_each(|_| session.act())?;
    Ok(started.elapsed().as_nanos() as f64 / f64::from(times))
}

/// The mean of these eighths of numbers.
pub(crate) fn mean_of_eighths(mut numbers: Vec<f64>, eighths: Range<usize>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    let end = |eighth: usize| (numbers.len() * eighth).div_ceil(8);
    let some = &numbers[end(eighths.start)..end(eighths.end)];
    some.iter().sum::<f64>() / some.len() as f64
}

/// Connections of this thread's network namespace with itself, and datagrams, that nobody reads. Whether the kernel's allocator
/// takes a packet from the slab to which it gave the last one back, or every time from another, which costs more, depends on how
/// many there are, and stays so for long.
struct Kept {
    listener: TcpListener,
    streams: Vec<(TcpStream, TcpStream)>,
    datagrams: UdpSocket,
}

impl Kept {
    /// How many more of each at once: with [`Plan::sockets`] times as many, a slab of 16 or 32 is filled in many ways.
    const MORE: usize = 3;

    fn new() -> io::Result<Self> {
        let any = (Ipv4Addr::LOCALHOST, 0);
        let datagrams = UdpSocket::bind(any)?;
        datagrams.connect(datagrams.local_addr()?)?;
        Ok(Self { listener: TcpListener::bind(any)?, streams: Vec::new(), datagrams })
    }

    fn more(&mut self) -> io::Result<()> {
        for _ in 0..Self::MORE {
            let mut near = TcpStream::connect(self.listener.local_addr()?)?;
            let (far, _) = self.listener.accept()?;
            near.write_all(&[0])?;
            self.streams.push((near, far));
            self.datagrams.send(&[0])?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_does_not_care_for_what_took_longer() {
        assert_eq!(mean_of_eighths(vec![900.0], 0..2), 900.0);
        assert_eq!(mean_of_eighths(vec![900.0, 104.0, 102.0, 105.0], 0..4), 103.0);
        assert_eq!(mean_of_eighths(vec![9.0, 2.0, 3.0, 4.0, 1.0, 8.0, 7.0, 6.0], 0..2), 1.5);
        assert_eq!(mean_of_eighths(vec![9.0, 2.0, 3.0, 4.0, 1.0, 8.0, 7.0, 6.0], 1..3), 2.5);
    }
}
