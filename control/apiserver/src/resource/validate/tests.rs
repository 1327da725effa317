use serde_json::{Value, json};

use super::*;

mod kinds;
mod update;
use crate::resource::{FieldErrorReason, RESOURCES, aggregate, default, find, prepare_for_create};

fn resource(group: &str, plural: &str) -> &'static Resource {
    find(group, "v1", plural).expect("the kind has a row")
}

/// The object after the change, valid before it, with its defaults.
fn changed(resource: &Resource, mut object: Value, pointer: &str, value: &Value) -> Value {
    let (parent, field) = pointer.rsplit_once('/').expect("a pointer has a slash");
    let parent = object.pointer_mut(parent).expect("the parent exists");
    match (parent, field.parse::<usize>()) {
        (Value::Array(list), Ok(index)) if index == list.len() => list.push(value.clone()),
        (Value::Array(list), Ok(index)) => list[index] = value.clone(),
        (parent, _) => parent[field] = value.clone(),
    }
    default(resource, &mut object);
    object
}

fn said(resource: &Resource, object: &Value) -> Vec<String> {
    validate(resource, object, None).iter().map(ToString::to_string).collect()
}

fn pod() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "namespace": "d"},
        "spec": {
            "containers": [{
                "name": "c", "image": "i", "ports": [{"name": "http", "containerPort": 80}], "env": [],
                "volumeMounts": [{"name": "v", "mountPath": "/v"}],
            }],
            "volumes": [{"name": "v", "emptyDir": {}}],
        },
    })
}

fn deployment() -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a", "namespace": "d"},
        "spec": {
            "selector": {"matchLabels": {"app": "x"}},
            "strategy": {},
            "template": {
                "metadata": {"labels": {"app": "x"}},
                "spec": {"containers": [{"name": "c", "image": "i"}]},
            },
        },
    })
}

fn service() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "a", "namespace": "d"},
        "spec": {"selector": {"app": "x"}, "ports": [{"name": "http", "port": 80}]},
    })
}

fn slice() -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": {"name": "a", "namespace": "d"},
        "addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"]}], "ports": [{"port": 80}],
    })
}

fn check(resource: &Resource, object: &Value, rows: &[(&str, Value, &[&str])]) {
    assert_eq!(said(resource, &changed(resource, object.clone(), "/kind", &object["kind"])), [""; 0]);
    for (pointer, value, expected) in rows {
        let object = changed(resource, object.clone(), pointer, value);
        assert_eq!(said(resource, &object), *expected, "{pointer} = {value}");
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of rows")]
fn a_pod_is_refused_in_upstreams_words() {
    let container = "/spec/containers/0";
    let at = |rest: &str| format!("{container}/{rest}");
    let (image, name, port, env, resources, probe) = (
        at("image"),
        at("name"),
        at("ports/0/containerPort"),
        at("env/0"),
        at("resources"),
        at("livenessProbe"),
    );
    let port_name = at("ports/0/name");
    let mount = at("volumeMounts/0/name");
    let policy = at("imagePullPolicy");
    check(
        resource("", "pods"),
        &pod(),
        &[
            (&image, json!(""), &["spec.containers[0].image: Required value"]),
            (&name, json!(""), &["spec.containers[0].name: Required value"]),
            (
                &name,
                json!("C"),
                &[
                    "spec.containers[0].name: Invalid value: \"C\": a lowercase RFC 1123 label must consist of lower case \
                   alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. \
                   'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
                ],
            ),
            ("/spec/containers", json!([]), &["spec.containers: Required value"]),
            (
                "/spec/containers/1",
                json!({"name": "c", "image": "i"}),
                &["spec.containers[1].name: Duplicate value: \"c\""],
            ),
            (
                &port,
                json!(70_000),
                &[
                    "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
                ],
            ),
            (&port, json!(0), &["spec.containers[0].ports[0].containerPort: Required value"]),
            (
                &port_name,
                json!("much-too-long-name"),
                &[
                    "spec.containers[0].ports[0].name: Invalid value: \"much-too-long-name\": must be no more than 15 characters",
                ],
            ),
            (&env, json!({"name": ""}), &["spec.containers[0].env[0].name: Required value"]),
            (
                &env,
                json!({"name": "A", "value": "b", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "x"}}}),
                &["spec.containers[0].env[0].valueFrom: Invalid value: \
                 {\"fieldRef\":{\"apiVersion\":\"v1\",\"fieldPath\":\"x\"}}: may not be specified when `value` is not empty"],
            ),
            (
                &resources,
                json!({"limits": {"cpu": "1"}, "requests": {"cpu": "2"}}),
                &[
                    "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
                ],
            ),
            (
                &resources,
                json!({"limits": {"cpu": "much"}}),
                &[
                    "spec.containers[0].resources.limits[cpu]: Invalid value: \"much\": quantities must match the regular \
                 expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
                    "spec.containers[0].resources.requests[cpu]: Invalid value: \"much\": quantities must match the regular \
                 expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
                ],
            ),
            (
                &probe,
                json!({}),
                &["spec.containers[0].livenessProbe: Required value: must specify a handler type"],
            ),
            (
                &probe,
                json!({"tcpSocket": {"port": 80}, "exec": {"command": ["a"]}}),
                &[
                    "spec.containers[0].livenessProbe.tcpSocket: Forbidden: may not specify more than 1 handler type",
                ],
            ),
            (
                &probe,
                json!({"tcpSocket": {"port": 80}, "successThreshold": 2}),
                &["spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1"],
            ),
            (&mount, json!("w"), &["spec.containers[0].volumeMounts[0].name: Not found: \"w\""]),
            (
                &policy,
                json!("Sometimes"),
                &[
                    "spec.containers[0].imagePullPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \
                 \"IfNotPresent\", \"Never\"",
                ],
            ),
            (
                "/spec/restartPolicy",
                json!("Maybe"),
                &[
                    "spec.restartPolicy: Unsupported value: \"Maybe\": supported values: \"Always\", \"Never\", \"OnFailure\"",
                ],
            ),
            ("/spec/volumes/1", json!({"name": "v"}), &["spec.volumes[1].name: Duplicate value: \"v\""]),
            (
                "/spec/volumes/0",
                json!({"name": "v", "emptyDir": {}, "hostPath": {"path": "/"}}),
                &["spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type"],
            ),
            (
                "/spec/activeDeadlineSeconds",
                json!(0),
                &[
                    "spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive",
                ],
            ),
        ],
    );
}

