//! What is done as often or as fast as it goes.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{IpAddr, Shutdown, SocketAddr, TcpStream, UdpSocket},
    os::unix::process::CommandExt,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    libc,
    sys::socket::{setsockopt, sockopt},
};

use super::server::{COUNT, ECHO, STREAM};

/// Sent at once in a TCP stream.
const CHUNK: usize = 128 * 1024;
/// Length of the datagrams of a UDP stream: the largest that no network cuts.
const DATAGRAM: usize = 1_200;
/// Longest wait for one answer.
const WAIT: Duration = Duration::from_secs(2);
/// How often the count of a UDP stream is asked for, as the question may be lost in the stream.
const ASK_MAX: u32 = 10;
/// Connections that wrk keeps, and the shortest time that it knows.
const WRK_CONNECTIONS: &str = "8";
const WRK_SHORTEST: Duration = Duration::from_secs(1);

/// An operation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Op {
    /// Bytes over one TCP connection, as the server counts them.
    TcpStream,
    /// Bytes in datagrams, as the server counts them.
    UdpStream,
    /// A byte each way on one TCP connection.
    TcpRr,
    /// A datagram each way.
    UdpRr,
    /// A TCP connection, a byte each way, reset.
    TcpCrr,
    /// HTTP requests on kept connections, by `wrk`.
    Http,
}

impl Op {
    pub(super) const ALL: &[Self] =
        &[Self::TcpStream, Self::UdpStream, Self::TcpRr, Self::UdpRr, Self::TcpCrr, Self::Http];

    /// Its name and its unit in the results.
    pub(super) const fn row(self) -> (&'static str, &'static str) {
        match self {
            Self::TcpStream => ("tcp-stream", "Gbit/s"),
            Self::UdpStream => ("udp-stream", "Gbit/s"),
            Self::TcpRr => ("tcp-rr", "1/s"),
            Self::UdpRr => ("udp-rr", "1/s"),
            Self::TcpCrr => ("tcp-crr", "1/s"),
            Self::Http => ("http", "1/s"),
        }
    }

    /// Does it for about that time, from the network namespace and cgroup of this thread; in its unit.
    pub(super) fn measure(self, to: SocketAddr, time: Duration) -> Result<f64> {
        let measured = match self {
            Self::TcpStream => tcp_stream(to, time),
            Self::UdpStream => udp_stream(to, time),
            Self::TcpRr => tcp_rr(to, time),
            Self::UdpRr => udp_rr(to, time),
            Self::TcpCrr => per_second(time, || connect_once(to)),
            Self::Http => return wrk(to, time),
        };
        measured.with_context(|| format!("{} to {to}", self.row().0))
    }
}

/// How often a second.
fn per_second(time: Duration, mut act: impl FnMut() -> io::Result<()>) -> io::Result<f64> {
    let (started, mut done) = (Instant::now(), 0_u32);
    while started.elapsed() < time {
        act()?;
        done += 1;
    }
    Ok(f64::from(done) / started.elapsed().as_secs_f64())
}

fn gbit(bytes: u64, time: Duration) -> f64 {
    bytes as f64 * 8.0 / time.as_secs_f64() / 1e9
}

fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&to, WAIT)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(WAIT))?;
    stream.set_write_timeout(Some(WAIT))?;
    Ok(stream)
}

fn echo(stream: &mut TcpStream) -> io::Result<()> {
    stream.write_all(&[ECHO])?;
    stream.read_exact(&mut [0])
}

fn tcp_rr(to: SocketAddr, time: Duration) -> io::Result<f64> {
    let mut stream = connect(to)?;
    per_second(time, || echo(&mut stream))
}

fn connect_once(to: SocketAddr) -> io::Result<()> {
    let mut stream = connect(to)?;
    echo(&mut stream)?;
    // Reset on close, or the ports are used up by connections that wait.
    setsockopt(&stream, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 })?;
    Ok(())
}

