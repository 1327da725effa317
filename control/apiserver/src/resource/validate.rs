//! What must hold of an object, and what an update may not change, as tables of {place, checks}.

use serde_json::Value;

use super::error::FieldError;
use super::names::Syntax;
use super::path::{self, Below};
use super::{Resource, quantity};

pub(crate) mod access;
pub(crate) mod apps;
mod batch;
mod data;
mod immutable;
mod ingress;
mod meta;
mod network;
mod node;
mod pod;
mod quota;
pub(crate) mod rows;
mod service;

pub(crate) use immutable::Immutable;
pub(crate) use meta::NameSyntax;

/// The checks of one place.
#[derive(Debug)]
pub(crate) struct Rule {
    /// The field, below the table's place.
    path: &'static str,
    checks: &'static [Check],
}

/// Where the errors of one object go.
pub(crate) type Errors = Vec<FieldError>;

/// One check of one field. All but [`Check::Required`] and [`Check::Present`] pass when the field is absent.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Check {
    /// It is set and not empty; the text may be empty.
    Required(&'static str),
    /// It is set, if only to 0 or an empty value.
    Present,
    /// It has this syntax.
    Syntax(Syntax),
    /// It is one of these.
    OneOf(&'static [&'static str]),
    /// It is a number from 0.
    NotNegative,
    /// It is a number above 0.
    Positive,
    /// It is a number in this range.
    Range(i64, i64),
    /// It is a number in this range, or the name of a port.
    Port,
    /// It is a quantity that is not negative.
    Quantity,
    /// It is a list with at most so many elements.
    AtMost(usize),
    /// No two elements of the list agree in this field.
    Unique(&'static str),
    /// The keys of the map have this syntax; errors name the map.
    Keys(Syntax),
    /// It is a map of labels.
    Labels,
    /// Anything else about the value at the path.
    With(fn(&str, &Value, &mut Errors)),
}

/// What is wrong with `new`; with `old`, also what of it may not change. Both must have passed the type check, and
/// `new` must have its defaults.
pub fn validate(resource: &Resource, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    meta::validate(resource, new, old, &mut errors);
    let mut path = String::new();
    for Below { at, rules } in resource.strategy.rules.iter().copied().flatten() {
        path::each(new, &mut path, at, &mut |path, place| {
            for rule in *rules {
                match place {
                    Some(place) => path::each(place, path, rule.path, &mut |path, value| {
                        rule.run(path, value, &mut errors);
                    }),
                    None if rule.path.is_empty() => rule.run(path, None, &mut errors),
                    None => {}
                }
            }
        });
    }
    if let Some(old) = old {
        for row in resource.strategy.immutable {
            row.check(new, old, &mut errors);
        }
    }
    errors
}

/// What is wrong with a write, also of what only its subresource may change.
pub(crate) fn validate_write(
    resource: &Resource,
    new: &Value,
    old: Option<&Value>,
    subresource: Option<&str>,
) -> Vec<FieldError> {
    let (Some(old), Some(subresource @ ("resize" | "ephemeralcontainers"))) = (old, subresource) else {
        return validate(resource, new, old);
    };
    // To the rules of an update it looks as if what may change had always been so.
    let mut before = old.clone();
    let mut errors = Vec::new();
    if subresource == "resize" {
        for list in ["containers", "initContainers"] {
            if let (Some(now), Some(was)) = (new["spec"].get(list), before["spec"].get_mut(list)) {
                was.clone_from(now);
            }
        }
        pod::resized(new, old, &mut errors);
    } else {
        match new["spec"].get("ephemeralContainers") {
            Some(containers) => before["spec"]["ephemeralContainers"] = containers.clone(),
            None => drop(before["spec"].as_object_mut().map(|spec| spec.remove("ephemeralContainers"))),
        }
        pod::ephemeral_containers(new, old, &mut errors);
    }
    errors.extend(validate(resource, new, Some(&before)));
    errors
}

