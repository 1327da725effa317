//! Servers in a pod: each connection and datagram is answered with the pod's name.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream, UdpSocket},
    thread,
};

use crate::node::Pod;

pub(crate) const TCP_PORT: u16 = 8080;
pub(crate) const UDP_PORT: u16 = 5353;

/// Listens in the pod when it returns; the threads end with the process.
pub(crate) fn serve(pod: &Pod, name: &'static str) {
    for address in pod.spec.addresses.clone() {
        pod.run(|| {
            let listener = TcpListener::bind((address, TCP_PORT)).expect("binds");
            thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    thread::spawn(move || answer(stream, name));
                }
            });
            let socket = UdpSocket::bind((address, UDP_PORT)).expect("binds");
            thread::spawn(move || answer_datagrams(&socket, name));
        });
    }
}

fn answer(mut stream: TcpStream, name: &str) {
    let mut byte = [0];
    while stream.read_exact(&mut byte).is_ok() {
        if stream.write_all(name.as_bytes()).is_err() {
            return;
        }
    }
}

fn answer_datagrams(socket: &UdpSocket, name: &str) {
    let mut buffer = [0; 64];
    while let Ok((_, from)) = socket.recv_from(&mut buffer) {
        let _ = socket.send_to(name.as_bytes(), from);
    }
}
