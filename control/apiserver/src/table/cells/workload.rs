//! The cells of workloads, quotas and priorities.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{NONE, joined, labels, list, map, number, or};
use crate::resource::{find, text, to_storage};
use crate::table::duration::{age, human_duration};

/// How many metrics of an autoscaler are shown.
const METRICS_SHOWN: usize = 2;

fn names(object: &Value, containers: &str) -> Value {
    joined(list(object, containers).iter().map(|one| text(one, "/name")), "")
}

fn images(object: &Value, containers: &str) -> Value {
    joined(list(object, containers).iter().map(|one| text(one, "/image")), "")
}

pub(in crate::table) fn template_names(template: &Value, _: Timestamp) -> Value {
    names(template, "/template/spec/containers")
}

pub(in crate::table) fn template_images(template: &Value, _: Timestamp) -> Value {
    images(template, "/template/spec/containers")
}

pub(in crate::table) fn template_labels(template: &Value, _: Timestamp) -> Value {
    joined(labels(map(template, "/template/metadata/labels")).iter().map(String::as_str), NONE)
}

pub(in crate::table) fn cron_names(job: &Value, _: Timestamp) -> Value {
    names(job, "/spec/jobTemplate/spec/template/spec/containers")
}

pub(in crate::table) fn cron_images(job: &Value, _: Timestamp) -> Value {
    images(job, "/spec/jobTemplate/spec/template/spec/containers")
}

pub(in crate::table) fn cron_selector(job: &Value, now: Timestamp) -> Value {
    let template = job.pointer("/spec/jobTemplate").unwrap_or(&Value::Null);
    super::label_selector(template, now)
}

pub(in crate::table) fn daemons_updated(set: &Value, _: Timestamp) -> Value {
    json!(number(set, "/status/updatedNumberScheduled"))
}

pub(in crate::table) fn daemons_available(set: &Value, _: Timestamp) -> Value {
    json!(number(set, "/status/numberAvailable"))
}

pub(in crate::table) fn node_selector(set: &Value, _: Timestamp) -> Value {
    joined(labels(map(set, "/spec/template/spec/nodeSelector")).iter().map(String::as_str), NONE)
}

pub(in crate::table) fn controller(revision: &Value, _: Timestamp) -> Value {
    let owners = list(revision, "/metadata/ownerReferences");
    let Some(owner) = owners.iter().find(|owner| owner["controller"] == true) else { return json!(NONE) };
    let group = text(owner, "/apiVersion").split_once('/').map_or("", |(group, _)| group);
    let kind = text(owner, "/kind").to_lowercase();
    let kind = if group.is_empty() { kind } else { format!("{kind}.{group}") };
    json!(format!("{kind}/{}", text(owner, "/name")))
}

fn has_condition(job: &Value, kind: &str) -> bool {
    list(job, "/status/conditions")
        .iter()
        .any(|one| text(one, "/type") == kind && text(one, "/status") == "True")
}

pub(in crate::table) fn job_status(job: &Value, _: Timestamp) -> Value {
    let rows = [
        ("Complete", "Complete"),
        ("Failed", "Failed"),
        ("SuccessCriteriaMet", "SuccessCriteriaMet"),
        ("FailureTarget", "FailureTarget"),
        ("Suspended", "Suspended"),
    ];
    if let Some((_, shown)) = rows.iter().find(|(kind, _)| has_condition(job, kind)) {
        return json!(shown);
    }
    json!(if text(job, "/metadata/deletionTimestamp").is_empty() { "Running" } else { "Terminating" })
}

pub(in crate::table) fn job_completions(job: &Value, _: Timestamp) -> Value {
    let succeeded = number(job, "/status/succeeded");
    if let Some(wanted) = job.pointer("/spec/completions").and_then(Value::as_i64) {
        return json!(format!("{succeeded}/{wanted}"));
    }
    match job.pointer("/spec/parallelism").and_then(Value::as_i64).unwrap_or_default() {
        parallel if parallel > 1 => json!(format!("{succeeded}/1 of {parallel}")),
        _ => json!(format!("{succeeded}/1")),
    }
}

pub(in crate::table) fn job_duration(job: &Value, now: Timestamp) -> Value {
    let time = |pointer| text(job, pointer).parse::<Timestamp>().ok();
    let Some(start) = time("/status/startTime") else { return json!("") };
    let end = time("/status/completionTime").unwrap_or(now);
    json!(human_duration(end.duration_since(start).as_secs()))
}

pub(in crate::table) fn time_zone(job: &Value, _: Timestamp) -> Value {
    json!(or(job, "/spec/timeZone", NONE))
}

pub(in crate::table) fn suspended(job: &Value, _: Timestamp) -> Value {
    json!(if job.pointer("/spec/suspend") == Some(&Value::Bool(true)) { "True" } else { "False" })
}

pub(in crate::table) fn active_jobs(job: &Value, _: Timestamp) -> Value {
    json!(list(job, "/status/active").len())
}

