//! Server-side apply and managed fields, as kube-rs and kubectl use them.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::kubectl::with_kubectl;
use crate::support::Server;

fn deployment(replicas: i64, image: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "web" },
        "spec": {
            "replicas": replicas,
            "selector": { "matchLabels": { "app": "web" } },
            "template": {
                "metadata": { "labels": { "app": "web" } },
                "spec": { "containers": [{ "name": "web", "image": image }] },
            },
        },
    })
}

fn status(error: kube::Error) -> kube::core::Status {
    match error {
        kube::Error::Api(status) => *status,
        other => panic!("not an answer of the API: {other:?}"),
    }
}

#[tokio::test]
async fn kube_applies_conflicts_and_forces() {
    let server = Server::start().await;
    let api: Api<Deployment> = Api::default_namespaced(server.client());
    let made = api.patch("web", &PatchParams::apply("one"), &Patch::Apply(deployment(1, "a"))).await.unwrap();
    assert_eq!(made.metadata.generation, Some(1));
    let again =
        api.patch("web", &PatchParams::apply("one"), &Patch::Apply(deployment(1, "a"))).await.unwrap();
    assert_eq!(again.metadata, made.metadata, "nothing was changed");

    let other =
        Patch::Apply(json!({ "apiVersion": "apps/v1", "kind": "Deployment", "spec": { "replicas": 3 } }));
    let refused = status(api.patch("web", &PatchParams::apply("two"), &other).await.unwrap_err());
    assert_eq!((refused.code, refused.reason.as_str()), (409, "Conflict"));
    assert_eq!(refused.message, "Apply failed with 1 conflict: conflict with \"one\": .spec.replicas");
    let cause = &refused.details.unwrap().causes[0];
    assert_eq!(
        (cause.reason.as_str(), cause.field.as_str(), cause.message.as_str()),
        ("FieldManagerConflict", ".spec.replicas", "conflict with \"one\"")
    );
    let forced = api.patch("web", &PatchParams::apply("two").force(), &other).await.unwrap();
    assert_eq!(forced.spec.unwrap().replicas, Some(3));
    // It is no longer said by anybody who applies it: it goes, and becomes the default again.
    let nothing = Patch::Apply(json!({ "apiVersion": "apps/v1", "kind": "Deployment" }));
    let left = api.patch("web", &PatchParams::apply("two"), &nothing).await.unwrap();
    assert_eq!(left.spec.unwrap().replicas, Some(1));

    let dry = PatchParams { dry_run: true, ..PatchParams::apply("one") };
    let tried = api.patch("web", &dry, &Patch::Apply(deployment(9, "b"))).await.unwrap();
    assert_eq!(tried.spec.unwrap().replicas, Some(9));
    assert_eq!(api.get("web").await.unwrap().spec.unwrap().replicas, Some(1));
    let mut new = deployment(1, "a");
    new["metadata"]["name"] = json!("new");
    api.patch("new", &dry, &Patch::Apply(new)).await.unwrap();
    assert!(api.get_opt("new").await.unwrap().is_none());
}

#[tokio::test]
async fn an_apply_must_say_who_and_what() {
    let server = Server::start().await;
    let api: Api<ConfigMap> = Api::default_namespaced(server.client());
    let map = |value: Value| Patch::Apply(value);
    let good = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "m" } });
    let rows = [
        (
            PatchParams::default(),
            good.clone(),
            422,
            "fieldManager: Required value: is required for apply patch",
        ),
        (
            PatchParams::apply("a"),
            json!({ "kind": "ConfigMap" }),
            400,
            "Incorrect version specified in apply patch",
        ),
        (
            PatchParams::apply("a"),
            json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "managedFields": [{}] } }),
            400,
            "metadata.managedFields must be nil",
        ),
        (
            PatchParams {
                field_validation: Some(kube::api::ValidationDirective::Strict),
                ..PatchParams::apply("a")
            },
            json!({ "apiVersion": "v1", "kind": "ConfigMap", "dat": { "a": "b" } }),
            400,
            "unknown field \"dat\"",
        ),
        (
            PatchParams::apply("a"),
            json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "uid": "x" } }),
            409,
            "uid mismatch",
        ),
    ];
    for (params, config, code, text) in rows {
        let refused = status(api.patch("m", &params, &map(config)).await.unwrap_err());
        assert_eq!(refused.code, code, "{}", refused.message);
        assert!(refused.message.contains(text), "{}", refused.message);
    }
}

