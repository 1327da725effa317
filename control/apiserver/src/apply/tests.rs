use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::resource::find;

fn write<'w>(plural: &str, manager: &'w str, subresource: Option<&'w str>) -> Writer<'w> {
    let group = if plural == "deployments" { "apps" } else { "" };
    let resource = find(group, "v1", plural).expect("the kind has a row");
    Writer { resource, subresource, manager, time: "2026-01-01T00:00:00Z" }
}

fn deployment(spec: &Value) -> Value {
    json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "d" }, "spec": spec })
}

fn pod_of(containers: &Value) -> Value {
    deployment(&json!({ "template": { "spec": { "containers": containers } } }))
}

/// With lists whose elements have an order of their own, some of which cannot be told apart.
fn pod_like(any: &Value, name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "p", "annotations": {}, "uid": "u" },
        "spec": {
            "containers": [{ "name": name, "image": "i", "env": [any], "resources": {} }, { "name": "a", "ports": [
                { "containerPort": 9, "protocol": "UDP" }, { "containerPort": 80 },
            ] }],
            "volumes": [any, any], "securityContext": {}, "nodeSelector": { name: name },
        },
        "status": any,
    })
}

/// `manager operation[/subresource]` and the paths that it owns.
fn owners(object: &Value) -> BTreeMap<String, Vec<String>> {
    let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let row = |entry: &Value| {
        let text = |field: &str| entry[field].as_str().unwrap_or_default().to_owned();
        let subresource = text("subresource");
        let slash = if subresource.is_empty() { "" } else { "/" };
        let set = Set::from_fields_v1(&entry["fieldsV1"]).expect("it was written by the server");
        let paths = set.paths().iter().map(ToString::to_string).collect();
        (format!("{} {}{slash}{subresource}", text("manager"), text("operation")), paths)
    };
    entries.iter().map(row).collect()
}

fn bare(object: &Value) -> Value {
    without_managers(object)
}

#[test]
fn an_applier_owns_what_it_says() {
    let config = pod_of(&json!([{ "name": "c", "image": "i", "ports": [{ "containerPort": 80 }] }]));
    let made = apply(write("deployments", "a", None), None, &config, false).expect("nobody else is there");
    let port = ".spec.template.spec.containers[name=\"c\"].ports[containerPort=80,protocol=\"TCP\"]";
    let expected: Vec<String> = [
        ".spec.template.spec.containers[name=\"c\"]".to_owned(),
        ".spec.template.spec.containers[name=\"c\"].image".to_owned(),
        ".spec.template.spec.containers[name=\"c\"].name".to_owned(),
        port.to_owned(),
        format!("{port}.containerPort"),
    ]
    .into();
    assert_eq!(owners(&made), BTreeMap::from([("a Apply".to_owned(), expected)]));
    assert_eq!(bare(&made), config);
}

#[test]
fn what_is_no_longer_said_goes_with_what_only_it_brought() {
    let with_probe =
        pod_of(&json!([{ "name": "c", "livenessProbe": { "tcpSocket": { "port": 1 } } }, { "name": "d" }]));
    let mut live =
        apply(write("deployments", "a", None), None, &with_probe, false).expect("nobody else is there");
    // The server's defaults have no owner, and stay only where their place does.
    live["spec"]["template"]["spec"]["containers"][0]["livenessProbe"]["periodSeconds"] = json!(10);
    live["spec"]["template"]["spec"]["restartPolicy"] = json!("Always");
    let without = pod_of(&json!([{ "name": "c" }]));
    let left = apply(write("deployments", "a", None), Some(&live), &without, false).expect("its own fields");
    let mut expected = without;
    expected["spec"]["template"]["spec"]["restartPolicy"] = json!("Always");
    assert_eq!(bare(&left), expected);
}

