//! The patches that clients send: JSON patch, merge patch and strategic merge patch. Server-side apply, which comes as
//! a patch too, is in `apply.rs`.
//!
//! [`apply`] is pure: the original and the patch go in, the patched object comes out, and nothing is decided about
//! whether it may be stored.

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

fn json(original: &Value, patch: &Value) -> Result<Value, PatchError> {
    let operations: json_patch::Patch =
        serde_json::from_value(patch.clone()).map_err(|error| PatchError::Malformed(error.to_string()))?;
    let mut patched = original.clone();
    json_patch::patch(&mut patched, &operations)
        .map_err(|error| PatchError::Inapplicable(error.to_string()))?;
    Ok(patched)
}

#[cfg(test)]
mod tests {
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
}