#[test]
fn metadata_is_refused_in_upstreams_words() {
    check(
        resource("", "pods"),
        &pod(),
        &[
            (
                "/metadata/name",
                json!("X"),
                &[
                    "metadata.name: Invalid value: \"X\": a lowercase RFC 1123 subdomain must consist of lower case \
                 alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. \
                 'example.com', regex used for validation is \
                 '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
                ],
            ),
            (
                "/metadata/name",
                json!(""),
                &["metadata.name: Required value: name or generateName is required"],
            ),
            ("/metadata/namespace", json!(""), &["metadata.namespace: Required value"]),
            (
                "/metadata/labels",
                json!({"a": "-"}),
                &[
                    "metadata.labels: Invalid value: \"-\": a valid label must be an empty string or consist of alphanumeric \
                 characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or \
                 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
                ],
            ),
            (
                "/metadata/annotations",
                json!({"a": "x".repeat(300_000)}),
                &["metadata.annotations: Too long: may not be more than 262144 bytes"],
            ),
            (
                "/metadata/ownerReferences",
                json!([{"apiVersion": "v1", "kind": "Pod", "name": "p"}]),
                &["metadata.ownerReferences[0].uid: Invalid value: \"\": must not be empty"],
            ),
            ("/metadata/finalizers", json!(["example.com/x"]), &[]),
            ("/metadata/generateName", json!("web-"), &[]),
        ],
    );
    let mut node = json!({"metadata": {"name": "n", "namespace": "d"}});
    default(resource("", "nodes"), &mut node);
    assert_eq!(
        said(resource("", "nodes"), &node),
        ["metadata.namespace: Forbidden: not allowed on this type"]
    );
}

