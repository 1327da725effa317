//! kubectl's way back to an earlier revision of the kinds whose history is ControllerRevisions. The test plays their
//! controllers: it makes the revisions.

use serde_json::{Value, json};

use crate::kubectl::{Kubectl, with_kubectl};

fn workload(kind: &str, image: &str) -> Value {
    let mut object = json!({
        "apiVersion": "apps/v1", "kind": kind,
        "metadata": { "name": "w", "namespace": "default" },
        "spec": {
            "selector": { "matchLabels": { "app": "w" } },
            "template": template(image),
        },
    });
    if kind == "StatefulSet" {
        object["spec"]["serviceName"] = json!("w");
    }
    object
}

fn template(image: &str) -> Value {
    json!({
        "metadata": { "labels": { "app": "w" } },
        "spec": { "containers": [{ "name": "c", "image": image }] },
    })
}

/// As upstream's controllers write one: a strategic merge patch of the template.
fn revision(kind: &str, uid: &str, number: u64, image: &str) -> Value {
    let mut template = template(image);
    template["$patch"] = json!("replace");
    json!({
        "apiVersion": "apps/v1", "kind": "ControllerRevision",
        "metadata": {
            "name": format!("w-{number}"), "namespace": "default", "labels": { "app": "w" },
            "annotations": { "kubernetes.io/change-cause": format!("to {image}") },
            "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": kind, "name": "w", "uid": uid, "controller": true,
            }],
        },
        "revision": number,
        "data": { "spec": { "template": template } },
    })
}

fn goes_back(kubectl: &Kubectl<'_>, kind: &str) {
    let name = format!("{}/w", kind.to_lowercase());
    let image = || kubectl.ok(&format!("get {name} -o jsonpath={{.spec.template.spec.containers[0].image}}"));
    kubectl.apply(&workload(kind, "two").to_string());
    let uid = kubectl.ok(&format!("get {name} -o jsonpath={{.metadata.uid}}"));
    for (number, image) in [(1, "one"), (2, "two")] {
        kubectl.apply(&revision(kind, &uid, number, image).to_string());
    }
    let history = kubectl.ok(&format!("rollout history {name}"));
    assert!(history.contains("1         to one") && history.contains("2         to two"), "{history}");
    let first = kubectl.ok(&format!("rollout history {name} --revision=1"));
    assert!(first.contains("Image:\tone"), "{first}");
    assert!(kubectl.ok(&format!("rollout undo {name}")).contains("rolled back"));
    assert_eq!(image(), "one");
    assert!(kubectl.ok(&format!("rollout undo {name} --to-revision=2")).contains("rolled back"));
    assert_eq!(image(), "two");
    assert!(kubectl.refused(&format!("rollout undo {name} --to-revision=7")).contains("revision"));
    kubectl.ok(&format!("delete {name}"));
    kubectl.ok("delete controllerrevisions --all");
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_goes_back_to_a_controller_revision() {
    with_kubectl(|kubectl| ["DaemonSet", "StatefulSet"].iter().for_each(|kind| goes_back(kubectl, kind)))
        .await;
}
