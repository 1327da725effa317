//! A pod tolerates a lost node for five minutes unless it says otherwise (upstream's plugin DefaultTolerationSeconds).

use futures::future::BoxFuture;
use serde_json::{Value, json};

use super::Attempt;
use crate::error::ApiError;

const LOST: &[&str] = &["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];
const SECONDS: i64 = 300;

/// Adds what the pod does not say of lost nodes.
pub(super) fn complete<'a>(_: &'a Attempt<'_>, pod: &'a mut Value) -> BoxFuture<'a, Result<(), ApiError>> {
    add(pod);
    Box::pin(async { Ok(()) })
}

fn add(pod: &mut Value) {
    let mut tolerations = pod["spec"]["tolerations"].as_array().cloned().unwrap_or_default();
    for key in LOST {
        let tolerates = |one: &Value| {
            let text = |field| one.get(field).and_then(Value::as_str).unwrap_or_default();
            let any_key = text("key").is_empty() && text("operator") == "Exists";
            (text("key") == *key || any_key) && matches!(text("effect"), "" | "NoExecute")
        };
        if !tolerations.iter().any(tolerates) {
            tolerations.push(json!({
                "key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": SECONDS,
            }));
        }
    }
    pod["spec"]["tolerations"] = Value::Array(tolerations);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_not_said_is_added() {
        // tolerations → how many there are then
        let rows = [
            (json!([]), 2),
            (json!([{ "operator": "Exists" }]), 1),
            (json!([{ "key": LOST[0], "operator": "Exists", "effect": "NoExecute" }]), 2),
            (json!([{ "key": LOST[0], "operator": "Exists", "effect": "NoSchedule" }]), 3),
        ];
        for (tolerations, expected) in rows {
            let mut pod = json!({ "spec": { "tolerations": tolerations } });
            add(&mut pod);
            assert_eq!(pod["spec"]["tolerations"].as_array().unwrap().len(), expected, "{tolerations}");
        }
    }
}
