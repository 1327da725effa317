//! The Python client from PyPI against a running server.

use std::path::PathBuf;
use std::process::Command;

use crate::support::Server;

/// An interpreter that finds the package `kubernetes`.
fn interpreter() -> PathBuf {
    std::env::var_os("FAIRLEAD_PYTHON").map(PathBuf::from).unwrap_or_else(|| {
        let home = PathBuf::from(std::env::var_os("HOME").unwrap_or_default());
        home.join(".cache/fairlead/tools/python-kubernetes-37.0.2/bin/python3")
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_client_reads_writes_watches_and_applies() {
    let server = Server::start().await;
    let kubeconfig = server.kubeconfig();
    let output = tokio::task::spawn_blocking(move || {
        Command::new(interpreter())
            .args(["-c", include_str!("python/clients.py")])
            .env("KUBECONFIG", kubeconfig)
            .output()
            .expect("the Python client must be installed: cargo xtask setup")
    })
    .await
    .unwrap();
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{text}{errors}");
    assert!(text.ends_with("all steps held\n"), "{text}{errors}");
    server.stop().await;
}
