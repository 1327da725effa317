use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::resource::find;

#[test]
fn the_content_type_says_how_a_patch_is_written() {
    let rows = [
        ("application/json-patch+json", PatchType::Json),
        ("application/merge-patch+json; charset=utf-8", PatchType::Merge),
        ("application/strategic-merge-patch+json", PatchType::Strategic),
        ("application/apply-patch+yaml", PatchType::Apply),
    ];
    for (content_type, expected) in rows {
        assert_eq!(PatchType::from_content_type(content_type).expect(content_type), expected);
    }
    let error = PatchType::from_content_type("text/plain").expect_err("no patch");
    assert!(error.to_string().contains("\"text/plain\" patches are not supported"), "{error}");
}

#[test]
fn json_and_merge_patches_apply() {
    let pods = find("", "v1", "pods").expect("the kind has a row");
    let original = json!({"a": [1, 2], "b": {"c": 1, "d": 2}});
    let patched = apply(pods, PatchType::Merge, &original, &json!({"a": [3], "b": {"c": null}}));
    assert_eq!(patched.expect("applies"), json!({"a": [3], "b": {"d": 2}}));
    let operations = json!([{"op": "test", "path": "/b/c", "value": 1}, {"op": "remove", "path": "/a/0"}]);
    let patched = apply(pods, PatchType::Json, &original, &operations);
    assert_eq!(patched.expect("applies"), json!({"a": [2], "b": {"c": 1, "d": 2}}));
    let operations = json!([{"op": "test", "path": "/b/c", "value": 5}]);
    assert!(matches!(apply(pods, PatchType::Json, &original, &operations), Err(PatchError::Inapplicable(_))));
    assert!(matches!(apply(pods, PatchType::Json, &original, &json!({})), Err(PatchError::Malformed(_))));
}

/// Every copy of the whole into itself doubles it.
#[test]
fn a_small_patch_cannot_make_a_large_object() {
    let pods = find("", "v1", "pods").expect("the kind has a row");
    let copies: Vec<Value> =
        (0..64).map(|n| json!({"op": "copy", "from": "", "path": format!("/k{n}")})).collect();
    let error = apply(pods, PatchType::Json, &json!({"a": "b"}), &json!(copies)).expect_err("2^64 bytes");
    assert!(error.to_string().contains("its copies add more than"), "{error}");
    let many = vec![json!({"op": "test", "path": "/a", "value": "b"}); OPERATIONS_MAX + 1];
    let error = apply(pods, PatchType::Json, &json!({"a": "b"}), &json!(many)).expect_err("too many");
    assert!(matches!(error, PatchError::TooManyOperations { .. }), "{error}");
}

fn any_json() -> impl Strategy<Value = Value> {
    let key = prop_oneof![
        Just("a"),
        Just("b"),
        Just("name"),
        Just("spec"),
        Just("containers"),
        Just("$patch"),
        Just("env"),
        Just("$retainKeys"),
        Just("$setElementOrder/containers"),
        Just("$deleteFromPrimitiveList/finalizers"),
        Just("metadata"),
        Just("finalizers"),
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<i8>().prop_map(Value::from),
        "[ab]{0,2}".prop_map(Value::from),
        Just(json!("delete")),
        Just(json!("replace")),
        Just(json!("merge")),
    ];
    leaf.prop_recursive(5, 32, 4, move |inner| {
        let object = prop::collection::btree_map(key.clone(), inner.clone(), 0..4);
        prop_oneof![
            prop::collection::vec(inner, 0..4).prop_map(Value::from),
            object.prop_map(|map| map.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()),
        ]
    })
}

fn any_operation() -> impl Strategy<Value = Value> {
    let pointer = || "(/(a|b|spec|containers|0|1|-|~1)){0,4}";
    let name =
        prop_oneof![Just("add"), Just("remove"), Just("replace"), Just("move"), Just("copy"), Just("test")];
    (name, pointer(), pointer(), any_json())
        .prop_map(|(op, path, from, value)| json!({"op": op, "path": path, "from": from, "value": value}))
}

proptest! {
    #[test]
    fn no_patch_makes_the_server_panic(
        object in any_json(), patch in any_json(), operations in prop::collection::vec(any_operation(), 0..8),
    ) {
        for resource in crate::resource::RESOURCES {
            for kind in [PatchType::Json, PatchType::Merge, PatchType::Strategic, PatchType::Apply] {
                let _ = apply(resource, kind, &object, &patch);
            }
            let _ = apply(resource, PatchType::Json, &object, &json!(operations));
        }
    }
}
