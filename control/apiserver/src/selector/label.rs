//! Label selectors, in the form of a query parameter and in the form of a `LabelSelector` object.

use std::fmt;
use std::str::FromStr;

use serde_json::Value;

use super::SelectorError;
use crate::resource::names;

/// Requirements on labels, all of which must hold. No requirement selects everything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
}

/// One requirement on one label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    /// The label.
    pub key: String,
    /// What must hold.
    pub operator: Operator,
    /// What it is compared with; empty for `Exists` and `Absent`.
    pub values: Vec<String>,
}

/// How a requirement compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// The label is one of the values.
    In,
    /// The label is none of the values, or absent.
    NotIn,
    /// The label is there.
    Exists,
    /// The label is not there.
    Absent,
    /// The label is a number greater than the value.
    Greater,
    /// The label is a number less than the value.
    Less,
}

impl LabelSelector {
    /// Reads `a=b,c!=d,e in (x,y),!f,g`.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut requirements = Vec::new();
        if !text.trim().is_empty() {
            for term in terms(text)? {
                requirements.push(requirement(term)?);
            }
        }
        Ok(Self { requirements })
    }

    /// Reads a `LabelSelector` object: `matchLabels` and `matchExpressions`.
    pub fn from_json(selector: &Value) -> Result<Self, SelectorError> {
        let labels = selector.get("matchLabels").and_then(Value::as_object);
        let mut requirements: Vec<Requirement> = labels
            .into_iter()
            .flatten()
            .map(|(key, value)| Requirement {
                key: key.clone(),
                operator: Operator::In,
                values: value.as_str().map(str::to_owned).into_iter().collect(),
            })
            .collect();
        for expression in selector.get("matchExpressions").and_then(Value::as_array).into_iter().flatten() {
            requirements.push(expression_requirement(expression)?);
        }
        Ok(Self { requirements })
    }

    /// Whether the selector selects everything.
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    /// The requirements, in the order they were written.
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// Whether the object's labels satisfy every requirement.
    pub fn matches(&self, object: &Value) -> bool {
        self.requirements.is_empty()
            || self.matches_labels(object.pointer("/metadata/labels").unwrap_or(&Value::Null))
    }

    /// Whether a map of labels satisfies every requirement.
    pub fn matches_labels(&self, labels: &Value) -> bool {
        self.requirements
            .iter()
            .all(|requirement| requirement.matches(labels.get(&requirement.key).and_then(Value::as_str)))
    }
}

impl FromStr for LabelSelector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        Self::parse(text)
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, requirement) in self.requirements.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            requirement.fmt(f)?;
        }
        Ok(())
    }
}

impl Requirement {
    fn matches(&self, label: Option<&str>) -> bool {
        let among = |label: &str| self.values.iter().any(|value| value == label);
        let against = |label: &str| -> Option<std::cmp::Ordering> {
            Some(label.parse::<i64>().ok()?.cmp(&self.values.first()?.parse().ok()?))
        };
        match self.operator {
            Operator::In => label.is_some_and(among),
            Operator::NotIn => !label.is_some_and(among),
            Operator::Exists => label.is_some(),
            Operator::Absent => label.is_none(),
            Operator::Greater => label.and_then(against).is_some_and(std::cmp::Ordering::is_gt),
            Operator::Less => label.and_then(against).is_some_and(std::cmp::Ordering::is_lt),
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, operator, values } = self;
        let joined = values.join(",");
        match (operator, values.as_slice()) {
            (Operator::In, [value]) => write!(f, "{key}={value}"),
            (Operator::NotIn, [value]) => write!(f, "{key}!={value}"),
            (Operator::In, _) => write!(f, "{key} in ({joined})"),
            (Operator::NotIn, _) => write!(f, "{key} notin ({joined})"),
            (Operator::Exists, _) => write!(f, "{key}"),
            (Operator::Absent, _) => write!(f, "!{key}"),
            (Operator::Greater, _) => write!(f, "{key}>{joined}"),
            (Operator::Less, _) => write!(f, "{key}<{joined}"),
        }
    }
}

