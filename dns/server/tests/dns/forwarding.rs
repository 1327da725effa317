//! Names outside the cluster.

use std::net::SocketAddr;

use hickory_proto::{
    op::{Message, ResponseCode},
    rr::RecordType,
};
use tokio::net::UdpSocket;

use crate::support::{TestServer, Upstream, addresses, http_get, query, reply, tcp, udp};

const WWW: &str = "www.example.com.";

#[tokio::test]
async fn without_upstream_servers_names_outside_are_refused() {
    let server = TestServer::start(Vec::new()).await;
    let answer = udp(server.v4, &query(WWW, RecordType::A)).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::Refused);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_forwarded_answer_is_cached_and_keeps_the_case_of_each_client() {
    let upstream = Upstream::start(|query, _| Some(reply(query, 2, 60).to_vec().unwrap())).await;
    let server = TestServer::start(vec![upstream.address]).await;
    for name in [WWW, "WWW.Example.COM."] {
        let answer = udp(server.v4, &query(name, RecordType::A)).await;
        assert_eq!(addresses(&answer).len(), 2);
        assert_eq!(answer.answers[0].name.to_string(), name);
        assert!(answer.metadata.recursion_available && !answer.metadata.authoritative);
        assert!(answer.edns.is_none(), "a client without EDNS gets none");
    }
    assert_eq!(upstream.asked(), 1);
    let (_, text) = http_get(server.endpoints[0], "/metrics").await;
    for name in ["coredns_cache_entries", "coredns_cache_hits_total"] {
        let line = format!(r#"{name}{{server="dns://:53",type="success",view="",zones="."}} 1"#);
        assert!(text.contains(&line), "{line} in\n{text}");
    }
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn the_same_question_is_asked_once_at_a_time() {
    let (release, gate) = std::sync::mpsc::channel::<()>();
    let gate = std::sync::Mutex::new(gate);
    let upstream = Upstream::start(move |query, _| {
        // Blocks the upstream's own task until the test has asked everything; TTL 0, so that nothing is cached.
        tokio::task::block_in_place(|| gate.lock().unwrap().recv()).ok();
        Some(reply(query, 1, 0).to_vec().unwrap())
    });
    let upstream = upstream.await;
    let server = TestServer::start(vec![upstream.address]).await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(server.v4).await.unwrap();
    for id in 0..10 {
        let mut question = query(WWW, RecordType::A);
        question.metadata.id = id;
        socket.send(&question.to_vec().unwrap()).await.unwrap();
    }
    // All ten have been read when the counter says so.
    loop {
        let (_, text) = http_get(server.endpoints[0], "/metrics").await;
        if text.contains(r#"coredns_cache_requests_total{server="dns://:53",view="",zones="."} 10"#) {
            break;
        }
        tokio::task::yield_now().await;
    }
    release.send(()).unwrap();
    let mut ids = Vec::new();
    let mut buffer = [0; 2048];
    while ids.len() < 10 {
        let size = socket.recv(&mut buffer).await.unwrap();
        ids.push(Message::from_vec(&buffer[..size]).unwrap().metadata.id);
    }
    ids.sort_unstable();
    assert_eq!(ids, (0..10).collect::<Vec<_>>());
    assert_eq!(upstream.asked(), 1);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn the_next_server_is_asked_when_one_is_dead_or_talks_nonsense() {
    let dead = dead_address().await;
    let nonsense = Upstream::start(|query, _| {
        let mut bytes = reply(query, 1, 60).to_vec().unwrap();
        bytes.pop();
        Some(bytes)
    })
    .await;
    let good = Upstream::start(|query, _| Some(reply(query, 1, 60).to_vec().unwrap())).await;
    let server = TestServer::start(vec![dead, nonsense.address, good.address]).await;
    let answer = udp(server.v4, &query(WWW, RecordType::A)).await;
    assert_eq!(addresses(&answer).len(), 1);
    assert_eq!((nonsense.asked(), good.asked()), (1, 1));
    // The next question goes to the good one first.
    udp(server.v4, &query("other.example.com.", RecordType::A)).await;
    assert_eq!((nonsense.asked(), good.asked()), (1, 2));
    server.stop().await.unwrap();
}

#[tokio::test]
async fn when_all_servers_fail_the_answer_is_servfail() {
    let server = TestServer::start(vec![dead_address().await, dead_address().await]).await;
    let answer = udp(server.v4, &query(WWW, RecordType::A)).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn forged_answers_are_passed_over() {
    let upstream = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let server = TestServer::start(vec![upstream.local_addr().unwrap()]).await;
    let scripted = async {
        let mut buffer = [0; 2048];
        let (size, peer) = upstream.recv_from(&mut buffer).await.unwrap();
        let question = Message::from_vec(&buffer[..size]).unwrap();
        let good = reply(&question, 1, 60);
        let mut other_id = reply(&question, 9, 60);
        other_id.metadata.id = question.metadata.id.wrapping_add(1);
        let mut other_name = query("evil.example.com.", RecordType::A);
        other_name.metadata.id = question.metadata.id;
        let other_name = reply(&other_name, 9, 60);
        let stranger = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        stranger.send_to(&reply(&question, 9, 60).to_vec().unwrap(), peer).await.unwrap();
        for message in [other_id, other_name, good] {
            upstream.send_to(&message.to_vec().unwrap(), peer).await.unwrap();
        }
    };
    let question = query(WWW, RecordType::A);
    let (answer, ()) = tokio::join!(udp(server.v4, &question), scripted);
    assert_eq!(addresses(&answer).len(), 1);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_truncated_answer_is_fetched_again_over_tcp() {
    let upstream = Upstream::start(|query, over_tcp| {
        let mut message = reply(query, if over_tcp { 60 } else { 0 }, 60);
        message.metadata.truncation = !over_tcp;
        Some(message.to_vec().unwrap())
    })
    .await;
    let server = TestServer::start(vec![upstream.address]).await;
    let small = udp(server.v4, &query(WWW, RecordType::A)).await;
    assert!(small.metadata.truncation, "it does not fit the client's datagram either");
    let whole = tcp(server.v4, &query(WWW, RecordType::A)).await;
    assert_eq!(whole.answers.len(), 60);
    assert_eq!(upstream.asked(), 2, "UDP and TCP once, then the cache");
    server.stop().await.unwrap();
}

/// An address where nobody listens.
async fn dead_address() -> SocketAddr {
    UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}
