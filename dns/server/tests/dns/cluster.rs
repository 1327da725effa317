//! Names of the cluster, and how they follow it.

use std::net::IpAddr;

use fairlead_dns::{Config, DnsError, DnsServer};
use fairlead_model::{Change, ObjectName, ServiceKind};
use hickory_proto::{
    op::ResponseCode,
    rr::{RData, RecordType},
};

use crate::support::{
    TestServer, Upstream, addresses, http_get, query, reply, service, service_of, slice, tcp, udp,
};

const ECHO: &str = "echo.demo.svc.cluster.local.";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[tokio::test]
async fn a_service_is_answered_over_udp_and_tcp_on_both_families() {
    let mut server = TestServer::start(Vec::new()).await;
    server.update(true, vec![Change::PutNamespace("demo".into()), service("echo", ip("10.96.0.20"))]);
    server.eventually(ECHO, |answer| !answer.answers.is_empty()).await;
    let question = query(ECHO, RecordType::A);
    for answer in [
        udp(server.v4, &question).await,
        udp(server.v6, &question).await,
        tcp(server.v4, &question).await,
        tcp(server.v6, &question).await,
    ] {
        assert_eq!(addresses(&answer), [ip("10.96.0.20")]);
        assert!(answer.metadata.authoritative && answer.metadata.recursion_desired);
        assert!(!answer.metadata.recursion_available, "without upstream servers there is no recursion");
    }
    server.stop().await.unwrap();
}

#[tokio::test]
async fn denials_carry_the_soa_and_other_types_are_no_denials() {
    let mut server = TestServer::start(Vec::new()).await;
    server.update(true, vec![Change::PutNamespace("demo".into()), service("echo", ip("10.96.0.20"))]);
    server.eventually(ECHO, |answer| !answer.answers.is_empty()).await;
    let missing = udp(server.v4, &query("nosuch.demo.svc.cluster.local.", RecordType::A)).await;
    assert_eq!(missing.metadata.response_code, ResponseCode::NXDomain);
    let no_data = udp(server.v4, &query(ECHO, RecordType::AAAA)).await;
    assert_eq!(no_data.metadata.response_code, ResponseCode::NoError);
    for answer in [missing, no_data] {
        assert!(answer.answers.is_empty());
        assert!(matches!(answer.authorities[..], [ref soa] if matches!(soa.data, RData::SOA(_))));
    }
    server.stop().await.unwrap();
}

