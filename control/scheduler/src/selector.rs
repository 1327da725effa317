//! Node selectors.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm};

type Labels = BTreeMap<String, String>;

/// Whether labels satisfy `key operator values`. An unknown operator matches nothing.
fn holds(value: Option<&String>, operator: &str, values: &[String]) -> bool {
    let number = |text: &String| text.parse::<i64>().ok();
    let bound = || values.first().and_then(number);
    match operator {
        "In" => value.is_some_and(|value| values.contains(value)),
        "NotIn" => value.is_none_or(|value| !values.contains(value)),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => value.and_then(number).zip(bound()).is_some_and(|(value, bound)| value > bound),
        "Lt" => value.and_then(number).zip(bound()).is_some_and(|(value, bound)| value < bound),
        _ => false,
    }
}

fn requirement(wanted: &NodeSelectorRequirement, labels: &Labels) -> bool {
    let values = wanted.values.as_deref().unwrap_or_default();
    holds(labels.get(&wanted.key), &wanted.operator, values)
}

/// Whether a node satisfies all of a term. An empty term matches no node.
pub fn term_matches(term: &NodeSelectorTerm, name: &str, labels: &Labels) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    let fields_of = BTreeMap::from([("metadata.name".to_owned(), name.to_owned())]);
    !(expressions.is_empty() && fields.is_empty())
        && expressions.iter().all(|wanted| requirement(wanted, labels))
        && fields.iter().all(|wanted| requirement(wanted, &fields_of))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_mean_what_the_api_says() {
        let labels = Labels::from([("disk".into(), "ssd".into()), ("cores".into(), "8".into())]);
        let rows = [
            ("disk", "In", vec!["ssd", "nvme"], true),
            ("disk", "NotIn", vec!["ssd"], false),
            ("none", "NotIn", vec!["ssd"], true),
            ("none", "In", vec!["ssd"], false),
            ("disk", "Exists", vec![], true),
            ("disk", "DoesNotExist", vec![], false),
            ("cores", "Gt", vec!["4"], true),
            ("cores", "Lt", vec!["4"], false),
            ("disk", "Gt", vec!["4"], false),
        ];
        for (key, operator, values, expected) in rows {
            let wanted = NodeSelectorRequirement {
                key: key.into(),
                operator: operator.into(),
                values: Some(values.into_iter().map(Into::into).collect()),
            };
            assert_eq!(requirement(&wanted, &labels), expected, "{key} {operator}");
        }
    }

    #[test]
    fn an_empty_term_matches_no_node() {
        assert!(!term_matches(&NodeSelectorTerm::default(), "n", &Labels::new()));
    }
}
