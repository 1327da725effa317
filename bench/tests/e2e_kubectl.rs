//! kubectl, unmodified, against a running cluster: what a user types in the first hour.

use std::{process::Stdio, time::Duration};

use anyhow::{Context, Result, ensure};
use fairlead_bench::{
    cluster::{Cluster, ClusterSpec, folder_for},
    scenario::apply,
};
use tokio::io::{AsyncBufReadExt, BufReader};

/// How long a stream may take to say what is expected.
const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_reads_changes_and_follows_a_cluster() -> Result<()> {
    let name = "e2e-kubectl";
    let spec = ClusterSpec { name: name.into(), nodes: 2, api_port: 16_444, folder: folder_for(name) };
    let cluster = Cluster::up(spec, false).await?;
    let outcome = check(&cluster).await;
    cluster.down().await?;
    outcome
}

async fn check(cluster: &Cluster) -> Result<()> {
    apply::run(cluster).await?;
    reads(cluster).await?;
    describes(cluster).await?;
    follows_logs(cluster).await?;
    keeps_traffic_near(cluster).await?;
    scales_under_a_watch(cluster).await?;
    applies_again(cluster).await?;
    creates_without_a_manifest(cluster).await?;
    says_what_is_wrong(cluster).await?;
    deletes(cluster).await
}

/// Commands that print, and words that must be in what they print.
const READS: &[(&str, &[&str])] = &[
    ("get nodes -o wide", &["Ready", "INTERNAL-IP", "node-1", "node-2", "containerd://"]),
    ("get pods -A -o wide", &["READY", "1/1", "Running", "NOMINATED NODE", "echo-"]),
    ("get svc -A -o wide", &["CLUSTER-IP", "10.96.0.1", "10.96.0.10", "app=echo"]),
    ("get deploy -A -o wide", &["UP-TO-DATE", "3/3", "fairlead.dev/workload:demo"]),
    ("get rs -A -o wide", &["DESIRED", "pod-template-hash"]),
    ("get endpointslices -A -o wide", &["ADDRESSTYPE", "IPv4", "IPv6", "8080"]),
    (
        "get nodes,pods,svc,deploy,rs,endpointslices -A -o wide",
        &["node/", "pod/", "service/", "deployment.apps/"],
    ),
    ("-n demo get deploy echo -o yaml", &["kind: Deployment", "replicas: 3", "readyReplicas: 3"]),
    ("-n demo get deploy echo -o jsonpath={.status.readyReplicas}", &["3"]),
    ("-n demo get svc echo -o json", &["\"ClusterIP\"", "\"clusterIPs\""]),
    ("-n demo get pods -l app=echo -o name", &["pod/echo-"]),
    ("-n demo get pods --field-selector=status.phase=Running", &["echo-"]),
    ("-n demo rollout status deployment/echo --timeout=30s", &["successfully rolled out"]),
    ("-n demo wait --for=condition=Ready pod -l app=echo --timeout=30s", &["condition met"]),
    ("-n demo wait --for=condition=Available deployment/echo --timeout=30s", &["condition met"]),
    ("api-resources", &["deployments", "endpointslices", "leases"]),
    ("version", &["Server Version"]),
    ("get events -A", &["Scheduled", "Started"]),
    ("-n kube-node-lease get leases", &["node-1", "node-2"]),
];

async fn reads(cluster: &Cluster) -> Result<()> {
    for (command, words) in READS {
        let text = cluster.kubectl().run(&command.split(' ').collect::<Vec<_>>()).await?;
        for word in *words {
            ensure!(text.contains(word), "kubectl {command} did not print {word:?}:\n{text}");
        }
    }
    Ok(())
}

async fn describes(cluster: &Cluster) -> Result<()> {
    let pod = first_pod(cluster).await?;
    let text = cluster.kubectl().run(&["-n", "demo", "describe", &pod]).await?;
    for word in ["Status:", "Running", "Node:", "Events:", "Scheduled", "Started", "Readiness:", "http-get"] {
        ensure!(text.contains(word), "describe did not print {word:?}:\n{text}");
    }
    Ok(())
}

async fn first_pod(cluster: &Cluster) -> Result<String> {
    let text = cluster.kubectl().run(&["-n", "demo", "get", "pods", "-l", "app=echo", "-o", "name"]).await?;
    text.lines().next().map(str::to_owned).context("there is no echo pod")
}

/// `logs -f` prints what the container says while it runs.
async fn follows_logs(cluster: &Cluster) -> Result<()> {
    let manifest = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"talker","namespace":"demo"},"spec":{"restartPolicy":"Never",
        "containers":[{"name":"talker","image":"fairlead.dev/workload:demo","command":["/bin/sh","-c"],
        "args":["for i in 1 2 3 4 5; do echo line $i; sleep 0.2; done"]}]}}"#;
    let kubectl = cluster.kubectl();
    kubectl.apply(manifest).await?;
    kubectl.run(&["-n", "demo", "wait", "--for=condition=Ready", "pod/talker", "--timeout=30s"]).await?;
    let text = kubectl.run(&["-n", "demo", "logs", "-f", "talker"]).await?;
    ensure!(text == "line 1\nline 2\nline 3\nline 4\nline 5\n", "logs -f printed {text:?}");
    let tail = kubectl.run(&["-n", "demo", "logs", "talker", "--tail=1"]).await?;
    ensure!(tail == "line 5\n", "logs --tail=1 printed {tail:?}");
    Ok(())
}