#[test]
fn what_another_applier_says_too_stays() {
    let both = pod_of(&json!([{ "name": "c", "image": "i" }]));
    let live = apply(write("deployments", "a", None), None, &both, false).expect("nobody else is there");
    let live = apply(write("deployments", "b", None), Some(&live), &both, false).expect("they agree");
    let nothing = json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "d" } });
    let left = apply(write("deployments", "a", None), Some(&live), &nothing, false).expect("b keeps it");
    assert_eq!(left["spec"]["template"], both["spec"]["template"]);
    assert_eq!(owners(&left).keys().collect::<Vec<_>>(), ["b Apply"]);
}

#[test]
fn another_value_of_anothers_field_is_a_conflict_unless_forced() {
    let config = |replicas: i64| deployment(&json!({ "replicas": replicas }));
    let live = apply(write("deployments", "a", None), None, &config(1), false).expect("nobody else is there");
    let error =
        apply(write("deployments", "b", None), Some(&live), &config(2), false).expect_err("a owns it");
    assert_eq!(error.to_string(), "Apply failed with 1 conflict: conflict with \"a\": .spec.replicas");
    let taken = apply(write("deployments", "b", None), Some(&live), &config(2), true).expect("it is forced");
    assert_eq!(taken["spec"]["replicas"], 2);
    assert_eq!(owners(&taken).keys().collect::<Vec<_>>(), ["b Apply"]);

    let mut scaled = taken.clone();
    scaled["spec"]["replicas"] = json!(3);
    track(write("deployments", "hand", Some("scale")), Some(&taken), &mut scaled);
    assert_eq!(
        owners(&scaled),
        BTreeMap::from([("hand Update/scale".to_owned(), vec![".spec.replicas".to_owned()])])
    );
    let error =
        apply(write("deployments", "b", None), Some(&scaled), &config(2), false).expect_err("hand owns it");
    let expected = "Apply failed with 1 conflict: conflict with \"hand\" with subresource \"scale\" using apps/v1 \
        at 2026-01-01T00:00:00Z: .spec.replicas";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn a_creator_owns_what_it_wrote_and_an_updater_what_it_changed() {
    let mut map = json!({ "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": { "name": "m", "uid": "u", "labels": { "a": "b" } }, "data": { "x": "1" } });
    track(write("configmaps", "maker", None), None, &mut map);
    let made = [".data", ".data.x", ".metadata.labels", ".metadata.labels.a"].map(str::to_owned).to_vec();
    assert_eq!(owners(&map), BTreeMap::from([("maker Update".to_owned(), made)]));
    let mut changed = map.clone();
    changed["data"] = json!({ "x": "2", "y": "3" });
    track(write("configmaps", "other", None), Some(&map), &mut changed);
    let rows = [
        ("maker Update", [".data", ".metadata.labels", ".metadata.labels.a"].as_slice()),
        ("other Update", [".data.x", ".data.y"].as_slice()),
    ];
    let rows = rows.map(|(who, what)| (who.to_owned(), what.iter().map(|one| (*one).to_owned()).collect()));
    assert_eq!(owners(&changed), BTreeMap::from(rows));
    // Nothing changed: nothing is noted, not even the time.
    let mut same = changed.clone();
    track(
        Writer { time: "2027-01-01T00:00:00Z", ..write("configmaps", "third", None) },
        Some(&changed),
        &mut same,
    );
    assert_eq!(same, changed);
}

#[test]
fn managed_fields_are_forgotten_on_request_only() {
    let mut map = json!({ "metadata": { "name": "m" }, "data": { "x": "1" } });
    track(write("configmaps", "maker", None), None, &mut map);
    let mut unaware = bare(&map);
    track(write("configmaps", "maker", None), Some(&map), &mut unaware);
    assert_eq!(unaware, map);
    let mut reset = map.clone();
    reset["metadata"]["managedFields"] = json!([{}]);
    track(write("configmaps", "maker", None), Some(&map), &mut reset);
    assert_eq!(reset["metadata"].get("managedFields"), None);
    // Applied after that, the object belongs to whoever was there before.
    let config = json!({ "data": { "x": "2" } });
    let error =
        apply(write("configmaps", "a", None), Some(&reset), &config, false).expect_err("somebody was there");
    assert!(error.to_string().contains("conflict with \"before-first-apply\""), "{error}");
}

#[test]
fn kubectl_takes_over_what_it_applied_from_the_client() {
    let config = |x: &str| json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "m" }, "data": { "x": x } });
    let mut live = config("1");
    live["metadata"]["annotations"] =
        json!({ "kubectl.kubernetes.io/last-applied-configuration": config("1").to_string() });
    track(write("configmaps", "kubectl-client-side-apply", None), None, &mut live);
    assert!(apply(write("configmaps", "other", None), Some(&live), &config("2"), false).is_err());
    let taken =
        apply(write("configmaps", "kubectl", None), Some(&live), &config("2"), false).expect("its own");
    assert_eq!(taken["data"]["x"], "2");
    let annotation = taken.pointer("/metadata/annotations/kubectl.kubernetes.io~1last-applied-configuration");
    let annotation: Value =
        serde_json::from_str(annotation.and_then(Value::as_str).expect("it is kept")).expect("JSON");
    assert_eq!(annotation, config("2"));
}

