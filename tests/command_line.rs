//! What the binary promises to scripts: exit codes, and one sentence when something is wrong.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::process::{Command, Output};

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