/// What a service prefers, the zones of the two nodes, and what a client on the second one reports of fifty requests: with
/// endpoints on both nodes, all that chance would not do.
const NEAR: &[(&str, [&str; 2], &str)] = &[
    ("PreferSameZone", ["z1", "z2"], r#""by_node":{"node-2":50}"#),
    ("PreferSameZone", ["z1", "z1"], r#""by_node":{"node-1":"#),
    ("PreferSameNode", ["z1", "z1"], r#""by_node":{"node-2":50}"#),
];

/// `trafficDistribution` reaches the nodes by way of hints, and clients by way of them.
async fn keeps_traffic_near(cluster: &Cluster) -> Result<()> {
    let kubectl = cluster.kubectl();
    for (row, (distribution, zones, expected)) in NEAR.iter().enumerate() {
        for (node, zone) in ["node-1", "node-2"].iter().zip(zones) {
            let label = format!("topology.kubernetes.io/zone={zone}");
            kubectl.run(&["label", "node", node, &label, "--overwrite"]).await?;
        }
        let patch = format!(r#"{{"spec":{{"trafficDistribution":"{distribution}"}}}}"#);
        kubectl.run(&["-n", "demo", "patch", "service", "echo", "-p", &patch]).await?;
        let name = format!("near-{row}");
        let script = format!(
            "while true; do said=$(/fairlead-workload client requests http://echo.demo.svc.cluster.local/ --count 50); \
             echo \"$said\"; case \"$said\" in *'{expected}'*) exit 0;; esac; sleep 0.1; done"
        );
        let pod = serde_json::json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "namespace": "demo" },
            "spec": { "nodeName": "node-2", "restartPolicy": "Never", "containers": [{
                "name": "client", "image": "fairlead.dev/workload:demo", "command": ["/bin/sh", "-c"], "args": [script],
            }] },
        });
        kubectl.apply(&pod.to_string()).await?;
        let pod = format!("pod/{name}");
        let succeeded = "--for=jsonpath={.status.phase}=Succeeded";
        let ended = kubectl.run(&["-n", "demo", "wait", succeeded, &pod, "--timeout=30s"]).await;
        if let Err(error) = ended {
            let said = kubectl.run(&["-n", "demo", "logs", &pod, "--tail=3"]).await?;
            anyhow::bail!(
                "{distribution} with the zones {zones:?} does not lead to {expected}: {error}\n{said}"
            );
        }
    }
    kubectl.run(&["-n", "demo", "delete", "pod", "near-0", "near-1", "near-2"]).await?;
    Ok(())
}

/// `get -w` shows pods come and go while `scale` works.
async fn scales_under_a_watch(cluster: &Cluster) -> Result<()> {
    let kubectl = cluster.kubectl();
    let mut watch = kubectl.command(&["-n", "demo", "get", "pods", "-l", "app=echo", "-w"]);
    let mut watch = watch.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let mut lines = BufReader::new(watch.stdout.take().context("piped above")?).lines();
    kubectl.run(&["-n", "demo", "scale", "deployment/echo", "--replicas=4"]).await?;
    let mut names = std::collections::BTreeSet::new();
    while names.len() < 4 {
        let line = tokio::time::timeout(PATIENCE, lines.next_line())
            .await
            .context("get -w did not show a fourth pod")??;
        let line = line.context("get -w ended")?;
        names.extend(
            line.split_whitespace().next().filter(|name| name.starts_with("echo-")).map(str::to_owned),
        );
    }
    watch.kill().await?;
    kubectl.run(&["-n", "demo", "rollout", "status", "deployment/echo", "--timeout=30s"]).await?;
    kubectl.run(&["-n", "demo", "scale", "deployment/echo", "--replicas=3"]).await?;
    Ok(())
}

/// A second `apply` changes what the manifest changes, and nothing else.
async fn applies_again(cluster: &Cluster) -> Result<()> {
    let kubectl = cluster.kubectl();
    let unchanged = kubectl.apply(apply::MANIFEST).await?;
    ensure!(unchanged.contains("service/echo unchanged"), "a second apply printed:\n{unchanged}");
    let changed = kubectl.apply(&apply::MANIFEST.replace("port: 80,", "port: 81,")).await?;
    ensure!(changed.contains("service/echo configured"), "an apply with another port printed:\n{changed}");
    let ports =
        kubectl.run(&["-n", "demo", "get", "svc", "echo", "-o", "jsonpath={.spec.ports[*].port}"]).await?;
    ensure!(ports == "81", "after the port was changed the service has the ports {ports:?}");
    Ok(())
}

/// Commands that make an object of their arguments, which kubectl sends as protobuf, and what they must lead to.
const CREATES: &[(&str, &str)] = &[
    ("create configmap made --from-literal=a=b", "get cm made -o jsonpath={.data.a} == b"),
    ("create secret generic made --from-literal=a=b", "get secret made -o jsonpath={.data.a} == Yg=="),
    ("create serviceaccount made", "get sa made -o name == serviceaccount/made"),
    (
        "create deployment made --image=fairlead.dev/workload:demo --replicas=0 --port=8080",
        "get deploy made -o jsonpath={.spec.replicas}/{.spec.strategy.type} == 0/RollingUpdate",
    ),
    ("expose deployment made --port=80", "get svc made -o jsonpath={.spec.ports[0].targetPort} == 80"),
    (
        "create service clusterip plain --tcp=5678:8080",
        "get svc plain -o jsonpath={.spec.ports[0].targetPort} == 8080",
    ),
    (
        "run made --image=fairlead.dev/workload:demo --restart=Never --command -- /bin/sh -c exit",
        "wait --for=jsonpath={.status.phase}=Succeeded pod/made -o name --timeout=30s == pod/made",
    ),
];

async fn creates_without_a_manifest(cluster: &Cluster) -> Result<()> {
    let kubectl = cluster.kubectl();
    let in_demo =
        |command: &'static str| ["-n", "demo"].into_iter().chain(command.split(' ')).collect::<Vec<_>>();
    for (create, check) in CREATES {
        kubectl.run(&in_demo(create)).await?;
        let (check, expected) = check.split_once(" == ").context("a check says what it expects")?;
        let found = kubectl.run(&in_demo(check)).await?;
        ensure!(found.trim() == expected, "after {create:?}, {check:?} printed {found:?}");
    }
    let text = kubectl.run(&["explain", "pod.spec.containers.image"]).await?;
    ensure!(text.contains("FIELD: image <string>"), "explain printed:\n{text}");
    Ok(())
}

/// Manifests and commands that are wrong, and the words of the one sentence that says so.
const WRONG: &[(&str, &str)] = &[
    (r#"{"apiVersion":"v1","kind":"Gadget","metadata":{"name":"x"}}"#, "no matches for kind \"Gadget\""),
    (
        r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"x","namespace":"demo"},"spec":{"containers":[{"name":"c"}]}}"#,
        "spec.containers[0].image: Required value",
    ),
    (
        r#"{"apiVersion":"v1","kind":"Service","metadata":{"name":"UPPER","namespace":"demo"},"spec":{"ports":[{"port":80}]}}"#,
        "metadata.name: Invalid value",
    ),
    (
        r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"x","namespace":"demo"},"spec":{"containers":[{"name":"c","image":"i","imagePulPolicy":"Never"}]}}"#,
        "strict decoding error: unknown field \"spec.containers[0].imagePulPolicy\"",
    ),
    (
        r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x","namespace":"nowhere"}}"#,
        "namespaces \"nowhere\" not found",
    ),
    (
        r#"{"apiVersion":"v1","kind":"Service","metadata":{"name":"thief","namespace":"demo"},"spec":{"clusterIP":"10.96.0.10","ports":[{"port":80}]}}"#,
        "provided IP is already allocated",
    ),
];

