//! Real packets between pods of one node and of two, through the TCX programs.

use std::{
    io::ErrorKind,
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

use fairlead_abi::DropReason;

use crate::{
    nodes::{Pod, nodes},
    support::{exchange, ip},
};

const WAIT: Duration = Duration::from_secs(5);

#[test]
fn pods_reach_pods_of_their_node_and_of_another() {
    let (mut a, mut b) = nodes();
    let (client, neighbour) = (Pod::new(&mut a, 1), Pod::new(&mut a, 2));
    let remote = Pod::new(&mut b, 1);
    for (server, node) in [(&neighbour, &a), (&remote, &b)] {
        for family in [0, 1] {
            let before = (a.loaded.counters(client.slot), node.loaded.counters(server.slot));
            converse(&client, server, family);
            let after = (a.loaded.counters(client.slot), node.loaded.counters(server.slot));
            let sent = after.0.tx_packets - before.0.tx_packets;
            assert!(sent >= 5, "a handshake, a request and an end");
            assert_eq!(sent, after.1.rx_packets - before.1.rx_packets, "what was sent was received");
            assert_eq!(after.0.tx_bytes - before.0.tx_bytes, after.1.rx_bytes - before.1.rx_bytes);
            assert_eq!(after.0.rx_bytes - before.0.rx_bytes, after.1.tx_bytes - before.1.tx_bytes);
        }
    }
    assert_eq!((a.loaded.drops(), b.loaded.drops()), (Vec::new(), Vec::new()));
}

#[test]
fn a_forged_source_reaches_nobody_and_is_counted() {
    let (mut a, _b) = nodes();
    let (client, neighbour) = (Pod::new(&mut a, 1), Pod::new(&mut a, 2));
    let listening = neighbour.netns.run(|| UdpSocket::bind(neighbour.at(0, 7000)).unwrap());
    client.netns.run(|| {
        ip("address add 10.244.1.77/32 dev eth0");
        let forged = UdpSocket::bind("10.244.1.77:0").unwrap();
        forged.send_to(b"forged", neighbour.at(0, 7000)).unwrap();
        let own = UdpSocket::bind(client.at(0, 0)).unwrap();
        own.send_to(b"own", neighbour.at(0, 7000)).unwrap();
    });
    listening.set_read_timeout(Some(WAIT)).unwrap();
    let mut buffer = [0; 16];
    let (len, _) = listening.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..len], b"own", "the forged datagram was sent first");
    assert_eq!(a.loaded.drop_count(client.slot, DropReason::SourceNotOwned), 1);
}

#[test]
fn an_address_that_no_pod_has_is_refused_and_not_swallowed() {
    let (mut a, mut b) = nodes();
    let client = Pod::new(&mut a, 1);
    let _remote = Pod::new(&mut b, 1);
    for address in ["10.244.1.99:80", "[fd00:244:0:1::99]:80", "10.244.2.99:80", "[fd00:244:0:2::99]:80"] {
        let to: SocketAddr = address.parse().unwrap();
        let error = client.netns.run(|| TcpStream::connect_timeout(&to, WAIT)).unwrap_err();
        assert_ne!(error.kind(), ErrorKind::TimedOut, "{address}: {error}");
    }
    assert!(a.loaded.drop_count(client.slot, DropReason::UnknownPod) >= 2, "{:?}", a.loaded.drops());
    assert!(b.loaded.drop_count(0, DropReason::UnknownPod) >= 2, "{:?}", b.loaded.drops());
    assert!(a.loaded.counters(client.slot).rx_packets >= 2, "the answers of the host's stack are counted");
}

#[test]
fn the_host_reaches_its_pods_and_they_reach_it() {
    let (mut a, _b) = nodes();
    let pod = Pod::new(&mut a, 1);
    let listener = pod.netns.run(|| TcpListener::bind(pod.at(0, 7001)).unwrap());
    let mut probe = a.netns.run(|| TcpStream::connect_timeout(&pod.at(0, 7001), WAIT)).unwrap();
    exchange(&mut probe, &mut listener.accept().unwrap().0);
    assert!(a.loaded.counters(pod.slot).rx_packets >= 3);

    let host: SocketAddr = "172.29.0.11:7002".parse().unwrap();
    let listener = a.netns.run(|| TcpListener::bind(host).unwrap());
    let mut client = pod.netns.run(|| TcpStream::connect_timeout(&host, WAIT)).unwrap();
    exchange(&mut client, &mut listener.accept().unwrap().0);
}

/// A conversation over one connection, opened and ended by the client; it returns when both sides have ended.
fn converse(client: &Pod, server: &Pod, family: usize) {
    let listener = server.netns.run(|| TcpListener::bind(server.at(family, 7000)).unwrap());
    let to = server.at(family, 7000);
    let mut client = client.netns.run(|| TcpStream::connect_timeout(&to, WAIT)).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    server.set_read_timeout(Some(WAIT)).unwrap();
    client.set_write_timeout(Some(WAIT)).unwrap();
    exchange(&mut client, &mut server);
    // Large segments, whose checksums nobody has computed yet.
    let bulk: Vec<u8> = (0..1 << 20).map(|index: u32| (index * 7) as u8).collect();
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| std::io::Write::write_all(&mut client, &bulk).unwrap());
        let mut received = vec![0; bulk.len()];
        std::io::Read::read_exact(&mut server, &mut received).unwrap();
        assert!(received == bulk, "what was sent arrived as it was");
        sender.join().unwrap();
    });
    // A reset is one packet and nothing follows it, so that the counters are at rest.
    client.set_linger_to_zero();
    drop(client);
    let mut rest = Vec::new();
    let ended = std::io::Read::read_to_end(&mut server, &mut rest).unwrap_err();
    assert_eq!(ended.kind(), ErrorKind::ConnectionReset);
}

trait SetLinger {
    fn set_linger_to_zero(&self);
}

impl SetLinger for TcpStream {
    fn set_linger_to_zero(&self) {
        let linger = libc::linger { l_onoff: 1, l_linger: 0 };
        nix::sys::socket::setsockopt(self, nix::sys::socket::sockopt::Linger, &linger).unwrap();
    }
}
