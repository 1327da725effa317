//! Each plugin by what a client sees of it.

use super::support::{CLUSTER, Server, dig, fairlead, file_in};

/// An answer for every name below `example.org`, from behind the plugin under test.
const BEHIND: &str = "template IN A {
        match ^(?P<host>[a-z0-9-]+)[.]example[.]org[.]$
        answer \"{{ .Name }} 60 IN A 192.0.2.1\"
        fallthrough
    }
    template ANY ANY {
        match ^[a-z0-9-]+[.]example[.]org[.]$
        authority \"example.org. 60 IN SOA ns.example.org. admin.example.org. 1 2 3 4 5\"
        fallthrough
    }
    template ANY ANY {
        rcode NXDOMAIN
        authority \"example.org. 60 IN SOA ns.example.org. admin.example.org. 1 2 3 4 5\"
    }";

/// A server block of `example.org` with a plugin in front.
pub(crate) fn behind(plugin: &str) -> String {
    format!("example.org:53 {{\n    {plugin}\n    {BEHIND}\n}}\n")
}

#[test]
fn whoami_any_local_and_chaos() {
    let server =
        Server::start(".:53 {\n whoami\n any\n local\n chaos Fairlead-test \"Ada\" \"Grace\"\n}\n", "");
    server.check(&[
        (
            "any: every type is one small record",
            "+tcp www.example.org ANY",
            "NOERROR aa: www.example.org. HINFO \"ANY obsoleted\" \"See RFC 8482\"",
        ),
        ("local: localhost", "localhost A", "NOERROR aa: localhost. A 127.0.0.1"),
        ("local: IPv6", "localhost AAAA", "NOERROR aa: localhost. AAAA ::1"),
        (
            "local: below localhost",
            "localhost.example.org A",
            "NOERROR aa: localhost.example.org. A 127.0.0.1",
        ),
        ("local: the loopback address", "-x 127.0.0.1", "NOERROR aa: 1.0.0.127.in-addr.arpa. PTR localhost."),
        ("local: denied", "-x 127.0.0.9", "NOERROR aa:  | 127.in-addr.arpa. SOA"),
        ("chaos: the version", "version.bind TXT CH", "NOERROR: version.bind. TXT \"Fairlead-test\""),
        (
            "chaos: the authors",
            "authors.bind TXT CH",
            "NOERROR: authors.bind. TXT \"Ada\"; authors.bind. TXT \"Grace\"",
        ),
        (
            "chaos: the version by its other name",
            "version.server TXT CH",
            "NOERROR: version.server. TXT \"Fairlead-test\"",
        ),
        ("local: the name server", "127.in-addr.arpa NS", "NOERROR aa: 127.in-addr.arpa. NS localhost."),
        ("local: the other type", "localhost TXT", "NOERROR aa:  | localhost. SOA"),
    ]);
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    for name in ["hostname.bind", "id.server"] {
        let expected = format!("NOERROR: {name}. TXT \"{}\"", host.trim());
        server.check(&[("chaos: the host", &format!("{name} TXT CH"), &expected)]);
    }
    let answer = server.ask("www.example.org A");
    assert!(answer.contains("www.example.org. A 127.0.0.1"), "{answer}");
    assert!(answer.contains("_udp.www.example.org. SRV 0 0"), "{answer}");
}

#[test]
fn template() {
    let corefile = "example.org:53 {
    template IN A {
        match ^ip-(?P<a>[0-9]+)-(?P<b>[0-9]+)-([0-9]+)-([0-9]+)[.]example[.]org[.]$
        answer \"{{ .Name }} 60 IN A {{ .Group.a }}.{{ .Group.b }}.{{ index .Match 3 }}.{{ index .Match 4 }}\"
        additional \"{{ .Zone }} 60 IN TXT {{ .Type }}-{{ .Class }}\"
        fallthrough
    }
    template IN AAAA {
        rcode NOERROR
        authority \"example.org. 60 IN SOA ns.example.org. admin.example.org. 1 2 3 4 5\"
    }
    template IN A {
        match ^blocked[.]
        rcode REFUSED
    }
}
";
    Server::start(corefile, "").check(&[
        (
            "groups by name and by number",
            "ip-10-1-2-3.example.org A",
            "NOERROR aa: ip-10-1-2-3.example.org. A 10.1.2.3 |  | example.org. TXT \"A-IN\"",
        ),
        ("no answer but an SOA", "www.example.org AAAA", "NOERROR aa:  | example.org. SOA"),
        ("a response code", "blocked.example.org A", "REFUSED aa:"),
        ("no match, no fallthrough", "other.example.org A", "SERVFAIL:"),
        ("another type goes on to nobody", "www.example.org TXT", "REFUSED:"),
    ]);
}

