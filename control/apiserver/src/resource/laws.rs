//! Laws over odd objects: whatever passed the type check is defaulted, validated and printed without a panic.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{
    RESOURCES, Resource, check_types, default, find, prepare_for_create, prepare_for_update, prune,
    unknown_fields, validate,
};
use crate::table::{IncludeObject, table};

/// Objects with as many of the fields that the rules look at as fit.
#[expect(clippy::too_many_lines, reason = "a table of rows")]
fn samples() -> Vec<(&'static Resource, Value)> {
    let template = json!({
        "metadata": {"labels": {"app": "x"}, "annotations": {"a": "b"}},
        "spec": {
            "hostNetwork": true, "nodeSelector": {"a": "b"}, "dnsPolicy": "None", "activeDeadlineSeconds": 5,
            "containers": [{
                "name": "c", "image": "i:1", "ports": [{"name": "http", "containerPort": 80, "hostPort": 80}],
                "env": [{"name": "A", "value": "b"}, {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "x"}}}],
                "resources": {"limits": {"cpu": 1, "memory": "1Gi"}, "requests": {"cpu": "500m"}},
                "livenessProbe": {"httpGet": {"port": "http"}, "successThreshold": 1},
                "lifecycle": {"preStop": {"exec": {"command": ["a"]}}},
                "volumeMounts": [{"name": "v", "mountPath": "/v"}],
            }],
            "initContainers": [{"name": "i", "image": "i", "restartPolicy": "Always"}],
            "volumes": [{"name": "v"}, {"name": "w", "projected": {"sources": [{"serviceAccountToken": {"path": "p"}}]}}],
            "tolerations": [{"key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}],
            "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "k", "whenUnsatisfiable": "DoNotSchedule",
                "labelSelector": {"matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]}}],
            "hostAliases": [{"ip": "10.0.0.1", "hostnames": ["a"]}], "schedulingGates": [{"name": "a"}],
            "readinessGates": [{"conditionType": "a"}],
        },
    });
    let state = json!({"terminated": {"exitCode": 1, "signal": 9, "finishedAt": "2026-01-01T00:00:00Z"}});
    let statuses = json!([{"name": "i", "image": "i", "imageID": "", "ready": true, "started": true, "restartCount": 3,
        "state": state, "lastState": state}]);
    let selector =
        json!({"matchLabels": {"app": "x"}, "matchExpressions": [{"key": "app", "operator": "Exists"}]});
    let rows = [
        (
            "",
            "pods",
            json!({"spec": template["spec"], "status": {"phase": "Running", "reason": "x",
            "conditions": [{"type": "Ready", "status": "True"}], "podIPs": [{"ip": "10.0.0.1"}],
            "containerStatuses": statuses, "initContainerStatuses": statuses}}),
        ),
        (
            "apps",
            "deployments",
            json!({"spec": {"replicas": 3, "selector": selector, "template": template,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 0}}},
            "status": {"readyReplicas": 1}}),
        ),
        (
            "apps",
            "replicasets",
            json!({"spec": {"selector": selector, "template": template}, "status": {"replicas": 1}}),
        ),
        (
            "",
            "services",
            json!({"spec": {"type": "NodePort", "selector": {"app": "x"}, "clusterIP": "10.96.0.1",
            "clusterIPs": ["10.96.0.1"], "ipFamilies": ["IPv4"], "externalIPs": ["10.1.0.1"], "sessionAffinity": "ClientIP",
            "ports": [{"name": "a", "port": 80, "targetPort": "http", "nodePort": 30000}, {"name": "b", "port": 81}]},
            "status": {"loadBalancer": {"ingress": [{"ip": "10.0.0.1"}]}}}),
        ),
        (
            "discovery.k8s.io",
            "endpointslices",
            json!({"addressType": "IPv4", "ports": [{"name": "a", "port": 80}],
            "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": true}, "nodeName": "n"}]}),
        ),
        (
            "",
            "nodes",
            json!({"spec": {"unschedulable": true, "podCIDRs": ["10.244.0.0/24"],
            "taints": [{"key": "a", "effect": "NoSchedule"}, {"key": "b", "effect": "NoExecute"}]},
            "status": {"capacity": {"cpu": "4"}, "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}],
                "conditions": [{"type": "Ready", "status": "True"}], "nodeInfo": {"osImage": "x"}}}),
        ),
        ("", "namespaces", json!({"spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}})),
        (
            "",
            "secrets",
            json!({"type": "kubernetes.io/tls", "data": {"tls.crt": "MQ=="}, "stringData": {"a": "b"},
            "immutable": true}),
        ),
        ("", "configmaps", json!({"data": {"a": "b"}, "binaryData": {"c": "MQ=="}, "immutable": true})),
        ("", "endpoints", json!({"subsets": [{"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 80}]}]})),
        (
            "",
            "events",
            json!({"involvedObject": {"kind": "Pod", "name": "p"}, "source": {"component": "c", "host": "h"},
            "count": 3, "lastTimestamp": "2026-01-01T00:00:00Z", "series": {"count": 2}}),
        ),
        ("events.k8s.io", "events", json!({"regarding": {"kind": "Pod"}, "note": "n", "deprecatedCount": 1})),
        (
            "coordination.k8s.io",
            "leases",
            json!({"spec": {"holderIdentity": "a", "leaseDurationSeconds": 40}}),
        ),
        ("", "serviceaccounts", json!({"secrets": [{"name": "a"}]})),
    ];
    let complete = |(group, plural, mut object): (&str, &str, Value)| {
        let resource = find(group, "v1", plural).expect("the kind has a row");
        object["apiVersion"] = json!(resource.api_version());
        object["kind"] = json!(resource.kind);
        object["metadata"] = json!({
            "name": "a", "namespace": "d", "labels": {"a": "b"}, "annotations": {"c": "d"}, "finalizers": ["e/f"],
            "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "1", "controller": true}],
            "creationTimestamp": "2026-01-01T00:00:00Z", "generation": 3, "uid": "u",
        });
        (resource, object)
    };
    rows.into_iter().map(complete).collect()
}

/// A place in an object, counted in the order of the text, and what comes there.
type Change = (prop::sample::Index, Value);

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let value = prop_oneof![
        2 => Just(Value::Null),
        1 => any::<bool>().prop_map(Value::from),
        2 => prop_oneof![Just(-1i64), Just(0), Just(i64::from(i32::MAX)), any::<i64>()].prop_map(Value::from),
        3 => prop_oneof![Just("Always"), Just("1Gi"), Just("25%"), Just("None"), Just(""), Just("ä/ö"), Just("%")]
            .prop_map(Value::from),
        2 => Just(json!([])),
        2 => Just(json!({})),
        1 => Just(json!([{}])),
        1 => Just(json!({"a": "b"})),
    ];
    prop::collection::vec((any::<prop::sample::Index>(), value), 1..8)
}

fn count(value: &Value) -> usize {
    1 + match value {
        Value::Object(map) => map.values().map(count).sum(),
        Value::Array(list) => list.iter().map(count).sum(),
        _ => 0,
    }
}

fn nth<'v>(value: &'v mut Value, at: &mut usize) -> Option<&'v mut Value> {
    if *at == 0 {
        return Some(value);
    }
    *at -= 1;
    match value {
        Value::Object(map) => map.values_mut().find_map(|child| nth(child, at)),
        Value::Array(list) => list.iter_mut().find_map(|child| nth(child, at)),
        _ => None,
    }
}

/// The object with those changes that leave every field of the right type.
fn odd(resource: &Resource, object: &Value, changes: &[Change]) -> Value {
    let mut object = object.clone();
    for (index, value) in changes {
        let mut attempt = object.clone();
        let mut at = index.index(count(&attempt));
        if let Some(place) = nth(&mut attempt, &mut at) {
            place.clone_from(value);
        }
        if attempt["metadata"].is_object() && check_types(resource, &attempt).is_ok() {
            object = attempt;
        }
    }
    prune(resource, &mut object).expect("its types were checked");
    object
}

#[test]
fn the_samples_have_no_field_that_their_kind_does_not_have() {
    for (resource, sample) in samples() {
        assert_eq!(check_types(resource, &sample), Ok(()));
        assert_eq!(unknown_fields(resource, &sample), [""; 0], "{}", resource.kind);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn an_object_of_the_right_types_is_never_too_odd(first in changes(), second in changes()) {
        for (resource, sample) in samples() {
            let mut object = odd(resource, &sample, &first);
            let mut old = odd(resource, &sample, &second);
            prepare_for_create(resource, &mut old);
            for subresource in [None, Some("status"), Some("finalize")] {
                let mut new = object.clone();
                prepare_for_update(resource, &mut new, &old, subresource);
                validate(resource, &new, Some(&old));
                prop_assert_eq!(check_types(resource, &new), Ok(()));
            }
            prepare_for_create(resource, &mut object);
            validate(resource, &object, None);
            prop_assert_eq!(check_types(resource, &object), Ok(()));
            prop_assert_eq!(unknown_fields(resource, &object), Vec::<String>::new());
            let once = object.clone();
            default(resource, &mut object);
            prop_assert_eq!(&object, &once);
            table(resource, &[object], jiff::Timestamp::UNIX_EPOCH, IncludeObject::Metadata);
        }
    }

    #[test]
    fn a_table_and_the_type_check_take_anything(index in any::<prop::sample::Index>(), changes in changes()) {
        for (resource, mut object) in samples() {
            for (_, value) in &changes {
                let mut at = index.index(count(&object));
                if let Some(place) = nth(&mut object, &mut at) {
                    place.clone_from(value);
                }
            }
            for other in RESOURCES {
                let _ = check_types(other, &object);
            }
            let _ = prune(resource, &mut object.clone());
            table(resource, &[object], jiff::Timestamp::UNIX_EPOCH, IncludeObject::Object);
        }
    }
}
