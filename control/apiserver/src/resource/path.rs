//! Patterns for places in an object: `containers[*].ports[*].protocol`, `resources.limits{*}`.
//!
//! `[*]` steps into each element of a list, `{*}` into each value of a map, and `a|b` into `a` and into `b`; the paths
//! handed out are upstream's (`containers[0].ports[1].protocol`, `resources.limits[cpu]`).

use std::fmt::{Display, Write};

use serde_json::{Map, Value};

/// Rules that hold below a place, so that pods and pod templates share one table.
#[derive(Debug)]
pub(crate) struct Below<T: 'static> {
    /// The pattern of the place; empty for the object itself.
    pub(crate) at: &'static str,
    /// The rules, with paths relative to the place.
    pub(crate) rules: &'static [T],
}

/// Calls `visit` with the path and the value, if any, of each place that `pattern` names whose parent exists. `at` is the
/// path of the value itself; it is lengthened for each visit and is as it was afterwards. An explicit null is an absent
/// value.
pub(crate) fn each<'a>(
    value: &'a Value,
    at: &mut String,
    pattern: &str,
    visit: &mut dyn FnMut(&mut String, Option<&'a Value>),
) {
    if pattern.is_empty() {
        visit(at, Some(value));
        return;
    }
    let (segment, rest) = split(pattern);
    let Some(object) = value.as_object() else { return };
    let outer = at.len();
    for name in segment.names {
        if outer > 0 {
            at.push('.');
        }
        at.push_str(name);
        let here = at.len();
        let child = object.get(name).filter(|child| !child.is_null());
        match (segment.step, child) {
            (Step::One, child) if rest.is_empty() => visit(at, child),
            (Step::One, Some(child)) => each(child, at, rest, visit),
            (Step::List, Some(Value::Array(items))) => {
                for (index, item) in items.iter().enumerate() {
                    push_step(at, index);
                    each(item, at, rest, visit);
                    at.truncate(here);
                }
            }
            (Step::Map, Some(Value::Object(entries))) => {
                for (key, item) in entries {
                    push_step(at, key);
                    each(item, at, rest, visit);
                    at.truncate(here);
                }
            }
            _ => {}
        }
        at.truncate(outer);
    }
}

fn push_step(at: &mut String, step: impl Display) {
    write!(at, "[{step}]").expect("writing into a string cannot fail");
}

/// Calls `visit` with each value that `pattern` names.
pub(crate) fn each_mut(value: &mut Value, pattern: &str, visit: &mut dyn FnMut(&mut Value)) {
    if pattern.is_empty() {
        return visit(value);
    }
    let (segment, rest) = split(pattern);
    let Some(object) = value.as_object_mut() else { return };
    for name in segment.names {
        match (segment.step, object.get_mut(name)) {
            (Step::One, Some(child)) => each_mut(child, rest, visit),
            (Step::List, Some(Value::Array(items))) => {
                items.iter_mut().for_each(|item| each_mut(item, rest, visit));
            }
            (Step::Map, Some(Value::Object(entries))) => {
                entries.values_mut().for_each(|item| each_mut(item, rest, visit));
            }
            _ => {}
        }
    }
}

/// Calls `visit` with the map that holds each place that `pattern` names, and the last name in the pattern.
pub(crate) fn each_parent_mut(
    value: &mut Value,
    pattern: &str,
    visit: &mut dyn FnMut(&mut Map<String, Value>, &str),
) {
    let (parents, name) = pattern.rsplit_once('.').unwrap_or(("", pattern));
    each_mut(value, parents, &mut |parent| {
        if let Some(parent) = parent.as_object_mut() {
            visit(parent, name);
        }
    });
}

/// The first value at a pattern without wildcards.
pub(crate) fn get<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(value, |value, name| value.get(name)).filter(|value| !value.is_null())
}

/// `a` and `b` as one path or pattern.
pub(crate) fn join(a: &str, b: &str) -> String {
    match (a, b) {
        ("", only) | (only, "") => only.to_owned(),
        _ => format!("{a}.{b}"),
    }
}

struct Segment<'a> {
    names: std::str::Split<'a, char>,
    step: Step,
}

#[derive(Clone, Copy)]
enum Step {
    One,
    List,
    Map,
}

fn split(pattern: &str) -> (Segment<'_>, &str) {
    let (segment, rest) = pattern.split_once('.').unwrap_or((pattern, ""));
    let (names, step) = if let Some(names) = segment.strip_suffix("[*]") {
        (names, Step::List)
    } else if let Some(names) = segment.strip_suffix("{*}") {
        (names, Step::Map)
    } else {
        (segment, Step::One)
    };
    (Segment { names: names.split('|'), step }, rest)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pattern_names_every_place_whose_parent_exists() {
        let object = json!({
            "containers": [{"ports": [{"p": 1}, {}]}, {}, {"limits": {"cpu": "1", "memory": null}}],
        });
        let rows: [(&str, &[&str]); 5] = [
            (
                "containers|absent[*].ports|limits",
                &[
                    "containers[0].ports=[{\"p\":1},{}]",
                    "containers[0].limits",
                    "containers[1].ports",
                    "containers[1].limits",
                    "containers[2].ports",
                    "containers[2].limits={\"cpu\":\"1\",\"memory\":null}",
                ],
            ),
            ("containers[*].ports[*].p", &["containers[0].ports[0].p=1", "containers[0].ports[1].p"]),
            (
                "containers[*].limits{*}",
                &["containers[2].limits[cpu]=\"1\"", "containers[2].limits[memory]=null"],
            ),
            ("absent", &["absent"]),
            ("absent.below", &[]),
        ];
        for (pattern, expected) in rows {
            let mut found = Vec::new();
            let mut at = String::new();
            each(&object, &mut at, pattern, &mut |path, value| {
                found.push(value.map_or(path.clone(), |value| format!("{path}={value}")));
            });
            assert_eq!(at, "");
            assert_eq!(found, expected, "{pattern}");
        }
    }
}