#[tokio::test]
async fn a_status_is_applied_beside_the_object() {
    let server = Server::start().await;
    let api: Api<Pod> = Api::default_namespaced(server.client());
    let pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "p" },
        "spec": { "containers": [{ "name": "c", "image": "i" }] } });
    api.patch("p", &PatchParams::apply("user"), &Patch::Apply(pod)).await.unwrap();
    let condition = |kind: &str| {
        Patch::Apply(json!({ "apiVersion": "v1", "kind": "Pod",
            "status": { "conditions": [{ "type": kind, "status": "True" }] } }))
    };
    api.patch_status("p", &PatchParams::apply("x"), &condition("example.com/x")).await.unwrap();
    let told = api.patch_status("p", &PatchParams::apply("y"), &condition("example.com/y")).await.unwrap();
    let conditions = told.status.unwrap().conditions.unwrap();
    assert_eq!(
        conditions.iter().map(|c| c.type_.as_str()).collect::<Vec<_>>(),
        ["example.com/x", "example.com/y"]
    );
    let entries = told.metadata.managed_fields.unwrap();
    let rows: BTreeMap<_, _> = entries
        .iter()
        .map(|e| (e.manager.clone().unwrap(), e.subresource.clone().unwrap_or_default()))
        .collect();
    let expected = [("user", ""), ("x", "status"), ("y", "status")];
    assert_eq!(rows, expected.map(|(a, b)| (a.to_owned(), b.to_owned())).into());
}

#[tokio::test]
async fn writes_of_every_kind_note_their_owner() {
    let server = Server::start().await;
    let api: Api<Deployment> = Api::default_namespaced(server.client());
    let object: Deployment = serde_json::from_value(deployment(1, "a")).unwrap();
    let by = |name: &str| PostParams { field_manager: Some(name.to_owned()), ..PostParams::default() };
    let mut made = api.create(&by("maker"), &object).await.unwrap();
    made.spec.as_mut().unwrap().paused = Some(true);
    api.replace("web", &by("replacer"), &made).await.unwrap();
    let label = json!({ "metadata": { "labels": { "a": "b" } } });
    let params = PatchParams { field_manager: Some("patcher".to_owned()), ..PatchParams::default() };
    api.patch("web", &params, &Patch::Merge(label)).await.unwrap();
    let scale = json!({ "spec": { "replicas": 5 } });
    let scaler = PatchParams { field_manager: Some("scaler".to_owned()), ..PatchParams::default() };
    api.patch_scale("web", &scaler, &Patch::Merge(scale)).await.unwrap();
    let fields = api.get("web").await.unwrap().metadata.managed_fields.unwrap();
    let owned = |name: &str| {
        let entry = fields.iter().find(|entry| entry.manager.as_deref() == Some(name)).unwrap();
        serde_json::to_value(&entry.fields_v1).unwrap()
    };
    assert_eq!(owned("replacer"), json!({ "f:spec": { "f:paused": {} } }));
    assert_eq!(owned("patcher"), json!({ "f:metadata": { "f:labels": { ".": {}, "f:a": {} } } }));
    assert_eq!(owned("scaler"), json!({ "f:spec": { "f:replicas": {} } }));
    let maker = owned("maker");
    assert_eq!(
        maker["f:spec"]["f:template"]["f:spec"]["f:containers"]["k:{\"name\":\"web\"}"]["f:image"],
        json!({})
    );
    assert_eq!(maker["f:spec"]["f:replicas"], Value::Null);
    assert_eq!(maker["f:status"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_applies_on_the_server() {
    with_kubectl(|kubectl| {
        let manifest = |replicas| deployment(replicas, "a").to_string();
        let ssa = |arguments: &str, replicas| {
            kubectl.with_input(format!("apply --server-side -f - {arguments}").trim(), &manifest(replicas))
        };
        let done = |output: std::process::Output| {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap()
        };
        assert_eq!(done(ssa("--field-manager=one", 1)), "deployment.apps/web serverside-applied\n");
        let refused = ssa("--field-manager=two", 2);
        let errors = String::from_utf8(refused.stderr).unwrap();
        assert!(errors.contains("conflict with \"one\": .spec.replicas"), "{errors}");
        assert!(errors.contains("--force-conflicts"), "{errors}");
        done(ssa("--field-manager=two --force-conflicts", 2));
        assert_eq!(kubectl.ok("get deploy web -o jsonpath={.spec.replicas}"), "2");
        let yaml = kubectl.ok("get deploy web -o yaml --show-managed-fields");
        for text in
            ["manager: one", "manager: two", "operation: Apply", "f:replicas: {}", "k:{\"name\":\"web\"}:"]
        {
            assert!(yaml.contains(text), "{yaml}");
        }
        assert!(!kubectl.ok("get deploy web -o yaml").contains("managedFields"));
        let difference = kubectl.with_input("diff --server-side --field-manager=two -f -", &manifest(7));
        let difference = String::from_utf8(difference.stdout).unwrap();
        assert!(difference.contains("+  replicas: 7"), "{difference}");
        kubectl.ok("delete deploy web");

        // From the client's apply to the server's and back.
        kubectl.apply(&manifest(1));
        done(ssa("", 4));
        assert_eq!(kubectl.ok("get deploy web -o jsonpath={.spec.replicas}"), "4");
        assert!(kubectl.apply(&manifest(5)).contains("configured"));
    })
    .await;
}