impl Rule {
    fn run(&self, path: &str, value: Option<&Value>, errors: &mut Errors) {
        let before = errors.len();
        for check in self.checks {
            check.run(path, value, errors);
            // What is missing needs no further comment.
            if errors.len() > before && matches!(check, Check::Required(_) | Check::Present) {
                break;
            }
        }
    }
}

impl Check {
    fn run(&self, path: &str, value: Option<&Value>, errors: &mut Errors) {
        match (self, value) {
            (Self::Required(detail), value) => {
                if value.is_none_or(is_empty) {
                    errors.push(FieldError::required(path, detail));
                }
            }
            (Self::Present, None) => errors.push(FieldError::required(path, "")),
            (Self::Syntax(_) | Self::OneOf(_), Some(value)) if value == "" => {}
            (_, Some(value)) => self.present(path, value, errors),
            (_, None) => {}
        }
    }

    fn present(&self, path: &str, value: &Value, errors: &mut Errors) {
        let number = value.as_i64().unwrap_or_default();
        let mut invalid = |detail: &str| errors.push(FieldError::invalid(path, value, detail));
        match self {
            Self::Required(_) | Self::Present => {}
            Self::Syntax(syntax) => {
                syntax(value.as_str().unwrap_or_default()).iter().for_each(|problem| invalid(problem));
            }
            Self::OneOf(supported) => {
                if !value.as_str().is_some_and(|text| supported.contains(&text)) {
                    errors.push(FieldError::not_supported(path, value, supported));
                }
            }
            Self::NotNegative if number < 0 => invalid("must be greater than or equal to 0"),
            Self::Positive if number <= 0 => invalid("must be greater than 0"),
            Self::Range(min, max) if !(*min..=*max).contains(&number) => {
                invalid(&format!("must be between {min} and {max}, inclusive"));
            }
            Self::NotNegative | Self::Positive | Self::Range(..) => {}
            Self::Port => match value.as_str() {
                Some(name) => super::names::port_name(name).iter().for_each(|problem| invalid(problem)),
                None => Self::Range(1, 65_535).present(path, value, errors),
            },
            Self::Quantity => match quantity::parse(value) {
                None => invalid(
                    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
                ),
                Some(amount) if amount < 0 => invalid("must be greater than or equal to 0"),
                Some(_) => {}
            },
            Self::AtMost(count_max) => {
                let count = value.as_array().map_or(0, Vec::len);
                if count > *count_max {
                    errors.push(FieldError::too_many(path, count, *count_max));
                }
            }
            Self::Unique(field) => unique(path, value, field, errors),
            Self::Keys(syntax) => {
                for key in value.as_object().into_iter().flat_map(serde_json::Map::keys) {
                    for problem in syntax(key) {
                        errors.push(FieldError::invalid(
                            format!("{path}[{key}]"),
                            &Value::from(key.as_str()),
                            &problem,
                        ));
                    }
                }
            }
            Self::Labels => meta::labels(path, value, errors),
            Self::With(check) => check(path, value, errors),
        }
    }
}

fn unique(path: &str, list: &Value, field: &str, errors: &mut Errors) {
    let mut seen: Vec<&Value> = Vec::new();
    for (index, item) in list.as_array().into_iter().flatten().enumerate() {
        let Some(value) = item.get(field).filter(|value| !is_empty(value)) else { continue };
        if seen.contains(&value) {
            errors.push(FieldError::duplicate(format!("{path}[{index}].{field}"), value));
        } else {
            seen.push(value);
        }
    }
}

/// Whether Go would call the value zero, as far as "required" goes.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Number(number) => number.as_i64() == Some(0),
        Value::Bool(_) => false,
    }
}

/// The string at a path below the value, or the empty string.
fn text<'v>(value: &'v Value, at: &str) -> &'v str {
    path::get(value, at).and_then(Value::as_str).unwrap_or_default()
}

/// The elements of the list at a path below the value.
fn items<'v>(value: &'v Value, at: &str) -> impl Iterator<Item = (usize, &'v Value)> {
    path::get(value, at).and_then(Value::as_array).into_iter().flatten().enumerate()
}

#[cfg(test)]
mod tests;
