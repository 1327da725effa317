use serde_json::json;

use super::*;
use crate::resource::find;

fn resource(group: &str, plural: &str) -> &'static Resource {
    find(group, "v1", plural).expect("the kind has a row")
}

#[test]
fn a_field_selector_matches_as_upstream_does() {
    let pod = json!({
        "metadata": {"name": "a", "namespace": "d"},
        "spec": {"nodeName": "n1", "restartPolicy": "Always"},
        "status": {"phase": "Running", "podIP": "10.0.0.1"},
    });
    let rows = [
        ("", true),
        ("metadata.name=a", true),
        ("metadata.name==b", false),
        ("metadata.namespace=d,spec.nodeName=n1", true),
        ("spec.nodeName!=n1", false),
        ("spec.nodeName=", false),
        ("status.nominatedNodeName=", true),
        ("status.phase!=Failed,status.phase!=Succeeded", true),
        ("spec.hostNetwork=false", true),
        ("status.podIP=10.0.0.1", true),
    ];
    for (text, expected) in rows {
        let selector = FieldSelector::parse(resource("", "pods"), text).expect(text);
        assert_eq!(selector.matches(&pod), expected, "{text:?}");
    }
    let nodes = FieldSelector::parse(resource("", "nodes"), "spec.unschedulable=true").expect("valid");
    assert!(nodes.matches(&json!({"spec": {"unschedulable": true}})));
    assert!(!nodes.matches(&json!({"spec": {}})));
    let events =
        FieldSelector::parse(resource("", "events"), "involvedObject.name=a,source=kubelet").expect("valid");
    assert!(events.matches(&json!({"involvedObject": {"name": "a"}, "source": {"component": "kubelet"}})));
    assert!(
        events.matches(
            &json!({"involvedObject": {"name": "a"}, "source": {}, "reportingComponent": "kubelet"})
        )
    );
    let sets = FieldSelector::parse(resource("apps", "replicasets"), "status.replicas=2").expect("valid");
    assert!(sets.matches(&json!({"status": {"replicas": 2}})));
}

#[test]
fn an_unknown_field_is_refused_in_upstreams_words() {
    let rows = [
        (("", "pods"), "spec.foo=a", "field label not supported: spec.foo"),
        (("", "services"), "spec.nodeName=a", "field label not supported: spec.nodeName"),
        (
            ("", "configmaps"),
            "data.a=b",
            "\"data.a\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\"",
        ),
        (
            ("", "pods"),
            "spec.nodeName",
            "invalid selector: 'spec.nodeName'; can't understand 'spec.nodeName'",
        ),
    ];
    for ((group, plural), text, expected) in rows {
        let error = FieldSelector::parse(resource(group, plural), text).expect_err(text);
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn an_exact_name_can_be_taken_out() {
    let selector =
        FieldSelector::parse(resource("", "pods"), "metadata.name=a,spec.nodeName!=b").expect("valid");
    assert_eq!(selector.requires_exact("metadata.name"), Some("a"));
    assert_eq!(selector.requires_exact("spec.nodeName"), None);
}

#[test]
fn escapes_are_undone() {
    let selector = FieldSelector::parse(resource("", "secrets"), r"type=a\,b\=c\\").expect("valid");
    assert!(selector.matches(&json!({"type": r"a,b=c\"})));
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in "(metadata.name|spec|[a,=!\\\\ä]){0,16}", any in "\\PC{0,24}") {
        for resource in crate::resource::RESOURCES {
            for text in [&text, &any] {
                if let Ok(selector) = FieldSelector::parse(resource, text) {
                    selector.matches(&serde_json::json!({"metadata": {"name": "a"}}));
                }
            }
        }
    }
}
