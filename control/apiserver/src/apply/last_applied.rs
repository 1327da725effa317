//! The way from client-side to server-side apply: the annotation in which kubectl keeps what it applied last.
//!
//! kubectl may take the fields that it applied itself before it learned to leave that to the server, and the annotation
//! follows what it applies now, so that there is a way back. Only the manager that is called `kubectl` gets this.

use serde_json::{Value, json};

use super::schema::Shape;
use super::set::Set;
use super::{Conflict, Writer, walk};

const ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";
const KUBECTL: &str = "kubectl";
/// How long annotations may be altogether (apimachinery `TotalAnnotationSizeLimitB`).
const ANNOTATIONS_LEN_MAX: usize = 256 << 10;

/// The conflicts that are not about what kubectl applied itself.
pub(super) fn conflicts_left(write: Writer<'_>, live: &Value, conflicts: Vec<Conflict>) -> Vec<Conflict> {
    let Some(text) = annotation(write, live) else { return conflicts };
    let applied: Value = serde_json::from_str(text).unwrap_or_default();
    let own = walk::fields(&applied, Shape::of(write.resource)).unwrap_or_default();
    let is_own = |conflict: &Conflict| {
        let mut one = Set::default();
        one.insert(&conflict.field.0);
        one.difference(&own).is_empty()
    };
    conflicts.into_iter().filter(|conflict| !is_own(conflict)).collect()
}

/// Lets the annotation, if there is one, say what is applied now.
pub(super) fn refresh(write: Writer<'_>, config: &Value, merged: &mut Value) {
    if annotation(write, merged).is_none() {
        return;
    }
    let mut config = config.clone();
    if let Some(annotations) = config.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        annotations.remove(ANNOTATION);
    }
    let text = format!("{config}\n");
    let annotations = merged["metadata"]["annotations"].as_object_mut().expect("it holds the annotation");
    if text.len() > ANNOTATIONS_LEN_MAX {
        annotations.remove(ANNOTATION);
    } else {
        annotations.insert(ANNOTATION.to_owned(), json!(text));
    }
}

fn annotation<'v>(write: Writer<'_>, object: &'v Value) -> Option<&'v str> {
    if write.manager != KUBECTL {
        return None;
    }
    object["metadata"]["annotations"][ANNOTATION].as_str().filter(|text| !text.is_empty())
}
