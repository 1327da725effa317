//! What an update may change.

use super::*;
use crate::resource::FieldErrorReason;

#[test]
fn an_update_may_not_change_what_is_immutable() {
    let immutable_map =
        || json!({"metadata": {"name": "a", "namespace": "d"}, "immutable": true, "data": {"a": "1"}});
    let mut bound = pod();
    bound["spec"]["nodeName"] = json!("n1");
    let rows: Vec<(&Resource, Value, &str, Value, &[&str])> = vec![
        (resource("apps", "deployments"), deployment(), "/spec/replicas", json!(5), &[]),
        (
            resource("apps", "deployments"),
            deployment(),
            "/spec/selector",
            json!({"matchLabels": {"app": "x", "b": "c"}}),
            &[
                "spec.template.metadata.labels: Invalid value: {\"app\":\"x\"}: `selector` does not match template `labels`",
                "spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"x\",\"b\":\"c\"}}: field is immutable",
            ],
        ),
        (
            resource("", "configmaps"),
            immutable_map(),
            "/data",
            json!({"a": "2"}),
            &["data: Forbidden: field is immutable when `immutable` is set"],
        ),
        (
            resource("", "configmaps"),
            immutable_map(),
            "/immutable",
            json!(false),
            &["immutable: Forbidden: field is immutable when `immutable` is set"],
        ),
        (
            resource("", "pods"),
            pod(),
            "/metadata/name",
            json!("b"),
            &["metadata.name: Invalid value: \"b\": field is immutable"],
        ),
        (resource("", "pods"), pod(), "/spec/containers/0/image", json!("other"), &[]),
        (resource("", "pods"), pod(), "/spec/activeDeadlineSeconds", json!(5), &[]),
        (resource("", "pods"), pod(), "/spec/nodeName", json!("n1"), &[]),
        (resource("", "pods"), pod(), "/spec/tolerations", json!([{"key": "a", "operator": "Exists"}]), &[]),
        (
            resource("discovery.k8s.io", "endpointslices"),
            slice(),
            "/addressType",
            json!("FQDN"),
            &["addressType: Invalid value: \"FQDN\": field is immutable"],
        ),
    ];
    for (resource, before, pointer, value, expected) in rows {
        let old = changed(resource, before.clone(), "/apiVersion", &json!("x"));
        let mut new = before;
        new["apiVersion"] = json!("x");
        let new = changed(resource, new, pointer, &value);
        let said: Vec<String> =
            validate(resource, &new, Some(&old)).iter().map(ToString::to_string).collect();
        assert_eq!(said, expected, "{pointer} = {value}");
    }
    let pods = resource("", "pods");
    let old = changed(pods, bound.clone(), "/kind", &json!("Pod"));
    for (pointer, value, what) in [
        ("/spec/nodeName", json!("n2"), "spec.nodeName"),
        ("/spec/containers/0/name", json!("d"), "spec.containers"),
        ("/spec/hostNetwork", json!(true), "spec.containers, spec.hostNetwork"),
    ] {
        let new = changed(pods, bound.clone(), pointer, &value);
        let errors = validate(pods, &new, Some(&old));
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert_eq!(errors[0].reason, FieldErrorReason::Forbidden);
        assert!(errors[0].message.starts_with("Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.init"), "{}", errors[0].message);
        assert!(errors[0].message.ends_with(&format!("changed: {what}")), "{}", errors[0].message);
    }
}

#[test]
fn a_cluster_address_is_given_once() {
    let services = resource("", "services");
    let with = |address: &str| changed(services, service(), "/spec/clusterIP", &json!(address));
    let said = |new: &Value, old: &Value| {
        validate(services, new, Some(old)).iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(said(&with("10.96.0.1"), &with("")), [""; 0]);
    assert_eq!(
        said(&with("10.96.0.2"), &with("10.96.0.1")),
        ["spec.clusterIP: Invalid value: \"10.96.0.2\": may not change once set",]
    );
}

#[test]
fn an_alias_may_get_an_address_and_lose_it() {
    let services = resource("", "services");
    let with = |spec: Value| changed(services, service(), "/spec", &spec);
    let alias = with(json!({"type": "ExternalName", "externalName": "a.b"}));
    let addressed = with(json!({"clusterIP": "10.96.0.1", "ports": [{"port": 80}]}));
    assert_eq!(validate(services, &alias, Some(&addressed)), []);
    assert_eq!(validate(services, &addressed, Some(&alias)), []);
}