fn tcp_stream(to: SocketAddr, time: Duration) -> io::Result<f64> {
    let (mut stream, chunk) = (connect(to)?, vec![STREAM; CHUNK]);
    let started = Instant::now();
    while started.elapsed() < time {
        stream.write_all(&chunk)?;
    }
    stream.shutdown(Shutdown::Write)?;
    let mut total = [0; 8];
    stream.read_exact(&mut total)?;
    Ok(gbit(u64::from_be_bytes(total), started.elapsed()))
}

fn udp(to: SocketAddr) -> io::Result<UdpSocket> {
    let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0_u16; 8].into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.set_read_timeout(Some(WAIT))?;
    socket.connect(to)?;
    Ok(socket)
}

fn udp_rr(to: SocketAddr, time: Duration) -> io::Result<f64> {
    let socket = udp(to)?;
    per_second(time, || {
        socket.send(&[ECHO])?;
        socket.recv(&mut [0; 8]).map(drop)
    })
}

fn udp_stream(to: SocketAddr, time: Duration) -> io::Result<f64> {
    let (socket, datagram) = (udp(to)?, [STREAM; DATAGRAM]);
    // What a stream before has left is not of this one.
    counted(&socket)?;
    let started = Instant::now();
    while started.elapsed() < time {
        match socket.send(&datagram) {
            // The queue is full: the next one may pass.
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {}
            sent => drop(sent?),
        }
    }
    let sent_for = started.elapsed();
    Ok(gbit(counted(&socket)?, sent_for))
}

/// Bytes that have come to the server since it was asked last.
fn counted(socket: &UdpSocket) -> io::Result<u64> {
    for _ in 0..ASK_MAX {
        socket.send(&[COUNT])?;
        let mut total = [0; 8];
        match socket.recv(&mut total) {
            Ok(8) => return Ok(u64::from_be_bytes(total)),
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => return Err(error),
        }
    }
    Err(ErrorKind::TimedOut.into())
}

fn wrk(to: SocketAddr, time: Duration) -> Result<f64> {
    let time = format!("{}s", time.max(WRK_SHORTEST).as_secs_f64().round());
    let output = Command::new("wrk")
        .args(["--threads", "1", "--connections", WRK_CONNECTIONS, "--duration", &time])
        .arg(format!("http://{to}/"))
        .stdin(Stdio::null())
        .process_group(0)
        .output()
        .context("cannot start wrk: run `cargo xtask setup`")?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "wrk: {text}{}", String::from_utf8_lossy(&output.stderr));
    requests(&text)
}

/// Requests a second in what wrk prints; failed ones are an error.
fn requests(text: &str) -> Result<f64> {
    for bad in ["Socket errors", "Non-2xx"] {
        if let Some(line) = text.lines().find(|line| line.trim_start().starts_with(bad)) {
            bail!("wrk tells of {}", line.trim());
        }
    }
    let line = text.lines().find_map(|line| line.trim().strip_prefix("Requests/sec:"));
    let number = line.and_then(|number| number.trim().parse().ok());
    number.with_context(|| format!("wrk tells no requests a second:\n{text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_requests_that_wrk_counts_are_read_and_failures_are_not_hidden() {
        let told = "Running 1s test @ http://10.96.0.1:80/\n  1 threads and 8 connections\nRequests/sec:  43210.50\n";
        assert!(requests(told).is_ok_and(|found| (found - 43_210.5).abs() < 1e-6));
        for bad in ["  Socket errors: connect 0, read 3, write 0, timeout 0", "  Non-2xx or 3xx responses: 5"]
        {
            let error = requests(&format!("{told}{bad}\n")).expect_err("requests failed").to_string();
            assert!(error.contains(bad.trim()), "{error}");
        }
        assert!(requests("unable to connect to 10.96.0.1:80 Connection refused\n").is_err());
    }

    #[test]
    fn a_rate_is_what_was_done_over_the_time_it_took() {
        let rate = per_second(Duration::from_millis(20), || {
            std::thread::sleep(Duration::from_millis(5));
            Ok(())
        });
        let rate = rate.expect("nothing fails");
        assert!(rate > 0.0 && rate <= 200.0, "{rate}");
        assert!((gbit(250_000_000, Duration::from_secs(2)) - 1.0).abs() < 1e-9);
    }
}
