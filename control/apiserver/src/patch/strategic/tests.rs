use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::patch::{PatchType, apply};
use crate::resource::find;

fn resource(group: &str, plural: &str) -> &'static Resource {
    find(group, "v1", plural).expect("the kind has a row")
}

fn containers(containers: &Value) -> Value {
    json!({"spec": {"template": {"spec": {"containers": containers}}}})
}

#[test]
fn keyed_lists_merge_by_key_and_what_is_new_comes_first() {
    let rows = [
        // An element is merged by its name.
        (
            json!([{"name": "a", "image": "1"}, {"name": "b", "image": "1"}]),
            json!([{"name": "b", "image": "2"}]),
            json!([{"name": "a", "image": "1"}, {"name": "b", "image": "2"}]),
        ),
        // As in upstream's documentation of `kubectl patch`: the new container comes first.
        (
            json!([{"name": "a", "image": "1"}]),
            json!([{"name": "b", "image": "2"}]),
            json!([{"name": "b", "image": "2"}, {"name": "a", "image": "1"}]),
        ),
        (
            json!([{"name": "a"}, {"name": "b"}]),
            json!([{"$patch": "delete", "name": "a"}]),
            json!([{"name": "b"}]),
        ),
        (
            json!([{"name": "a"}, {"name": "b"}]),
            json!([{"$patch": "replace"}, {"name": "c"}]),
            json!([{"name": "c"}]),
        ),
        // Lists within.
        (
            json!([{"name": "a", "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "1"}],
                "ports": [{"containerPort": 80, "name": "http"}], "args": ["a", "b"]}]),
            json!([{"name": "a", "env": [{"name": "Y", "value": "2"}],
                "ports": [{"containerPort": 80, "name": null, "protocol": "TCP"}], "args": ["c"]}]),
            json!([{"name": "a", "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}],
                "ports": [{"containerPort": 80, "protocol": "TCP"}], "args": ["c"]}]),
        ),
    ];
    for (original, patch, expected) in rows {
        let patched = apply(
            resource("apps", "deployments"),
            PatchType::Strategic,
            &containers(&original),
            &containers(&patch),
        );
        assert_eq!(patched.expect("applies"), containers(&expected), "{patch}");
    }
}