#[test]
fn template_with_an_alias_and_with_an_extended_error() {
    let corefile = ".:53 {
    template IN ANY alias.test {
        answer \"{{ .Name }} 60 IN CNAME real.test\"
    }
    template IN A real.test {
        answer \"{{ .Name }} 60 IN A 192.0.2.7\"
    }
    template ANY ANY blocked.test {
        rcode NXDOMAIN
        ederror 15 \"by policy\"
    }
}
";
    let server = Server::start(corefile, "");
    let alias = "alias.test. CNAME real.test.";
    server.check(&[
        ("its end", "alias.test A", &format!("NOERROR aa: {alias}; real.test. A 192.0.2.7")),
        ("an end without such records", "alias.test AAAA", &format!("NOERROR aa: {alias}")),
        ("another type", "alias.test TXT", &format!("NOERROR aa: {alias}")),
    ]);
    let text = server.dig_text("blocked.test A");
    assert!(text.contains("status: NXDOMAIN") && text.contains("EDE: 15 (Blocked): (by policy)"), "{text}");
}

#[test]
fn rewrite() {
    let rows: &[(&str, &str, &str, &str)] = &[
        (
            "name exact",
            "rewrite name old.example.org new.example.org",
            "old.example.org A",
            "NOERROR aa: old.example.org. A 192.0.2.1",
        ),
        (
            "name prefix, turned back",
            "rewrite stop {\n  name prefix x- y-\n  answer auto\n }",
            "x-1.example.org A",
            "NOERROR aa: x-1.example.org. A 192.0.2.1",
        ),
        (
            "name suffix, turned back",
            "rewrite stop name suffix .inner.example.org .example.org answer auto",
            "a.inner.example.org A",
            "NOERROR aa: a.inner.example.org. A 192.0.2.1",
        ),
        (
            "name substring, not turned back",
            "rewrite name substring foo bar",
            "foo1.example.org A",
            "NOERROR aa: bar1.example.org. A 192.0.2.1",
        ),
        (
            "name regex, with groups, turned back by a pattern",
            "rewrite stop {\n  name regex (.*)-(.*)\\.far\\.example\\.org {1}.example.org\n  answer name (.*)\\.example\\.org {1}-z.far.example.org\n }",
            "db-east.far.example.org A",
            "NOERROR aa: db-z.far.example.org. A 192.0.2.1",
        ),
        ("type", "rewrite type TXT A", "www.example.org TXT", "NOERROR aa: www.example.org. A 192.0.2.1"),
        (
            "continue goes on to the next rule",
            "rewrite continue name a.example.org b.example.org\n rewrite type TXT A",
            "a.example.org TXT",
            "NOERROR aa: a.example.org. A 192.0.2.1",
        ),
        (
            "stop does not",
            "rewrite stop name a.example.org b.c.example.org\n rewrite type TXT A",
            "a.example.org TXT",
            "NXDOMAIN aa:  | example.org. SOA",
        ),
        (
            "rcode",
            "rewrite rcode exact no.no.example.org NXDOMAIN NOERROR",
            "no.no.example.org A",
            "NOERROR aa:  | example.org. SOA",
        ),
    ];
    for (title, rule, question, expected) in rows {
        Server::start(&behind(rule), "").check(&[(title, question, expected)]);
    }
    let server = Server::start(&behind("rewrite ttl suffix .example.org 5-7"), "");
    assert_eq!(server.ttl("www.example.org A"), 7);
}

#[test]
fn acl() {
    let rules = "acl {
        block type TXT net *
        filter type AAAA net 127.0.0.0/8 ::1
        block net 192.0.2.0/24
        allow type A net 127.0.0.1
        drop net 2001:db8::/32
    }";
    let server = Server::start(&behind(rules), "");
    server.check(&[
        ("block", "www.example.org TXT", "REFUSED:"),
        ("filter", "www.example.org AAAA", "NOERROR:"),
        ("allow", "www.example.org A", "NOERROR aa: www.example.org. A 192.0.2.1"),
    ]);
    let server = Server::start(&behind("acl {\n  drop net 127.0.0.1\n }"), "");
    let answers = dig(server.addresses[0], false, &["+time=1 www.example.org A"]);
    assert!(answers.is_empty(), "{answers:?}");
    assert_eq!(dig(server.addresses[1], false, &["www.example.org A"]).len(), 1);
}

