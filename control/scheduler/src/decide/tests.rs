#![expect(clippy::needless_pass_by_value, reason = "rows of tables read better with values")]

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::{Value, json};

use super::*;

fn node(name: &str, change: impl FnOnce(&mut Value)) -> Node {
    let mut node = json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "spec": {},
        "status": {"allocatable": {"cpu": "1", "memory": "1Gi", "pods": "3"},
                   "conditions": [{"type": "Ready", "status": "True"}]},
    });
    change(&mut node);
    serde_json::from_value(node).expect("a node")
}

fn pod(uid: &str, spec: Value) -> PodInfo {
    let mut whole = json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "100m"}}}]});
    whole.as_object_mut().expect("a map").extend(spec.as_object().expect("a map").clone());
    let pod = json!({"metadata": {"namespace": "demo", "name": uid, "uid": uid, "labels": {"app": "echo"}}, "spec": whole});
    PodInfo::new(Arc::new(serde_json::from_value::<Pod>(pod).expect("a pod")))
}

fn cluster(nodes: &[Node]) -> Cluster {
    let mut cluster = Cluster::default();
    for node in nodes {
        cluster.put_node(node);
    }
    cluster
}

fn requests(cpu: &str) -> Value {
    json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]})
}

#[test]
fn each_filter_objects_in_upstreams_words() {
    let tainted = |node: &mut Value| {
        node["spec"] = json!({"taints": [{"key": "gpu", "value": "yes", "effect": "NoSchedule"}]});
    };
    let host_port =
        json!({"containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 8080}]}]});
    type Row = (fn(&mut Value), Value, &'static str);
    let rows: [Row; 7] = [
        (|node| node["spec"]["unschedulable"] = true.into(), json!({}), "1 node(s) were unschedulable"),
        (|_| (), requests("2"), "1 Insufficient cpu"),
        (
            |_| (),
            json!({"nodeSelector": {"disk": "ssd"}}),
            "1 node(s) didn't match Pod's node affinity/selector",
        ),
        (|node| node["status"]["allocatable"]["pods"] = "0".into(), json!({}), "1 Too many pods"),
        (
            |node| node["status"]["conditions"][0]["status"] = "Unknown".into(),
            json!({}),
            "1 node(s) had untolerated taint {node.kubernetes.io/not-ready: }",
        ),
        (|_| (), json!({"nodeName": "other"}), "1 node(s) didn't match the requested node name"),
        (
            |_| (),
            json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
                {"nodeSelectorTerms": [{"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "NotIn", "values": ["n1"]}]}]}}}}),
            "1 node(s) didn't match Pod's node affinity/selector",
        ),
    ];
    for (change, spec, expected) in rows {
        let Decision::Unschedulable(diagnosis) = decide(&pod("p", spec), &cluster(&[node("n1", change)]))
        else {
            panic!("{expected}: was scheduled")
        };
        assert_eq!(diagnosis.to_string(), format!("0/1 nodes are available: {expected}."));
    }
    let with_taint = cluster(&[node("n1", tainted)]);
    let Decision::Unschedulable(diagnosis) = decide(&pod("p", json!({})), &with_taint) else { panic!() };
    assert_eq!(diagnosis.to_string(), "0/1 nodes are available: 1 node(s) had untolerated taint {gpu: yes}.");
    let tolerant = json!({"tolerations": [{"key": "gpu", "operator": "Exists"}]});
    assert_eq!(decide(&pod("p", tolerant), &with_taint), Decision::Bind("n1".into()));
    let mut taken = cluster(&[node("n1", |_| ())]);
    taken.assume(pod("first", host_port.clone()), "n1");
    let Decision::Unschedulable(diagnosis) = decide(&pod("p", host_port), &taken) else { panic!() };
    assert!(diagnosis.to_string().contains("didn't have free ports"), "{diagnosis}");
}

#[test]
fn objections_of_all_nodes_are_counted_and_sorted() {
    let full = node("n1", |node| node["status"]["allocatable"]["cpu"] = "50m".into());
    let tainted = node("n2", |node| node["spec"] = json!({"taints": [{"key": "a", "effect": "NoExecute"}]}));
    let Decision::Unschedulable(diagnosis) = decide(&pod("p", json!({})), &cluster(&[full, tainted])) else {
        panic!("was scheduled")
    };
    assert_eq!(
        diagnosis.to_string(),
        "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) had untolerated taint {a: }."
    );
    let Decision::Unschedulable(none) = decide(&pod("p", json!({})), &Cluster::default()) else { panic!() };
    assert_eq!(none.to_string(), "no nodes available to schedule pods");
}

#[test]
fn pods_of_one_workload_spread_over_the_nodes() {
    let mut cluster = cluster(&[node("n1", |_| ()), node("n2", |_| ())]);
    let mut placed = BTreeMap::<String, usize>::new();
    for uid in ["a", "b", "c", "d"] {
        let info = pod(uid, json!({}));
        let Decision::Bind(node) = decide(&info, &cluster) else { panic!("{uid} fits") };
        cluster.assume(info, &node);
        *placed.entry(node).or_default() += 1;
    }
    assert_eq!(placed.into_values().collect::<Vec<_>>(), [2, 2]);
}

#[test]
fn a_preferred_affinity_wins_over_an_emptier_node() {
    let mut cluster =
        cluster(&[node("n1", |_| ()), node("n2", |node| node["metadata"]["labels"]["disk"] = "ssd".into())]);
    let mut other = pod("other", requests("500m"));
    Arc::make_mut(&mut other.pod).metadata.labels = None;
    cluster.assume(other, "n2");
    let spec = json!({"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution":
        [{"weight": 1, "preference": {"matchExpressions": [{"key": "disk", "operator": "In", "values": ["ssd"]}]}}]}}});
    assert_eq!(decide(&pod("p", spec), &cluster), Decision::Bind("n2".into()));
}

#[test]
fn a_finished_or_deleted_pod_frees_its_node() {
    let mut cluster = cluster(&[node("n1", |_| ())]);
    let big = pod("big", requests("1"));
    cluster.assume(big.clone(), "n1");
    assert!(matches!(decide(&pod("p", json!({})), &cluster), Decision::Unschedulable(_)));
    cluster.forget("big");
    assert_eq!(decide(&pod("p", json!({})), &cluster), Decision::Bind("n1".into()));
    let mut bound = Pod::clone(&big.pod);
    bound.spec.as_mut().expect("set").node_name = Some("n1".into());
    cluster.put_pod(&Arc::new(bound.clone()));
    assert!(matches!(decide(&pod("p", json!({})), &cluster), Decision::Unschedulable(_)));
    bound.status.get_or_insert_default().phase = Some("Succeeded".into());
    cluster.put_pod(&Arc::new(bound));
    assert_eq!(decide(&pod("p", json!({})), &cluster), Decision::Bind("n1".into()));
}

#[test]
fn pods_that_keep_apart_get_nodes_of_their_own() {
    let apart = json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
        [{"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "echo"}}}]}}});
    let mut cluster = cluster(&[node("n1", |_| ()), node("n2", |_| ())]);
    for uid in ["a", "b"] {
        let info = pod(uid, apart.clone());
        let Decision::Bind(node) = decide(&info, &cluster) else { panic!("{uid} fits") };
        cluster.assume(info, &node);
    }
    let Decision::Unschedulable(diagnosis) = decide(&pod("c", apart), &cluster) else {
        panic!("no third node")
    };
    assert_eq!(
        diagnosis.to_string(),
        "0/2 nodes are available: 2 node(s) didn't match pod anti-affinity rules."
    );
    let Decision::Unschedulable(diagnosis) = decide(&pod("d", json!({})), &cluster) else {
        panic!("repelled")
    };
    assert!(diagnosis.to_string().contains("existing pods anti-affinity"), "{diagnosis}");
}

#[test]
fn pods_that_keep_together_follow_the_first_one() {
    let close = json!({"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
        [{"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "echo"}}}]}}});
    let mut cluster = cluster(&[node("n1", |_| ()), node("n2", |_| ())]);
    for uid in ["a", "b", "c"] {
        let info = pod(uid, close.clone());
        assert_eq!(decide(&info, &cluster), Decision::Bind("n1".into()), "{uid}");
        cluster.assume(info, "n1");
    }
}
