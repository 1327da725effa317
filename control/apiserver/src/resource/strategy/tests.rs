use serde_json::json;

use super::*;
use crate::resource::find;

fn resource(group: &str, plural: &str) -> &'static Resource {
    find(group, "v1", plural).expect("the kind has a row")
}

#[test]
fn creation_decides_on_status_and_generation() {
    let object =
        || json!({"metadata": {"name": "a", "generation": 7}, "spec": {}, "status": {"phase": "Odd"}});
    let rows = [
        (("apps", "deployments"), json!({"metadata": {"name": "a", "generation": 1}, "spec": {}})),
        (
            ("", "pods"),
            json!({"metadata": {"name": "a", "generation": 1}, "spec": {},
                "status": {"phase": "Pending", "qosClass": "BestEffort"}}),
        ),
        (("", "nodes"), json!({"metadata": {"name": "a"}, "spec": {}, "status": {"phase": "Odd"}})),
        (
            ("", "namespaces"),
            json!({"metadata": {"name": "a"}, "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}}),
        ),
    ];
    for ((group, plural), expected) in rows {
        let mut created = object();
        prepare_for_create(resource(group, plural), &mut created);
        assert_eq!(created, expected, "{plural}");
    }
}

#[test]
fn an_update_keeps_status_and_a_status_update_keeps_the_rest() {
    let deployments = resource("apps", "deployments");
    let old = json!({
        "metadata": {"name": "a", "uid": "1", "creationTimestamp": "t", "generation": 3, "labels": {"l": "old"}},
        "spec": {"replicas": 1}, "status": {"replicas": 1},
    });
    let written = json!({
        "metadata": {"name": "a", "creationTimestamp": "other", "generation": 9, "labels": {"l": "new"}},
        "spec": {"replicas": 2}, "status": {"replicas": 2},
    });

    let mut new = written.clone();
    prepare_for_update(deployments, &mut new, &old, None);
    assert_eq!(
        new,
        json!({
            "metadata": {"name": "a", "uid": "1", "creationTimestamp": "t", "generation": 4, "labels": {"l": "new"}},
            "spec": {"replicas": 2}, "status": {"replicas": 1},
        })
    );

    let mut new = written;
    prepare_for_update(deployments, &mut new, &old, Some("status"));
    assert_eq!(
        new,
        json!({
            "metadata": {"name": "a", "uid": "1", "creationTimestamp": "t", "generation": 3, "labels": {"l": "old"}},
            "spec": {"replicas": 1}, "status": {"replicas": 2},
        })
    );
}

#[test]
fn finalizers_of_a_namespace_change_through_finalize_only() {
    let namespaces = resource("", "namespaces");
    let old = json!({"metadata": {"name": "a"}, "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}});
    let written = json!({"metadata": {"name": "a", "labels": {"x": "y"}}, "spec": {"finalizers": []}});
    let mut new = written.clone();
    prepare_for_update(namespaces, &mut new, &old, None);
    assert_eq!(new["spec"]["finalizers"], json!(["kubernetes"]));
    assert_eq!(new["metadata"]["labels"]["x"], "y");
    let mut new = written;
    prepare_for_update(namespaces, &mut new, &old, Some("finalize"));
    assert_eq!(new["spec"]["finalizers"], json!([]));
    assert!(new["metadata"].get("labels").is_none());
}

#[test]
fn an_endpoint_slice_moves_on_when_its_endpoints_do() {
    let slices = resource("discovery.k8s.io", "endpointslices");
    let old = json!({"metadata": {"generation": 1}, "endpoints": []});
    let rows = [
        (json!({"metadata": {"annotations": {"a": "b"}}, "endpoints": []}), 1),
        (json!({"metadata": {"labels": {"a": "b"}}, "endpoints": []}), 2),
        (json!({"metadata": {}, "endpoints": [{"addresses": ["10.0.0.1"]}]}), 2),
    ];
    for (mut new, generation) in rows {
        prepare_for_update(slices, &mut new, &old, None);
        assert_eq!(new["metadata"]["generation"], generation, "{new}");
    }
}

#[test]
fn the_quality_of_service_follows_from_the_resources() {
    let pod = |resources: &[Value]| {
        let containers: Vec<Value> =
            resources.iter().map(|resources| json!({"resources": resources})).collect();
        json!({"spec": {"containers": containers}})
    };
    let full =
        json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m", "memory": "1024Mi"}});
    let less = json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m", "memory": "1Gi"}});
    let rows = [
        (pod(&[json!({})]), "BestEffort"),
        (pod(&[full.clone()]), "Guaranteed"),
        (pod(&[less]), "Burstable"),
        (pod(&[full, json!({})]), "Burstable"),
        (pod(&[json!({"requests": {"memory": "1Mi"}})]), "Burstable"),
        (pod(&[json!({"requests": {"cpu": "0"}})]), "BestEffort"),
    ];
    for (pod, expected) in rows {
        assert_eq!(pod_status(&pod)["qosClass"], expected, "{pod}");
    }
}
