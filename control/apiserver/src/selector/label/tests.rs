use proptest::prelude::*;
use serde_json::json;

use super::*;

#[test]
fn a_selector_matches_as_upstream_does() {
    let labels = json!({"a": "b", "c": "x", "n": "5"});
    let rows = [
        ("", true),
        ("a", true),
        ("z", false),
        ("!z", true),
        ("! a", false),
        ("a=b", true),
        ("a==b", true),
        ("a = b , c!=d", true),
        ("a!=b", false),
        ("z!=b", true),
        ("z=", false),
        ("c in (x,y)", true),
        ("c in (y)", false),
        ("c in(x)", true),
        ("c notin (y, z)", true),
        ("c notin (x)", false),
        ("z notin (x)", true),
        ("n>4", true),
        ("n<5", false),
        ("a>4", false),
        ("a=b,c in (x,y),!f,n", true),
    ];
    for (text, expected) in rows {
        let selector = LabelSelector::parse(text).expect(text);
        assert_eq!(selector.matches(&json!({"metadata": {"labels": labels}})), expected, "{text:?}");
    }
    assert!(!LabelSelector::parse("a").expect("valid").matches(&json!({"metadata": {}})));
}

#[test]
fn a_selector_that_cannot_be_read_is_refused() {
    for text in ["a in", "a in x", "a in (x", "a)", "a b", "a=b=c", "-a=b", "a=b,", "n>x", "a=-", "a/b/c"] {
        let error = LabelSelector::parse(text).expect_err(text);
        assert!(error.to_string().starts_with("unable to parse requirement: "), "{text:?}: {error}");
    }
}

#[test]
fn a_selector_prints_what_it_reads() {
    for text in ["a=b,c!=d,e in (x,y),f notin (x,y),g,!h,n>5,m<6", "a="] {
        let selector = LabelSelector::parse(text).expect(text);
        assert_eq!(selector.to_string(), text);
        assert_eq!(LabelSelector::parse(&selector.to_string()), Ok(selector));
    }
}

#[test]
fn a_selector_object_matches_labels_and_expressions() {
    let selector = LabelSelector::from_json(&json!({
        "matchLabels": {"a": "b"},
        "matchExpressions": [
            {"key": "c", "operator": "In", "values": ["x", "y"]},
            {"key": "z", "operator": "DoesNotExist"},
        ],
    }))
    .expect("valid");
    assert!(selector.matches_labels(&json!({"a": "b", "c": "y"})));
    assert!(!selector.matches_labels(&json!({"a": "b", "c": "z"})));
    assert!(!selector.matches_labels(&json!({"a": "b", "c": "y", "z": ""})));
    assert!(LabelSelector::from_json(&json!({})).expect("valid").is_empty());
    let wrong = json!({"matchExpressions": [{"key": "a", "operator": "Like"}]});
    assert_eq!(LabelSelector::from_json(&wrong), Err(SelectorError::Operator("Like".to_owned())));
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in "([a-c/.,=!<>() -]|in|notin|5|ä){0,24}", any in "\\PC{0,24}") {
        for text in [text, any] {
            if let Ok(selector) = LabelSelector::parse(&text) {
                selector.matches(&json!({"metadata": {"labels": {"a": "b", "c": "5"}}}));
                prop_assert_eq!(LabelSelector::parse(&selector.to_string()), Ok(selector));
            }
        }
    }
}
