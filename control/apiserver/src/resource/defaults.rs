//! Defaults, as tables of {place, condition, value}. Rows are applied in order, so a row may rely on those above it.
//!
//! The values are upstream's (`pkg/apis/*/v1/defaults.go`, and for a pod's service account its admission plugin).

use serde_json::{Map, Value, json};

use super::Resource;
use super::path::{self, Below};

mod compute;
mod rows;

pub(crate) use rows::*;

/// One default.
#[derive(Debug)]
pub(crate) struct Default {
    /// The field, below the table's place. Its parent must exist; rows above may have made it.
    path: &'static str,
    when: When,
    value: Set,
}

/// When a default applies.
#[derive(Debug, Clone, Copy)]
pub(crate) enum When {
    /// The field is absent or null.
    Absent,
    /// The field is absent and its sibling holds one of these.
    AbsentAnd(&'static str, &'static [&'static str]),
    /// Whatever the field holds; only for computed values, which may look at it.
    Always,
}

/// What a default sets.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Set {
    Text(&'static str),
    Int(i64),
    Bool(bool),
    Object,
    /// Computed from the map that holds the field; `None` leaves the field as it is.
    Compute(fn(&Map<String, Value>) -> Option<Value>),
    /// Removed: a row above has put it where it belongs.
    Remove,
}

/// Fills in what the object's writer left out. Applying it again changes nothing.
pub fn default(resource: &Resource, object: &mut Value) {
    for Below { at, rules } in resource.strategy.defaults.iter().copied().flatten() {
        path::each_mut(object, at, &mut |place| {
            for rule in *rules {
                path::each_parent_mut(place, rule.path, &mut |parent, field| apply(rule, parent, field));
            }
        });
    }
}

fn apply(rule: &Default, parent: &mut Map<String, Value>, field: &str) {
    let absent = parent.get(field).is_none_or(Value::is_null);
    let applies = match rule.when {
        When::Absent => absent,
        When::AbsentAnd(sibling, values) => {
            absent && parent.get(sibling).is_some_and(|value| values.iter().any(|one| equals(value, one)))
        }
        When::Always => true,
    };
    if !applies {
        return;
    }
    let value = match rule.value {
        Set::Text(text) => Some(json!(text)),
        Set::Int(number) => Some(json!(number)),
        Set::Bool(flag) => Some(json!(flag)),
        Set::Object => Some(json!({})),
        Set::Compute(compute) => compute(parent),
        Set::Remove => {
            parent.remove(field);
            None
        }
    };
    if let Some(value) = value {
        parent.insert(field.to_owned(), value);
    }
}

fn equals(value: &Value, text: &str) -> bool {
    match value {
        Value::String(value) => value == text,
        Value::Bool(value) => text == if *value { "true" } else { "false" },
        _ => false,
    }
}

#[cfg(test)]
mod tests;
