use serde_json::json;

use super::*;
use crate::resource::{RESOURCES, find};

fn now() -> Timestamp {
    "2026-01-01T00:10:00Z".parse().expect("a timestamp")
}

fn cells(group: &str, plural: &str, mut object: Value) -> Vec<Value> {
    let resource = find(group, "v1", plural).expect("the kind has a row");
    object["metadata"]["name"] = json!("a");
    object["metadata"]["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
    let table = table(resource, &[object], now(), IncludeObject::None);
    table["rows"][0]["cells"].as_array().cloned().unwrap_or_default()
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of rows")]
fn rows_read_as_upstream_prints_them() {
    let template =
        json!({"spec": {"containers": [{"name": "c", "image": "i:1"}, {"name": "d", "image": "j:2"}]}});
    let selector = json!({"matchLabels": {"app": "x"}});
    let rows = [
        (
            ("", "pods"),
            json!({"spec": {"containers": [{}], "nodeName": "n1"},
                "status": {"phase": "Pending", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]}}),
            json!(["a", "0/1", "Pending", "0", "10m", "10.0.0.1", "n1", "<none>", "<none>"]),
        ),
        (
            ("", "nodes"),
            json!({"metadata": {"labels": {"node-role.kubernetes.io/worker": "", "node-role.kubernetes.io/control-plane": ""}},
                "spec": {"unschedulable": true},
                "status": {"conditions": [{"type": "Ready", "status": "True"}],
                    "addresses": [{"type": "InternalIP", "address": "172.29.0.11"}],
                    "nodeInfo": {"kubeletVersion": "v1.36.0", "kernelVersion": "6.1", "osImage": "Debian",
                        "containerRuntimeVersion": "containerd://1.6.20"}}}),
            json!([
                "a",
                "Ready,SchedulingDisabled",
                "control-plane,worker",
                "10m",
                "v1.36.0",
                "172.29.0.11",
                "<none>",
                "Debian",
                "6.1",
                "containerd://1.6.20"
            ]),
        ),
        (
            ("", "nodes"),
            json!({"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}}),
            json!([
                "a",
                "NotReady",
                "<none>",
                "10m",
                "",
                "<none>",
                "<none>",
                "<unknown>",
                "<unknown>",
                "<unknown>"
            ]),
        ),
        (
            ("", "services"),
            json!({"spec": {"type": "NodePort", "clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1"], "selector": {"b": "2", "a": "1"},
                "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]}}),
            json!(["a", "NodePort", "10.96.0.1", "<none>", "80:30080/TCP,53/UDP", "10m", "a=1,b=2"]),
        ),
        (
            ("", "services"),
            json!({"spec": {"type": "LoadBalancer", "clusterIP": "10.96.0.1"}}),
            json!(["a", "LoadBalancer", "10.96.0.1", "<pending>", "<none>", "10m", "<none>"]),
        ),
        (
            ("", "services"),
            json!({"spec": {"type": "ExternalName", "externalName": "x.example"}}),
            json!(["a", "ExternalName", "<none>", "x.example", "<none>", "10m", "<none>"]),
        ),
        (
            ("apps", "deployments"),
            json!({"spec": {"replicas": 3, "selector": selector, "template": template},
                "status": {"readyReplicas": 2, "updatedReplicas": 3, "availableReplicas": 1}}),
            json!(["a", "2/3", 3, 1, "10m", "c,d", "i:1,j:2", "app=x"]),
        ),
        (
            ("apps", "replicasets"),
            json!({"spec": {"replicas": 3, "selector": selector, "template": template}, "status": {"replicas": 2}}),
            json!(["a", 3, 2, 0, "10m", "c,d", "i:1,j:2", "app=x"]),
        ),
        (("", "namespaces"), json!({"status": {"phase": "Active"}}), json!(["a", "Active", "10m"])),
        (("", "configmaps"), json!({"data": {"x": "1"}, "binaryData": {"y": ""}}), json!(["a", 2, "10m"])),
        (("", "secrets"), json!({"type": "Opaque"}), json!(["a", "Opaque", 0, "10m"])),
        (("", "serviceaccounts"), json!({}), json!(["a", 0, "10m"])),
        (
            ("", "endpoints"),
            json!({"subsets": [{"addresses": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}],
                "ports": [{"port": 80}, {"port": 81}]}]}),
            json!(["a", "10.0.0.1:80,10.0.0.2:80,10.0.0.1:81 + 1 more...", "10m"]),
        ),
        (
            ("discovery.k8s.io", "endpointslices"),
            json!({"addressType": "IPv4", "ports": [{"port": 80}, {"name": "x"}], "endpoints": [
                {"addresses": ["10.0.0.1"]}, {"addresses": ["10.0.0.2"]}, {"addresses": ["10.0.0.3"]},
                {"addresses": ["10.0.0.4"]}]}),
            json!(["a", "IPv4", "80,x", "10.0.0.1,10.0.0.2,10.0.0.3 + 1 more...", "10m"]),
        ),
        (
            ("discovery.k8s.io", "endpointslices"),
            json!({"addressType": "IPv6"}),
            json!(["a", "IPv6", "<unset>", "<unset>", "10m"]),
        ),
        (
            ("coordination.k8s.io", "leases"),
            json!({"spec": {"holderIdentity": "n1"}}),
            json!(["a", "n1", "10m"]),
        ),
        (
            ("", "events"),
            json!({"type": "Warning", "reason": "BackOff", "message": "again \n", "count": 4,
                "involvedObject": {"kind": "Pod", "name": "p", "fieldPath": "spec.containers{c}"},
                "source": {"component": "kubelet", "host": "n1"},
                "firstTimestamp": "2026-01-01T00:05:00Z", "lastTimestamp": "2026-01-01T00:09:00Z"}),
            json!([
                "60s",
                "Warning",
                "BackOff",
                "pod/p",
                "spec.containers{c}",
                "kubelet, n1",
                "again",
                "5m",
                4,
                "a"
            ]),
        ),
        (
            ("events.k8s.io", "events"),
            json!({"type": "Normal", "reason": "Scheduled", "note": "done", "eventTime": "2026-01-01T00:09:30.000000Z",
                "regarding": {"kind": "Pod", "name": "p"}, "reportingController": "scheduler", "reportingInstance": "s-1"}),
            json!(["30s", "Normal", "Scheduled", "pod/p", "", "scheduler, s-1", "done", "30s", 1, "a"]),
        ),
    ];
    for ((group, plural), object, expected) in rows {
        assert_eq!(Value::Array(cells(group, plural, object)), expected, "{plural}");
    }
}

#[test]
fn a_table_has_as_many_cells_as_columns_and_survives_an_empty_object() {
    for resource in RESOURCES {
        let table = table(resource, &[json!({})], now(), IncludeObject::Metadata);
        assert_eq!(table["kind"], "Table");
        assert_eq!(table["apiVersion"], "meta.k8s.io/v1");
        let columns = table["columnDefinitions"].as_array().expect("columns");
        let cells = table["rows"][0]["cells"].as_array().expect("cells");
        assert!(!columns.is_empty() && columns.len() == cells.len(), "{}", resource.kind);
        assert_eq!(
            columns.iter().filter(|column| column["format"] == "name").count(),
            1,
            "{}",
            resource.kind
        );
    }
}

#[test]
fn a_row_carries_what_was_asked_for() {
    let pods = find("", "v1", "pods").expect("the kind has a row");
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "labels": {"x": "y"}}, "spec": {}});
    let object = |query| {
        let include = IncludeObject::from_query(query).expect(query);
        table(pods, std::slice::from_ref(&pod), now(), include)["rows"][0].get("object").cloned()
    };
    assert_eq!(object("None"), None);
    assert_eq!(object("Object"), Some(pod.clone()));
    let metadata = json!({
        "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
        "metadata": {"name": "a", "labels": {"x": "y"}},
    });
    assert_eq!(object("Metadata"), Some(metadata.clone()));
    assert_eq!(object(""), Some(metadata));
    assert_eq!(IncludeObject::from_query("Everything"), None);
}
