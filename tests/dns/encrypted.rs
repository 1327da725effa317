//! TLS in both directions: who may ask, and whom `forward` asks.

use std::{path::Path, process::Command};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;

use super::{
    plugins::behind,
    support::{Server, dig},
    upstream::GOOD,
};

/// The name in the server's certificate.
const NAME: &str = "dns.test";

/// Writes `ca`, and what it signed: `server` with its name and `client`; and `stranger`, who signed itself.
fn certificates(folder: &Path) {
    let key = || KeyPair::generate().unwrap();
    let named = |name: &str| {
        let mut params = CertificateParams::new([NAME.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params
    };
    let mut params = named("ca");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, key()).unwrap();
    let write = |name: &str, cert: &rcgen::Certificate, key: &KeyPair| {
        std::fs::write(folder.join(format!("{name}.pem")), cert.pem()).unwrap();
        std::fs::write(folder.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    };
    std::fs::write(folder.join("ca.pem"), ca.pem()).unwrap();
    for name in ["server", "client"] {
        let key = key();
        write(name, &named(name).signed_by(&key, &ca).unwrap(), &key);
    }
    let key = key();
    write("stranger", &named("stranger").self_signed(&key).unwrap(), &key);
}

/// A server that speaks TLS and has one address for every name.
fn secret(client_auth: &str) -> Server {
    let dir = TempDir::with_prefix("fairlead-dns-").unwrap();
    certificates(dir.path());
    let corefile = format!(
        "tls://.:0 {{\n bind 127.0.0.1\n tls server.pem server.key ca.pem {{\n  client_auth {client_auth}\n }}\n \
         template IN A {{\n  answer \"{{{{ .Name }}}} 60 IN A 192.0.2.1\"\n }}\n}}\n"
    );
    Server::start_in(dir, &corefile, "")
}

/// Whether somebody with a certificate, or without one, is answered.
fn answers(server: &Server, client: Option<&str>) -> bool {
    let (ip, port) = (server.addresses[0].ip(), server.addresses[0].port());
    let mut command = Command::new("dig");
    command.arg(format!("@{ip}")).args(["-p", &port.to_string(), "+tls", "+tries=1", "+time=10", "+short"]);
    if let Some(client) = client {
        // dig shows its certificate only to a server whose own it has checked.
        command.arg(format!("+tls-ca={}", server.dir.path().join("ca.pem").display()));
        command.arg(format!("+tls-hostname={NAME}"));
        for (option, file) in [("certfile", "pem"), ("keyfile", "key")] {
            let file = server.dir.path().join(format!("{client}.{file}"));
            command.arg(format!("+tls-{option}={}", file.display()));
        }
    }
    let output = command.args(["www.example.org", "A"]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).trim() == "192.0.2.1"
}

#[test]
fn clients_show_the_certificates_that_client_auth_asks_for() {
    // Who is answered: somebody without a certificate, with a good one, with a stranger's.
    let rows = [
        ("nocert", [true, true, true]),
        ("verify_if_given", [true, true, false]),
        ("request", [true, true, false]),
        ("require", [false, true, false]),
        ("require_and_verify", [false, true, false]),
    ];
    for (client_auth, expected) in rows {
        let server = secret(client_auth);
        let seen = [None, Some("client"), Some("stranger")].map(|client| answers(&server, client));
        assert_eq!(seen, expected, "{client_auth}");
    }
}

#[test]
fn forward_shows_its_certificate_and_looks_at_the_servers() {
    let upstream = secret("require_and_verify");
    let folder = upstream.dir.path().display();
    let (address, port) = (upstream.addresses[0], upstream.addresses[0].port());
    let client = format!("tls {folder}/client.pem {folder}/client.key {folder}/ca.pem");
    let trusting = format!("tls {folder}/ca.pem");
    let rows = [
        ("tls_servername", format!("tls://{address} {{\n  {client}\n  tls_servername {NAME}\n }}"), GOOD),
        ("a name at the address", format!("tls://127.0.0.1%{NAME}:{port} {{\n  {client}\n }}"), GOOD),
        (
            "another server's name",
            format!("tls://{address} {{\n  {client}\n  tls_servername other.test\n }}"),
            "SERVFAIL:",
        ),
        (
            "no certificate of its own",
            format!("tls://{address} {{\n  {trusting}\n  tls_servername {NAME}\n }}"),
            "SERVFAIL:",
        ),
        (
            "a server that the system does not trust",
            format!(
                "tls://{address} {{\n  tls {folder}/client.pem {folder}/client.key\n  tls_servername {NAME}\n }}"
            ),
            "SERVFAIL:",
        ),
    ];
    for (title, to, expected) in rows {
        let server = Server::start(&format!(".:53 {{\n forward . {to}\n}}\n"), "");
        let answer = dig(server.addresses[0], false, &["www.example.org A"]);
        assert_eq!(answer, [expected], "{title}");
    }
}

#[test]
fn a_plain_question_to_a_server_that_speaks_tls_is_not_answered() {
    let server = secret("nocert");
    assert_eq!(dig(server.addresses[0], true, &["www.example.org A"]), [] as [&str; 0]);
    let plain = Server::start(&behind("debug"), "");
    assert!(!answers(&plain, None), "and the other way round");
}