async fn says_what_is_wrong(cluster: &Cluster) -> Result<()> {
    let kubectl = cluster.kubectl();
    for (manifest, words) in WRONG {
        let Err(error) = kubectl.apply(manifest).await else {
            anyhow::bail!("kubectl applied what it must refuse: {manifest}");
        };
        ensure!(error.to_string().contains(words), "{manifest}\nwas refused without {words:?}: {error}");
    }
    let clash = kubectl.run(&["create", "-f", &write(cluster, CLASH).await?]).await;
    let error = clash.err().context("a second namespace of the same name was created")?.to_string();
    ensure!(error.contains("already exists"), "a name clash said: {error}");
    Ok(())
}

const CLASH: &str = r#"{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"demo"}}"#;

async fn write(cluster: &Cluster, manifest: &str) -> Result<String> {
    let path = cluster.spec().folder.join("clash.json");
    tokio::fs::write(&path, manifest).await?;
    Ok(path.to_string_lossy().into_owned())
}

/// Deleting the namespace takes everything in it along.
async fn deletes(cluster: &Cluster) -> Result<()> {
    let kubectl = cluster.kubectl();
    kubectl.run(&["-n", "demo", "delete", "pod", "talker"]).await?;
    kubectl.run(&["delete", "namespace", "demo", "--timeout=60s"]).await?;
    let rest = kubectl.run(&["get", "pods,svc,deploy,rs,endpointslices", "-n", "demo", "-o", "name"]).await?;
    ensure!(rest.trim().is_empty(), "after its namespace was deleted this was left:\n{rest}");
    Ok(())
}