#[test]
fn dns64() {
    let both = "dns64 {\n  allow_ipv4\n }";
    Server::start(&behind(both), "").check(&[
        ("made of A", "www.example.org AAAA", "NOERROR: www.example.org. AAAA 64:ff9b::c000:201"),
        ("A stays", "www.example.org A", "NOERROR aa: www.example.org. A 192.0.2.1"),
        ("a denial stays", "no.no.example.org AAAA", "NXDOMAIN aa:  | example.org. SOA"),
    ]);
}

#[test]
fn hosts() {
    let dir = tempfile::TempDir::with_prefix("fairlead-dns-").unwrap();
    file_in(
        &dir,
        "hosts",
        "192.0.2.10 a.example.org A-alias.example.org # comment\n2001:db8::10 a.example.org\n",
    );
    let corefile = "example.org:53 {\n hosts hosts example.org {\n  192.0.2.20 inline.example.org\n  ttl 30\n  reload 100ms\n  fallthrough fall.example.org\n }\n whoami\n}\narpa:53 {\n hosts hosts\n}\n";
    let server = Server::start_in(dir, corefile, "");
    server.check(&[
        ("A", "a.example.org A", "NOERROR aa: a.example.org. A 192.0.2.10"),
        ("AAAA", "a.example.org AAAA", "NOERROR aa: a.example.org. AAAA 2001:db8::10"),
        ("an alias, in any case", "a-ALIAS.example.org A", "NOERROR aa: a-ALIAS.example.org. A 192.0.2.10"),
        ("inline", "inline.example.org A", "NOERROR aa: inline.example.org. A 192.0.2.20"),
        ("another type", "a.example.org TXT", "NOERROR aa:"),
        ("a missing name is a failure: there is no SOA", "none.example.org A", "SERVFAIL:"),
        (
            "PTR",
            "-x 192.0.2.10",
            "NOERROR aa: 10.2.0.192.in-addr.arpa. PTR A-alias.example.org.; 10.2.0.192.in-addr.arpa. PTR a.example.org.",
        ),
    ]);
    let answer = server.ask("x.fall.example.org A");
    assert!(answer.contains("_udp.x.fall.example.org. SRV"), "it fell through: {answer}");
    server.write("hosts", "192.0.2.11 a.example.org\n");
    server.eventually("a.example.org A", "NOERROR aa: a.example.org. A 192.0.2.11");
}

#[test]
fn hosts_with_wildcards_that_leave_other_types_to_another_plugin() {
    let dir = tempfile::TempDir::with_prefix("fairlead-dns-").unwrap();
    file_in(&dir, "db", "@ 60 IN SOA ns admin 1 2 3 4 5\n* 60 IN TXT behind\n");
    let corefile = "example.org:53 {
    hosts none {
        192.0.2.30 a.example.org *.wild.example.org
        fallthrough
        fallthrough_unsupported
    }
    file db
}
";
    let behind = |name: &str| format!("NOERROR aa: {name}. TXT \"behind\"");
    Server::start_in(dir, corefile, "").check(&[
        ("an address", "a.example.org A", "NOERROR aa: a.example.org. A 192.0.2.30"),
        ("no address of the other kind", "a.example.org AAAA", "NOERROR aa:"),
        ("another type", "a.example.org TXT", &behind("a.example.org")),
        ("a wildcard", "b.wild.example.org A", "NOERROR aa: b.wild.example.org. A 192.0.2.30"),
        ("a wildcard is one label", "c.b.wild.example.org TXT", &behind("c.b.wild.example.org")),
        ("and not none", "wild.example.org TXT", &behind("wild.example.org")),
    ]);
}

