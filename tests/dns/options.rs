//! Options of plugins, each by what it changes for somebody outside.

use std::{
    collections::BTreeSet,
    io::{Read as _, Write as _},
    net::{TcpStream, UdpSocket},
    time::Duration,
};

use tempfile::TempDir;

use super::{
    plugins::behind,
    support::{CLUSTER, Server, dig, file_in, loaned_address},
    upstream::{Does, GOOD, Upstream},
};

/// A server of `example.org`, whose names all have one address, with a plugin in front.
fn with(plugin: &str) -> Server {
    Server::start(&behind(plugin), "")
}

/// Everything that an HTTP endpoint says.
fn http(port: u16, path: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn what_a_question_and_its_answer_become() {
    let www = "NOERROR aa: www.example.org. A 192.0.2.1";
    let rows: [(&str, &str, &str, &str); 12] = [
        ("rewrite class", "rewrite class CH IN", "www.example.org TXT CH", "NOERROR aa:  | example.org. SOA"),
        ("rewrite cname", "rewrite cname exact other.example.org www.example.org", "www.example.org A", www),
        (
            "rewrite name suffix, answer value",
            "rewrite stop {\n  name suffix .far.example.org .example.org\n  answer auto\n  answer value (.*) {1}\n }",
            "www.far.example.org A",
            "NOERROR aa: www.far.example.org. A 192.0.2.1",
        ),
        ("acl allow before block", "acl {\n  allow net 127.0.0.1 ::1\n  block\n }", "www.example.org A", www),
        ("acl block without a network", "acl {\n  block type A\n }", "www.example.org A", "REFUSED:"),
        (
            "dns64 with a prefix",
            "dns64 2001:db8::/96 {\n  allow_ipv4\n }",
            "www.example.org AAAA",
            "NOERROR: www.example.org. AAAA 2001:db8::c000:201",
        ),
        (
            "dns64 prefix as a line",
            "dns64 {\n  prefix 2001:db8:1::/96\n  allow_ipv4\n  translate_all\n }",
            "www.example.org AAAA",
            "NOERROR: www.example.org. AAAA 2001:db8:1::c000:201",
        ),
        ("loadbalance by name", "loadbalance round_robin", "www.example.org A", www),
        ("debug changes no answer", "debug", "www.example.org A", www),
        ("errors to standard output", "errors stdout", "www.example.org A", www),
        ("errors with a stack trace", "errors {\n  stacktrace\n }", "www.example.org A", www),
        ("log with a class", "log example.org combined {\n  class all\n }", "www.example.org A", www),
    ];
    for (title, plugin, question, expected) in rows {
        with(plugin).check(&[(title, question, expected)]);
    }
}

#[test]
fn how_long_an_answer_may_be_kept() {
    let upstream = Upstream::start(Does::Answers(1, 600));
    let forward = format!("forward . {}", upstream.address);
    let rows: [(&str, String, &str, u32); 8] = [
        ("rewrite ttl", behind("rewrite ttl example.org 9"), "www.example.org A", 60),
        ("rewrite ttl exact", behind("rewrite ttl exact www.example.org 9"), "www.example.org A", 9),
        ("rewrite ttl, open below", behind("rewrite ttl regex .* -30"), "www.example.org A", 30),
        ("rewrite ttl, open above", behind("rewrite ttl regex .* 90-"), "www.example.org A", 90),
        ("cache TTL", format!(".:53 {{\n cache 30\n {forward}\n}}\n"), "www.example.org A", 30),
        (
            "cache success",
            format!(".:53 {{\n cache {{\n  success 1024 40\n }}\n {forward}\n}}\n"),
            "www.example.org A",
            40,
        ),
        (
            "kubernetes ttl",
            ".:53 {\n kubernetes cluster.local {\n  ttl 77\n }\n}\n".into(),
            "echo.demo.svc.cluster.local A",
            77,
        ),
        (
            "hosts ttl",
            ".:53 {\n hosts none {\n  192.0.2.9 own.test\n  ttl 33\n }\n}\n".into(),
            "own.test A",
            33,
        ),
    ];
    for (title, corefile, question, expected) in rows {
        let server = Server::start(&corefile, CLUSTER);
        // The second answer of a cache is what it keeps.
        server.ttl(question);
        let ttl = server.ttl(question);
        assert!((expected - 5..=expected).contains(&ttl), "{title}: want {expected}, got {ttl}");
    }
}

#[test]
fn the_cache_keeps_what_is_in_its_zones_and_denials_as_long_as_they_say() {
    let upstream = Upstream::start(Does::Answers(1, 600));
    let corefile = format!(
        ".:53 {{\n cache 30 example.org {{\n  denial 1024 3600 77\n }}\n forward . {}\n}}\n",
        upstream.address
    );
    let server = Server::start(&corefile, "");
    for (name, asked) in [("www.example.org", 1), ("www.example.net", 3)] {
        for _ in 0..3 {
            server.ask(&format!("{name} A"));
        }
        let before = upstream.asked();
        server.ask(&format!("{name} A"));
        assert_eq!(upstream.asked() - before, usize::from(asked > 1), "{name}");
    }
    upstream.now(Does::Denies);
    server.ask("none.example.org A");
    let text = server.dig_text("+noall +authority none.example.org A");
    let ttl: u32 = text.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!((70..=77).contains(&ttl), "the least time of a denial: {text}");
}

#[test]
fn autopath_by_a_file_and_dns64_for_those_who_ask_over_ipv6() {
    let dir = TempDir::with_prefix("fairlead-dns-").unwrap();
    file_in(&dir, "resolv.conf", "nameserver 192.0.2.1\nsearch a.test b.test\n");
    file_in(&dir, "db", "@ 60 IN SOA ns admin 1 2 3 4 5\nwww.b 60 IN A 192.0.2.1\nv4 60 IN A 192.0.2.4\n");
    let corefile = "test:53 {\n autopath resolv.conf\n dns64\n file db\n}\n";
    let server = Server::start_in(dir, corefile, "");
    server.check(&[
        (
            "found in the second domain",
            "www.a.test A",
            "NOERROR aa: www.a.test. CNAME www.b.test.; www.b.test. A 192.0.2.1",
        ),
        ("found nowhere", "none.a.test A", "NXDOMAIN aa:  | test. SOA"),
    ]);
    let ask = |at: usize| dig(server.addresses[at], false, &["v4.test AAAA"]).concat();
    assert_eq!(ask(0), "NOERROR aa:  | test. SOA", "over IPv4");
    assert_eq!(ask(1), "NOERROR: v4.test. AAAA 64:ff9b::c000:204", "over IPv6");
}

#[test]
fn rewrite_as_a_block_and_with_the_answer_in_one_line() {
    let rule = "rewrite continue {\n  ttl regex (.*)\\.example\\.org 15\n }\n rewrite stop name regex (.*)-(x)\\.q\\.example\\.org {1}.example.org answer name (.*)\\.example\\.org {1}-x.q.example.org";
    let server = with(rule);
    assert_eq!(server.ttl("www.example.org A"), 15);
    server.check(&[(
        "a name and its answer",
        "f-x.q.example.org A",
        "NOERROR aa: f-x.q.example.org. A 192.0.2.1",
    )]);
}

#[test]
fn the_cache_with_keepttl_servfail_and_serve_stale_immediate() {
    let upstream = Upstream::start(Does::Answers(1, 60));
    let corefile = |options: &str| {
        format!(
            ".:53 {{\n cache {{\n  {options}\n }}\n forward . {} {{\n  read_timeout 200ms\n }}\n}}\n",
            upstream.address
        )
    };
    let server = Server::start(&corefile("keepttl"), "");
    server.ttl("www.example.org A");
    // TTLs that run down would show within two seconds.
    let deadline = std::time::Instant::now() + Duration::from_secs(2);
    while std::time::Instant::now() < deadline {
        assert_eq!(server.ttl("www.example.org A"), 60);
    }
    upstream.now(Does::Fails);
    let server = Server::start(&corefile("servfail 0"), "");
    assert_eq!(server.ask("www.example.org A"), "SERVFAIL:");
    upstream.now(Does::Answers(1, 1));
    assert_eq!(server.ask("www.example.org A"), GOOD, "a failure is not kept");
    let server = Server::start(&corefile("success 1024 1 0\n  serve_stale 1h immediate"), "");
    assert_eq!(server.ask("www.example.org A"), GOOD);
    upstream.now(Does::Drops);
    let asked = upstream.asked();
    while upstream.asked() == asked {
        assert_eq!(server.ask("www.example.org A"), GOOD, "fresh or stale");
    }
}

#[test]
fn who_is_asked_and_how() {
    let (one, two) = (Upstream::start(Does::Answers(1, 60)), Upstream::start(Does::Answers(2, 60)));
    let corefile = |options: &str| {
        format!(".:53 {{\n forward . {} {} {{\n  {options}\n }}\n}}\n", one.address, two.address)
    };
    for (policy, both) in [("sequential", false), ("round_robin", true), ("random", true)] {
        let server = Server::start(&corefile(&format!("policy {policy}")), "");
        let before = (one.asked(), two.asked());
        for number in 0..40 {
            server.ask(&format!("{policy}-{number}.example.org A"));
        }
        let asked = (one.asked() - before.0, two.asked() - before.1);
        assert_eq!(asked.0 + asked.1, 40, "{policy}");
        assert_eq!(asked.1 > 0, both, "{policy}: {asked:?}");
        assert!(policy != "round_robin" || asked == (20, 20), "{asked:?}");
    }
    // A server that closes its connections and answers datagrams tells the ways apart.
    let datagrams = Upstream::start(Does::OnlyUdp);
    let alone =
        |options: &str| format!(".:53 {{\n forward . {} {{\n  {options}\n }}\n}}\n", datagrams.address);
    let rows = [
        ("force_tcp", "www.example.org A", "SERVFAIL:"),
        ("prefer_udp", "+tcp www.example.org A", GOOD),
        ("expire 1s\n  max_idle_conns 1\n  max_age 1s", "www.example.org A", GOOD),
        ("source_address 127.0.0.2", "www.example.org A", GOOD),
        ("next_on_nodata", "www.example.org A", GOOD),
    ];
    for (options, question, expected) in rows {
        assert_eq!(Server::start(&alone(options), "").ask(question), expected, "{options}");
    }
}

#[test]
fn an_unhealthy_upstream_with_failfast_and_max_connect_attempts() {
    let dead = Upstream::start(Does::Drops);
    let corefile =
        |options: &str| format!(".:53 {{\n errors\n forward . {} {{\n  {options}\n }}\n}}\n", dead.address);
    let options = "read_timeout 100ms\n  max_fails 1\n  health_check 50ms no_rec domain probe.test\n  failfast_all_unhealthy_upstreams";
    let server = Server::start(&corefile(options), "");
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    loop {
        assert_eq!(server.ask("www.example.org A"), "SERVFAIL:");
        if server.wait_for_log("ERROR").contains("no upstream server is healthy") {
            break;
        }
        assert!(std::time::Instant::now() < deadline);
    }
    dead.now(Does::Answers(1, 60));
    server.eventually("www.example.org A", GOOD);
    dead.now(Does::Drops);
    let server = Server::start(&corefile("read_timeout 100ms\n  max_connect_attempts 1"), "");
    let before = dead.asked();
    assert_eq!(server.ask("www.example.org A"), "SERVFAIL:");
    assert_eq!(dead.asked(), before + 1);
}

#[test]
fn hosts_without_reverse_names_and_kubernetes_that_falls_through() {
    let dir = TempDir::with_prefix("fairlead-dns-").unwrap();
    file_in(&dir, "hosts", "192.0.2.10 a.example.org\n");
    let behind = Upstream::start(Does::Answers(1, 60));
    let corefile = format!(
        ".:53 {{\n hosts hosts {{\n  no_reverse\n  fallthrough\n }}\n kubernetes cluster.local in-addr.arpa {{\n  fallthrough in-addr.arpa\n }}\n \
         forward . {}\n}}\n",
        behind.address
    );
    Server::start_in(dir, &corefile, CLUSTER).check(&[
        ("the name", "a.example.org A", "NOERROR aa: a.example.org. A 192.0.2.10"),
        ("no reverse name", "-x 192.0.2.10", "NOERROR: 10.2.0.192.in-addr.arpa. A 192.0.2.1"),
        ("fallthrough of one zone", "-x 10.96.0.99", "NOERROR: 99.0.96.10.in-addr.arpa. A 192.0.2.1"),
        ("and not of the other", "none.demo.svc.cluster.local A", "NXDOMAIN aa:  | cluster.local. SOA"),
    ]);
}

#[test]
fn loadbalance_by_weight_by_network_and_by_number() {
    let dir = TempDir::with_prefix("fairlead-dns-").unwrap();
    file_in(&dir, "weights", "www.example.org\n192.0.2.1 255\n192.0.2.2 1\n");
    let addresses = "template IN A {\n  answer \"{{ .Name }} 60 IN A 192.0.2.1\"\n  answer \"{{ .Name }} 60 IN A 192.0.2.2\"\n }";
    let weighted = format!(".:53 {{\n loadbalance weighted weights {{\n  reload 1s\n }}\n {addresses}\n}}\n");
    let server = Server::start_in(dir, &weighted, "");
    let first = |server: &Server| server.short("www.example.org A").remove(0);
    let heavy = (0..100).filter(|_| first(&server) == "192.0.2.1").count();
    assert!(heavy > 80, "{heavy} of 100");
    let server = Server::start(
        &format!(".:53 {{\n loadbalance {{\n  prefer 192.0.2.2/32\n }}\n {addresses}\n}}\n"),
        "",
    );
    assert!((0..20).all(|_| first(&server) == "192.0.2.2"));
    let server =
        Server::start(&format!(".:53 {{\n loadbalance {{\n  limit_answers 1\n }}\n {addresses}\n}}\n"), "");
    let given: BTreeSet<Vec<String>> = (0..60).map(|_| server.short("www.example.org A")).collect();
    assert_eq!(given, [["192.0.2.1"], ["192.0.2.2"]].map(|one| one.map(str::to_owned).to_vec()).into());
}

#[test]
fn errors_are_told_together_and_logs_have_formats() {
    let dead = Upstream::start(Does::Drops);
    let corefile = format!(
        ".:53 {{\n errors {{\n  consolidate 1s \".*no answer.*\" warning show_first\n }}\n log . \"asked {{type}} {{name}} {{rcode}} {{>rflags}}\"\n forward . {} {{\n  read_timeout 50ms\n }}\n}}\n",
        dead.address
    );
    let server = Server::start(&corefile, "");
    for name in ["a.test", "b.test", "c.test"] {
        server.ask(&format!("{name} A"));
    }
    assert!(server.wait_for_log("WARN").contains("a.test. A"), "the first one as it is");
    let line = server.wait_for_log("asked A b.test. SERVFAIL");
    assert!(line.contains("qr"), "{line}");
    let line = server.wait_for_log("errors like");
    assert!(line.contains("errors like \".*no answer.*\" occurred in last"), "{line}");
}

#[test]
fn where_it_listens_and_what_it_serves_over_http() {
    let [dns, metrics, health, ready] = [(); 4].map(|()| loaned_address().2.port());
    let corefile = format!(
        ".:{dns} {{\n bind lo {{\n  except ::1\n }}\n prometheus 127.0.0.1:{metrics}\n health 127.0.0.1:{health} {{\n  lameduck 2s\n }}\n \
         ready 127.0.0.1:{ready} {{\n  monitor continuously\n }}\n whoami\n}}\n"
    );
    let mut server = Server::start(&corefile, "");
    assert_eq!(server.addresses, [([127, 0, 0, 1], dns).into()]);
    assert!(http(metrics, "/metrics").contains("coredns_build_info"));
    assert!(http(health, "/health").ends_with("OK"));
    assert!(http(ready, "/ready").ends_with("OK"));
    server.terminate();
    server.wait_for_log("answering a little longer");
    assert!(http(ready, "/ready").contains("503"), "nobody is to be led here any more");
    assert!(http(health, "/health").ends_with("OK"), "and it is alive");
    assert!(server.ask("www.example.org A").starts_with("NOERROR"), "and answers");
    assert!(server.ends());
}

#[test]
fn root_is_where_relative_paths_begin() {
    let dir = TempDir::with_prefix("fairlead-dns-").unwrap();
    std::fs::create_dir(dir.path().join("zones")).unwrap();
    file_in(&dir, "zones/db", "@ 60 IN SOA ns admin 1 2 3 4 5\nwww 60 IN A 192.0.2.1\n");
    let corefile = "example.org:53 {\n root zones\n file db {\n  reload 0\n  upstream\n }\n}\n";
    let rows = [("a file below root", "www.example.org A", "NOERROR aa: www.example.org. A 192.0.2.1")];
    Server::start_in(dir, corefile, "").check(&rows);
}

#[test]
fn a_secondary_server_is_told_of_a_zone_at_the_start_and_when_it_changes() {
    let secondary = UdpSocket::bind("127.0.0.1:0").unwrap();
    secondary.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let zone = |serial: u32| format!("@ 60 IN SOA ns admin {serial} 2 3 4 5\nwww 60 IN A 192.0.2.{serial}\n");
    let dir = TempDir::with_prefix("fairlead-dns-").unwrap();
    file_in(&dir, "db", &zone(1));
    let corefile = format!(
        "example.org:53 {{\n file db {{\n  reload 100ms\n }}\n transfer {{\n  to {}\n }}\n}}\n",
        secondary.local_addr().unwrap()
    );
    let server = Server::start_in(dir, &corefile, "");
    let told = || {
        let mut message = [0; 512];
        let (size, from) = secondary.recv_from(&mut message).unwrap();
        // NOTIFY, authoritative, one question: the zone's SOA.
        assert_eq!(message[2..12], [0x24, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(message[12..size], *b"\x07example\x03org\0\0\x06\0\x01");
        message[2] |= 0x80;
        secondary.send_to(&message[..size], from).unwrap();
    };
    told();
    server.write("db", &zone(2));
    told();
    assert_eq!(server.ask("www.example.org A"), "NOERROR aa: www.example.org. A 192.0.2.2");
    let transfer = server.dig_text("example.org AXFR").lines().map(str::to_owned).collect::<Vec<_>>();
    assert!(transfer.iter().any(|line| line.contains("192.0.2.2")), "it may fetch the zone: {transfer:?}");
}

/// The EDNS options with which an upstream server is asked.
fn options_upstream(rule: &str, question: &str) -> Vec<u8> {
    let upstream = UdpSocket::bind("127.0.0.1:0").unwrap();
    upstream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let corefile = format!(
        ".:53 {{\n rewrite edns0 {rule}\n forward . {} {{\n  max_fails 0\n }}\n}}\n",
        upstream.local_addr().unwrap()
    );
    let server = Server::start(&corefile, "");
    let asked = std::thread::spawn(move || {
        let mut query = [0; 512];
        let (size, from) = upstream.recv_from(&mut query).unwrap();
        let name = query[12..].iter().position(|byte| *byte == 0).unwrap();
        let end = 12 + name + 5;
        let options = query[end + 11..size].to_vec();
        query[2] |= 0x80;
        query[6..12].fill(0);
        upstream.send_to(&query[..end], from).unwrap();
        options
    });
    assert_eq!(server.ask(question), "NOERROR:", "{rule}");
    asked.join().unwrap()
}

#[test]
fn an_upstream_server_sees_the_options_that_rewrite_gives_a_question() {
    let plain = "www.example.org A";
    let with_own = "+ednsopt=65518:00 www.example.org A";
    let own = b"\xff\xee\0\x01\0".as_slice();
    let abcd = b"\xff\xee\0\x04abcd".as_slice();
    let rows: [(&str, &str, &[u8]); 16] = [
        ("local set 0xffee 0x61626364", plain, abcd),
        ("local set 65518 abcd", with_own, abcd),
        ("local append 0xffee abcd", plain, abcd),
        ("local append 0xffee abcd", with_own, own),
        ("local replace 0xffee abcd", plain, b""),
        ("local replace 0xffee abcd", with_own, abcd),
        ("local unset 0xffee", with_own, b""),
        ("local set 0xffee {qname}", plain, b"\xff\xee\0\x10www.example.org."),
        ("local set 0xffee {qtype}", plain, b"\xff\xee\0\x02\0\x01"),
        ("local set 0xffee {protocol}", plain, b"\xff\xee\0\x03udp"),
        ("local set 0xffee {client_ip}", plain, b"\xff\xee\0\x04\x7f\0\0\x01"),
        ("local set 0xffee {server_ip}", plain, b"\xff\xee\0\x04\x7f\0\0\x01"),
        ("nsid set", plain, b"\0\x03\0\0"),
        ("nsid unset", "+nsid www.example.org A", b""),
        ("subnet set 9 56", plain, b"\0\x08\0\x06\0\x01\x09\0\x7f\0"),
        ("subnet unset", "+subnet=192.0.2.0/24 www.example.org A", b""),
    ];
    for (rule, question, expected) in rows {
        assert_eq!(options_upstream(rule, question), expected, "{rule} {question}");
    }
}
