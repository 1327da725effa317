//! The priority of a pod is that of the class it names (upstream's plugin Priority).

use futures::future::BoxFuture;
use serde_json::{Value, json};

use super::Attempt;
use crate::error::ApiError;
use crate::object;

const PREEMPTS: &str = "PreemptLowerPriority";

/// Gives the pod its class, its priority and whether it preempts.
pub(super) fn resolve<'a>(
    attempt: &'a Attempt<'_>,
    pod: &'a mut Value,
) -> BoxFuture<'a, Result<(), ApiError>> {
    Box::pin(async move {
        if let Some(old) = attempt.old {
            // Decided once; who replaces a pod need not repeat it.
            for field in ["priority", "preemptionPolicy", "priorityClassName"] {
                if pod["spec"][field].is_null() && !old["spec"][field].is_null() {
                    pod["spec"][field] = old["spec"][field].clone();
                }
            }
            return Ok(());
        }
        let classes = attempt.api.admission.priority_classes.list(&*attempt.api.store, None).await?;
        let name = pod["spec"]["priorityClassName"].as_str().unwrap_or_default().to_owned();
        let class = if name.is_empty() {
            let defaults = classes.iter().filter(|class| class["globalDefault"] == true);
            defaults.min_by_key(|class| class["value"].as_i64())
        } else {
            let found = classes.iter().find(|class| object::meta(class, "name") == name);
            if found.is_none() {
                let message = format!("no PriorityClass with name {name} was found");
                return Err(attempt.forbidden(pod, message));
            }
            found
        };
        let value = class.map_or(json!(0), |class| class["value"].clone());
        let policy = class.and_then(|class| class["preemptionPolicy"].as_str()).unwrap_or(PREEMPTS);
        let rows = [
            ("priority", value, "the integer value of priority"),
            ("preemptionPolicy", json!(policy), "the string value of PreemptionPolicy"),
        ];
        for (field, computed, words) in rows {
            let given = &pod["spec"][field];
            if !given.is_null() && *given != computed {
                let shown = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                let message = format!(
                    "{words} ({}) must not be provided in pod spec; priority admission controller computed {} from the \
                     given PriorityClass name",
                    shown(given),
                    shown(&computed)
                );
                return Err(attempt.forbidden(pod, message));
            }
            pod["spec"][field] = computed;
        }
        if let Some(class) = class {
            pod["spec"]["priorityClassName"] = json!(object::meta(class, "name"));
        }
        Ok(())
    })
}