#[tokio::test]
async fn the_zone_switches_from_nothing_to_a_snapshot_to_the_next() {
    let mut server = TestServer::start(Vec::new()).await;
    let (status, _) = http_get(server.endpoints[2], "/ready").await;
    assert!(status.contains("503"), "{status}");
    let unsynced = udp(server.v4, &query(ECHO, RecordType::A)).await;
    assert_eq!(unsynced.metadata.response_code, ResponseCode::ServFail);

    server.update(true, vec![Change::PutNamespace("demo".into()), service("echo", ip("10.96.0.20"))]);
    server.eventually(ECHO, |answer| addresses(answer) == [ip("10.96.0.20")]).await;
    let (status, _) = http_get(server.endpoints[2], "/ready").await;
    assert!(status.contains("200"), "{status}");

    server.update(false, vec![service("late", ip("10.96.0.21"))]);
    server.eventually("late.demo.svc.cluster.local.", |answer| addresses(answer) == [ip("10.96.0.21")]).await;
    let still = udp(server.v4, &query(ECHO, RecordType::A)).await;
    assert_eq!(addresses(&still), [ip("10.96.0.20")], "a change of one service leaves the others");
    server.update(true, vec![Change::PutNamespace("demo".into()), service("other", ip("10.96.0.20"))]);
    server.eventually(ECHO, |answer| answer.metadata.response_code == ResponseCode::NXDomain).await;
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_headless_service_is_never_half_there() {
    let mut server = TestServer::start(Vec::new()).await;
    let name = "db.demo.svc.cluster.local.";
    let old: Vec<IpAddr> = (1..=20u8).map(|last| IpAddr::from([10, 244, 1, last])).collect();
    let new: Vec<IpAddr> = (1..=20u8).map(|last| IpAddr::from([10, 244, 2, last])).collect();
    let headless = service_of("db", ServiceKind::Headless);
    server.update(true, vec![Change::PutNamespace("demo".into()), headless, slice("db", old.clone())]);
    server.eventually(name, |answer| addresses(answer) == old).await;
    // Delete and add in one update, as when slices are rewritten: no answer may be empty or mixed.
    let gone = Change::DeleteSlice(ObjectName::new("demo", "db-1"));
    server.update(false, vec![gone, slice("db", new.clone())]);
    server
        .eventually(name, |answer| {
            let addresses = addresses(answer);
            assert!(addresses == old || addresses == new, "{addresses:?}");
            addresses == new
        })
        .await;
    server.stop().await.unwrap();
}

#[tokio::test]
async fn addresses_come_in_changing_order() {
    let mut server = TestServer::start(Vec::new()).await;
    let name = "db.demo.svc.cluster.local.";
    let all: Vec<IpAddr> = (1..=8u8).map(|last| IpAddr::from([10, 244, 1, last])).collect();
    let headless = service_of("db", ServiceKind::Headless);
    server.update(true, vec![Change::PutNamespace("demo".into()), headless, slice("db", all.clone())]);
    let first = server.eventually(name, |answer| addresses(answer) == all).await;
    server.eventually(name, |answer| answer.answers[0] != first.answers[0]).await;
    server.stop().await.unwrap();
}

#[tokio::test]
async fn an_external_name_is_continued_at_the_upstream_server() {
    let upstream = Upstream::start(|query, _| {
        (query.queries[0].name.to_string() == "www.example.com.")
            .then(|| reply(query, 2, 60).to_vec().unwrap())
    })
    .await;
    let mut server = TestServer::start(vec![upstream.address]).await;
    let name = "ext.demo.svc.cluster.local.";
    let kind = ServiceKind::ExternalName("www.example.com".into());
    server.update(true, vec![Change::PutNamespace("demo".into()), service_of("ext", kind)]);
    let answer = server.eventually(name, |answer| !answer.answers.is_empty()).await;
    assert!(
        matches!(&answer.answers[0].data, RData::CNAME(target) if target.0.to_string() == "www.example.com.")
    );
    assert_eq!(addresses(&answer), [ip("192.0.2.1"), ip("192.0.2.2")]);
    assert_eq!(answer.answers[1].name.to_string(), "www.example.com.");
    server.stop().await.unwrap();
}

#[tokio::test]
async fn metrics_and_health_speak_coredns() {
    let mut server = TestServer::start(Vec::new()).await;
    server.update(true, vec![Change::PutNamespace("demo".into()), service("echo", ip("10.96.0.20"))]);
    server.eventually(ECHO, |answer| !answer.answers.is_empty()).await;
    tcp(server.v6, &query("nosuch.demo.svc.cluster.local.", RecordType::SRV)).await;
    let (_, text) = http_get(server.endpoints[0], "/metrics").await;
    for expected in [
        r#"coredns_dns_requests_total{server="dns://:53",zone=".",view="",proto="tcp",family="2",type="SRV"} 1"#,
        r#"coredns_dns_responses_total{server="dns://:53",zone=".",view="",rcode="NXDOMAIN",plugin="kubernetes"} 1"#,
        "coredns_dns_request_duration_seconds_bucket",
        "# TYPE coredns_cache_misses_total counter",
    ] {
        assert!(text.contains(expected), "{expected} in\n{text}");
    }
    let (status, body) = http_get(server.endpoints[1], "/health").await;
    assert!(status.contains("200") && body.contains("OK"));
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_taken_port_and_a_bad_domain_are_named() {
    let server = TestServer::start(Vec::new()).await;
    let start = |config| DnsServer::new(config, futures::stream::pending());
    let taken = Config { listen: vec![server.v4], ..Config::default() };
    let error = start(taken).await.err().expect("the port is taken");
    assert!(matches!(error, DnsError::Bind { address, .. } if address == server.v4), "{error}");
    let domain = Config {
        listen: vec![([127, 0, 0, 1], 0).into()],
        cluster_domain: "a..b".into(),
        ..Config::default()
    };
    let error = start(domain).await.err().expect("no domain");
    assert!(error.to_string().contains("a..b"), "{error}");
    server.stop().await.unwrap();
}
