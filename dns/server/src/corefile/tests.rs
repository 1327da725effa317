//! Texts in, blocks or sentences out.

use std::{io, path::Path};

use super::{parser::Surroundings, *};

fn read(text: &str) -> Result<Vec<Block>, CorefileError> {
    let files = |path: &Path| match path.to_str() {
        Some("/etc/dns/more") => Ok("log\nerrors".to_owned()),
        Some("/etc/dns/loop") => Ok("import loop".to_owned()),
        _ => Err(io::Error::from(io::ErrorKind::NotFound)),
    };
    let variable = |name: &str| (name == "PORT").then(|| "5353".to_owned());
    parse("/etc/dns/Corefile", text, &Surroundings { read: &files, variable: &variable })
}

/// Blocks as text: `keys { name(args)[lines] … }`.
fn shown(text: &str) -> String {
    let words = |tokens: &[Token]| tokens.iter().map(|t| t.text.as_str()).collect::<Vec<_>>().join(" ");
    let directive = |d: &Directive| {
        let lines: Vec<String> = d.body.iter().map(|line| words(line)).collect();
        format!("{}({})[{}]", d.name.text, words(&d.args), lines.join("; "))
    };
    let block = |b: &Block| {
        let directives: Vec<String> = b.directives.iter().map(directive).collect();
        format!("{} {{ {} }}", words(&b.keys), directives.join(" "))
    };
    read(text).unwrap().iter().map(block).collect::<Vec<_>>().join(" ")
}

#[test]
fn blocks_directives_snippets_imports_and_variables() {
    let rows = [
        (". {\n log\n}", ". { log()[] }"),
        (
            ".:53 {\n cache 30 {\n  success 10 20\n\n  denial 5\n }\n log\n}",
            ".:53 { cache(30)[success 10 20; denial 5] log()[] }",
        ),
        ("a.org, b.org,\nc.org {\n whoami }\n", "ERR"),
        ("a.org, b.org,\nc.org {\n whoami\n}\n", "a.org b.org c.org { whoami()[] }"),
        ("a.org\nwhoami\nlog", "a.org { whoami()[] log()[] }"),
        (
            "(s) {\n cache 5 {\n  prefetch 1\n }\n}\n. {\n import s\n log\n}",
            ". { cache(5)[prefetch 1] log()[] }",
        ),
        (". {\n import more\n}", ". { log()[] errors()[] }"),
        (".:{$PORT} {\n bind {%PORT%} x{$NONE}y\n}", ".:5353 { bind(5353 xy)[] }"),
        (". { # comment\n hosts {\n  10.0.0.1 \"a b\" # not\n }\n}", ". { hosts()[10.0.0.1 a b] }"),
        (
            ". {\n template IN A {\n  answer \"{{ .Name }} 60 IN A \\\"x\\\"\"\n }\n}",
            ". { template(IN A)[answer {{ .Name }} 60 IN A \"x\"] }",
        ),
        (
            ". {\n rewrite stop {\n  name regex (.*) a\n  answer name b c\n }\n}",
            ". { rewrite(stop)[name regex (.*) a; answer name b c] }",
        ),
        (". {\n}\nb.org {\n}\n", ". {  } b.org {  }"),
        ("", ""),
    ];
    for (text, expected) in rows {
        if expected == "ERR" {
            assert!(read(text).is_err(), "{text}");
        } else {
            assert_eq!(shown(text), expected, "{text}");
        }
    }
}

#[test]
fn what_is_wrong_is_one_sentence_with_its_place() {
    let rows = [
        (". {\n log", "/etc/dns/Corefile:1: the block has no closing }"),
        (". {\n cache {\n  success 1\n", "/etc/dns/Corefile:2: cache: the block has no closing }"),
        (". {\n import none\n}", "/etc/dns/Corefile:2: import: cannot read /etc/dns/none: entity not found"),
        (
            ". {\n import loop\n}",
            "/etc/dns/loop:1: import: more than 1000 imports; does \"loop\" import itself?",
        ),
        ("(s) {\n}\n(s) {\n}", "/etc/dns/Corefile:3: the snippet \"s\" is defined twice"),
        (". {\n import a b\n}", "/etc/dns/Corefile:2: import: takes one snippet, file or pattern of files"),
        (". {\n log \"a\nb\n}", "/etc/dns/Corefile:2: the quote that begins here has no end"),
        ("a, {\n}", "/etc/dns/Corefile:1: expected a zone before {; is there a comma too many?"),
    ];
    for (text, expected) in rows {
        assert_eq!(read(text).unwrap_err().to_string(), expected, "{text}");
    }
}

#[test]
fn keys_have_a_scheme_zones_and_a_port() {
    let rows = [
        (".", "dns [.] 53"),
        ("example.org:1053", "dns [example.org.] 1053"),
        ("dns://.:53", "dns [.] 53"),
        ("tls://example.org", "tls [example.org.] 853"),
        ("https://.", "https [.] 443"),
        ("quic://.:8853", "quic [.] 8853"),
        (":1053", "dns [.] 1053"),
        ("10.0.0.0/24:5300", "dns [0.0.10.in-addr.arpa.] 5300"),
        ("10.0.0.0/23", "dns [0.0.10.in-addr.arpa., 1.0.10.in-addr.arpa.] 53"),
        ("fd00::/16", "dns [0.0.d.f.ip6.arpa.] 53"),
        ("fd00::/16:5300", "dns [0.0.d.f.ip6.arpa.] 5300"),
        ("ftp://.", "\"ftp://.\" has the scheme \"ftp\"; known are dns, tls, https and quic"),
        (".:x", "\".:x\": \"x\" is not a port"),
        ("10.0.0.0/33", "\"10.0.0.0/33\": the length is not between 0 and 32"),
    ];
    for (text, expected) in rows {
        let shown = parse_key(text)
            .map_or_else(|e| e, |key| format!("{} {:?} {}", key.scheme.as_str(), key.zones, key.port));
        assert_eq!(shown, expected, "{text}");
    }
}

#[test]
fn durations_are_gos() {
    for (text, millis) in [("5s", 5000), ("1m30s", 90_000), ("500ms", 500), ("0", 0), ("1.5h", 5_400_000)] {
        assert_eq!(parse_duration(text), Some(Duration::from_millis(millis)), "{text}");
    }
    for text in ["", "5", "s", "5 s", "-1s", "5x"] {
        assert_eq!(parse_duration(text), None, "{text}");
    }
}
