//! What is wrong with a Corefile is one sentence with file, line and directive.

use super::support::refuses;

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
            "Corefile:2: forward: \"nowhere\" is neither an IP address nor a file",
        ),
        (
            ".:53 {\n forward . /nonexistent/resolv.conf\n}",
            "Corefile:2: forward: cannot read /nonexistent/resolv.conf",
        ),
        (".:53 {\n file none.zone example.org\n}", "Corefile:2: file: cannot read none.zone"),
        (".:53 {\n import none\n}", "Corefile:2: import: cannot read none"),
        (".:53 {\n kubernetes cluster.local\n}", "Corefile:2: kubernetes: there is no cluster here"),
        (".:53 {\n whoami\n}\n.:53 {\n whoami\n}", "Corefile:4: the zone . is served on 127.0.0.1:0 twice"),
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
