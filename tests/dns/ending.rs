//! SIGTERM ends the server, whatever it is waiting for.

use std::{
    io::Write as _,
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
};

use tempfile::TempDir;

use super::support::{Server, loaned_address};

/// What a client or an upstream server does to a server that is told to end.
type Trouble = fn(&Server, u16) -> Vec<TcpStream>;

/// An upstream server that takes questions and connections and never answers.
struct Silent {
    address: SocketAddr,
    _udp: UdpSocket,
    _tcp: TcpListener,
}

impl Silent {
    fn new() -> Self {
        let (tcp, udp, address) = loaned_address();
        Self { address, _udp: udp, _tcp: tcp }
    }
}

/// Questions for different names outside, from one client.
fn ask(server: &Server, count: u16) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    for number in 0..count {
        let label = format!("n{number}");
        let mut question = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, u8::try_from(label.len()).unwrap()];
        question.extend_from_slice(label.as_bytes());
        question.extend_from_slice(&[0, 0, 1, 0, 1]);
        socket.send_to(&question, server.addresses[0]).unwrap();
    }
}

/// A connection that says something.
fn connection(port: u16, said: &[u8]) -> Vec<TcpStream> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.write_all(said).unwrap();
    vec![stream]
}

#[test]
fn sigterm_ends_a_server_whatever_it_is_waiting_for() {
    let rows: [(&str, &str, Trouble); 7] = [
        ("nothing", "", |_, _| Vec::new()),
        ("upstream servers that do not answer", "", |server, _| {
            ask(server, 300);
            Vec::new()
        }),
        ("upstream connections that hang", "force_tcp", |server, _| {
            ask(server, 300);
            Vec::new()
        }),
        ("half a frame of a client", "", |server, _| connection(server.addresses[0].port(), &[0, 32])),
        ("a client that keeps its connection", "", |server, _| connection(server.addresses[0].port(), &[])),
        ("a request for metrics that does not come", "", |_, metrics| connection(metrics, &[])),
        ("half a request for metrics", "", |_, metrics| connection(metrics, b"GET /metrics HTTP/1.1\r\nHo")),
    ];
    for (what, options, trouble) in rows {
        let upstream = Silent::new();
        let metrics = loaned_address().2.port();
        let corefile = format!(
            ".:53 {{\n errors\n cache\n prometheus 127.0.0.1:{metrics}\n forward . {} {{\n  {options}\n }}\n}}\n",
            upstream.address
        );
        let mut server = Server::start(&corefile, "");
        let open = trouble(&server, metrics);
        server.terminate();
        assert!(server.ends(), "{what}");
        drop(open);
    }
}

/// A full pipe blocks whoever writes to it. A resolver without upstream servers writes a line for each question.
#[test]
fn a_log_that_nobody_reads_stops_neither_answers_nor_the_end() {
    let upstream = Silent::new();
    let corefile = format!(
        ".:53 {{\n errors\n template IN A here {{\n  answer \"{{{{ .Name }}}} 60 IN A 192.0.2.1\"\n }}\n forward . {} {{\n  \
         read_timeout 1ms\n }}\n}}\n",
        upstream.address
    );
    let (mut server, log) =
        Server::start_unread(TempDir::with_prefix("fairlead-dns-").unwrap(), &corefile, "");
    // Each answer comes behind the failures before it: together they fill a pipe of 64 KiB many times.
    for _ in 0..20 {
        ask(&server, 200);
        server.eventually("n1 A", "SERVFAIL:");
        assert_eq!(server.ask("here A"), "NOERROR aa: here. A 192.0.2.1");
    }
    server.terminate();
    assert!(server.ends());
    drop(log);
}
