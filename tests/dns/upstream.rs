//! Forwarding and caching, with upstream servers that misbehave.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, UdpSocket},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use super::support::{Server, fairlead, loaned_address};

/// What an upstream server does with a question.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Does {
    /// Answers with 192.0.2.N, kept for some seconds.
    Answers(u8, u32),
    Drops,
    /// Answers late, after so many milliseconds.
    Delays(u64),
    /// Says over UDP that the answer does not fit.
    Truncates,
    /// Sends an answer with another id first.
    LiesFirst,
    /// Takes a connection and closes it.
    Closes,
    /// The same, but answers datagrams.
    OnlyUdp,
    Fails,
    Denies,
}

/// An upstream server on loopback that does as it is told.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    does: Arc<Mutex<Does>>,
    asked: Arc<AtomicUsize>,
}

impl Upstream {
    pub(crate) fn start(does: Does) -> Self {
        let (tcp, udp, address) = loaned_address();
        let (does, asked) = (Arc::new(Mutex::new(does)), Arc::new(AtomicUsize::new(0)));
        let upstream = Self { address, does: Arc::clone(&does), asked: Arc::clone(&asked) };
        let of_udp = (Arc::clone(&does), Arc::clone(&asked));
        std::thread::spawn(move || over_udp(&udp, &of_udp.0, &of_udp.1));
        std::thread::spawn(move || over_tcp(&tcp, &does, &asked));
        upstream
    }

    pub(crate) fn now(&self, does: Does) {
        *self.does.lock().unwrap() = does;
    }

    /// How often clients' questions came here; those for the root are the server's own.
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

fn count(query: &[u8], asked: &AtomicUsize) {
    if query.get(12) != Some(&0) {
        asked.fetch_add(1, Ordering::SeqCst);
    }
}

fn over_udp(socket: &UdpSocket, does: &Mutex<Does>, asked: &AtomicUsize) {
    let mut buffer = [0; 2048];
    while let Ok((size, peer)) = socket.recv_from(&mut buffer) {
        let query = &buffer[..size];
        count(query, asked);
        let does = *does.lock().unwrap();
        match does {
            Does::Drops | Does::Closes => continue,
            Does::Delays(millis) => std::thread::sleep(Duration::from_millis(millis)),
            Does::LiesFirst => {
                let mut lie = reply(query, does, false);
                lie[0] ^= 0xff;
                let last = lie.len() - 1;
                lie[last] = 66;
                socket.send_to(&lie, peer).unwrap();
            }
            _ => {}
        }
        socket.send_to(&reply(query, does, false), peer).unwrap();
    }
}

fn over_tcp(listener: &TcpListener, does: &Arc<Mutex<Does>>, asked: &Arc<AtomicUsize>) {
    for stream in listener.incoming().flatten() {
        let (does, asked) = (Arc::clone(does), Arc::clone(asked));
        std::thread::spawn(move || {
            let mut stream = stream;
            let mut length = [0; 2];
            while stream.read_exact(&mut length).is_ok() {
                let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
                if stream.read_exact(&mut query).is_err() {
                    return;
                }
                count(&query, &asked);
                let does = *does.lock().unwrap();
                if matches!(does, Does::Drops | Does::Closes | Does::OnlyUdp) {
                    return;
                }
                let reply = reply(&query, does, true);
                let length = u16::try_from(reply.len()).unwrap().to_be_bytes();
                if stream.write_all(&[&length[..], &reply].concat()).is_err() {
                    return;
                }
            }
        });
    }
}

/// An answer without EDNS to the one question of a query.
fn reply(query: &[u8], does: Does, tcp: bool) -> Vec<u8> {
    let name = query[12..].iter().position(|byte| *byte == 0).unwrap();
    let question = &query[12..12 + name + 5];
    let rcode = match does {
        Does::Fails => 2,
        Does::Denies => 3,
        _ => 0,
    };
    let truncated = does == Does::Truncates && !tcp;
    let answers = u8::from(rcode == 0 && !truncated);
    let authorities = u8::from(rcode == 3);
    let flags = 0x80 | u8::from(truncated) << 1 | query[2] & 1;
    let mut reply = vec![query[0], query[1], flags, 0x80 | rcode, 0, 1, 0, answers, 0, authorities, 0, 0];
    reply.extend_from_slice(question);
    let (last, ttl) = match does {
        Does::Answers(last, ttl) => (last, ttl),
        _ => (1, 60),
    };
    if answers == 1 {
        reply.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1]);
        reply.extend_from_slice(&ttl.to_be_bytes());
        reply.extend_from_slice(&[0, 4, 192, 0, 2, last]);
    }
    if authorities == 1 {
        // An SOA of the root: its names are the root, its minimum is 60.
        reply.extend_from_slice(&[0, 0, 6, 0, 1, 0, 0, 0, 60, 0, 22, 0, 0]);
        for value in [1u32, 2, 3, 4, 60] {
            reply.extend_from_slice(&value.to_be_bytes());
        }
    }
    reply
}

