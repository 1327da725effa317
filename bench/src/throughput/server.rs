//! The server: on one port it takes in streams, echoes bytes and answers HTTP over TCP, and counts and echoes datagrams.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{Ipv6Addr, TcpListener, TcpStream, UdpSocket},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
};

use anyhow::{Context, Result, bail};
use clap::Args;
use fairlead_testkit::{InCgroup, netns::run_in};

use crate::cost::{place::Spot, traffic::SERVER_PORT};

/// First byte of a connection whose bytes are counted; at its end the count goes back, as eight bytes.
pub(super) const STREAM: u8 = b's';
/// First byte of a connection or datagram that is echoed.
pub(super) const ECHO: u8 = b'e';
/// A datagram that asks how many bytes of [`STREAM`] datagrams have come since the last one that asked.
pub(super) const COUNT: u8 = b'c';

/// How many connections are served at once.
const WORKERS: usize = 32;
const BUFFER_LEN: usize = 128 * 1024;
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 64\r\n\r\n\
      0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const HEAD_END: &[u8] = b"\r\n\r\n";

/// What the server's process is told.
#[derive(Clone, Debug, Args)]
pub struct ServeArgs {
    /// The network namespace to be in
    #[arg(long)]
    netns: PathBuf,
}

/// Serves until it is killed; prints a line when it is ready.
pub fn serve(args: &ServeArgs) -> Result<()> {
    let (listener, socket) = run_in(&args.netns, || -> io::Result<_> {
        let at = (Ipv6Addr::UNSPECIFIED, SERVER_PORT);
        Ok((TcpListener::bind(at)?, UdpSocket::bind(at)?))
    })
    .context("the server's port is taken")?;
    let listener = Arc::new(listener);
    for _ in 0..WORKERS {
        let listener = Arc::clone(&listener);
        thread::spawn(move || {
            let mut buffer = vec![0; BUFFER_LEN];
            for mut stream in listener.incoming().flatten() {
                // A client that resets has what it wanted.
                let _reset = answer(&mut stream, &mut buffer);
            }
        });
    }
    writeln!(io::stdout(), "ready")?;
    answer_datagrams(&socket);
    Ok(())
}

fn answer(stream: &mut TcpStream, buffer: &mut [u8]) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let first = stream.read(buffer)?;
    match buffer[0] {
        _ if first == 0 => Ok(()),
        STREAM => {
            let mut total = first as u64;
            loop {
                match stream.read(buffer)? {
                    0 => return stream.write_all(&total.to_be_bytes()),
                    more => total += more as u64,
                }
            }
        }
        ECHO => {
            let mut length = first;
            while length > 0 {
                stream.write_all(&buffer[..length])?;
                length = stream.read(buffer)?;
            }
            Ok(())
        }
        _ => answer_http(stream, buffer, first),
    }
}

/// Answers each request when its head has come; requests have no bodies.
fn answer_http(stream: &mut TcpStream, buffer: &mut [u8], mut length: usize) -> io::Result<()> {
    loop {
        while let Some(end) = buffer[..length].windows(HEAD_END.len()).position(|four| four == HEAD_END) {
            let next = end + HEAD_END.len();
            buffer.copy_within(next..length, 0);
            length -= next;
            stream.write_all(RESPONSE)?;
        }
        if length == buffer.len() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        match stream.read(&mut buffer[length..])? {
            0 => return Ok(()),
            more => length += more,
        }
    }
}

fn answer_datagrams(socket: &UdpSocket) {
    let (mut buffer, mut total) = (vec![0; BUFFER_LEN], 0_u64);
    loop {
        // An error is about a client that has gone.
        let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
        match buffer[0] {
            STREAM => total += length as u64,
            COUNT => {
                let _gone = socket.send_to(&total.to_be_bytes(), from);
                total = 0;
            }
            _ => drop(socket.send_to(&buffer[..length], from)),
        }
    }
}

/// A server in a process of its own; killed when it is dropped.
pub(super) struct Server(Child);

impl Server {
    /// Starts it at a spot; in a cgroup, if it is to be in one.
    pub(super) fn start(spot: &Spot, cgroup: Option<&Path>) -> Result<Self> {
        // It inherits the cgroup of whoever starts it.
        let inside = cgroup.map(|cgroup| InCgroup::enter(&cgroup.join("pods")));
        let mut child = Command::new(std::env::current_exe().context("cannot find this program's file")?)
            .arg("throughput-serve")
            .arg("--netns")
            .arg(&spot.netns)
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .context("cannot start this program again")?;
        drop(inside);
        let output = child.stdout.take().expect("it is piped");
        let server = Self(child);
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line).context("cannot read what the server says")?;
        if line.is_empty() {
            bail!("the server ended before it was ready");
        }
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _status = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client and what serves it.
    fn served() -> TcpStream {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let client = TcpStream::connect(listener.local_addr().expect("it listens")).expect("connects");
        let (mut stream, _) = listener.accept().expect("a client");
        thread::spawn(move || answer(&mut stream, &mut vec![0; BUFFER_LEN]));
        client
    }

    #[test]
    fn a_stream_is_counted_to_its_end() {
        let mut client = served();
        client.write_all(&[STREAM; 100_000]).expect("it is read");
        client.shutdown(std::net::Shutdown::Write).expect("it is open");
        let mut total = [0; 8];
        client.read_exact(&mut total).expect("the count");
        assert_eq!(u64::from_be_bytes(total), 100_000);
    }

    #[test]
    fn requests_are_answered_one_by_one_also_when_they_come_in_pieces() {
        let mut client = served();
        for piece in ["GET / HTTP/1.1\r\nHost: a\r\n", "\r\nGET / HTTP/1.1\r\n\r", "\n"] {
            client.write_all(piece.as_bytes()).expect("it is read");
        }
        let mut answers = vec![0; 2 * RESPONSE.len()];
        client.read_exact(&mut answers).expect("two answers");
        assert_eq!(answers, [RESPONSE, RESPONSE].concat());
    }

    #[test]
    fn a_byte_comes_back() {
        let mut client = served();
        for _ in 0..3 {
            client.write_all(&[ECHO]).expect("it is read");
            let mut byte = [0];
            client.read_exact(&mut byte).expect("its echo");
            assert_eq!(byte, [ECHO]);
        }
    }
}
