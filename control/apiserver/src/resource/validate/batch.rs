//! Jobs and cron jobs.

use std::ops::RangeInclusive;

use serde_json::Value;

use super::{Errors, apps, text};
use crate::resource::error::FieldError;
use crate::resource::path;

/// A cron job's name leaves room for the eleven characters that its jobs add.
const CRON_JOB_NAME_LEN_MAX: usize = 52;
/// The most completions of an indexed job.
const INDEXES_MAX: i64 = 1_000_000;

/// The parts of a schedule, and what may stand in them.
const SCHEDULE: [(&str, RangeInclusive<u32>, &[&str]); 5] = [
    ("minute", 0..=59, &[]),
    ("hour", 0..=23, &[]),
    ("day of month", 1..=31, &[]),
    ("month", 1..=12, &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]),
    ("day of week", 0..=7, &["sun", "mon", "tue", "wed", "thu", "fri", "sat"]),
];
const DESCRIPTORS: &[&str] =
    &["@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"];

/// Pods of a job end: they are not restarted always.
pub(super) fn template_restart_policy(at: &str, policy: &Value, errors: &mut Errors) {
    match policy.as_str() {
        Some("OnFailure" | "Never" | "") => {}
        _ => errors.push(FieldError::required(at, "valid values: \"OnFailure\", \"Never\"")),
    }
}

/// A job's selector, which is made for it unless it says that it brings its own, selects its pods.
pub(super) fn selector(at: &str, spec: &Value, errors: &mut Errors) {
    match path::get(spec, "selector") {
        // Made when the object is stored.
        None if spec.get("manualSelector") != Some(&Value::Bool(true)) => {}
        _ => apps::job_selector(at, spec, errors),
    }
}

/// What an indexed job must say.
pub(super) fn indexed(at: &str, spec: &Value, errors: &mut Errors) {
    let number = |field| spec.get(field).and_then(Value::as_i64);
    let indexed = text(spec, "completionMode") == "Indexed";
    let here = |field: &str| path::join(at, field);
    if indexed {
        match number("completions") {
            None => {
                let detail = "when completion mode is Indexed";
                errors.push(FieldError::required(here("completions"), detail));
            }
            Some(count) if count > INDEXES_MAX => {
                let detail = format!("must be less than or equal to {INDEXES_MAX}");
                errors.push(FieldError::invalid(here("completions"), &Value::from(count), &detail));
            }
            Some(_) => {}
        }
        return;
    }
    for field in ["backoffLimitPerIndex", "maxFailedIndexes"] {
        if let Some(value) = spec.get(field).filter(|value| !value.is_null()) {
            let detail = "requires indexed completion mode";
            errors.push(FieldError::invalid(here(field), value, detail));
        }
    }
}

/// A job keeps its template once it runs, and its completions unless it is elastic.
pub(super) fn job_unchanged(new: &Value, old: &Value, errors: &mut Errors) {
    let suspended = path::get(old, "spec.suspend") == Some(&Value::Bool(true));
    let indexed = text(old, "spec.completionMode") == "Indexed";
    let rows = [("spec.template", suspended), ("spec.completions", indexed)];
    for (field, may_change) in rows {
        let (now, before) = (path::get(new, field), path::get(old, field));
        if !may_change && now != before {
            errors.push(FieldError::invalid(field, now.unwrap_or(&Value::Null), "field is immutable"));
        }
    }
}

/// A name that jobs can be named after.
pub(super) fn cron_job_name(at: &str, name: &Value, errors: &mut Errors) {
    if name.as_str().unwrap_or_default().len() > CRON_JOB_NAME_LEN_MAX {
        let detail = format!("must be no more than {CRON_JOB_NAME_LEN_MAX} characters");
        errors.push(FieldError::invalid(at, name, &detail));
    }
}

/// A schedule of five parts, or one of the names for one.
pub(super) fn schedule(at: &str, schedule: &Value, errors: &mut Errors) {
    let given = schedule.as_str().unwrap_or_default();
    if given.contains("TZ") {
        let detail = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
        errors.push(FieldError::invalid(at, schedule, detail));
    } else if let Err(problem) = parse_schedule(given) {
        errors.push(FieldError::invalid(at, schedule, &problem));
    }
}

