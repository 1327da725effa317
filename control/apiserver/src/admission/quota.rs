//! What a namespace may use: counted, checked and charged in the transaction that writes the object.
//!
//! A quota's `status.used` is changed together with the object that uses it, under the revision that was read. So however
//! many writers there are, on however many servers, it is never exceeded and never counts what is not there. Upstream
//! charges first and writes then, and leaves it to a controller to give back; a controller that counts anew finds
//! nothing to do here.

use std::collections::BTreeMap;

use fairlead_store::{ListRequest, Write};
use futures::future::BoxFuture;
use serde_json::{Value, json};

use super::Attempt;
use crate::api::{Api, prefix};
use crate::error::ApiError;
use crate::object;
use crate::resource::{RESOURCES, Resource, find, quantity};

mod usage;

use usage::Usage;

/// The changes of quotas that belong to a write.
pub(crate) async fn charges(attempt: &Attempt<'_>, new: Option<&Value>) -> Result<Vec<Write>, ApiError> {
    let api = attempt.api;
    let mut writes = Vec::new();
    if attempt.namespace.is_none() || !may_charge(attempt, new) {
        return Ok(writes);
    }
    // Read as they are now, and not from memory: another server may have made one a moment ago.
    let kind = find("", "v1", "resourcequotas").ok_or(ApiError::UnknownPath)?;
    for entry in api.store.list(ListRequest::prefix(prefix(kind, attempt.namespace))).await?.entries {
        let mut quota = object::decode(kind, &entry.value, entry.mod_revision)?;
        if concerns(attempt, &quota, new) && charge(attempt, &mut quota, new).await? {
            let value = object::encode(kind, &quota);
            writes.push(Write::Update { key: entry.key, value, expected: entry.mod_revision });
        }
    }
    Ok(writes)
}

/// Whether any quota could count the write. Most writes change what an object is and not what it uses.
fn may_charge(attempt: &Attempt<'_>, new: Option<&Value>) -> bool {
    let used = |object: Option<&Value>| {
        let scope = object.map(|object| object["spec"]["activeDeadlineSeconds"].clone());
        (object.map(|object| usage::of(attempt.resource, object)), scope)
    };
    // Of events there are too many to count, as upstream says too.
    let is_counted = attempt.resource.plural != "events";
    is_counted && (attempt.old.is_some() != new.is_some() || used(attempt.old) != used(new))
}

/// A new quota, or one with new bounds, says at once what is used.
pub(super) fn count_at_once<'a>(
    attempt: &'a Attempt<'_>,
    quota: &'a mut Value,
) -> BoxFuture<'a, Result<(), ApiError>> {
    Box::pin(async move {
        if attempt.old.is_none_or(|old| old["spec"] != quota["spec"]) {
            recount(attempt.api, attempt.namespace, quota).await?;
        }
        Ok(())
    })
}

/// What the write changes of what the quota bounds.
fn difference(attempt: &Attempt<'_>, quota: &Value, new: Option<&Value>) -> Usage {
    let resource = attempt.resource;
    let of = |object: Option<&Value>| {
        let object = object.filter(|object| usage::in_scope(quota, resource, object));
        object.map(|object| usage::of(resource, object)).unwrap_or_default()
    };
    let mut changes = of(new);
    for (name, amount) in of(attempt.old) {
        *changes.entry(name).or_default() -= amount;
    }
    let hard = &quota["spec"]["hard"];
    changes.retain(|name, amount| *amount != 0 && !hard[name].is_null());
    changes
}

/// Whether the write may change what the quota counts, or must say more than it does.
fn concerns(attempt: &Attempt<'_>, quota: &Value, new: Option<&Value>) -> bool {
    !difference(attempt, quota, new).is_empty() || !unsaid(attempt, quota, new).is_empty()
}

/// What of the quota the object does not say, and must.
fn unsaid(attempt: &Attempt<'_>, quota: &Value, new: Option<&Value>) -> Vec<String> {
    match new {
        Some(new) if attempt.old.is_none() && usage::in_scope(quota, attempt.resource, new) => {
            usage::unsaid(attempt.resource, new, &quota["spec"]["hard"])
        }
        _ => Vec::new(),
    }
}

/// Changes the quota's counts; false when there is nothing to change.
async fn charge(attempt: &Attempt<'_>, quota: &mut Value, new: Option<&Value>) -> Result<bool, ApiError> {
    let name = object::meta(quota, "name").to_owned();
    let missing = unsaid(attempt, quota, new);
    if let Some(new) = new
        && !missing.is_empty()
    {
        let message = format!("failed quota: {name}: must specify {}", missing.join("; "));
        return Err(attempt.forbidden(new, message));
    }
    if quota["status"]["hard"] != quota["spec"]["hard"] {
        recount(attempt.api, attempt.namespace, quota).await?;
    }
    let changes = difference(attempt, quota, new);
    let amount = |of: &Value| quantity::parse(of).unwrap_or_default();
    let mut exceeded: [Vec<String>; 3] = Default::default();
    for (name, change) in &changes {
        let (used, hard) = (amount(&quota["status"]["used"][name]), amount(&quota["spec"]["hard"][name]));
        if *change > 0 && used + change > hard {
            let shown = |amount| format!("{name}={}", quantity::text(amount, quantity::is_binary(name)));
            for (list, amount) in exceeded.iter_mut().zip([*change, used, hard]) {
                list.push(shown(amount));
            }
        }
    }
    if let (Some(new), false) = (new, exceeded[0].is_empty()) {
        let [requested, used, limited] = exceeded.map(|list| list.join(","));
        let message =
            format!("exceeded quota: {name}, requested: {requested}, used: {used}, limited: {limited}");
        return Err(attempt.forbidden(new, message));
    }
    for (name, change) in &changes {
        let used = (amount(&quota["status"]["used"][name]) + change).max(0);
        quota["status"]["used"][name] = json!(quantity::text(used, quantity::is_binary(name)));
    }
    Ok(!changes.is_empty())
}

/// Counts what the namespace uses of what the quota bounds.
async fn recount(api: &Api, namespace: Option<&str>, quota: &mut Value) -> Result<(), ApiError> {
    let hard = quota["spec"]["hard"].clone();
    let mut used: BTreeMap<String, i128> =
        hard.as_object().into_iter().flatten().map(|(name, _)| (name.clone(), 0)).collect();
    let counted: Vec<&Resource> = RESOURCES.iter().filter(|resource| is_counted(resource, &used)).collect();
    for resource in counted {
        let listing = api.store.list(ListRequest::prefix(prefix(resource, namespace))).await?;
        for entry in listing.entries {
            let object = object::decode(resource, &entry.value, entry.mod_revision)?;
            if !usage::in_scope(quota, resource, &object) {
                continue;
            }
            for (name, amount) in usage::of(resource, &object) {
                if let Some(total) = used.get_mut(&name) {
                    *total += amount;
                }
            }
        }
    }
    let text = |(name, amount): (&String, &i128)| {
        (name.clone(), json!(quantity::text(*amount, quantity::is_binary(name))))
    };
    let used: serde_json::Map<String, Value> = used.iter().map(text).collect();
    quota["status"] = json!({ "hard": hard, "used": used });
    Ok(())
}

fn is_counted(resource: &Resource, bounded: &BTreeMap<String, i128>) -> bool {
    // What is stored as another kind is counted as that.
    let twice = resource.strategy.conversion.is_some();
    resource.namespaced
        && resource.verbs.contains(&"create")
        && !twice
        && bounded.keys().any(|name| usage::may_use(resource, name))
}