#[test]
fn a_deployment_is_refused_in_upstreams_words() {
    check(
        resource("apps", "deployments"),
        &deployment(),
        &[
            (
                "/spec/replicas",
                json!(-1),
                &["spec.replicas: Invalid value: -1: must be greater than or equal to 0"],
            ),
            ("/spec/selector", Value::Null, &["spec.selector: Required value"]),
            (
                "/spec/selector",
                json!({}),
                &["spec.selector: Invalid value: {}: empty selector is invalid for deployment"],
            ),
            (
                "/spec/template/metadata/labels",
                json!({"app": "y"}),
                &[
                    "spec.template.metadata.labels: Invalid value: {\"app\":\"y\"}: `selector` does not match template `labels`",
                ],
            ),
            (
                "/spec/template/spec/containers/0/image",
                json!(""),
                &["spec.template.spec.containers[0].image: Required value"],
            ),
            (
                "/spec/template/spec/restartPolicy",
                json!("Never"),
                &[
                    "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"",
                ],
            ),
            (
                "/spec/strategy",
                json!({"type": "Recreate", "rollingUpdate": {}}),
                &[
                    "spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'",
                ],
            ),
            (
                "/spec/strategy",
                json!({"rollingUpdate": {"maxSurge": 0, "maxUnavailable": "0%"}}),
                &[
                    "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"0%\": may not be 0 when `maxSurge` is 0",
                ],
            ),
            (
                "/spec/strategy/type",
                json!("Slow"),
                &[
                    "spec.strategy.type: Unsupported value: \"Slow\": supported values: \"Recreate\", \"RollingUpdate\"",
                ],
            ),
            (
                "/spec/minReadySeconds",
                json!(600),
                &["spec.progressDeadlineSeconds: Invalid value: 600: must be greater than minReadySeconds"],
            ),
        ],
    );
}

#[test]
fn a_service_is_refused_in_upstreams_words() {
    check(
        resource("", "services"),
        &service(),
        &[
            ("/spec/ports", json!([]), &["spec.ports: Required value"]),
            ("/spec/ports/1", json!({"port": 81}), &["spec.ports[1].name: Required value"]),
            (
                "/spec/ports/1",
                json!({"name": "http", "port": 81}),
                &["spec.ports[1].name: Duplicate value: \"http\""],
            ),
            (
                "/spec/ports/1",
                json!({"name": "b", "port": 80, "targetPort": 81}),
                &["spec.ports[1]: Duplicate value: {\"port\":80,\"protocol\":\"TCP\"}"],
            ),
            ("/spec/ports/1", json!({"name": "b", "port": 80, "protocol": "UDP"}), &[]),
            (
                "/spec/ports/0/port",
                json!(65_536),
                &[
                    "spec.ports[0].port: Invalid value: 65536: must be between 1 and 65535, inclusive",
                    "spec.ports[0].targetPort: Invalid value: 65536: must be between 1 and 65535, inclusive",
                ],
            ),
            (
                "/spec/ports/0/targetPort",
                json!("not a port"),
                &[
                    "spec.ports[0].targetPort: Invalid value: \"not a port\": must contain only alpha-numeric characters (a-z, \
                 0-9), and hyphens (-)",
                ],
            ),
            (
                "/spec/ports/0/nodePort",
                json!(30_000),
                &["spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"],
            ),
            (
                "/spec/clusterIP",
                json!("ten"),
                &["spec.clusterIP: Invalid value: \"ten\": must be empty, 'None', or a valid IP address"],
            ),
            ("/spec", json!({"clusterIP": "None"}), &[]),
            ("/spec", json!({"type": "ExternalName"}), &["spec.externalName: Required value"]),
            (
                "/spec/type",
                json!("Magic"),
                &[
                    "spec.type: Unsupported value: \"Magic\": supported values: \"ClusterIP\", \"ExternalName\", \
                 \"LoadBalancer\", \"NodePort\"",
                ],
            ),
            (
                "/metadata/name",
                json!("1a"),
                &[
                    "metadata.name: Invalid value: \"1a\": a DNS-1035 label must consist of lower case alphanumeric characters \
                 or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or \
                 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')",
                ],
            ),
        ],
    );
}

#[test]
fn an_endpoint_slice_is_refused_in_upstreams_words() {
    check(
        resource("discovery.k8s.io", "endpointslices"),
        &slice(),
        &[
            ("/addressType", json!(""), &["addressType: Required value"]),
            (
                "/addressType",
                json!("IPv6"),
                &["endpoints[0].addresses[0]: Invalid value: \"10.0.0.1\": must be a valid IPv6 address"],
            ),
            (
                "/endpoints/0/addresses",
                json!([]),
                &["endpoints[0].addresses: Required value: must contain at least 1 address"],
            ),
            (
                "/endpoints/0/addresses/0",
                json!("127.0.0.1"),
                &[
                    "endpoints[0].addresses[0]: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, \
                 ::1/128)",
                ],
            ),
            ("/ports/1", json!({"port": 81}), &["ports[1].name: Duplicate value: \"\""]),
            (
                "/endpoints",
                Value::Array(vec![json!({"addresses": ["10.0.0.1"]}); 1001]),
                &["endpoints: Too many: 1001: must have at most 1000 items"],
            ),
        ],
    );
}

