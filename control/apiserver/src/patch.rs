//! The patches that clients send: JSON patch, merge patch and strategic merge patch. Server-side apply, which comes as
//! a patch too, is in `apply.rs`.
//!
//! [`apply`] is pure: the original and the patch go in, the patched object comes out, and nothing is decided about
//! whether it may be stored.

use json_patch::PatchOperation;
use serde_json::Value;

use crate::resource::Resource;

mod strategic;

/// How a patch is written, from the request's `Content-Type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatchType {
    /// `application/json-patch+json` (RFC 6902).
    Json,
    /// `application/merge-patch+json` (RFC 7396).
    Merge,
    /// `application/strategic-merge-patch+json`.
    Strategic,
    /// `application/apply-patch+yaml`: not a change but what the writer wants.
    Apply,
}

/// The media types accepted, for the `Accept-Patch` header and messages.
pub const PATCH_TYPES: &str = "application/json-patch+json, application/merge-patch+json, \
    application/strategic-merge-patch+json, application/apply-patch+yaml";

/// Why a patch was not applied.
#[derive(Debug, thiserror::Error)]
pub enum PatchError {
    /// The `Content-Type` is not one we apply (415).
    #[error("{content_type:?} patches are not supported; send one of: {PATCH_TYPES}")]
    Unsupported {
        /// The media type that was sent.
        content_type: String,
    },
    /// The patch is not of the shape its type asks for (400).
    #[error("invalid patch: {0}")]
    Malformed(String),
    /// A JSON patch does too much (413).
    #[error("The allowed maximum operations in a JSON patch is {OPERATIONS_MAX}, got {count}")]
    TooManyOperations {
        /// How many it has.
        count: usize,
    },
    /// A JSON patch whose operation does not fit the object, such as a failed `test` (422).
    #[error("the patch does not apply: {0}")]
    Inapplicable(String),
}

impl PatchType {
    /// The type that a `Content-Type` header names; parameters such as `charset` are ignored.
    pub fn from_content_type(content_type: &str) -> Result<Self, PatchError> {
        match content_type.split(';').next().unwrap_or_default().trim() {
            "application/json-patch+json" => Ok(Self::Json),
            "application/merge-patch+json" => Ok(Self::Merge),
            "application/strategic-merge-patch+json" => Ok(Self::Strategic),
            "application/apply-patch+yaml" => Ok(Self::Apply),
            other => Err(PatchError::Unsupported { content_type: other.to_owned() }),
        }
    }
}

/// The object that `patch` makes of `original`.
pub fn apply(
    resource: &Resource,
    kind: PatchType,
    original: &Value,
    patch: &Value,
) -> Result<Value, PatchError> {
    match kind {
        PatchType::Json => json(original, patch),
        PatchType::Merge if patch.is_object() => {
            let mut merged = original.clone();
            json_patch::merge(&mut merged, patch);
            Ok(merged)
        }
        PatchType::Strategic if patch.is_object() => strategic::merge(resource, original, patch),
        PatchType::Merge | PatchType::Strategic => {
            Err(PatchError::Malformed("a merge patch must be a JSON object".to_owned()))
        }
        PatchType::Apply => Err(PatchError::Malformed("what is applied has an owner".to_owned())),
    }
}

/// How many operations a JSON patch may have (apiserver `handlers/patch.go`).
const OPERATIONS_MAX: usize = 10_000;
/// How much the copies of a JSON patch may add to the object; each may double it.
const COPIED_BYTES_MAX: usize = 3 << 20;

fn json(original: &Value, patch: &Value) -> Result<Value, PatchError> {
    let operations: json_patch::Patch =
        serde_json::from_value(patch.clone()).map_err(|error| PatchError::Malformed(error.to_string()))?;
    if operations.0.len() > OPERATIONS_MAX {
        return Err(PatchError::TooManyOperations { count: operations.0.len() });
    }
    let mut patched = original.clone();
    let mut copied_bytes = 0;
    for operation in operations.0 {
        if let PatchOperation::Copy(copy) = &operation {
            let source = patched.pointer(copy.from.as_str());
            copied_bytes += source.map_or(0, |value| value.to_string().len());
            if copied_bytes > COPIED_BYTES_MAX {
                let problem = format!("its copies add more than {COPIED_BYTES_MAX} bytes");
                return Err(PatchError::Inapplicable(problem));
            }
        }
        json_patch::patch(&mut patched, &[operation])
            .map_err(|error| PatchError::Inapplicable(error.to_string()))?;
    }
    Ok(patched)
}

#[cfg(test)]
mod tests {
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
        let operations =
            json!([{"op": "test", "path": "/b/c", "value": 1}, {"op": "remove", "path": "/a/0"}]);
        let patched = apply(pods, PatchType::Json, &original, &operations);
        assert_eq!(patched.expect("applies"), json!({"a": [2], "b": {"c": 1, "d": 2}}));
        let operations = json!([{"op": "test", "path": "/b/c", "value": 5}]);
        assert!(matches!(
            apply(pods, PatchType::Json, &original, &operations),
            Err(PatchError::Inapplicable(_))
        ));
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
        let name = prop_oneof![
            Just("add"),
            Just("remove"),
            Just("replace"),
            Just("move"),
            Just("copy"),
            Just("test")
        ];
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
}
