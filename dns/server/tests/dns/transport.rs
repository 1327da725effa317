//! Sizes, frames and noise.

use std::net::IpAddr;

use fairlead_model::{Change, ServiceKind};
use hickory_proto::{
    op::{Message, OpCode, ResponseCode},
    rr::RecordType,
};
use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
use tokio::net::{TcpStream, UdpSocket};

use crate::support::{
    TestServer, edns_query, query, read_frame, service, service_of, slice, tcp, udp, udp_raw, write_frame,
};

const BIG: &str = "big.demo.svc.cluster.local.";

/// A server with a headless service of 200 endpoints.
async fn server() -> TestServer {
    let mut server = TestServer::start(Vec::new()).await;
    let endpoints = (1..=200u8).map(|last| IpAddr::from([10, 244, 1, last]));
    let changes = vec![
        Change::PutNamespace("demo".into()),
        service("echo", [10, 96, 0, 20].into()),
        service_of("big", ServiceKind::Headless),
        slice("big", endpoints),
    ];
    server.update(true, changes);
    server.eventually("echo.demo.svc.cluster.local.", |answer| !answer.answers.is_empty()).await;
    server
}

#[tokio::test]
async fn an_answer_that_does_not_fit_is_truncated_over_udp_and_whole_over_tcp() {
    let server = server().await;
    let plain = udp(server.v4, &query(BIG, RecordType::A)).await;
    assert!(plain.metadata.truncation && plain.to_vec().unwrap().len() <= 512);
    let edns = udp(server.v4, &edns_query(BIG, RecordType::A, 4096)).await;
    assert!(edns.metadata.truncation && edns.to_vec().unwrap().len() <= 1232);
    assert!(edns.answers.len() > plain.answers.len());
    let whole = tcp(server.v4, &query(BIG, RecordType::A)).await;
    assert!(!whole.metadata.truncation);
    assert_eq!(whole.answers.len(), 200);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn questions_on_one_connection_are_all_answered() {
    let server = server().await;
    let mut stream = TcpStream::connect(server.v6).await.unwrap();
    let queries: Vec<Message> =
        (0..20).map(|_| query("echo.demo.svc.cluster.local.", RecordType::A)).collect();
    for query in &queries {
        write_frame(&mut stream, &query.to_vec().unwrap()).await;
    }
    let mut wanted: Vec<u16> = queries.iter().map(|query| query.metadata.id).collect();
    for _ in &queries {
        let answer = Message::from_vec(&read_frame(&mut stream).await.unwrap()).unwrap();
        let at = wanted.iter().position(|id| *id == answer.metadata.id).expect("an id that was asked");
        wanted.swap_remove(at);
    }
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_connection_that_sends_no_questions_is_closed() {
    let server = server().await;
    let mut stream = TcpStream::connect(server.v4).await.unwrap();
    write_frame(&mut stream, b"not DNS").await;
    assert_eq!(read_frame(&mut stream).await, None);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn what_the_server_does_not_do_it_says() {
    let server = server().await;
    let mut update = query("cluster.local.", RecordType::SOA);
    update.metadata.op_code = OpCode::Update;
    let answer = udp_raw(server.v4, &update.to_vec().unwrap()).await;
    assert_eq!(answer[3] & 0x0f, 4, "NOTIMP");
    let mut two = query("cluster.local.", RecordType::SOA);
    two.queries.push(two.queries[0].clone());
    let answer = udp_raw(server.v4, &two.to_vec().unwrap()).await;
    assert_eq!(answer[3] & 0x0f, 1, "FORMERR");
    let mut newer = edns_query("echo.demo.svc.cluster.local.", RecordType::A, 1232);
    newer.edns.as_mut().unwrap().set_version(1);
    let answer = udp(server.v4, &newer).await;
    assert_eq!(u16::from(answer.metadata.response_code), 16, "BADVERS");
    assert!(answer.answers.is_empty());
    let transfer = tcp(server.v4, &query("cluster.local.", RecordType::AXFR)).await;
    assert_eq!(transfer.metadata.response_code, ResponseCode::Refused);
    server.stop().await.unwrap();
}

/// Random datagrams, each followed by a real question: whatever else comes back, in any order, must not be an answer to a
/// reply, nor a second one, and the server must live.
#[tokio::test]
async fn noise_does_not_hurt_and_replies_are_never_answered() {
    let server = server().await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(server.v4).await.unwrap();
    let mut runner = TestRunner::deterministic();
    let noise = proptest::collection::vec(any::<u8>(), 0..300);
    // The ids of those that may be answered.
    let mut unanswered = Vec::new();
    for round in 0..500u16 {
        let mut bytes = noise.new_tree(&mut runner).unwrap().current();
        let is_reply = round % 2 == 0;
        if let [_, _, flags, ..] = &mut bytes[..] {
            *flags = if is_reply { *flags | 0x80 } else { *flags & 0x7f };
        }
        socket.send(&bytes).await.unwrap();
        let mut check = query("echo.demo.svc.cluster.local.", RecordType::A);
        check.metadata.id = round;
        socket.send(&check.to_vec().unwrap()).await.unwrap();
        unanswered.extend(bytes.first_chunk::<2>().copied().filter(|_| !is_reply && bytes.len() >= 12));
        loop {
            let mut buffer = [0; 2048];
            let size = socket.recv(&mut buffer).await.unwrap();
            assert_ne!(buffer[2] & 0x80, 0, "only answers come back");
            if Message::from_vec(&buffer[..size])
                .is_ok_and(|answer| !answer.answers.is_empty() && answer.metadata.id == round)
            {
                break;
            }
            let answered = unanswered.iter().position(|id| *id == buffer[..2]);
            unanswered.swap_remove(answered.unwrap_or_else(|| panic!("an answer to {bytes:?}?")));
        }
    }
    server.stop().await.unwrap();
}