#[test]
fn status_has_owners_of_its_own() {
    let pod = json!({ "metadata": { "name": "p" }, "spec": { "nodeName": "n" } });
    let mut live = apply(write("pods", "a", None), None, &pod, false).expect("nobody else is there");
    live["status"] = json!({ "phase": "Pending" });
    let status = json!({ "status": { "phase": "Running" }, "spec": { "nodeName": "other" } });
    let told =
        apply(write("pods", "kubelet", Some("status")), Some(&live), &status, false).expect("not of status");
    let expected = BTreeMap::from([
        ("a Apply".to_owned(), vec![".spec.nodeName".to_owned()]),
        ("kubelet Apply/status".to_owned(), vec![".status.phase".to_owned()]),
    ]);
    assert_eq!(owners(&told), expected);
}

#[test]
fn elements_that_cannot_be_told_apart_are_refused() {
    let twice = pod_of(&json!([{ "name": "c" }, { "name": "c" }]));
    let error = apply(write("deployments", "a", None), None, &twice, false).expect_err("c is there twice");
    assert!(
        error.to_string().contains(".spec.template.spec.containers: duplicate entries for key [name=\"c\"]")
    );
    let unnamed = pod_of(&json!([{ "image": "i" }]));
    let error = apply(write("deployments", "a", None), None, &unnamed, false).expect_err("it has no name");
    assert!(error.to_string().contains("has no \"name\""), "{error}");
}

#[test]
fn lists_keep_the_appliers_order_and_the_others_places() {
    let names = |value: &Value| -> Vec<String> {
        let list = value["spec"]["template"]["spec"]["containers"].as_array().expect("a list");
        list.iter().map(|one| one["name"].as_str().expect("a name").to_owned()).collect()
    };
    let list = |names: &str| pod_of(&names.chars().map(|name| json!({ "name": name.to_string() })).collect());
    for (live, config, expected) in
        [("abc", "cd", "abcd"), ("abc", "ca", "bca"), ("ab", "xay", "xaby"), ("", "ba", "ba")]
    {
        let merged =
            walk::merge(&list(live), &list(config), Shape::of(write("deployments", "", None).resource));
        assert_eq!(names(&merged.expect("they are told apart")).concat(), expected, "{live} {config}");
    }
}

#[test]
fn the_oldest_updaters_are_joined() {
    let mut map = json!({ "metadata": { "name": "m" } });
    for index in 0..30 {
        let old = map.clone();
        map["data"][format!("k{index}")] = json!("v");
        let (manager, time) = (format!("m{index}"), format!("2026-01-01T00:00:{index:02}Z"));
        let first = index == 0;
        track(
            Writer { time: &time, ..write("configmaps", &manager, None) },
            (!first).then_some(&old),
            &mut map,
        );
    }
    let owners = owners(&map);
    assert_eq!(owners.len(), 10);
    assert_eq!(owners["ancient-changes Update"].len(), 22, "{owners:?}");
    assert!(owners.contains_key("m29 Update"));
}