#[test]
fn directives_do_what_upstream_documents() {
    let rows = [
        // null removes, absent stays.
        ("pods", json!({"a": 1, "b": 2}), json!({"a": null}), json!({"b": 2})),
        // $patch on a map.
        ("pods", json!({"m": {"a": 1}}), json!({"m": {"$patch": "replace", "b": 2}}), json!({"m": {"b": 2}})),
        ("pods", json!({"m": {"a": 1}, "n": 1}), json!({"m": {"$patch": "delete"}}), json!({"n": 1})),
        (
            "pods",
            json!({"m": {"a": 1}}),
            json!({"m": {"$patch": "merge", "b": 2}}),
            json!({"m": {"a": 1, "b": 2}}),
        ),
        // $retainKeys, as kubectl sends it for a volume and a deployment's strategy.
        (
            "pods",
            json!({"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}}),
            json!({"spec": {"volumes": [{"$retainKeys": ["name", "hostPath"], "name": "v", "hostPath": {"path": "/"}}]}}),
            json!({"spec": {"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}}),
        ),
        (
            "deployments",
            json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}}),
            json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}),
            json!({"spec": {"strategy": {"type": "Recreate"}}}),
        ),
        // Sets.
        (
            "pods",
            json!({"metadata": {"finalizers": ["a", "b"]}}),
            json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"]}}),
            json!({"metadata": {"finalizers": ["b"]}}),
        ),
        (
            "pods",
            json!({"metadata": {"finalizers": ["a"]}}),
            json!({"metadata": {"finalizers": ["b", "a"], "$setElementOrder/finalizers": ["a", "b"]}}),
            json!({"metadata": {"finalizers": ["a", "b"]}}),
        ),
        // Atomic lists.
        (
            "pods",
            json!({"spec": {"tolerations": [{"key": "a"}]}}),
            json!({"spec": {"tolerations": [{"key": "b"}]}}),
            json!({"spec": {"tolerations": [{"key": "b"}]}}),
        ),
        // As kubectl taint, which sends the whole list.
        (
            "nodes",
            json!({"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}}),
            json!({"spec": {"taints": null}}),
            json!({"spec": {}}),
        ),
        // As the kubelet's status patch.
        (
            "nodes",
            json!({"status": {"conditions": [{"type": "Ready", "status": "False", "reason": "x"}]}}),
            json!({"status": {"$setElementOrder/conditions": [{"type": "MemoryPressure"}, {"type": "Ready"}],
                "conditions": [{"type": "Ready", "status": "True"}, {"type": "MemoryPressure", "status": "False"}]}}),
            json!({"status": {"conditions": [{"type": "MemoryPressure", "status": "False"},
                {"type": "Ready", "status": "True", "reason": "x"}]}}),
        ),
        // Order: what only the server has keeps its place.
        (
            "pods",
            json!({"spec": {"containers": [{"name": "a"}, {"name": "s"}, {"name": "b"}]}}),
            json!({"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}}),
            json!({"spec": {"containers": [{"name": "s"}, {"name": "b"}, {"name": "a"}]}}),
        ),
        // Directives never reach the object, also below something new.
        (
            "pods",
            json!({}),
            json!({"spec": {"$setElementOrder/containers": [{"name": "a"}],
                "containers": [{"name": "a", "$setElementOrder/env": [], "x": {"$patch": "replace", "y": null}}]}}),
            json!({"spec": {"containers": [{"name": "a", "x": {}}]}}),
        ),
        // Labels and annotations are maps like any other.
        (
            "deployments",
            json!({"metadata": {"annotations": {"a": "1"}}}),
            json!({"metadata": {"annotations": {"b": "2"}}}),
            json!({"metadata": {"annotations": {"a": "1", "b": "2"}}}),
        ),
        // A service's ports.
        (
            "services",
            json!({"spec": {"ports": [{"port": 80, "name": "a", "nodePort": 30000}]}}),
            json!({"spec": {"ports": [{"port": 80, "name": "b"}]}}),
            json!({"spec": {"ports": [{"port": 80, "name": "b", "nodePort": 30000}]}}),
        ),
    ];
    for (plural, original, patch, expected) in rows {
        let group = if plural == "deployments" { "apps" } else { "" };
        let patched = apply(resource(group, plural), PatchType::Strategic, &original, &patch);
        assert_eq!(patched.expect("applies"), expected, "{patch}");
    }
}

#[test]
fn a_malformed_patch_says_where_and_why() {
    let rows = [
        (json!([]), "a merge patch must be a JSON object"),
        (
            json!({"spec": {"containers": [{"image": "x"}]}}),
            "spec.containers: map: {\"image\":\"x\"} does not contain declared merge key: name",
        ),
        (
            json!({"spec": {"$patch": "explode"}}),
            "spec: unknown $patch type \"explode\"; use merge, replace or delete",
        ),
        (
            json!({"spec": {"$retainKeys": ["a"], "b": 1}}),
            "spec: $retainKeys must list every key of the patch, but not \"b\"",
        ),
    ];
    for (patch, expected) in rows {
        let error = apply(resource("", "pods"), PatchType::Strategic, &json!({"spec": {}}), &patch);
        let error = error.expect_err("malformed");
        assert_eq!(error.to_string(), format!("invalid patch: {expected}"));
    }
}

/// An object whose lists are all keyed by `name`, so that the laws below speak of keyed lists too.
fn object() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![Just(json!(1)), Just(json!("x")), Just(json!(true))];
    let container = (prop::sample::select(vec!["a", "b", "c", "d"]), leaf.clone())
        .prop_map(|(name, image)| json!({"name": name, "image": image}));
    let list = prop::collection::vec(container, 0..4).prop_map(|mut list| {
        list.sort_by_key(|one| one["name"].to_string());
        list.dedup_by_key(|one| one["name"].clone());
        Value::Array(list)
    });
    let map = prop::collection::btree_map("[a-d]", leaf, 0..4).prop_map(|map| json!(map));
    (list, map).prop_map(
        |(containers, labels)| json!({"metadata": {"labels": labels}, "spec": {"containers": containers}}),
    )
}

fn patched(original: &Value, patch: &Value, kind: PatchType) -> Value {
    apply(resource("", "pods"), kind, original, patch).expect("applies")
}

proptest! {
    #[test]
    fn an_empty_patch_changes_nothing(original in object()) {
        prop_assert_eq!(&patched(&original, &json!({}), PatchType::Strategic), &original);
        prop_assert_eq!(&patched(&original, &json!({}), PatchType::Merge), &original);
    }

    #[test]
    fn patching_twice_is_patching_once(original in object(), patch in object()) {
        for kind in [PatchType::Strategic, PatchType::Merge] {
            let once = patched(&original, &patch, kind);
            prop_assert_eq!(&patched(&once, &patch, kind), &once);
        }
    }

    #[test]
    fn patching_with_the_object_itself_changes_nothing(original in object()) {
        prop_assert_eq!(&patched(&original, &original, PatchType::Strategic), &original);
        prop_assert_eq!(&patched(&original, &original, PatchType::Merge), &original);
    }

    #[test]
    fn everything_of_the_patch_is_in_the_result(original in object(), patch in object()) {
        let result = patched(&original, &patch, PatchType::Strategic);
        for (key, value) in patch["metadata"]["labels"].as_object().into_iter().flatten() {
            prop_assert_eq!(&result["metadata"]["labels"][key], value);
        }
        for container in patch["spec"]["containers"].as_array().into_iter().flatten() {
            prop_assert!(result["spec"]["containers"].as_array().is_some_and(|all| all.contains(container)));
        }
    }
}