pub(in crate::table) fn last_schedule(job: &Value, now: Timestamp) -> Value {
    match job.pointer("/status/lastScheduleTime") {
        None => json!(NONE),
        since => json!(age(since, now)),
    }
}

pub(in crate::table) fn scale_target(scaler: &Value, _: Timestamp) -> Value {
    let target = scaler.pointer("/spec/scaleTargetRef").unwrap_or(&Value::Null);
    json!(format!("{}/{}", text(target, "/kind"), text(target, "/name")))
}

/// Where a source of metrics keeps its target, and its name.
fn metric(metric: &Value, current: Option<&Value>) -> String {
    let kind = text(metric, "/type");
    let source = match kind {
        "Resource" => "resource",
        "Pods" => "pods",
        "Object" => "object",
        "External" => "external",
        "ContainerResource" => "containerResource",
        _ => return "<unknown type>".to_owned(),
    };
    let name = match kind {
        "Resource" | "ContainerResource" => text(metric, &format!("/{source}/name")),
        _ => "",
    };
    let (average, field) = match text(metric, &format!("/{source}/target/type")) {
        "Utilization" => ("%", "averageUtilization"),
        "AverageValue" => (" (avg)", "averageValue"),
        _ => ("", "value"),
    };
    let shown = |value: Option<&Value>, percent: &str| match value {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => format!("{number}{percent}"),
        _ => "<unknown>".to_owned(),
    };
    let percent = if average == "%" { "%" } else { "" };
    let wanted = shown(metric.pointer(&format!("/{source}/target/{field}")), percent);
    let found = shown(current.and_then(|c| c.pointer(&format!("/{source}/current/{field}"))), percent);
    let suffix = if average == " (avg)" && kind != "Resource" { average } else { "" };
    let prefix = if name.is_empty() { String::new() } else { format!("{name}: ") };
    format!("{prefix}{found}/{wanted}{suffix}")
}

pub(in crate::table) fn scale_metrics(scaler: &Value, _: Timestamp) -> Value {
    let (wanted, current) = (list(scaler, "/spec/metrics"), list(scaler, "/status/currentMetrics"));
    if wanted.is_empty() {
        return json!(NONE);
    }
    let shown: Vec<String> =
        wanted.iter().enumerate().take(METRICS_SHOWN).map(|(n, one)| metric(one, current.get(n))).collect();
    let shown = shown.join(", ");
    let more = wanted.len().saturating_sub(METRICS_SHOWN);
    json!(if more > 0 { format!("{shown} + {more} more...") } else { shown })
}

pub(in crate::table) fn old_scale_metrics(scaler: &Value, now: Timestamp) -> Value {
    let Some(kind) = find("autoscaling", "v1", "horizontalpodautoscalers") else { return json!(NONE) };
    scale_metrics(&to_storage(kind, scaler.clone()), now)
}

pub(in crate::table) fn replicas_min(scaler: &Value, _: Timestamp) -> Value {
    let min = scaler.pointer("/spec/minReplicas").and_then(Value::as_i64);
    json!(min.map_or_else(|| "<unset>".to_owned(), |min| min.to_string()))
}

pub(in crate::table) fn scaled_replicas(scaler: &Value, _: Timestamp) -> Value {
    json!(number(scaler, "/status/currentReplicas"))
}

fn number_or_text(value: Option<&Value>) -> Value {
    match value {
        Some(Value::String(text)) => json!(text),
        Some(Value::Number(number)) => json!(number.to_string()),
        _ => json!("N/A"),
    }
}

pub(in crate::table) fn min_available(budget: &Value, _: Timestamp) -> Value {
    number_or_text(budget.pointer("/spec/minAvailable"))
}

pub(in crate::table) fn max_unavailable(budget: &Value, _: Timestamp) -> Value {
    number_or_text(budget.pointer("/spec/maxUnavailable"))
}

pub(in crate::table) fn disruptions_allowed(budget: &Value, _: Timestamp) -> Value {
    json!(number(budget, "/status/disruptionsAllowed"))
}

fn quota(quota: &Value, limits: bool) -> Value {
    let hard = map(quota, "/status/hard").into_iter().flatten();
    let mut shown: Vec<String> = hard
        .filter(|(name, _)| name.starts_with("limits.") == limits)
        .map(|(name, hard)| {
            let used = quota.pointer("/status/used").and_then(|used| used.get(name));
            let amount = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or("0").to_owned();
            format!("{name}: {}/{}", amount(used), amount(Some(hard)))
        })
        .collect();
    shown.sort_unstable();
    json!(shown.join(", "))
}

pub(in crate::table) fn quota_requests(object: &Value, _: Timestamp) -> Value {
    quota(object, false)
}

pub(in crate::table) fn quota_limits(object: &Value, _: Timestamp) -> Value {
    quota(object, true)
}

pub(in crate::table) fn global_default(class: &Value, _: Timestamp) -> Value {
    json!(class["globalDefault"] == true)
}
