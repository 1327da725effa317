//! The kubelet with a real containerd and runc. Needs root.

#![expect(clippy::unwrap_used, reason = "tests panic on what must not happen")]

mod node {
    pub(crate) mod api;
    pub(crate) mod bench;
    pub(crate) mod image;
}

use fairlead_testkit::Netns;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use node::{
    bench::{Bench, NODE},
    image::NAME,
};
use serde_json::{Value, json};

/// Runs a test in a network namespace of its own.
fn in_namespace(test: impl AsyncFnOnce(&mut Bench) + Send) {
    let netns = Netns::new("kubelet");
    let path = netns.path();
    netns.run(|| {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut bench = Bench::new(&path).await;
            test(&mut bench).await;
            bench.clean_up().await;
        });
    });
}

fn container(pod: &Pod) -> ContainerStatus {
    pod.status.as_ref().unwrap().container_statuses.as_ref().unwrap()[0].clone()
}

fn condition(pod: &Pod, kind: &str) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.clone().any(|condition| condition.type_ == kind && condition.status == "True")
}

fn ready(pod: &Pod) -> bool {
    condition(pod, "Ready")
}

fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("")
}

fn shell(script: &str) -> Value {
    json!({ "name": "main", "image": NAME, "args": [script] })
}

#[test]
fn a_node_registers_and_is_ready_when_its_network_is() {
    in_namespace(async |bench| {
        let node = bench.start().await;
        let path = format!("/api/v1/nodes/{NODE}");
        let ready = |wanted: &'static str| {
            move |node: Option<&Value>| {
                let conditions = node.and_then(|node| node["status"]["conditions"].as_array());
                let mut conditions = conditions.into_iter().flatten();
                conditions.any(|condition| condition["type"] == "Ready" && condition["status"] == wanted)
            }
        };
        let found = bench.api.value_where(&path, "registration", ready("False")).await.unwrap();
        assert_eq!(found["metadata"]["labels"]["zone"], "z");
        assert_eq!(found["status"]["capacity"]["pods"], "7");
        node.ready.send(true).unwrap();
        let found = bench.api.value_where(&path, "readiness", ready("True")).await.unwrap();
        assert!(
            found["status"]["nodeInfo"]["containerRuntimeVersion"]
                .as_str()
                .unwrap()
                .starts_with("containerd://1")
        );
        let lease = format!("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{NODE}");
        bench.api.value_where(&lease, "a lease", |lease| lease.is_some()).await;
        let images = |node: Option<&Value>| {
            node.is_some_and(|node| node["status"]["images"].to_string().contains(NAME))
        };
        bench.api.value_where(&path, "the imported image", images).await;
        node.stop().await;
    });
}

