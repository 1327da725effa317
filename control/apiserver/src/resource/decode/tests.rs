use serde_json::json;

use super::*;
use crate::resource::find;

fn resource(group: &str, plural: &str) -> &'static Resource {
    find(group, "v1", plural).expect("the kind has a row")
}

#[test]
fn a_field_of_the_wrong_type_is_named_with_its_go_type() {
    let deployments = resource("apps", "deployments");
    let head = "Deployment in version \"apps/v1\" cannot be handled as a Deployment: ";
    let rows = [
        (
            json!({"spec": {"replicas": "three"}}),
            "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            json!({"spec": {"replicas": 5_000_000_000i64}}),
            "json: cannot unmarshal number 5000000000 into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            json!({"spec": {"paused": 1}}),
            "json: cannot unmarshal number into Go struct field DeploymentSpec.spec.paused of type bool",
        ),
        (
            json!({"spec": {"template": {"spec": {"containers": {"name": "a"}}}}}),
            "json: cannot unmarshal object into Go struct field PodSpec.spec.template.spec.containers of type list",
        ),
        (
            json!({"spec": {"template": {"spec": {"containers": [{"image": 1}]}}}}),
            "json: cannot unmarshal number into Go struct field Container.spec.template.spec.containers[0].image of \
             type string",
        ),
        (
            json!({"metadata": {"labels": {"a": true}}}),
            "json: cannot unmarshal bool into Go struct field ObjectMeta.metadata.labels.a of type string",
        ),
        (
            json!({"spec": []}),
            "json: cannot unmarshal array into Go struct field Deployment.spec of type DeploymentSpec",
        ),
    ];
    for (mut object, expected) in rows {
        object["apiVersion"] = json!("apps/v1");
        object["kind"] = json!("Deployment");
        let error = check_types(deployments, &object).expect_err("the type is wrong");
        assert_eq!(error.to_string(), format!("{head}{expected}"), "{object}");
    }
}

#[test]
fn a_value_that_its_type_cannot_read_is_named() {
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "spec": {"renewTime": "yesterday"},
    });
    let error = check_types(resource("coordination.k8s.io", "leases"), &lease).expect_err("no time");
    assert!(error.to_string().contains("field spec.renewTime: "), "{error}");
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "data": {"key": "not base64!"}});
    let error = check_types(resource("", "secrets"), &secret).expect_err("not base64");
    assert!(error.to_string().contains("field data.key: "), "{error}");
}

#[test]
fn unknown_fields_are_found_at_any_depth_and_pruned() {
    let mut deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "a", "creationTimestamp": null, "labels": {"any.key/goes": "x"}, "nam": "b"},
        "spec": {
            "replicaz": 3,
            "selector": {"matchLabels": {"a": "b"}},
            "template": {"spec": {"containers": [
                {"name": "c", "foo": {"bar": 1}, "resources": {"limits": {"example.com/gpu": 1}}},
                {"name": "d", "ports": [{"containerPort": 80}, {"containerPorts": 81, "hostPort": null}]},
            ]}},
        },
        "surplus": null,
    });
    let deployments = resource("apps", "deployments");
    assert_eq!(check_types(deployments, &deployment), Ok(()));
    let unknown = [
        "metadata.nam",
        "spec.replicaz",
        "spec.template.spec.containers[0].foo",
        "spec.template.spec.containers[1].ports[1].containerPorts",
    ];
    assert_eq!(unknown_fields(deployments, &deployment), unknown);
    assert_eq!(prune(deployments, &mut deployment).expect("the types are right"), unknown);
    assert_eq!(
        deployment,
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "a", "labels": {"any.key/goes": "x"}},
            "spec": {
                "selector": {"matchLabels": {"a": "b"}},
                "template": {"spec": {"containers": [
                    {"name": "c", "resources": {"limits": {"example.com/gpu": 1}}},
                    {"name": "d", "ports": [{"containerPort": 80}, {}]},
                ]}},
            },
        })
    );
}

#[test]
fn every_kind_reads_its_own_objects_and_refuses_another_kind() {
    for resource in crate::resource::RESOURCES {
        let object =
            json!({"apiVersion": resource.api_version(), "kind": resource.kind, "metadata": {"name": "a"}});
        assert_eq!(check_types(resource, &object), Ok(()), "{}", resource.kind);
        let other = json!({"apiVersion": "v9", "kind": resource.kind});
        assert!(check_types(resource, &other).is_err(), "{}", resource.kind);
    }
}
