//! Servers in a pod: each byte of a connection and each datagram is answered with the pod's name, or, when it is [`WHO`], with
//! the name and the address that it came from.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::Path,
    thread,
    time::Duration,
};

use crate::netns::run_in;

/// Where connections are answered.
pub const TCP_PORT: u16 = 8080;
/// Where datagrams are answered.
pub const UDP_PORT: u16 = 5353;

/// Asks also who is asking.
pub const WHO: u8 = b'@';

/// Longest wait for one answer.
pub const ANSWER_WAIT: Duration = Duration::from_secs(5);

/// Listens on the addresses in the namespace at `netns` when it returns; the threads end with the process.
///
/// # Panics
/// A port is taken.
pub fn serve(netns: &Path, addresses: &[IpAddr], name: &'static str) {
    serve_at(netns, addresses, [TCP_PORT, UDP_PORT], name);
}

/// The same at other ports, that of TCP first.
///
/// # Panics
/// A port is taken.
pub fn serve_at(netns: &Path, addresses: &[IpAddr], [tcp, udp]: [u16; 2], name: &'static str) {
    run_in(netns, || {
        for address in addresses {
            let listener = TcpListener::bind((*address, tcp)).expect("a free port");
            thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    thread::spawn(move || answer(stream, name));
                }
            });
            let socket = UdpSocket::bind((*address, udp)).expect("a free port");
            thread::spawn(move || answer_datagrams(&socket, name));
        }
    });
}

/// Connects from the namespace of this thread.
///
/// # Errors
/// As the kernel says.
pub fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    TcpStream::connect_timeout(&to, ANSWER_WAIT)
}

/// Who answers on a connection.
///
/// # Errors
/// Nobody does.
pub fn ask(stream: &mut TcpStream) -> io::Result<String> {
    put(stream, b'?')
}

/// Who answers on a connection, and whom that one sees.
///
/// # Errors
/// Nobody does.
pub fn ask_who(stream: &mut TcpStream) -> io::Result<String> {
    put(stream, WHO)
}

/// A socket for datagrams of a family at a port of the namespace at `netns`, with this patience.
///
/// # Panics
/// The port is taken.
pub fn datagrams(netns: &Path, v4: bool, port: u16, patience: Duration) -> UdpSocket {
    let any: IpAddr = if v4 { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = run_in(netns, || UdpSocket::bind((any, port)).expect("a free port"));
    socket.set_read_timeout(Some(patience)).expect("a socket");
    socket
}

/// Who answers a datagram of an unconnected socket.
///
/// # Errors
/// Nobody does.
///
/// # Panics
/// Somebody else than was asked does.
pub fn exchange(socket: &UdpSocket, to: SocketAddr) -> io::Result<String> {
    socket.send_to(b"?", to)?;
    let mut name = [0; 64];
    let (length, from) = socket.recv_from(&mut name)?;
    assert_eq!(from, to, "the client sees the service");
    Ok(String::from_utf8_lossy(&name[..length]).into_owned())
}

fn put(stream: &mut TcpStream, question: u8) -> io::Result<String> {
    stream.set_read_timeout(Some(ANSWER_WAIT))?;
    stream.write_all(&[question])?;
    let mut name = [0; 64];
    let length = stream.read(&mut name)?;
    Ok(String::from_utf8_lossy(&name[..length]).into_owned())
}

fn answer(mut stream: TcpStream, name: &str) {
    let mut byte = [0];
    while stream.read_exact(&mut byte).is_ok() {
        let Ok(from) = stream.peer_addr() else { return };
        if stream.write_all(said(byte[0], name, from).as_bytes()).is_err() {
            return;
        }
    }
}

fn said(asked: u8, name: &str, from: SocketAddr) -> String {
    match asked {
        WHO => format!("{name} {}", from.ip()),
        _ => name.to_owned(),
    }
}

fn answer_datagrams(socket: &UdpSocket, name: &str) {
    let mut buffer = [0; 64];
    while let Ok((_, from)) = socket.recv_from(&mut buffer) {
        let _ = socket.send_to(said(buffer[0], name, from).as_bytes(), from);
    }
}