/// A step of a history: one of three managers applies, forced or not, or changes one entry.
#[derive(Clone, Debug)]
enum Step {
    Apply { who: usize, data: BTreeMap<String, String>, force: bool },
    Set { who: usize, key: String, value: Option<String> },
}

fn step() -> impl Strategy<Value = Step> {
    let data = || prop::collection::btree_map("[a-d]", "[xyz]", 0..4);
    prop_oneof![
        3 => (0..3usize, data(), any::<bool>()).prop_map(|(who, data, force)| Step::Apply { who, data, force }),
        2 => (0..3usize, "[a-d]", prop::option::of("[xyz]"))
            .prop_map(|(who, key, value)| Step::Set { who, key, value }),
    ]
}

/// What the histories should come to, on a map from texts to texts: the values, who applies which keys, and who changed
/// which by updates.
#[derive(Debug, Default)]
struct Model {
    data: BTreeMap<String, String>,
    applied: [BTreeSet<String>; 3],
    updated: [BTreeSet<String>; 3],
}

impl Model {
    fn apply(&mut self, who: usize, data: &BTreeMap<String, String>, force: bool) -> bool {
        let others = |sets: &[BTreeSet<String>; 3], key: &str, but: Option<usize>| {
            sets.iter().enumerate().any(|(index, set)| Some(index) != but && set.contains(key))
        };
        let changes = |key: &String, value: &String| self.data.get(key) != Some(value);
        let conflict = data.iter().any(|(key, value)| {
            changes(key, value) && (others(&self.applied, key, Some(who)) || others(&self.updated, key, None))
        });
        if conflict && !force {
            return false;
        }
        for (key, value) in data {
            if self.data.insert(key.clone(), value.clone()).as_ref() != Some(value) {
                self.disown(key);
            }
        }
        let gone: Vec<String> =
            self.applied[who].iter().filter(|key| !data.contains_key(*key)).cloned().collect();
        self.applied[who] = data.keys().cloned().collect();
        for key in gone {
            if !others(&self.applied, &key, None) {
                self.data.remove(&key);
                self.disown(&key);
            }
        }
        true
    }

    fn set(&mut self, who: usize, key: &str, value: Option<&String>) {
        if self.data.get(key) == value {
            return;
        }
        self.disown(key);
        match value {
            Some(value) => {
                self.data.insert(key.to_owned(), value.clone());
                self.updated[who].insert(key.to_owned());
            }
            None => drop(self.data.remove(key)),
        }
    }

    fn disown(&mut self, key: &str) {
        self.applied.iter_mut().chain(&mut self.updated).for_each(|set| set.retain(|one| one != key));
    }
}

/// Values with names that mean something to some kind.
fn any_json() -> impl Strategy<Value = Value> {
    let key = prop_oneof![
        Just("name"),
        Just("containers"),
        Just("ports"),
        Just("containerPort"),
        Just("template"),
        Just("spec"),
        Just("f:name"),
        Just("k:{\"name\":\"a\"}"),
        Just("k:7"),
        Just("v:1"),
        Just("i:x"),
        Just("."),
        Just("labels"),
        Just("finalizers"),
        Just("conditions"),
        Just("type"),
    ];
    let leaf = prop_oneof![Just(Value::Null), (0..3i64).prop_map(Value::from), "[ab]".prop_map(Value::from)];
    leaf.prop_recursive(6, 32, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(key.clone(), inner, 0..4)
                .prop_map(|map| map.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()),
        ]
    })
}

const WHO: [&str; 3] = ["m0", "m1", "m2"];

fn keys_of(object: &Value, row: &str) -> BTreeSet<String> {
    let paths = owners(object).remove(row).unwrap_or_default();
    paths.iter().filter_map(|path| path.strip_prefix(".data.")).map(str::to_owned).collect()
}