pub(crate) const GOOD: &str = "NOERROR: www.example.org. A 192.0.2.1";

fn forward(upstreams: &[&Upstream], options: &str) -> String {
    let servers: Vec<String> = upstreams.iter().map(|upstream| upstream.address.to_string()).collect();
    format!(
        ".:53 {{\n errors\n forward . {} {{\n  policy sequential\n  {options}\n }}\n}}\n",
        servers.join(" ")
    )
}

#[test]
fn an_upstream_that_misbehaves_costs_no_answer() {
    let good = Upstream::start(Does::Answers(1, 60));
    for does in [Does::Drops, Does::Closes, Does::Truncates, Does::LiesFirst, Does::Delays(300)] {
        let bad = Upstream::start(does);
        let server = Server::start(&forward(&[&bad, &good], "read_timeout 500ms"), "");
        server.check(&[(&format!("{does:?}"), "www.example.org A", GOOD)]);
        let alone = matches!(does, Does::Truncates | Does::LiesFirst | Does::Delays(_));
        assert!(!alone || bad.asked() >= 4, "{does:?} is no failure");
    }
}

#[test]
fn answers_of_an_upstream_are_passed_on_and_failures_are_failures() {
    let upstream = Upstream::start(Does::Fails);
    let server = Server::start(&forward(&[&upstream], ""), "");
    server.check(&[("SERVFAIL", "www.example.org A", "SERVFAIL:")]);
    upstream.now(Does::Denies);
    server.check(&[("NXDOMAIN", "www.example.org A", "NXDOMAIN:  | . SOA")]);
}

#[test]
fn failover_next_and_except() {
    let (failing, denying) = (Upstream::start(Does::Fails), Upstream::start(Does::Denies));
    let good = Upstream::start(Does::Answers(1, 60));
    let server = Server::start(&forward(&[&failing, &good], "failover SERVFAIL"), "");
    server.check(&[("failover asks the next server", "www.example.org A", GOOD)]);
    let alone = Server::start(&forward(&[&denying], "next NXDOMAIN\n  next_on_nodata"), "");
    alone.check(&[("behind the last forward is nobody", "www.example.org A", "NXDOMAIN:  | . SOA")]);
    let both = format!(
        ".:53 {{\n forward . {} {{\n  next NXDOMAIN\n }}\n forward . {} {{\n  except corp.example.org\n }}\n}}\n",
        denying.address, good.address
    );
    let server = Server::start(&both, "");
    server.check(&[
        ("next asks the next plugin", "www.example.org A", GOOD),
        ("except does not forward", "a.corp.example.org A", "REFUSED:"),
    ]);
}

#[test]
fn without_an_upstream_that_answers_the_failure_is_said() {
    let dead = Upstream::start(Does::Drops);
    let server = Server::start(&forward(&[&dead], "read_timeout 200ms"), "");
    assert_eq!(server.ask("www.example.org A"), "SERVFAIL:");
    let line = server.wait_for_log("ERROR");
    assert!(line.contains("www.example.org. A") && line.contains(&dead.address.to_string()), "{line}");
}

#[test]
fn a_dead_upstream_is_asked_again_when_it_is_back() {
    let (first, second) = (Upstream::start(Does::Drops), Upstream::start(Does::Answers(2, 60)));
    let options = "read_timeout 200ms\n  health_check 100ms\n  max_fails 1";
    let server = Server::start(&forward(&[&first, &second], options), "");
    server.eventually("www.example.org A", "NOERROR: www.example.org. A 192.0.2.2");
    first.now(Does::Answers(1, 60));
    server.eventually("www.example.org A", GOOD);
}