#[test]
fn file() {
    let zone = "$TTL 300\n@ IN SOA ns1 admin 7 7200 1800 86400 60\n@ IN NS ns1\n@ IN MX 10 mail\nns1 IN A 192.0.2.53\nmail IN A 192.0.2.25\nwww IN CNAME web\nweb IN A 192.0.2.80\n*.wild IN A 192.0.2.99\nout IN CNAME www.example.net.\nold IN DNAME new\nx.new IN A 192.0.2.7\nsub IN NS ns.sub\nns.sub IN A 192.0.2.54\n";
    let dir = tempfile::TempDir::with_prefix("fairlead-dns-").unwrap();
    file_in(&dir, "db.example.org", zone);
    let corefile = "example.org:53 {\n file db.example.org {\n  reload 100ms\n }\n transfer {\n  to *\n }\n}\nexample.net:53 {\n template IN A {\n  answer \"{{ .Name }} 60 IN A 192.0.2.200\"\n }\n}\n";
    let server = Server::start_in(dir, corefile, "");
    server.check(&[
        ("a record", "web.example.org A", "NOERROR aa: web.example.org. A 192.0.2.80"),
        (
            "an alias inside",
            "www.example.org A",
            "NOERROR aa: web.example.org. A 192.0.2.80; www.example.org. CNAME web.example.org.",
        ),
        (
            "an alias outside",
            "out.example.org A",
            "NOERROR aa: out.example.org. CNAME www.example.net.; www.example.net. A 192.0.2.200",
        ),
        ("a wildcard", "a.b.wild.example.org A", "NOERROR aa: a.b.wild.example.org. A 192.0.2.99"),
        ("nothing", "none.example.org A", "NXDOMAIN aa:  | example.org. SOA"),
        ("no such type", "web.example.org TXT", "NOERROR aa:  | example.org. SOA"),
        (
            "additional addresses",
            "example.org MX",
            "NOERROR aa: example.org. MX 10 mail.example.org. |  | mail.example.org. A 192.0.2.25",
        ),
        (
            "a referral",
            "host.sub.example.org A",
            "NOERROR:  | sub.example.org. NS ns.sub.example.org. | ns.sub.example.org. A 192.0.2.54",
        ),
        (
            "DNAME",
            "x.old.example.org A",
            "NOERROR aa: old.example.org. DNAME new.example.org.; x.new.example.org. A 192.0.2.7; \
             x.old.example.org. CNAME x.new.example.org.",
        ),
    ]);
    server.write("db.example.org", &zone.replace("admin 7", "admin 8").replace("192.0.2.80", "192.0.2.81"));
    server.eventually("web.example.org A", "NOERROR aa: web.example.org. A 192.0.2.81");
}

#[test]
fn autopath() {
    let dir = tempfile::TempDir::with_prefix("fairlead-dns-").unwrap();
    file_in(&dir, "db", "@ 60 IN SOA ns admin 1 2 3 4 5\nwww 60 IN A 192.0.2.1\n");
    let corefile = ".:53 {
    autopath @kubernetes
    kubernetes cluster.local {
        pods verified
    }
    file db example.org
}
";
    // The client's address is a pod's in the namespace demo.
    let server = Server::start_in(dir, corefile, CLUSTER);
    server.check(&[
        (
            "found in a later domain, behind an alias",
            "www.example.org.demo.svc.cluster.local A",
            "NOERROR aa: www.example.org. A 192.0.2.1; \
             www.example.org.demo.svc.cluster.local. CNAME www.example.org.",
        ),
        (
            "found in the first one, without",
            "echo.demo.svc.cluster.local A",
            "NOERROR aa: echo.demo.svc.cluster.local. A 10.96.0.20",
        ),
        (
            "found nowhere: the first denial",
            "www.example.com.demo.svc.cluster.local A",
            "NXDOMAIN aa:  | cluster.local. SOA",
        ),
    ]);
}

#[test]
fn bufsize_and_loadbalance() {
    let answers: String =
        (0..60).map(|last| format!("        answer \"{{{{ .Name }}}} 60 IN A 192.0.2.{last}\"\n")).collect();
    let corefile =
        |plugin: &str| format!(".:53 {{\n    {plugin}\n    template IN A {{\n{answers}    }}\n}}\n");
    let truncated = |server: &Server, question: &str| {
        // dig asks again over TCP unless told not to.
        server.ask(&format!("+ignore {question}")).starts_with("NOERROR aa tc")
    };
    let server = Server::start(&corefile("bufsize 600"), "");
    assert!(truncated(&server, "+bufsize=4096 www.example.org A"), "60 records are more than 600 bytes");
    let server = Server::start(&corefile("bufsize 4096\n loadbalance"), "");
    assert!(!truncated(&server, "+bufsize=4096 www.example.org A"));
    assert!(truncated(&server, "+bufsize=512 www.example.org A"), "what the client takes counts, too");
    assert!(truncated(&server, "+noedns www.example.org A"), "without EDNS it is 512 bytes");
    assert!(server.ask("+tcp +noedns www.example.org A").matches("192.0.2.").count() == 60);
    let first = || server.short("+tcp www.example.org A").remove(0);
    let one = first();
    assert!((0..20).any(|_| first() != one), "another address comes first");
}