fn parse_schedule(schedule: &str) -> Result<(), String> {
    if schedule.starts_with('@') {
        let every = schedule.strip_prefix("@every ").is_some_and(|duration| !duration.is_empty());
        let known = every || DESCRIPTORS.contains(&schedule);
        return if known { Ok(()) } else { Err(format!("unrecognized descriptor: {schedule}")) };
    }
    let parts: Vec<&str> = schedule.split_whitespace().collect();
    if parts.len() != SCHEDULE.len() {
        let count = parts.len();
        return Err(format!("expected exactly 5 fields, found {count}: [{}]", parts.join(" ")));
    }
    for (part, (_, range, names)) in parts.iter().zip(&SCHEDULE) {
        for one in part.split(',') {
            schedule_part(one, range, names)?;
        }
    }
    Ok(())
}

fn schedule_part(part: &str, range: &RangeInclusive<u32>, names: &[&str]) -> Result<(), String> {
    let (span, step) = part.split_once('/').map_or((part, None), |(span, step)| (span, Some(step)));
    if let Some(step) = step {
        match step.parse::<u32>() {
            Ok(0) => return Err(format!("step of range should be a positive number: {part}")),
            Ok(_) => {}
            Err(_) => return Err(format!("failed to parse int from {step}: {part}")),
        }
    }
    if matches!(span, "*" | "?") {
        return Ok(());
    }
    let first = *range.start();
    let number = |text: &str| {
        let index = names.iter().position(|name| name.eq_ignore_ascii_case(text));
        let named = index.and_then(|index| u32::try_from(index).ok()).map(|index| index + first);
        named.or_else(|| text.parse().ok()).ok_or_else(|| format!("failed to parse int from {text}: {part}"))
    };
    let (low, high) = span.split_once('-').unwrap_or((span, span));
    let (low, high) = (number(low)?, number(high)?);
    if low < first {
        Err(format!("beginning of range ({low}) below minimum ({first}): {part}"))
    } else if high > *range.end() {
        Err(format!("end of range ({high}) above maximum ({}): {part}", range.end()))
    } else if low > high {
        Err(format!("beginning of range ({low}) beyond end of range ({high}): {part}"))
    } else {
        Ok(())
    }
}

/// A time zone that the system knows.
pub(super) fn time_zone(at: &str, zone: &Value, errors: &mut Errors) {
    let name = zone.as_str().unwrap_or_default();
    if name.is_empty() {
        errors.push(FieldError::invalid(at, zone, "timeZone must be nil or non-empty string"));
    } else if name.eq_ignore_ascii_case("local") {
        let detail = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
        errors.push(FieldError::invalid(at, zone, detail));
    } else if jiff::tz::TimeZone::get(name).is_err() {
        errors.push(FieldError::invalid(at, zone, &format!("unknown time zone {name}")));
    }
}

/// What makes the jobs of a cron job does not say how they select their pods.
pub(super) fn job_template(at: &str, template: &Value, errors: &mut Errors) {
    if let Some(selector) = path::get(template, "spec.selector") {
        let detail = "`selector` will be auto-generated";
        errors.push(FieldError::invalid(format!("{at}.spec.selector"), selector, detail));
    }
    if path::get(template, "spec.manualSelector") == Some(&Value::Bool(true)) {
        let field = format!("{at}.spec.manualSelector");
        errors.push(FieldError::not_supported(field, &Value::Bool(true), &["nil", "false"]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_are_read_as_crons_are() {
        let rows = [
            ("* * * * *", None),
            ("*/5 0-6,22 1 jan-MAR sun", None),
            ("@hourly", None),
            ("@every 1h", None),
            ("@often", Some("unrecognized descriptor: @often")),
            ("a b c", Some("expected exactly 5 fields, found 3: [a b c]")),
            ("60 * * * *", Some("end of range (60) above maximum (59): 60")),
            ("* * 0 * *", Some("beginning of range (0) below minimum (1): 0")),
            ("9-5 * * * *", Some("beginning of range (9) beyond end of range (5): 9-5")),
            ("*/0 * * * *", Some("step of range should be a positive number: */0")),
            ("x * * * *", Some("failed to parse int from x: x")),
        ];
        for (schedule, problem) in rows {
            assert_eq!(parse_schedule(schedule).err().as_deref(), problem, "{schedule}");
        }
    }
}
