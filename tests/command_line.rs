//! What the binary promises to scripts: exit codes, and one sentence when something is wrong.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::{
    io::{BufRead as _, BufReader},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Command, Output, Stdio},
};

use nix::{
    sys::signal::{self, Signal},
    unistd::Pid,
};

fn fairlead(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_fairlead")).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn wrong_usage_exits_with_2_and_says_what_to_do() {
    for arguments in [&["up", "--nodes", "none"][..], &["--no-such-flag"], &["top"], &[]] {
        let output = fairlead(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let message = text(&output.stderr);
        assert!(message.contains("--help") || message.contains("Usage"), "{arguments:?}: {message}");
    }
}

#[test]
fn a_failure_exits_with_1_and_one_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().to_str().unwrap();
    for (arguments, part) in [
        (&["status", "--name", "absent", "--run-dir", dir][..], "start it with `fairlead up`"),
        (&["flows", "--name", "absent", "--run-dir", dir], "no node of the cluster absent runs here"),
        (&["top", "--run-dir", dir, "pods", "--node", "node-9"], "has no node node-9"),
        (&["kubeconfig", "--state-dir", dir], "has no certificate authority"),
        (&["node", "--kubeconfig", "/nonexistent"], "cannot read the kubeconfig /nonexistent"),
        (&["proxy", "--socket-lb-host-only"], "would leave pods without services"),
        (&["proxy", "--xdp=native"], "leave it out"),
        (&["server", "--listen", "192.0.2.1:6443", "--state-dir", dir], "cannot listen on 192.0.2.1:6443"),
    ] {
        let output = fairlead(arguments);
        let message = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {message}");
        assert!(message.starts_with("error: ") && message.contains(part), "{arguments:?}: {message}");
        assert!(!message.contains("panicked"), "{message}");
    }
}

#[test]
fn every_subcommand_has_help_with_examples() {
    for command in
        ["up", "down", "server", "node", "dns", "status", "flows", "kubeconfig", "completions", "store"]
    {
        let output = fairlead(&[command, "--help"]);
        assert!(output.status.success(), "{command}");
        assert!(text(&output.stdout).contains("Examples:\n"), "{command}");
    }
}

#[test]
fn completions_know_the_subcommands() {
    for shell in ["bash", "zsh", "fish"] {
        let script = text(&fairlead(&["completions", shell]).stdout);
        assert!(script.contains("flows") && script.contains("kubeconfig"), "{shell}");
    }
}

#[test]
fn a_kubeconfig_is_signed_by_the_authority_of_the_state_directory() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().to_str().unwrap();
    std::fs::create_dir(dir.path().join("pki")).unwrap();
    let output = fairlead(&[
        "kubeconfig",
        "--state-dir",
        state,
        "--user",
        "alice",
        "--server",
        "https://192.0.2.1:6443",
    ]);
    let text = text(&output.stdout);
    assert!(output.status.success() && text.contains("server: https://192.0.2.1:6443"), "{text}");
    assert!(dir.path().join("pki/ca.crt").exists());
}

#[test]
fn a_server_says_in_one_line_that_it_is_ready_and_is() {
    let state = tempfile::TempDir::new().unwrap();
    let port = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let kubeconfig = state.path().join("kubeconfig");
    let mut server = Command::new(env!("CARGO_BIN_EXE_fairlead"))
        .args(["server", "--store-durability=deferred", "--store-sync-interval=50"])
        // Any address but the loopback's: that one is warned of.
        .arg("--advertise-address=192.0.2.1")
        .arg(format!("--state-dir={}", state.path().display()))
        .arg(format!("--bind=127.0.0.1:{}", port()))
        .arg(format!("--feed-listen=127.0.0.1:{}", port()))
        .arg(format!("--kubeconfig-out={}", kubeconfig.display()))
        .env_remove("RUST_LOG")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    BufReader::new(server.stderr.take().unwrap()).read_line(&mut said).unwrap();
    let api = server_of(&kubeconfig);
    let connected = TcpStream::connect(&api);
    signal::kill(Pid::from_raw(server.id().cast_signed()), Signal::SIGTERM).unwrap();
    assert!(server.wait().unwrap().success());
    assert!(connected.is_ok(), "{api}: {connected:?}");
    for part in ["serving", "embedded, deferred by up to 50 ms"] {
        assert!(said.contains(part), "{part} is not in {said}");
    }
}

/// Host and port of the cluster in a kubeconfig.
fn server_of(kubeconfig: &Path) -> String {
    let text = std::fs::read_to_string(kubeconfig).unwrap();
    let url = text.lines().find_map(|line| line.trim().strip_prefix("server: https://")).unwrap();
    url.replace("192.0.2.1", "127.0.0.1")
}
