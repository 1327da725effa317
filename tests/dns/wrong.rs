//! What is wrong with a Corefile is one sentence with file, line and directive.

use std::net::SocketAddr;

use super::support::{Server, loaned_address, refuses};

#[test]
fn a_bad_corefile_is_named_by_file_line_and_directive() {
    let rows = [
        (
            ".:53 {\n cahce\n}",
            "Corefile:2: cahce: unknown directive, did you mean cache?; known are root, tls",
        ),
        (".:53 {\n cache x y z\n", "Corefile:1: the block has no closing }"),
        (".:53 {\n cache {\n  prefetch lots\n }\n}", "Corefile:3: cache: \"lots\" is not a number of hits"),
        (".:53 {\n forward .\n}", "Corefile:2: forward: needs a server to ask"),
        (
            ".:53 {\n forward . nowhere\n}",
            "Corefile:2: forward: \"nowhere\" is neither an IP address nor a file like /etc/resolv.conf; names of hosts are not looked up",
        ),
        (
            ".:53 {\n forward . tls://dns.example\n}",
            "Corefile:2: forward: \"tls://dns.example\" is neither an IP address nor a file",
        ),
        (
            ".:53 {\n forward . https://192.0.2.1/dns-query\n}",
            "Corefile:2: forward: \"https://192.0.2.1/dns-query\": https is not supported; use dns:// or tls://",
        ),
        (".:53 {\n forward . 192.0.2.1:0\n}", "Corefile:2: forward: \"192.0.2.1:0\": 0 is not a port"),
        (
            ".:53 {\n forward . /dev/null\n}",
            "Corefile:2: forward: /dev/null has no nameserver with an address",
        ),
        (
            ".:53 {\n hosts none {\n  fallthrough_unsupported\n }\n}",
            "Corefile:3: hosts: fallthrough_unsupported needs fallthrough",
        ),
        (
            ".:53 {\n transfer {\n  to 10.0.0.0/40\n }\n}",
            "Corefile:3: transfer: \"10.0.0.0/40\" is neither an address nor a network nor *",
        ),
        (".:53 {\n log \"a\n}", "Corefile:2: the quote that begins here has no end"),
        (".:99999 {\n whoami\n}", "Corefile:1: \".:99999\": \"99999\" is not a port"),
        ("a.test {{{\n", "Corefile:1: \"{{{\" is not a zone: a brace stands by itself"),
        ("a..b:53 {\n whoami\n}", "Corefile:1: \"a..b\" is not a zone: a label is empty"),
        ("{$NOT_SET} {\n whoami\n}", "Corefile:1: expected a zone before {"),
        (".:53 {\n whoami {\n  x\n }\n}", "Corefile:3: whoami: takes no block"),
        (
            "(a) {\n import a\n}\n.:53 {\n import a\n}",
            "Corefile:2: import: more than 1000 imports; does \"a\" import itself?",
        ),
        (
            ".:53 {\n forward . /nonexistent/resolv.conf\n}",
            "Corefile:2: forward: cannot read /nonexistent/resolv.conf",
        ),
        (".:53 {\n file none.zone example.org\n}", "Corefile:2: file: cannot read none.zone"),
        (".:53 {\n import none\n}", "Corefile:2: import: cannot read none"),
        (".:53 {\n kubernetes cluster.local\n}", "Corefile:2: kubernetes: there is no cluster here"),
        (".:53 {\n whoami\n}\n.:53 {\n whoami\n}", "Corefile:4: the zone . is served on 127.0.0.1:0 twice"),
        (
            "a.test:1053 {\n bind 127.0.0.1\n whoami\n}\nb.test:1053 {\n bind 0.0.0.0\n whoami\n}",
            "Corefile:5: dns://0.0.0.0:1053 cannot be served beside dns://127.0.0.1:1053 of another server block: they share a port",
        ),
        ("tls://.:853 {\n whoami\n}", "Corefile:1: tls://.:853 needs a certificate"),
        (".:53 {\n tls none.pem none.key\n}", "Corefile:2: tls: cannot read certificates from none.pem"),
        (
            ".:53 {\n template IN A {\n  answer \"{{ if .Name }}\"\n }\n}",
            "Corefile:3: template: {{ if .Name }} is not supported",
        ),
        (".:53 {\n acl {\n  permit net *\n }\n}", "Corefile:3: acl: unknown property \"permit\""),
        (".:53 {\n bind 192.0.2.1\n whoami\n}", "cannot listen on 192.0.2.1:53"),
        (
            ".:53 {\n bind nosuch0\n whoami\n}",
            "Corefile:1: bind: \"nosuch0\" is neither an address nor an interface",
        ),
        ("", "Corefile:1: there is no server block"),
    ];
    for (corefile, expected) in rows {
        let said = refuses(corefile);
        assert!(said.contains(expected), "want {expected}\ngot  {said}\n\n{corefile}");
        assert_eq!(said.lines().filter(|line| line.starts_with("error:")).count(), 1, "{said}");
    }
}

#[test]
fn a_port_that_is_taken_is_named_with_its_purpose() {
    let (tcp, udp, address) = loaned_address();
    let taken = address.port();
    let metrics = |name: &str| format!(".:53 {{\n whoami\n {name} {address}\n}}");
    let rows: [(String, &str); 4] = [
        (format!(".:{taken} {{\n bind 127.0.0.1\n whoami\n}}"), "(TCP) for DNS"),
        (metrics("prometheus"), "(TCP) for metrics"),
        (metrics("health"), "(TCP) for health"),
        (metrics("ready"), "(TCP) for readiness"),
    ];
    let said = |corefile: &str, purpose: &str| {
        let said = refuses(corefile);
        let expected = format!("error: cannot listen on {address} {purpose}: Address already in use");
        assert!(said.starts_with(&expected), "want {expected}\ngot  {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    };
    rows.iter().for_each(|(corefile, purpose)| said(corefile, purpose));
    drop(tcp);
    said(&rows[0].0, "(UDP) for DNS");
    drop(udp);
}

#[test]
fn a_server_that_is_its_own_upstream_says_so_and_ends() {
    let SocketAddr::V4(own) = loaned_address().2 else { unreachable!("it is asked for on IPv4") };
    let corefile =
        format!(".:{} {{\n bind 127.0.0.1\n errors\n loop\n cache\n forward . {own}\n}}\n", own.port());
    // Each run ends while questions go round.
    for _ in 0..10 {
        let mut server = Server::start(&corefile, "");
        assert!(!server.ends());
        let said = server.rest_of_log();
        let errors: Vec<&str> = said.lines().filter(|line| line.starts_with("error: ")).collect();
        let [error] = errors[..] else { panic!("one sentence: {said}") };
        assert!(error.starts_with("error: Loop (127.0.0.1:"), "{error}");
        assert!(error.contains(&format!("-> {own}) detected for zone \".\"")), "{error}");
        assert!(!said.contains("panicked"), "{said}");
    }
}
