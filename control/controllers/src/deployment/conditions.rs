//! Conditions of a deployment.

use k8s_openapi::{
    api::apps::v1::DeploymentCondition, apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp,
};

/// Puts a condition into the list, as upstream: nothing happens when status and reason are the same, and the time of
/// the transition is kept when only the reason is another. `refresh` renews the update time in any case.
pub(super) fn set(
    conditions: &mut Vec<DeploymentCondition>,
    (type_, status, reason): (&str, bool, &str),
    message: String,
    now: Timestamp,
    refresh: bool,
) {
    let status = if status { "True" } else { "False" };
    let old = conditions.iter().find(|condition| condition.type_ == type_).cloned();
    let same_status = old.as_ref().filter(|old| old.status == status);
    if !refresh && same_status.is_some_and(|old| old.reason.as_deref() == Some(reason)) {
        return;
    }
    let since = same_status.and_then(|old| old.last_transition_time.clone());
    conditions.retain(|condition| condition.type_ != type_);
    conditions.push(DeploymentCondition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_update_time: Some(Time(now)),
        last_transition_time: Some(since.unwrap_or(Time(now))),
    });
}