#[test]
fn a_pod_runs_becomes_ready_logs_and_goes() {
    in_namespace(async |bench| {
        let node = bench.start().await;
        let path = bench.pod(
            "web",
            json!({ "containers": [{
                "name": "main", "image": NAME, "command": ["/bin/sh", "-c"],
                "args": ["echo $POD on $(NODE); echo problem >&2; hostname; cat /etc/resolv.conf; exec httpd -f -p 18080 -h /data"],
                "env": [
                    { "name": "POD", "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } },
                    { "name": "NODE", "valueFrom": { "fieldRef": { "fieldPath": "spec.nodeName" } } } ],
                "volumeMounts": [{ "name": "data", "mountPath": "/data" }],
                "readinessProbe": { "httpGet": { "path": "/index.html", "port": 18080 } },
                "resources": { "limits": { "memory": "64Mi", "cpu": "500m" } } }],
                "volumes": [{ "name": "data", "configMap": { "name": "pages" } }] }),
        );
        bench.api.put(
            "/api/v1/namespaces/demo/configmaps/pages",
            json!({ "metadata": { "name": "pages" }, "data": { "index.html": "hello" } }),
        );
        let pod = bench.api.pod_where(&path, "ready", ready).await;
        assert_eq!(phase(&pod), "Running");
        assert_eq!(pod.status.as_ref().unwrap().pod_ip.as_deref(), Some("127.0.0.1"));
        let (code, log) = bench.get(&node, "/containerLogs/demo/web/main").await;
        assert_eq!(code, 200);
        for line in ["web on n1\n", "problem\n", "web\n", "nameserver 10.96.0.10\n", "options ndots:5\n"] {
            assert!(log.contains(line), "{line:?} is not in {log}");
        }
        let (_, last) = bench.get(&node, "/containerLogs/demo/web/main?tailLines=1").await;
        // What a container says on two pipes arrives in any order.
        assert_eq!(last.lines().collect::<Vec<_>>(), log.lines().next_back().into_iter().collect::<Vec<_>>());
        assert!(hooked_processes(bench, &pod) > 0, "the container is not where socket hooks see it");
        assert!(
            bench.directory.path().join("run/runc").join(NODE).is_dir(),
            "runc's state is not the cluster's own"
        );
        bench.api.delete(&path, 1);
        bench.api.value_where(&path, "deletion", |pod| pod.is_none()).await;
        let log = bench.network.log.lock().unwrap().clone();
        let uid = pod.metadata.uid.as_deref().unwrap();
        assert!(log.contains(&format!("detach {uid}")), "{log:?}");
        assert!(!bench.directory.path().join("state/pods").join(uid).exists());
        node.stop().await;
    });
}

/// Processes in the pod's cgroup of the v2 hierarchy.
fn hooked_processes(bench: &Bench, pod: &Pod) -> usize {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let mount = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2")).unwrap();
    let mount = mount.split(' ').nth(1).unwrap();
    let uid = pod.metadata.uid.as_deref().unwrap();
    let file = format!("{mount}/{}/pod{uid}/cgroup.procs", bench.cgroup_root);
    std::fs::read_to_string(file).unwrap().lines().count()
}

#[test]
fn a_failing_container_is_restarted_and_a_pod_that_must_not_be_ends() {
    in_namespace(async |bench| {
        let node = bench.start().await;
        let always = bench.pod(
            "always",
            json!({ "containers": [shell("echo $RANDOM last words > /dev/termination-log; exit 3")] }),
        );
        let never = bench.pod("never", json!({ "restartPolicy": "Never", "containers": [shell("exit 3")] }));
        let once = bench.pod(
            "once",
            json!({ "restartPolicy": "OnFailure",
            "initContainers": [{ "name": "first", "image": NAME, "args": ["echo made > /shared/file"],
                "volumeMounts": [{ "name": "shared", "mountPath": "/shared" }] }],
            "containers": [{ "name": "main", "image": NAME, "args": ["test \"$(cat /shared/file)\" = made"],
                "volumeMounts": [{ "name": "shared", "mountPath": "/shared" }] }],
            "volumes": [{ "name": "shared", "emptyDir": {} }] }),
        );
        let waits = |pod: &Pod| {
            let waiting = pod.status.as_ref().and_then(|s| s.container_statuses.clone());
            let reason = waiting.and_then(|c| c[0].state.clone()?.waiting?.reason);
            reason.as_deref() == Some("CrashLoopBackOff")
        };
        let pod = bench.api.pod_where(&always, "back-off", waits).await;
        let status = container(&pod);
        assert_eq!(status.restart_count, 1);
        let last = status.last_state.unwrap().terminated.unwrap();
        assert_eq!((last.exit_code, last.reason.as_deref()), (3, Some("Error")));
        assert!(last.message.unwrap().contains("last words"));
        bench.api.pod_where(&never, "failure", |pod| phase(pod) == "Failed").await;
        bench.api.pod_where(&once, "success", |pod| phase(pod) == "Succeeded").await;
        node.stop().await;
    });
}

#[test]
fn a_container_beyond_its_memory_says_so() {
    in_namespace(async |bench| {
        let node = bench.start().await;
        let path = bench.pod(
            "greedy",
            json!({ "restartPolicy": "Never", "containers": [{
                "name": "main", "image": NAME, "args": ["x=$(head -c 100000000 /dev/zero | tr '\\0' a); echo ${#x}"],
                "resources": { "limits": { "memory": "16Mi" } } }] }),
        );
        let pod = bench.api.pod_where(&path, "failure", |pod| phase(pod) == "Failed").await;
        let end = container(&pod).state.unwrap().terminated.unwrap();
        assert_eq!((end.exit_code, end.reason.as_deref()), (137, Some("OOMKilled")));
        node.stop().await;
    });
}

#[test]
fn a_missing_image_is_told_with_where_archives_are_looked_for() {
    in_namespace(async |bench| {
        let node = bench.start().await;
        let path = bench.pod("nowhere", json!({ "containers": [{ "name": "main", "image": "nowhere:1" }] }));
        let reason = |pod: &Pod| {
            let statuses = pod.status.as_ref().and_then(|s| s.container_statuses.clone());
            statuses.and_then(|c| c[0].state.clone()?.waiting)
        };
        let pod = bench
            .api
            .pod_where(&path, "an error", |pod| {
                reason(pod).is_some_and(|w| w.reason.as_deref() == Some("ErrImagePull"))
            })
            .await;
        let message = reason(&pod).unwrap().message.unwrap();
        assert!(message.contains("images") && message.contains("OCI archive"), "{message}");
        bench.api.delete(&path, 30);
        bench.api.value_where(&path, "deletion", |pod| pod.is_none()).await;
        node.stop().await;
    });
}

#[test]
fn containers_outlive_their_kubelet_and_are_taken_over() {
    in_namespace(async |bench| {
        let node = bench.start().await;
        let stays = bench.pod(
            "stays",
            json!({ "containers": [shell("echo before; while true; do sleep 0.1; echo tick; done")] }),
        );
        let goes = bench
            .pod("goes", json!({ "containers": [shell("sleep 1000")], "terminationGracePeriodSeconds": 1 }));
        let dies =
            bench.pod("dies", json!({ "restartPolicy": "Never", "containers": [shell("sleep 1; exit 4")] }));
        let pod = bench.api.pod_where(&stays, "ready", ready).await;
        bench.api.pod_where(&goes, "ready", ready).await;
        bench.api.pod_where(&dies, "ready", ready).await;
        node.kill().await;
        bench.api.delete(&goes, 0);
        // It dies while no kubelet sees it.
        fairlead_testkit::eventually("the end of the container", || {
            let log = std::fs::read_dir(
                bench.directory.path().join("containerd/state/io.containerd.runtime.v2.task/n1"),
            );
            (log.unwrap().count() == 3).then_some(())
        });
        let node = bench.start().await;
        let dead = bench.api.pod_where(&dies, "its end", |pod| phase(pod) == "Failed").await;
        assert_eq!(container(&dead).state.unwrap().terminated.unwrap().exit_code, 4);
        let again = bench.api.pod_where(&stays, "still ready", ready).await;
        assert_eq!(container(&again).container_id, container(&pod).container_id);
        assert_eq!(container(&again).restart_count, 0);
        fairlead_testkit::eventually("the removal of the orphan", || {
            let left = std::fs::read_dir(bench.directory.path().join("state/pods")).unwrap().count();
            (left == 2).then_some(())
        });
        let (_, log) = bench.get(&node, "/containerLogs/demo/stays/main?tailLines=1").await;
        assert_eq!(log, "tick\n");
        node.stop().await;
    });
}

#[test]
fn probes_decide_over_readiness_and_life() {
    in_namespace(async |bench| {
        let node = bench.start().await;
        let path = bench.pod(
            "probed",
            json!({ "terminationGracePeriodSeconds": 1, "containers": [{
            "name": "main", "image": NAME, "args": ["sleep 0.3; touch /tmp/started; sleep 1000"],
            "startupProbe": { "exec": { "command": ["test", "-e", "/tmp/started"] }, "failureThreshold": 30 },
            "readinessProbe": { "exec": { "command": ["test", "-e", "/tmp/started"] } },
            "lifecycle": { "preStop": { "exec": { "command": ["touch", "/tmp/stopping"] } } } }] }),
        );
        let pod = bench.api.pod_where(&path, "ready", ready).await;
        assert_eq!(container(&pod).started, Some(true));
        let path = bench.pod(
            "unlively",
            json!({ "terminationGracePeriodSeconds": 1, "containers": [{
            "name": "main", "image": NAME, "args": ["sleep 1000"],
            "livenessProbe": { "tcpSocket": { "port": 1 }, "failureThreshold": 1 } }] }),
        );
        let pod = bench.api.pod_where(&path, "a restart", |pod| {
            pod.status
                .as_ref()
                .is_some_and(|s| s.container_statuses.as_ref().is_some_and(|c| c[0].restart_count > 0))
        });
        assert_eq!(container(&pod.await).last_state.unwrap().terminated.unwrap().exit_code, 137);
        node.stop().await;
    });
}

#[test]
fn a_terminating_pod_is_unready_at_once_and_ends_in_its_own_time() {
    in_namespace(async |bench| {
        let node = bench.start().await;
        let path = bench.pod(
            "polite",
            json!({ "containers": [shell("trap 'sleep 0.3; exit 0' TERM; while true; do sleep 0.05; done")] }),
        );
        bench.api.pod_where(&path, "ready", ready).await;
        // Only its own exit can end it while the test waits, not the end of its grace period.
        bench.api.delete(&path, 3600);
        let pod = bench.api.pod_where(&path, "unreadiness", |pod| !ready(pod)).await;
        assert!(container(&pod).state.unwrap().running.is_some());
        bench.api.value_where(&path, "deletion", |pod| pod.is_none()).await;
        node.stop().await;
    });
}

#[test]
fn logs_are_followed_to_the_end_and_kept_for_the_attempt_before() {
    in_namespace(async |bench| {
        let node = bench.start().await;
        let never =
            json!({ "restartPolicy": "Never", "containers": [shell("echo one; sleep 0.5; echo two")] });
        let path = bench.pod("follow", never);
        bench.api.pod_where(&path, "a start", |pod| phase(pod) == "Running").await;
        let (_, log) = bench.get(&node, "/containerLogs/demo/follow/main?follow=true").await;
        assert_eq!(log, "one\ntwo\n");
        let path = bench.pod("again", json!({ "containers": [shell("echo $HOSTNAME lives; exit 1")] }));
        let restarted = |pod: &Pod| {
            let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
            statuses.is_some_and(|statuses| statuses[0].restart_count > 0)
        };
        bench.api.pod_where(&path, "a restart", restarted).await;
        let (code, log) = bench.get(&node, "/containerLogs/demo/again/main?previous=true").await;
        assert_eq!((code, log.as_str()), (200, "again lives\n"));
        assert_eq!(bench.get(&node, "/containerLogs/demo/again/other").await.0, 404);
        assert!(!bench.answers_anybody(&node).await);
        node.stop().await;
    });
}

#[test]
fn a_killed_containerd_takes_no_pod_with_it() {
    in_namespace(async |bench| {
        let node = bench.start().await;
        let path = bench.pod("stays", json!({ "containers": [shell("sleep 1000")] }));
        let before = bench.api.pod_where(&path, "ready", ready).await;
        bench.replace_containerd().await;
        let other = bench.pod("later", json!({ "containers": [shell("sleep 1000")] }));
        bench.api.pod_where(&other, "ready", ready).await;
        let after = bench.api.pod_where(&path, "ready", ready).await;
        assert_eq!(container(&before), container(&after));
        node.stop().await;
        // The clean-up of the test finds and ends both.
    });
}
