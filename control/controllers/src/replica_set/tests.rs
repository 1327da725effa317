use serde_json::Value;

use super::*;

fn set(replicas: i32) -> ReplicaSet {
    serde_json::from_value(json!({
        "metadata": {"namespace": "demo", "name": "echo-1", "uid": "rs", "generation": 1, "resourceVersion": "1"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "echo"}},
                 "template": {"metadata": {"labels": {"app": "echo"}}, "spec": {"containers": [{"name": "c"}]}}},
    }))
    .expect("a set")
}

fn pod(name: &str, change: impl FnOnce(&mut Value)) -> Pod {
    let mut pod = json!({
        "metadata": {"namespace": "demo", "name": name, "uid": name, "labels": {"app": "echo"}, "resourceVersion": "1",
                     "creationTimestamp": "2026-01-01T00:00:00Z",
                     "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "echo-1", "uid": "rs", "controller": true}]},
        "spec": {"containers": [], "nodeName": "n1"},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:10Z"}]},
    });
    change(&mut pod);
    serde_json::from_value(pod).expect("a pod")
}

fn view(set: ReplicaSet, pods: impl IntoIterator<Item = Pod>) -> Caches {
    let view = Caches::default();
    view.replica_sets.put(set);
    for pod in pods {
        view.pods.put(pod);
    }
    view
}

fn reconcile(view: &Caches) -> Plan {
    let now = "2026-01-01T00:01:00Z".parse().expect("a time");
    ReplicaSets.reconcile(view, &Key::new("demo", "echo-1"), now)
}

fn deleted(plan: &Plan) -> Vec<&str> {
    let name = |write: &Write| matches!(write, Write::Delete { .. });
    plan.writes
        .iter()
        .filter(|write| name(write))
        .filter_map(|write| Some(write.target()?.key.name.as_str()))
        .collect()
}

#[test]
fn missing_pods_are_created_from_the_template() {
    let plan = reconcile(&view(set(3), [pod("a", |_| ())]));
    let created: Vec<_> = plan
        .writes
        .iter()
        .filter_map(|write| match write {
            Write::Create { object, announce, .. } => Some((object, announce)),
            _ => None,
        })
        .collect();
    assert_eq!(created.len(), 2);
    let (object, announce) = created[0];
    assert_eq!(object["metadata"]["generateName"], "echo-1-");
    assert_eq!(object["metadata"]["labels"]["app"], "echo");
    assert_eq!(object["metadata"]["ownerReferences"][0]["uid"], "rs");
    assert_eq!(announce.as_ref().map(|announce| announce.done), Some("SuccessfulCreate"));
}

#[test]
fn finished_and_deleted_pods_are_replaced() {
    let pods = [
        pod("a", |pod| pod["status"]["phase"] = "Failed".into()),
        pod("b", |pod| pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:30Z".into()),
    ];
    let plan = reconcile(&view(set(1), pods));
    assert_eq!(plan.writes.iter().filter(|write| matches!(write, Write::Create { .. })).count(), 1);
}

#[test]
fn the_least_useful_pods_go_first() {
    type Row = (&'static str, fn(&mut Value));
    let rows: [Row; 8] = [
        ("unassigned", |pod| pod["spec"]["nodeName"] = Value::Null),
        ("pending", |pod| pod["status"]["phase"] = "Pending".into()),
        ("not-ready", |pod| pod["status"]["conditions"] = json!([])),
        ("cheap", |pod| pod["metadata"]["annotations"] = json!({DELETION_COST: "-1"})),
        ("recently-ready", |pod| {
            pod["status"]["conditions"][0]["lastTransitionTime"] = "2026-01-01T00:00:50Z".into();
        }),
        ("restarted", |pod| {
            pod["status"]["containerStatuses"] =
                json!([{"name": "c", "image": "", "imageID": "", "ready": true, "restartCount": 3}]);
        }),
        ("younger", |pod| pod["metadata"]["creationTimestamp"] = "2026-01-01T00:00:05Z".into()),
        ("best", |_| ()),
    ];
    let names: Vec<_> = rows.iter().map(|(name, _)| *name).collect();
    for wanted in 0..rows.len() {
        let pods = rows.iter().map(|(name, change)| pod(name, change));
        let plan = reconcile(&view(set(i32::try_from(wanted).expect("small")), pods));
        assert_eq!(deleted(&plan), names[..rows.len() - wanted], "{wanted} wanted");
    }
}

#[test]
fn of_equal_pods_the_doubled_up_ones_go_first() {
    let on =
        |name: &'static str, node: &'static str| pod(name, move |pod| pod["spec"]["nodeName"] = node.into());
    let plan = reconcile(&view(set(2), [on("a", "n1"), on("b", "n2"), on("c", "n2")]));
    assert_eq!(deleted(&plan).len(), 1);
    assert_ne!(deleted(&plan), ["a"]);
}

#[test]
fn a_matching_orphan_is_adopted_and_a_stranger_released() {
    let orphan = pod("orphan", |pod| pod["metadata"]["ownerReferences"] = json!([]));
    let stranger = pod("stranger", |pod| pod["metadata"]["labels"] = json!({"app": "other"}));
    let plan = reconcile(&view(set(1), [orphan, stranger]));
    let owners: Vec<_> = plan
        .writes
        .iter()
        .map(|write| match write {
            Write::Patch { target, patch, .. } => (
                target.key.name.as_str(),
                patch["metadata"]["ownerReferences"].as_array().map_or(0, Vec::len),
            ),
            other => panic!("unexpected {other:?}"),
        })
        .collect();
    assert_eq!(owners, [("orphan", 1), ("stranger", 0)]);
}

#[test]
fn the_status_is_written_when_it_changes_only() {
    let mut set = set(1);
    let view_with = |set: &ReplicaSet| view(set.clone(), [pod("a", |_| ())]);
    let plan = reconcile(&view_with(&set));
    let [Write::Patch { patch, subresource: Some("status"), .. }] = plan.writes.as_slice() else {
        panic!("one status: {plan:?}")
    };
    assert_eq!(patch["status"]["availableReplicas"], 1);
    assert_eq!(patch["status"]["observedGeneration"], 1);
    set.status = serde_json::from_value(patch["status"].clone()).ok();
    assert_eq!(reconcile(&view_with(&set)), Plan::default());
}

#[test]
fn a_pod_becomes_available_after_its_time() {
    let mut set = set(1);
    set.spec.as_mut().expect("set").min_ready_seconds = Some(60);
    let plan = reconcile(&view(set, [pod("a", |_| ())]));
    assert_eq!(plan.again_in, Some(Duration::from_secs(10)));
}
