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
mod tests;