#[test]
fn too_many_questions_at_a_time_are_refused() {
    let slow = Upstream::start(Does::Drops);
    let server = Server::start(&forward(&[&slow], "max_concurrent 1\n  read_timeout 3s"), "");
    let address = server.addresses[0];
    let waiting = std::thread::spawn(move || super::support::dig(address, false, &["one.example.org A"]));
    while slow.asked() == 0 {
        std::thread::yield_now();
    }
    assert_eq!(server.ask("two.example.org A"), "REFUSED:");
    waiting.join().unwrap();
}

fn cached(upstream: &Upstream, options: &str) -> String {
    format!(
        ".:53 {{\n cache {{\n  {options}\n }}\n forward . {} {{\n  read_timeout 300ms\n }}\n}}\n",
        upstream.address
    )
}

#[test]
fn the_cache_keeps_answers_denials_and_failures() {
    let upstream = Upstream::start(Does::Answers(1, 60));
    let server = Server::start(&cached(&upstream, ""), "");
    server.check(&[("four ways, one question", "www.example.org A", GOOD)]);
    let asked = upstream.asked();
    assert_eq!(asked, 1);
    upstream.now(Does::Denies);
    server.check(&[("a denial", "none.example.org A", "NXDOMAIN:  | . SOA")]);
    assert_eq!(upstream.asked(), asked + 1);
    upstream.now(Does::Fails);
    assert_eq!(server.ask("fail.example.org A"), "SERVFAIL:");
    upstream.now(Does::Answers(1, 60));
    assert_eq!(server.ask("fail.example.org A"), "SERVFAIL:", "kept for some seconds");
    assert_eq!(server.ask("www.example.org A"), GOOD);
    assert_eq!(upstream.asked(), asked + 2);
}

#[test]
fn the_cache_leaves_out_what_it_is_told_to() {
    let upstream = Upstream::start(Does::Answers(1, 60));
    let server = Server::start(&cached(&upstream, "disable success live.example.org"), "");
    for _ in 0..3 {
        server.ask("a.live.example.org A");
        server.ask("b.example.org A");
    }
    assert_eq!(upstream.asked(), 4);
}

#[test]
fn a_stale_answer_is_better_than_none() {
    let upstream = Upstream::start(Does::Answers(1, 1));
    let server = Server::start(&cached(&upstream, "success 1024 1 0\n  serve_stale 1h verify 1s"), "");
    assert_eq!(server.ask("www.example.org A"), GOOD);
    upstream.now(Does::Answers(2, 1));
    server.eventually("www.example.org A", "NOERROR: www.example.org. A 192.0.2.2");
    upstream.now(Does::Drops);
    let asked = upstream.asked();
    // Expired or not, there is an answer; and when it has expired, it was asked for.
    while upstream.asked() == asked {
        assert_eq!(server.ask("www.example.org A"), "NOERROR: www.example.org. A 192.0.2.2");
    }
    assert_eq!(server.ask("www.example.org A"), "NOERROR: www.example.org. A 192.0.2.2");
    upstream.now(Does::Answers(3, 1));
    server.eventually("www.example.org A", "NOERROR: www.example.org. A 192.0.2.3");
}

#[test]
fn what_is_asked_for_often_is_fetched_before_it_expires() {
    let upstream = Upstream::start(Does::Answers(1, 60));
    let server = Server::start(&cached(&upstream, "success 1024 2 0\n  prefetch 2 1m 90%"), "");
    server.ask("www.example.org A");
    assert_eq!(upstream.asked(), 1);
    upstream.now(Does::Answers(2, 60));
    // Whoever asks gets what is kept, until what was fetched meanwhile is there.
    server.eventually("www.example.org A", "NOERROR: www.example.org. A 192.0.2.2");
}

#[test]
fn a_server_that_is_its_own_upstream_ends_and_says_so() {
    let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let corefile = format!(".:{port} {{\n bind 127.0.0.1\n loop\n forward . 127.0.0.1:{port}\n}}\n");
    let mut server = Server::start(&corefile, "");
    assert!(!server.ends());
    let line = server.wait_for_log("Loop (127.0.0.1:");
    assert!(line.contains("detected for zone \".\""), "{line}");
}

#[test]
fn a_server_that_does_not_answer_is_named() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let at = socket.local_addr().unwrap().to_string();
    drop(socket);
    let output = fairlead(&["dns", "query", "www.example.org", "--server", &at]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && text.contains(&at), "{text}");
}