/// Splits at the commas that are not within parentheses.
fn terms(text: &str) -> Result<Vec<&str>, SelectorError> {
    let (mut terms, mut depth, mut start) = (Vec::new(), 0usize, 0);
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' if depth == 0 => return Err(syntax(format!("found ')' without '(' in {text:?}"))),
            ')' => depth -= 1,
            ',' if depth == 0 => {
                terms.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    if depth > 0 {
        return Err(syntax(format!("found '' expected: ',', or ')' in {text:?}")));
    }
    terms.push(&text[start..]);
    Ok(terms)
}

fn requirement(term: &str) -> Result<Requirement, SelectorError> {
    let term = term.trim();
    if let Some(key) = term.strip_prefix('!') {
        return checked(key.trim(), Operator::Absent, Vec::new());
    }
    for (symbol, operator) in [
        ("!=", Operator::NotIn),
        ("==", Operator::In),
        ("=", Operator::In),
        (">", Operator::Greater),
        ("<", Operator::Less),
    ] {
        if let Some((key, value)) = term.split_once(symbol) {
            return checked(key.trim(), operator, vec![value.trim().to_owned()]);
        }
    }
    let Some((key, rest)) = term.split_once(char::is_whitespace) else {
        return checked(term, Operator::Exists, Vec::new());
    };
    let rest = rest.trim_start();
    let (operator, list) = if let Some(list) = rest.strip_prefix("notin") {
        (Operator::NotIn, list)
    } else if let Some(list) = rest.strip_prefix("in") {
        (Operator::In, list)
    } else {
        let expected = "expected: in, notin, =, ==, !=, gt, lt";
        return Err(syntax(format!("found '{rest}', {expected}")));
    };
    let list = list.trim().strip_prefix('(').and_then(|list| list.strip_suffix(')'));
    let list = list.ok_or_else(|| syntax(format!("found '{rest}', expected: '(' values ')'")))?;
    checked(key, operator, list.split(',').map(|value| value.trim().to_owned()).collect())
}

fn checked(key: &str, operator: Operator, values: Vec<String>) -> Result<Requirement, SelectorError> {
    let invalid = |what: &str, value: &str, problems: Vec<String>| {
        syntax(format!("{what}: Invalid value: {value:?}: {}", problems.join("; ")))
    };
    let problems = names::qualified_name(key);
    if !problems.is_empty() {
        return Err(invalid("key", key, problems));
    }
    for value in &values {
        let numeric = matches!(operator, Operator::Greater | Operator::Less);
        if numeric && value.parse::<i64>().is_err() {
            let problem = "for 'Gt', 'Lt' operators, the value must be an integer".to_owned();
            return Err(invalid("values[0]", value, vec![problem]));
        }
        let problems = names::label_value(value);
        if !problems.is_empty() {
            return Err(invalid(&format!("values[0][{key}]"), value, problems));
        }
    }
    Ok(Requirement { key: key.to_owned(), operator, values })
}

fn expression_requirement(expression: &Value) -> Result<Requirement, SelectorError> {
    let text = |field| expression.get(field).and_then(Value::as_str).unwrap_or_default();
    let operator = match text("operator") {
        "In" => Operator::In,
        "NotIn" => Operator::NotIn,
        "Exists" => Operator::Exists,
        "DoesNotExist" => Operator::Absent,
        other => return Err(SelectorError::Operator(other.to_owned())),
    };
    let values = expression.get("values").and_then(Value::as_array).into_iter().flatten();
    let values = values.filter_map(Value::as_str).map(str::to_owned).collect();
    Ok(Requirement { key: text("key").to_owned(), operator, values })
}

fn syntax(problem: String) -> SelectorError {
    SelectorError::Syntax(problem)
}

#[cfg(test)]
mod tests;