#[test]
fn the_other_kinds_are_refused_in_upstreams_words() {
    let meta = json!({"name": "a", "namespace": "d"});
    let rows: [(&str, &str, Value, &[&str]); 8] = [
        (
            "coordination.k8s.io",
            "leases",
            json!({"spec": {"leaseDurationSeconds": 0, "leaseTransitions": -1}}),
            &[
                "spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0",
                "spec.leaseTransitions: Invalid value: -1: must be greater than or equal to 0",
            ],
        ),
        (
            "",
            "configmaps",
            json!({"data": {"a b": "c"}}),
            &[
                "data[a b]: Invalid value: \"a b\": a valid config key must consist of alphanumeric characters, '-', '_' or '.' \
             (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')",
            ],
        ),
        (
            "",
            "configmaps",
            json!({"data": {"a": "x".repeat(1 << 21)}}),
            &[": Too long: may not be more than 1048576 bytes"],
        ),
        (
            "",
            "configmaps",
            json!({"data": {"a": "1"}, "binaryData": {"a": "MQ=="}}),
            &["binaryData[a]: Invalid value: \"a\": duplicate of key present in data"],
        ),
        (
            "",
            "secrets",
            json!({"type": "kubernetes.io/tls", "data": {"tls.crt": ""}}),
            &["data[tls.key]: Required value"],
        ),
        (
            "",
            "events",
            json!({"involvedObject": {"namespace": "x"}}),
            &["involvedObject.namespace: Invalid value: \"x\": does not match event.namespace"],
        ),
        ("events.k8s.io", "events", json!({"regarding": {"namespace": "d"}}), &[]),
        (
            "",
            "endpoints",
            json!({"subsets": [{"addresses": [{"ip": "x"}], "ports": [{"port": 80}]}]}),
            &[
                "subsets[0].addresses[0].ip: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or \
             2001:db8::ffff)",
            ],
        ),
    ];
    for (group, plural, mut object, expected) in rows {
        object["metadata"] = meta.clone();
        default(resource(group, plural), &mut object);
        assert_eq!(said(resource(group, plural), &object), expected, "{plural}");
    }
    let mut node = json!({"metadata": {"name": "n"}, "spec": {"taints": [
        {"key": "a", "effect": "NoSchedule"}, {"key": "a", "effect": "NoSchedule", "value": "b"}, {"key": "b", "effect": "No"},
    ]}});
    default(resource("", "nodes"), &mut node);
    assert_eq!(
        said(resource("", "nodes"), &node),
        [
            "spec.taints[1]: Duplicate value: {\"effect\":\"NoSchedule\",\"key\":\"a\",\"value\":\"b\"}",
            "spec.taints[2].effect: Unsupported value: \"No\": supported values: \"NoExecute\", \"NoSchedule\", \
         \"PreferNoSchedule\"",
        ]
    );
}

#[test]
fn the_smallest_object_of_a_kind_is_valid_or_says_what_is_missing() {
    for resource in RESOURCES {
        let name = if resource.plural == "ipaddresses" { "10.0.0.1" } else { "a" };
        let mut object = json!({"metadata": {"name": name}});
        if resource.namespaced {
            object["metadata"]["namespace"] = json!("default");
        }
        default(resource, &mut object);
        prepare_for_create(resource, &mut object);
        let errors = validate(resource, &object, None);
        let missing = |error: &FieldError| error.reason == FieldErrorReason::Required;
        let kind = resource.kind;
        match kind {
            "Ingress"
            | "PersistentVolume"
            | "CertificateSigningRequest"
            | "EndpointSlice"
            | "ClusterRoleBinding"
            | "RoleBinding"
            | "Service" => assert!(!errors.is_empty(), "{kind}"),
            _ => assert!(errors.iter().all(missing), "{kind}: {errors:?}"),
        }
    }
}

#[test]
fn several_errors_are_one_message() {
    let errors =
        [FieldError::required("a", ""), FieldError::required("b", "why"), FieldError::required("a", "")];
    assert_eq!(aggregate(&errors), "[a: Required value, b: Required value: why]");
    assert_eq!(aggregate(&errors[..1]), "a: Required value");
}
