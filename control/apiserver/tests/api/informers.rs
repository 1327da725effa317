//! client-go's informers: `kubectl rollout status` waits by one, a reflector with its list, watch and resumption.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Stdio};

use k8s_openapi::api::apps::v1::Deployment;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::kubectl::command;
use crate::support::Server;

/// How an informer gets what there is: by a watch that begins with it, as from client-go 1.35 on, or by a list. kubectl
/// before 1.30 knows lists only.
const WAYS: [bool; 2] = [true, false];
/// The first minor version whose feature gates are read from the environment (client-go `features/envvar.go`).
const FIRST_WITH_GATES: u32 = 30;

fn deployment() -> Deployment {
    let labels = json!({ "app": "w" });
    serde_json::from_value(json!({
        "metadata": { "name": "w" },
        "spec": {
            "replicas": 2,
            "selector": { "matchLabels": labels },
            "template": {
                "metadata": { "labels": labels },
                "spec": { "containers": [{ "name": "c", "image": "one" }] },
            },
        },
    }))
    .unwrap()
}

/// The test plays the deployment's controller.
async fn report(server: &Server, ready: u32) {
    let api: Api<Deployment> = Api::default_namespaced(server.client());
    let status = json!({ "status": {
        "observedGeneration": 1, "replicas": 2, "updatedReplicas": 2,
        "readyReplicas": ready, "availableReplicas": ready, "unavailableReplicas": 2 - ready,
    }});
    api.patch_status("w", &PatchParams::default(), &Patch::Merge(&status)).await.unwrap();
}

fn minor_version(server: &Server) -> u32 {
    let output = command(server, "version --client -o json").output().unwrap();
    let version: Value = serde_json::from_slice(&output.stdout).unwrap();
    let minor = version["clientVersion"]["minor"].as_str().unwrap();
    minor.trim_end_matches('+').parse().unwrap()
}

/// A kubectl that waits, and what it says of its requests. It ends by itself when it has waited for too long.
struct Waiting {
    kubectl: Child,
    lines: mpsc::UnboundedReceiver<String>,
    log: String,
}

impl Waiting {
    fn start(server: &Server, by_watch: bool) -> Self {
        let mut kubectl = command(server, "rollout status deployment/w -n default --timeout=60s -v=8")
            .env("KUBE_FEATURE_WatchListClient", by_watch.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let errors = BufReader::new(kubectl.stderr.take().unwrap());
        let (say, lines) = mpsc::unbounded_channel();
        std::thread::spawn(move || errors.lines().map_while(Result::ok).try_for_each(|line| say.send(line)));
        Self { kubectl, lines, log: String::new() }
    }

    /// Waits until it has said something.
    async fn until(&mut self, text: &str) {
        while !self.log.contains(text) {
            let line = self.lines.recv().await;
            self.log += &line.unwrap_or_else(|| panic!("kubectl ended without {text}: {}", self.log));
        }
    }

    /// What it printed, once it has ended well.
    async fn end(mut self) -> String {
        let mut stdout = self.kubectl.stdout.take().unwrap();
        let ended = tokio::task::spawn_blocking(move || {
            let mut text = String::new();
            stdout.read_to_string(&mut text).unwrap();
            (text, self.kubectl.wait().unwrap())
        });
        let (text, status) = ended.await.unwrap();
        assert!(status.success(), "{text}{}", self.log);
        text
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_informer_gets_what_there_is_and_goes_on_after_a_restart_of_the_server() {
    for by_watch in WAYS {
        let mut server = Server::start().await;
        let api: Api<Deployment> = Api::default_namespaced(server.client());
        api.create(&kube::api::PostParams::default(), &deployment()).await.unwrap();
        report(&server, 0).await;
        let mut waiting = Waiting::start(&server, by_watch);
        waiting.until("watch=true").await;
        let log = &waiting.log;
        let gated = minor_version(&server) >= FIRST_WITH_GATES;
        assert_eq!(log.contains("sendInitialEvents=true"), by_watch && gated, "{log}");

        report(&server, 1).await;
        drop(api);
        server = server.restart().await;
        report(&server, 2).await;
        let text = waiting.end().await;
        for line in ["0 of 2 updated replicas are available", "successfully rolled out"] {
            assert!(text.contains(line), "{text}");
        }
        server.stop().await;
    }
}
