use serde_json::json;

use super::*;

fn now() -> Timestamp {
    "2026-01-01T00:10:00Z".parse().expect("a timestamp")
}

fn running() -> Value {
    json!({"name": "c", "ready": true, "restartCount": 0, "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}})
}

fn waiting(reason: &str) -> Value {
    json!({"name": "c", "ready": false, "restartCount": 0, "state": {"waiting": {"reason": reason}}})
}

fn terminated(reason: &str, code: i64) -> Value {
    json!({"name": "c", "ready": false, "restartCount": 0,
        "state": {"terminated": {"reason": reason, "exitCode": code, "finishedAt": "2026-01-01T00:09:00Z"}}})
}

fn pod(phase: &str, containers: &[Value]) -> Value {
    let specs: Vec<Value> = (0..containers.len().max(1)).map(|i| json!({"name": format!("c{i}")})).collect();
    json!({"metadata": {}, "spec": {"containers": specs}, "status": {"phase": phase, "containerStatuses": containers}})
}

fn with(mut pod: Value, pointer: &str, value: Value) -> Value {
    let (parent, field) = pointer.rsplit_once('/').expect("a pointer has a slash");
    pod.pointer_mut(parent).expect("the parent exists")[field] = value;
    pod
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of rows")]
fn one_word_says_how_a_pod_is() {
    let init = |specs: Value, statuses: Value| {
        let pod = with(pod("Pending", &[waiting("PodInitializing")]), "/spec/initContainers", specs);
        with(pod, "/status/initContainerStatuses", statuses)
    };
    let two = || json!([{"name": "i0"}, {"name": "i1"}]);
    let done = || json!({"name": "i0", "restartCount": 0, "state": {"terminated": {"reason": "Completed", "exitCode": 0}}});
    let sidecar = || json!([{"name": "i0", "restartPolicy": "Always"}]);
    let deleted = json!("2026-01-01T00:09:00Z");
    let rows = [
        (pod("Pending", &[]), "0/1", "Pending"),
        (pod("Pending", &[waiting("ContainerCreating")]), "0/1", "ContainerCreating"),
        (pod("Running", &[running()]), "1/1", "Running"),
        (pod("Running", &[running(), running()]), "2/2", "Running"),
        (pod("Running", &[running(), waiting("CrashLoopBackOff")]), "1/2", "CrashLoopBackOff"),
        (pod("Pending", &[waiting("ImagePullBackOff")]), "0/1", "ImagePullBackOff"),
        (pod("Running", &[terminated("Error", 1)]), "0/1", "Error"),
        (pod("Running", &[terminated("OOMKilled", 137)]), "0/1", "OOMKilled"),
        (pod("Failed", &[terminated("", 3)]), "0/1", "ExitCode:3"),
        (pod("Succeeded", &[terminated("Completed", 0)]), "0/1", "Completed"),
        // One of two is done: the pod runs, and is ready or not.
        (pod("Running", &[terminated("Completed", 0), running()]), "1/2", "NotReady"),
        (
            with(
                pod("Running", &[terminated("Completed", 0), running()]),
                "/status/conditions",
                json!([{"type": "Ready", "status": "True"}]),
            ),
            "1/2",
            "Running",
        ),
        (with(pod("Failed", &[]), "/status/reason", json!("Evicted")), "0/1", "Evicted"),
        (
            with(pod("Running", &[running()]), "/metadata/deletionTimestamp", deleted.clone()),
            "1/1",
            "Terminating",
        ),
        (
            with(
                with(pod("Running", &[running()]), "/metadata/deletionTimestamp", deleted.clone()),
                "/status/reason",
                json!("NodeLost"),
            ),
            "1/1",
            "Unknown",
        ),
        (
            with(pod("Succeeded", &[terminated("Completed", 0)]), "/metadata/deletionTimestamp", deleted),
            "0/1",
            "Completed",
        ),
        (
            with(
                pod("Pending", &[]),
                "/status/conditions",
                json!([{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]),
            ),
            "0/1",
            "SchedulingGated",
        ),
        (init(two(), json!([{"name": "i0", "state": {"running": {}}}])), "0/1", "Init:0/2"),
        (
            init(two(), json!([done(), {"name": "i1", "state": {"waiting": {"reason": "PodInitializing"}}}])),
            "0/1",
            "Init:1/2",
        ),
        (
            init(
                two(),
                json!([done(), {"name": "i1", "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]),
            ),
            "0/1",
            "Init:CrashLoopBackOff",
        ),
        (
            init(two(), json!([{"name": "i0", "state": {"terminated": {"exitCode": 2, "reason": "Error"}}}])),
            "0/1",
            "Init:Error",
        ),
        (
            init(two(), json!([{"name": "i0", "state": {"terminated": {"exitCode": 2}}}])),
            "0/1",
            "Init:ExitCode:2",
        ),
        (
            init(two(), json!([{"name": "i0", "state": {"terminated": {"signal": 9, "exitCode": 137}}}])),
            "0/1",
            "Init:Signal:9",
        ),
        (
            init(
                sidecar(),
                json!([{"name": "i0", "started": true, "ready": true, "state": {"running": {}}}]),
            ),
            "1/2",
            "PodInitializing",
        ),
    ];
    for (pod, expected_ready, expected) in rows {
        assert_eq!(status(&pod, now()), expected, "{pod}");
        assert_eq!(ready(&pod, now()), expected_ready, "{pod}");
    }
}

#[test]
fn restarts_tell_when_the_last_one_was() {
    let mut container = waiting("CrashLoopBackOff");
    assert_eq!(restarts(&pod("Running", &[container.clone()]), now()), "0");
    container["restartCount"] = json!(3);
    assert_eq!(restarts(&pod("Running", &[container.clone()]), now()), "3");
    container["lastState"] = json!({"terminated": {"finishedAt": "2026-01-01T00:09:55Z"}});
    assert_eq!(restarts(&pod("Running", &[container.clone(), running()]), now()), "3 (5s ago)");
    container["lastState"] = json!({"terminated": {"finishedAt": "2026-01-01T00:05:30Z"}});
    assert_eq!(restarts(&pod("Running", &[running(), container]), now()), "3 (4m30s ago)");
}

#[test]
fn readiness_gates_are_counted() {
    let pod = pod("Running", &[running()]);
    assert_eq!(readiness_gates(&pod, now()), "<none>");
    let pod = with(pod, "/spec/readinessGates", json!([{"conditionType": "a"}, {"conditionType": "b"}]));
    let pod = with(
        pod,
        "/status/conditions",
        json!([{"type": "a", "status": "True"}, {"type": "b", "status": "False"}]),
    );
    assert_eq!(readiness_gates(&pod, now()), "1/2");
}
