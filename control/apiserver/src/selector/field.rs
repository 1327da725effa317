//! Field selectors: `spec.nodeName=x,status.phase!=Failed`.

use serde_json::Value;

use super::SelectorError;
use crate::resource::{FieldLabel, Resource, path};

/// Requirements on fields, all of which must hold. No requirement selects everything.
#[derive(Debug, Clone, Default)]
pub struct FieldSelector {
    requirements: Vec<Requirement>,
}

#[derive(Debug, Clone)]
struct Requirement {
    field: &'static FieldLabel,
    equal: bool,
    value: String,
}

/// What every kind can be selected by.
static META: &[FieldLabel] = &[
    FieldLabel { label: "metadata.name", path: "metadata.name", otherwise: "", absent: "" },
    FieldLabel { label: "metadata.namespace", path: "metadata.namespace", otherwise: "", absent: "" },
];

impl FieldSelector {
    /// Reads `a=b,c==d,e!=f`; the fields must be among those the kind can be selected by.
    pub fn parse(resource: &Resource, text: &str) -> Result<Self, SelectorError> {
        let mut requirements = Vec::new();
        for term in terms(text) {
            if term.is_empty() {
                continue;
            }
            let (name, equal, value) = split(&term).ok_or_else(|| SelectorError::FieldSyntax {
                selector: text.to_owned(),
                term: term.clone(),
            })?;
            let field = field(resource, name)?;
            requirements.push(Requirement { field, equal, value: unescape(value) });
        }
        Ok(Self { requirements })
    }

    /// Whether the selector selects everything.
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    /// How many requirements there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.requirements.len()
    }

    /// The value that a field must equal, if the selector asks for one; a list by name can be a single get.
    pub fn requires_exact(&self, label: &str) -> Option<&str> {
        let exact = self.requirements.iter().find(|one| one.equal && one.field.label == label)?;
        Some(&exact.value)
    }

    /// Whether the object's fields satisfy every requirement. The object is in the form of the kind that was parsed for.
    pub fn matches(&self, object: &Value) -> bool {
        self.requirements.iter().all(|one| one.field.holds(object, &one.value) == one.equal)
    }
}

impl FieldLabel {
    fn holds(&self, object: &Value, wanted: &str) -> bool {
        let set = |path| path::get(object, path).filter(|value| *value != "");
        match set(self.path).or_else(|| set(self.otherwise)) {
            None => self.absent == wanted,
            Some(Value::String(text)) => text == wanted,
            Some(Value::Bool(flag)) => wanted == if *flag { "true" } else { "false" },
            Some(other) => wanted.parse().is_ok_and(|wanted: i64| other.as_i64() == Some(wanted)),
        }
    }
}

fn field(resource: &Resource, name: &str) -> Result<&'static FieldLabel, SelectorError> {
    let known = META.iter().chain(resource.field_selectors);
    known.into_iter().find(|field| field.label == name).ok_or_else(|| {
        let unsupported = if resource.field_selectors.is_empty() {
            SelectorError::UnknownField
        } else {
            SelectorError::UnsupportedField
        };
        unsupported(name.to_owned())
    })
}

/// Splits at the commas that are not escaped.
fn terms(text: &str) -> Vec<String> {
    let mut terms = vec![String::new()];
    let mut escaped = false;
    for c in text.chars() {
        if c == ',' && !escaped {
            terms.push(String::new());
            continue;
        }
        escaped = c == '\\' && !escaped;
        if let Some(term) = terms.last_mut() {
            term.push(c);
        }
    }
    terms
}

fn split(term: &str) -> Option<(&str, bool, &str)> {
    let at = term.find(['=', '!'])?;
    let (name, rest) = term.split_at(at);
    let (equal, value) = if let Some(value) = rest.strip_prefix("!=") {
        (false, value)
    } else {
        (true, rest.strip_prefix("==").or_else(|| rest.strip_prefix('='))?)
    };
    Some((name, equal, value))
}

/// Undoes the escapes of `\`, `,` and `=`.
fn unescape(value: &str) -> String {
    let mut plain = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        plain.push(if c == '\\' { chars.next().unwrap_or(c) } else { c });
    }
    plain
}

#[cfg(test)]
mod tests;
