use std::{
    net::Ipv4Addr,
    sync::atomic::{AtomicUsize, Ordering},
};

use fairlead_zone::{Class, Name, RecordType};
use futures::future::join_all;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
};

use super::*;

const LONG: Duration = Duration::from_secs(20);

fn inquiry(name: &str) -> Inquiry {
    let question = Question { name: Name::parse(name).unwrap(), rtype: RecordType::A, class: Class::IN };
    Inquiry {
        question,
        recursion_desired: true,
        authentic_data: false,
        checking_disabled: false,
        dnssec_ok: false,
        options: Vec::new(),
    }
}

fn upstream(address: SocketAddr) -> Upstream {
    with(UpstreamConfig {
        address,
        transport: UpstreamTransport::Plain,
        expire: LONG,
        read_timeout: LONG,
        source: None,
        random_case: false,
    })
}

fn with(config: UpstreamConfig) -> Upstream {
    Upstream::new(config, Default::default())
}

/// The answer to a message: its own question and one address.
fn answer(query: &[u8]) -> Vec<u8> {
    let end = crate::codec::question_end(query).unwrap();
    let record = [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1];
    let mut bytes = [&query[..end], &record].concat();
    bytes[2] = 0x81;
    bytes[3] = 0x80;
    bytes[6..12].copy_from_slice(&[0, 1, 0, 0, 0, 0]);
    bytes
}

async fn receive(server: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = [0; 2048];
    let (size, peer) = server.recv_from(&mut buffer).await.unwrap();
    (buffer[..size].to_vec(), peer)
}

async fn udp_server() -> (UdpSocket, SocketAddr) {
    let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = server.local_addr().unwrap();
    (server, address)
}

