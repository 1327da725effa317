//! `eviction`: a delete of a pod that its disruption budget agrees to (upstream `registry/core/pod/storage/eviction.go`).

use fairlead_store::{Entry, ListRequest, StoreError};
use http::{Response, StatusCode};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::api::{Call, prefix};
use crate::body::{self, Body};
use crate::error::ApiError;
use crate::object;
use crate::resource::find;
use crate::selector::LabelSelector;
use crate::verbs::{admit, delete};

/// How often a budget that somebody else changes is tried again.
const ATTEMPTS: usize = 20;

/// A budget and where it is stored.
struct Budget {
    entry: Entry,
    object: Value,
}

/// What the budgets of a pod say.
enum Answer {
    /// The pod does not count as it is.
    Free,
    /// It counts, and was counted.
    Counted,
    /// Another writer was faster; they must be asked again.
    Again,
}

/// What a budget says.
enum Verdict {
    /// The pod does not count.
    Free,
    /// It counts, and there is room: the budget after it.
    Counted(Value),
}

/// Answers a POST of an `Eviction`.
pub(super) async fn create(call: &Call<'_>) -> Result<Response<Body>, ApiError> {
    let eviction = body::parse(call.headers, &call.body)?;
    admit::about_same(call, "Eviction", &eviction)?;
    let options = delete::Options::from_value(call, &eviction["deleteOptions"])?;
    for _ in 0..ATTEMPTS {
        let entry = call.entry().await?;
        let pod = object::decode(call.resource, &entry.value, entry.mod_revision)?;
        options.check(call.resource, &pod)?;
        let evicted = match ask(call, &pod, options.is_dry_run()).await? {
            Answer::Again => None,
            // As it was judged: changed meanwhile, such as to be ready now, it must be judged again.
            Answer::Free => delete::try_delete(call, &options, &entry).await?,
            // What it was counted for, however it changed: but not another one that came in its place.
            Answer::Counted => {
                let options = options.of_one(object::meta(&pod, "uid"));
                Some(delete::delete_one(call, &options).await?)
            }
        };
        if evicted.is_some() {
            return call.respond_other(StatusCode::CREATED, &delete::success(None));
        }
    }
    Err(ApiError::TryAgain("the pod's disruption budget keeps being changed, please try again".to_owned()))
}

/// Asks the pod's budget, and takes from it what the pod needs.
async fn ask(call: &Call<'_>, pod: &Value, dry_run: bool) -> Result<Answer, ApiError> {
    let phase = pod["status"]["phase"].as_str().unwrap_or_default();
    if matches!(phase, "Succeeded" | "Failed" | "Pending") || object::is_terminating(pod) {
        return Ok(Answer::Free);
    }
    let mut budgets = budgets_of(call, pod).await?;
    let Some(budget) = budgets.pop() else { return Ok(Answer::Free) };
    if !budgets.is_empty() {
        return Err(ApiError::Internal(
            "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
                .to_owned(),
        ));
    }
    let after = match judge(&budget.object, pod)? {
        Verdict::Free => return Ok(Answer::Free),
        Verdict::Counted(after) => after,
    };
    if dry_run {
        return Ok(Answer::Counted);
    }
    let kind = find("policy", "v1", "poddisruptionbudgets").ok_or(ApiError::UnknownPath)?;
    let bytes = object::encode(kind, &after);
    match call.api.store.update(&budget.entry.key, bytes, budget.entry.mod_revision).await {
        Ok(_) => Ok(Answer::Counted),
        Err(StoreError::Conflict { .. } | StoreError::NotFound { .. }) => Ok(Answer::Again),
        Err(error) => Err(error.into()),
    }
}

async fn budgets_of(call: &Call<'_>, pod: &Value) -> Result<Vec<Budget>, ApiError> {
    let kind = find("policy", "v1", "poddisruptionbudgets").ok_or(ApiError::UnknownPath)?;
    let request = ListRequest::prefix(prefix(kind, call.target.namespace.as_deref()));
    let mut found = Vec::new();
    for entry in call.api.store.list(request).await?.entries {
        let object = object::decode(kind, &entry.value, entry.mod_revision)?;
        let selector = &object["spec"]["selector"];
        let selects = selector.is_object()
            && LabelSelector::from_json(selector)
                .is_ok_and(|selector| selector.matches_labels(&pod["metadata"]["labels"]));
        if selects {
            found.push(Budget { entry, object });
        }
    }
    Ok(found)
}

/// What the budget says of the pod; an error when it says no.
fn judge(budget: &Value, pod: &Value) -> Result<Verdict, ApiError> {
    let number = |field: &str| budget["status"][field].as_i64().unwrap_or_default();
    let (desired, current) = (number("desiredHealthy"), number("currentHealthy"));
    let ready = pod["status"]["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .any(|condition| condition["type"] == "Ready" && condition["status"] == "True");
    let always = budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow";
    if !ready && (always || desired > 0 && current >= desired) {
        return Ok(Verdict::Free);
    }
    let name = object::meta(budget, "name");
    let generation = budget["metadata"]["generation"].as_i64().unwrap_or_default();
    if number("observedGeneration") < generation {
        return Err(ApiError::Disruption(format!(
            "The disruption budget {name} is still being processed by the server."
        )));
    }
    if number("disruptionsAllowed") <= 0 {
        return Err(ApiError::Disruption(format!(
            "The disruption budget {name} needs {desired} healthy pods and has {current} currently"
        )));
    }
    let mut after = budget.clone();
    after["status"]["disruptionsAllowed"] = json!(number("disruptionsAllowed") - 1);
    after["status"]["disruptedPods"][object::meta(pod, "name")] = object::time(Timestamp::now());
    Ok(Verdict::Counted(after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_counts_healthy_pods_and_says_why_not() {
        let budget = |allowed: i64, observed: i64, current: i64, policy: &str| {
            json!({
                "metadata": { "name": "b", "generation": 2 },
                "spec": { "unhealthyPodEvictionPolicy": policy },
                "status": {
                    "disruptionsAllowed": allowed, "observedGeneration": observed,
                    "currentHealthy": current, "desiredHealthy": 2,
                },
            })
        };
        let pod = |ready: &str| {
            json!({
                "metadata": { "name": "p" },
                "status": { "conditions": [{ "type": "Ready", "status": ready }] },
            })
        };
        let needs = "The disruption budget b needs 2 healthy pods and has";
        // allowed, observed generation, healthy, policy, ready → what becomes of it
        let rows = [
            (1, 2, 3, "", "True", "counted".to_owned()),
            (0, 2, 2, "", "True", format!("{needs} 2 currently")),
            (0, 2, 2, "", "False", "free".to_owned()),
            (0, 2, 1, "", "False", format!("{needs} 1 currently")),
            (0, 2, 1, "AlwaysAllow", "False", "free".to_owned()),
            (
                1,
                1,
                3,
                "",
                "True",
                "The disruption budget b is still being processed by the server.".to_owned(),
            ),
        ];
        for (allowed, observed, current, policy, ready, expected) in rows {
            let outcome = match judge(&budget(allowed, observed, current, policy), &pod(ready)) {
                Ok(Verdict::Free) => "free".to_owned(),
                Ok(Verdict::Counted(after)) => {
                    assert_eq!(after["status"]["disruptionsAllowed"], allowed - 1);
                    assert!(after["status"]["disruptedPods"]["p"].is_string());
                    "counted".to_owned()
                }
                Err(ApiError::Disruption(reason)) => reason,
                Err(other) => panic!("{other}"),
            };
            assert_eq!(outcome, expected, "{allowed} {observed} {current} {policy:?} {ready}");
        }
    }
}