#[test]
fn the_longest_zone_answers_and_networks_are_reverse_zones() {
    let block = |zone: &str, last: u8| {
        format!(
            "{zone}:53 {{\n template ANY ANY {{\n  answer \"{{{{ .Name }}}} 60 IN A 192.0.2.{last}\"\n }}\n}}\n"
        )
    };
    let corefile =
        [block(".", 1), block("example.org", 2), block("a.example.org", 3), block("10.1.0.0/23", 4)];
    Server::start(&corefile.concat(), "").check(&[
        ("the root", "example.net A", "NOERROR aa: example.net. A 192.0.2.1"),
        ("a zone", "b.example.org A", "NOERROR aa: b.example.org. A 192.0.2.2"),
        ("a longer one", "x.A.example.org A", "NOERROR aa: x.a.example.org. A 192.0.2.3"),
        ("no suffix that ends inside a label", "aa.example.org A", "NOERROR aa: aa.example.org. A 192.0.2.2"),
        ("a network", "7.1.1.10.in-addr.arpa A", "NOERROR aa: 7.1.1.10.in-addr.arpa. A 192.0.2.4"),
        ("beside it", "7.2.1.10.in-addr.arpa A", "NOERROR aa: 7.2.1.10.in-addr.arpa. A 192.0.2.1"),
    ]);
}

#[test]
fn a_corefile_is_taken_over_live_and_a_bad_one_is_not() {
    let corefile = |last: u8| {
        format!(
            ".:53 {{\n reload 2s 1s\n template IN A {{\n  answer \"{{{{ .Name }}}} 60 IN A 192.0.2.{last}\"\n }}\n}}\n"
        )
    };
    let server = Server::start(&corefile(1), "");
    assert_eq!(server.ask("www.example.org A"), "NOERROR aa: www.example.org. A 192.0.2.1");
    server.write("Corefile", &corefile(2));
    server.eventually("www.example.org A", "NOERROR aa: www.example.org. A 192.0.2.2");
    server.write("Corefile", &corefile(3).replace("template", "tempalte"));
    let line = server.wait_for_log("the old one stays");
    assert!(line.contains("did you mean template"), "{line}");
    assert_eq!(server.ask("www.example.org A"), "NOERROR aa: www.example.org. A 192.0.2.2");
    server.write("Corefile", &corefile(4));
    server.eventually("www.example.org A", "NOERROR aa: www.example.org. A 192.0.2.4");
}

#[test]
fn log_writes_a_line_as_coredns_does_and_only_for_its_class() {
    let server = Server::start(&behind("log . {\n  class denial\n }"), "");
    server.ask("www.example.org A");
    server.ask("no.no.example.org A");
    let line = server.wait_for_log("IN no.no.example.org. udp");
    assert!(!line.contains("\"0\""), "{line}");
    assert!(line.contains("\"A IN no.no.example.org. udp") && line.contains("NXDOMAIN qr,aa,rd"), "{line}");
}

#[test]
fn log_in_the_combined_format_and_of_what_takes_long() {
    let server = Server::start(&behind("log . {combined} {\n  class error\n  minDuration 0s\n }"), "");
    server.ask("www.example.org A");
    let line = server.wait_for_log("IN www.example.org. udp");
    assert!(line.ends_with("s \"0\""), "{line}");
    let server = Server::start(
        &behind("log example.org example.net \"{name} {/label}\" {\n  minDuration 1h\n  class denial\n }"),
        "",
    );
    server.ask("www.example.org A");
    server.ask("no.no.example.org A");
    assert!(server.wait_for_log("log: ").ends_with("log: no.no.example.org. -"));
}

#[test]
fn a_zone_goes_to_networks_that_may_have_it() {
    let dir = tempfile::TempDir::with_prefix("fairlead-dns-").unwrap();
    file_in(&dir, "db", "@ 60 IN SOA ns admin 7 2 3 4 5\nwww 60 IN A 192.0.2.1\n");
    let corefile = "example.org:53 {\n file db\n transfer {\n  to 127.0.0.0/8\n }\n}\n";
    let server = Server::start_in(dir, corefile, "");
    let [v4, v6] = [0, 1].map(|at| dig(server.addresses[at], true, &["example.org AXFR"]).concat());
    assert!(v4.starts_with("NOERROR") && v4.contains("www.example.org. A 192.0.2.1"), "{v4}");
    assert_eq!(v6, "REFUSED:");
}

#[test]
fn query_shows_the_answer_and_what_each_plugin_did() {
    let server = Server::start(&behind("cache\n rewrite name old.example.org new.example.org"), "");
    let at = server.addresses[0].to_string();
    let output = fairlead(&["dns", "query", "old.example.org", "--server", &at, "--trace"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}");
    for expected in [
        "rewrite ← old.example.org. A",
        "cache ← new.example.org. A",
        "template → answers NOERROR",
        "192.0.2.1",
    ] {
        assert!(text.contains(expected), "{expected} in\n{text}");
    }
    let output = fairlead(&["dns", "query", "old.example.org", "NONE", "--server", &at]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("\"NONE\" is not a record type"));
}
