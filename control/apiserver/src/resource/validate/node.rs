//! Nodes.

use serde_json::{Value, json};

use super::{Errors, items, text};
use crate::resource::error::FieldError;

/// A key and an effect come once.
pub(super) fn taints(at: &str, taints: &Value, errors: &mut Errors) {
    let mut seen = Vec::new();
    for (index, taint) in items(&json!({ "taints": taints }), "taints") {
        let claim = (text(taint, "key").to_owned(), text(taint, "effect").to_owned());
        if seen.contains(&claim) {
            errors.push(FieldError::duplicate(format!("{at}[{index}]"), taint));
        }
        seen.push(claim);
    }
}