async fn read_frame(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    let mut bytes = vec![0; usize::from(length)];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

async fn write_frame(stream: &mut TcpStream, bytes: &[u8]) {
    let length = u16::try_from(bytes.len()).unwrap();
    stream.write_all(&[&length.to_be_bytes()[..], bytes].concat()).await.unwrap();
}

#[tokio::test]
async fn questions_in_flight_get_their_own_answers_in_any_order() {
    let (server, address) = udp_server().await;
    let upstream = upstream(address);
    let names: Vec<String> = (0..100).map(|number| format!("n{number}.example")).collect();
    let inquiries: Vec<Inquiry> = names.iter().map(|name| inquiry(name)).collect();
    let asking = join_all(inquiries.iter().map(|inquiry| upstream.exchange(inquiry, Via::Udp)));
    let answering = async {
        let mut asked = Vec::new();
        while asked.len() < names.len() {
            asked.push(receive(&server).await);
        }
        for (query, peer) in asked.iter().rev() {
            server.send_to(&answer(query), peer).await.unwrap();
        }
    };
    let (answers, ()) = tokio::join!(asking, answering);
    for (reply, inquiry) in answers.into_iter().zip(&inquiries) {
        let message = reply.unwrap().to_message(0).unwrap();
        assert_eq!(message.answers[0].name, inquiry.question.name);
    }
}

#[tokio::test]
async fn ports_change_and_sockets_are_used_again() {
    let (server, address) = udp_server().await;
    let upstream = upstream(address);
    let mut ports = std::collections::BTreeSet::new();
    for _ in 0..100 {
        let asked = inquiry("a.example");
        let answering = async {
            let (query, peer) = receive(&server).await;
            server.send_to(&answer(&query), peer).await.unwrap();
            peer.port()
        };
        let (reply, port) = tokio::join!(upstream.exchange(&asked, Via::Udp), answering);
        reply.unwrap();
        ports.insert(port);
    }
    assert!((4..=8).contains(&ports.len()), "{ports:?}");
    assert_eq!(upstream.reuse[0].misses.get(), ports.len() as u64);
}

#[tokio::test]
async fn forgeries_are_passed_over() {
    let (server, address) = udp_server().await;
    let upstream = upstream(address);
    let asked = inquiry("a.example");
    let answering = async {
        let (query, peer) = receive(&server).await;
        let good = answer(&query);
        let other_id = [&[good[0] ^ 1][..], &good[1..]].concat();
        let mut other_name = good.clone();
        other_name[13] = b'b';
        let elsewhere = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let mut poison = good.clone();
        *poison.last_mut().unwrap() = 66;
        elsewhere.send_to(&poison, peer).await.unwrap();
        for forged in [&other_id, &other_name, &query] {
            server.send_to(forged, peer).await.unwrap();
        }
        server.send_to(&good, peer).await.unwrap();
    };
    let (reply, ()) = tokio::join!(upstream.exchange(&asked, Via::Udp), answering);
    let message = reply.unwrap().to_message(0).unwrap();
    assert_eq!(message.answers[0].data, fairlead_zone::RecordData::A([192, 0, 2, 1].into()));
}

#[tokio::test]
async fn an_answer_in_another_case_is_a_forgery_when_the_case_is_random() {
    let (server, address) = udp_server().await;
    let upstream = with(UpstreamConfig { random_case: true, ..(*upstream(address).config).clone() });
    let asked = inquiry("a-name-of-many-letters.example");
    let answering = async {
        let (query, peer) = receive(&server).await;
        let good = answer(&query);
        let mut lower = good.to_ascii_lowercase();
        assert_ne!(lower, good, "one chance in 2^26");
        lower[..12].copy_from_slice(&good[..12]);
        *lower.last_mut().unwrap() = 66;
        server.send_to(&lower, peer).await.unwrap();
        server.send_to(&good, peer).await.unwrap();
    };
    let (reply, ()) = tokio::join!(upstream.exchange(&asked, Via::Udp), answering);
    let message = reply.unwrap().to_message(0).unwrap();
    assert_eq!(message.answers[0].data, fairlead_zone::RecordData::A([192, 0, 2, 1].into()));
}

#[tokio::test]
async fn a_lost_question_is_asked_again_and_a_late_answer_is_an_answer() {
    for answers_to in [0, 1] {
        let (server, address) = udp_server().await;
        let upstream = upstream(address);
        let asked = inquiry("a.example");
        let answering = async {
            let askings = [receive(&server).await, receive(&server).await];
            let (query, peer) = &askings[answers_to];
            server.send_to(&answer(query), peer).await.unwrap();
            askings
        };
        let (reply, [(first, _), (second, _)]) = tokio::join!(upstream.exchange(&asked, Via::Udp), answering);
        reply.unwrap();
        assert_eq!(first[2..], second[2..], "the same question");
        assert_eq!(upstream.reuse[0].repeats.get(), 1);
        assert_eq!(upstream.lane().ports.waiting(), 0, "nobody waits for the other answer");
    }
}

#[tokio::test]
async fn where_nobody_listens_is_known_at_once() {
    let (server, address) = udp_server().await;
    drop(server);
    let upstream = upstream(address);
    for via in [Via::Udp, Via::Tcp] {
        let error = upstream.exchange(&inquiry("a.example"), via).await.unwrap_err();
        let refused =
            matches!(&error, UpstreamError::Io(error) if error.kind() == io::ErrorKind::ConnectionRefused);
        assert!(refused, "{error}");
    }
}

#[tokio::test]
async fn silence_is_a_timeout_and_leaves_nothing_behind() {
    let (_server, address) = udp_server().await;
    let short = Duration::from_millis(1);
    let upstream = with(UpstreamConfig { read_timeout: short, ..(*upstream(address).config).clone() });
    let error = upstream.exchange(&inquiry("a.example"), Via::Udp).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Timeout(limit) if limit == short), "{error}");
    assert_eq!(upstream.lane().ports.waiting(), 0);
}

/// A server that takes connections, answers `per_connection` questions on each in reverse order, and closes it.
async fn tcp_server(per_connection: usize) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            count.fetch_add(1, Ordering::SeqCst);
            let mut asked = Vec::new();
            while asked.len() < per_connection
                && let Ok(query) = read_frame(&mut stream).await
            {
                asked.push(query);
            }
            for query in asked.iter().rev() {
                write_frame(&mut stream, &answer(query)).await;
            }
        }
    });
    (address, connections)
}

#[tokio::test]
async fn one_connection_carries_many_questions_at_a_time() {
    let (address, connections) = tcp_server(50).await;
    let upstream = upstream(address);
    let inquiries: Vec<Inquiry> = (0..50).map(|number| inquiry(&format!("n{number}.example"))).collect();
    let answers = join_all(inquiries.iter().map(|inquiry| upstream.exchange(inquiry, Via::Tcp))).await;
    for (reply, inquiry) in answers.into_iter().zip(&inquiries) {
        let message = reply.unwrap().to_message(0).unwrap();
        assert_eq!(message.answers[0].name, inquiry.question.name);
    }
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_connection_that_the_server_closed_is_made_anew() {
    let (address, connections) = tcp_server(1).await;
    let upstream = upstream(address);
    for _ in 0..5 {
        upstream.exchange(&inquiry("a.example"), Via::Tcp).await.unwrap();
    }
    assert_eq!(connections.load(Ordering::SeqCst), 5);
}