proptest! {
    #[test]
    fn histories_of_applies_and_updates_follow_the_model(steps in prop::collection::vec(step(), 1..24)) {
        let mut model = Model::default();
        // Somebody else's field keeps the object and the map there.
        let mut live = json!({ "metadata": { "name": "m" }, "data": { "always": "there" } });
        track(write("configmaps", "maker", None), None, &mut live);
        for step in steps {
            match step {
                Step::Apply { who, data, force } => {
                    let before = live["data"].clone();
                    let outcome = apply(write("configmaps", WHO[who], None), Some(&live), &json!({ "data": data }), force);
                    prop_assert_eq!(outcome.is_ok(), model.apply(who, &data, force), "{:?} {}", data, before);
                    live = outcome.unwrap_or(live);
                }
                Step::Set { who, key, value } => {
                    model.set(who, &key, value.as_ref());
                    let old = live.clone();
                    match value {
                        Some(value) => live["data"][key] = json!(value),
                        None => drop(live["data"].as_object_mut().expect("always there").remove(&key)),
                    }
                    track(write("configmaps", WHO[who], None), Some(&old), &mut live);
                }
            }
            let mut data = live["data"].clone();
            data.as_object_mut().expect("always there").remove("always");
            prop_assert_eq!(data, json!(model.data));
            for (who, name) in WHO.iter().enumerate() {
                prop_assert_eq!(&keys_of(&live, &format!("{name} Apply")), &model.applied[who]);
                prop_assert_eq!(&keys_of(&live, &format!("{name} Update")), &model.updated[who]);
            }
        }
    }

    #[test]
    fn what_a_creator_owns_is_written_as_it_would_be_tracked(made in any_json(), name in "[a-zé\"]{1,3}") {
        for (plural, mut object) in [("pods", pod_like(&made, &name)), ("deployments", deployment(&made))] {
            object["metadata"]["labels"] = json!({ name.clone(): "x" });
            object["metadata"]["finalizers"] = json!(["b/c", "a/b"]);
            let writer = write(plural, "maker", None);
            let mut tracked = object.clone();
            track(writer, None, &mut tracked);
            let owners = created(writer, &mut object).expect("nothing was said of owners");
            let stored = crate::object::encode_with(writer.resource, &object, &owners);
            prop_assert_eq!(stored, crate::object::encode(writer.resource, &tracked));
        }
    }

    #[test]
    fn no_configuration_makes_the_server_panic(live in any_json(), config in any_json(), fields in any_json()) {
        let mut live = json!({ "metadata": live, "spec": config.clone(), "status": fields });
        if live["metadata"].is_object() {
            live["metadata"]["managedFields"] = json!([
                { "manager": "a", "operation": "Apply", "apiVersion": "v1", "fieldsV1": fields },
                { "manager": "b", "operation": "Update", "apiVersion": "v1", "fieldsV1": { "f:spec": fields } },
            ]);
        } else {
            live["metadata"] = json!({});
        }
        for resource in crate::resource::RESOURCES {
            for subresource in [None, Some("status")] {
                let write = Writer { resource, subresource, manager: "a", time: "2026-01-01T00:00:00Z" };
                let _ = apply(write, Some(&live), &json!({ "spec": config }), true);
                let _ = apply(write, None, &json!({ "spec": config }), false);
                let mut new = live.clone();
                new["spec"] = fields.clone();
                track(write, Some(&live), &mut new);
            }
        }
    }

    #[test]
    fn applying_the_same_again_changes_nothing(image in "[a-z]{1,3}", ports in prop::collection::btree_set(1..9i64, 0..4)) {
        let ports: Vec<Value> = ports.iter().map(|port| json!({ "containerPort": port })).collect();
        let config = pod_of(&json!([{ "name": "c", "image": image, "ports": ports }]));
        let once = apply(write("deployments", "a", None), None, &config, false).expect("nobody else is there");
        let later = Writer { time: "2027-01-01T00:00:00Z", ..write("deployments", "a", None) };
        prop_assert_eq!(apply(later, Some(&once), &config, false).expect("its own"), once);
    }
}
