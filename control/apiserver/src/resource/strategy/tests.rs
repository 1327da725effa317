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
        (("apps", "deployments"), json!(1), json!({}), Value::Null),
        (("apps", "replicasets"), json!(1), json!({"replicas": 0}), Value::Null),
        (("", "pods"), json!(1), json!({"phase": "Pending", "qosClass": "BestEffort"}), Value::Null),
        (("", "services"), Value::Null, json!({"loadBalancer": {}}), Value::Null),
        (("", "nodes"), Value::Null, json!({"phase": "Odd"}), Value::Null),
        (("", "namespaces"), Value::Null, json!({"phase": "Active"}), json!(["kubernetes"])),
    ];
    for ((group, plural), generation, status, finalizers) in rows {
        let mut created = object();
        prepare_for_create(resource(group, plural), &mut created);
        assert_eq!(created["metadata"]["generation"], generation, "{plural}");
        assert_eq!(created["status"], status, "{plural}");
        assert_eq!(created["spec"]["finalizers"], finalizers, "{plural}");
    }
}

#[test]
fn leaving_out_a_default_is_no_change() {
    let sets = resource("apps", "replicasets");
    let mut old = json!({"metadata": {"name": "a"}, "spec": {"selector": {}, "template": {"spec": {"containers": [{}]}}}});
    let mut new = old.clone();
    prepare_for_create(sets, &mut old);
    prepare_for_update(sets, &mut new, &old, None);
    assert_eq!(new["metadata"]["generation"], 1);
    assert_eq!(new, old);
}

#[test]
fn an_update_keeps_status_and_a_status_update_keeps_the_rest() {
    let deployments = resource("apps", "deployments");
    let mut old = json!({
        "metadata": {"name": "a", "uid": "1", "creationTimestamp": "t", "generation": 3, "labels": {"l": "old"}},
        "spec": {"replicas": 1}, "status": {"replicas": 1},
    });
    default(deployments, &mut old);
    let written = json!({
        "metadata": {"name": "a", "creationTimestamp": "other", "generation": 9, "labels": {"l": "new"}},
        "spec": {"replicas": 2}, "status": {"replicas": 2},
    });

    let mut new = written.clone();
    prepare_for_update(deployments, &mut new, &old, None);
    let metadata =
        json!({"name": "a", "uid": "1", "creationTimestamp": "t", "generation": 4, "labels": {"l": "new"}});
    assert_eq!(new["metadata"], metadata);
    assert_eq!((&new["spec"]["replicas"], &new["status"]), (&json!(2), &json!({"replicas": 1})));

    let mut new = written;
    prepare_for_update(deployments, &mut new, &old, Some("status"));
    let metadata =
        json!({"name": "a", "uid": "1", "creationTimestamp": "t", "generation": 3, "labels": {"l": "old"}});
    assert_eq!(new["metadata"], metadata);
    assert_eq!((&new["spec"], &new["status"]), (&old["spec"], &json!({"replicas": 2})));
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
    assert_eq!(new["metadata"], old["metadata"]);
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
        (pod(std::slice::from_ref(&full)), "Guaranteed"),
        (pod(&[less]), "Burstable"),
        (pod(&[full, json!({})]), "Burstable"),
        (pod(&[json!({"requests": {"memory": "1Mi"}})]), "Burstable"),
        (pod(&[json!({"requests": {"cpu": "0"}})]), "BestEffort"),
    ];
    for (pod, expected) in rows {
        assert_eq!(pod_status(&pod)["qosClass"], expected, "{pod}");
    }
}
