use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;

fn deployment(change: impl FnOnce(&mut Value)) -> Deployment {
    let mut deployment = json!({
        "metadata": {"namespace": "demo", "name": "echo", "uid": "d", "generation": 1, "resourceVersion": "1"},
        "spec": {"replicas": 4, "selector": {"matchLabels": {"app": "echo"}},
                 "template": {"metadata": {"labels": {"app": "echo"}}, "spec": {"containers": [{"name": "c", "image": "echo:1"}]}}},
    });
    change(&mut deployment);
    serde_json::from_value(deployment).expect("a deployment")
}

/// The cluster as far as deployments see it: applies plans, and lets replica sets reach their size.
struct World {
    view: Caches,
    version: u64,
    now: Timestamp,
}

impl World {
    fn new(deployment: Deployment) -> Self {
        let view = Caches::default();
        view.deployments.put(deployment);
        Self { view, version: 1, now: "2026-01-01T00:00:00Z".parse().expect("a time") }
    }

    fn key() -> Key {
        Key::new("demo", "echo")
    }

    fn deployment(&self) -> Deployment {
        Deployment::clone(&self.view.deployments.get(&Self::key()).expect("it exists"))
    }

    fn reconcile(&self) -> Plan {
        Deployments.reconcile(&self.view, &Self::key(), self.now)
    }

    fn edit(&mut self, change: impl FnOnce(&mut Value)) {
        let mut value = serde_json::to_value(self.deployment()).expect("JSON");
        change(&mut value);
        self.version += 1;
        value["metadata"]["resourceVersion"] = self.version.to_string().into();
        let generation = value["metadata"]["generation"].as_i64().unwrap_or(0);
        value["metadata"]["generation"] = (generation + 1).into();
        self.view.deployments.put(serde_json::from_value(value).expect("a deployment"));
    }

    /// Applies what a plan writes; returns the notes of its events.
    fn apply(&mut self, plan: Plan) -> Vec<String> {
        let mut notes = Vec::new();
        for write in plan.writes {
            self.version += 1;
            match write {
                Write::Notify(notice) => notes.push(notice.note),
                Write::Create { target, mut object, .. } => {
                    object["metadata"]["uid"] = target.key.name.clone().into();
                    object["metadata"]["resourceVersion"] = self.version.to_string().into();
                    object["metadata"]["generation"] = 1.into();
                    self.view.absorb(&target.kind, object);
                }
                Write::Patch { target, patch, .. } => {
                    let mut object = self.object(&target.kind, &target.key);
                    merge(&mut object, patch);
                    object["metadata"]["resourceVersion"] = self.version.to_string().into();
                    self.view.absorb(&target.kind, object);
                }
                Write::Delete { target, uid, .. } => {
                    self.view.absorb_deletion(&target.kind, &target.key, &uid);
                }
                Write::Replace { .. } => panic!("deployments replace nothing"),
            }
        }
        notes
    }

    fn object(&self, kind: &str, key: &Key) -> Value {
        match kind {
            "Deployment" => serde_json::to_value(self.view.deployments.get(key).as_deref()).expect("JSON"),
            _ => serde_json::to_value(self.view.replica_sets.get(key).as_deref()).expect("JSON"),
        }
    }

    /// Size and availability by image.
    fn sizes(&self) -> BTreeMap<String, i32> {
        let image = |set: &ReplicaSet| {
            let template = set.spec.as_ref().and_then(|spec| spec.template.clone());
            template.and_then(|template| template.spec?.containers[0].image.clone()).unwrap_or_default()
        };
        let sets = self.view.replica_sets.in_namespace("demo");
        sets.iter().map(|set| (image(set), replica_sets::size(set))).collect()
    }

    /// Every replica set reaches its size; `available` says how many of its pods work.
    fn settle(&mut self, available: impl Fn(&str, i32) -> i32) {
        for set in self.view.replica_sets.in_namespace("demo") {
            let mut object = serde_json::to_value(set.as_ref()).expect("JSON");
            let size = replica_sets::size(&set);
            let image =
                object["spec"]["template"]["spec"]["containers"][0]["image"].as_str().unwrap_or_default();
            let available = available(image, size);
            object["status"] = json!({"replicas": size, "readyReplicas": available, "availableReplicas": available, "observedGeneration": 1});
            self.version += 1;
            object["metadata"]["resourceVersion"] = self.version.to_string().into();
            self.view.absorb("ReplicaSet", object);
        }
    }

    /// Reconciles and settles until nothing is written any more.
    fn run(&mut self, available: impl Fn(&str, i32) -> i32 + Copy) -> Vec<BTreeMap<String, i32>> {
        let mut history = vec![self.sizes()];
        for _ in 0..50 {
            let plan = self.reconcile();
            let idle = plan.writes.is_empty();
            self.apply(plan);
            if history.last() != Some(&self.sizes()) {
                history.push(self.sizes());
            }
            self.settle(available);
            if idle && self.reconcile().writes.is_empty() {
                return history;
            }
        }
        panic!("it never comes to rest: {history:?}");
    }
}

fn merge(object: &mut Value, patch: Value) {
    match (object, patch) {
        (Value::Object(object), Value::Object(patch)) => {
            for (key, value) in patch {
                merge(object.entry(key).or_insert(Value::Null), value);
            }
        }
        (object, patch) => *object = patch,
    }
}

fn all(_: &str, size: i32) -> i32 {
    size
}

fn condition(deployment: &Deployment, type_: &str) -> (String, String) {
    let conditions = deployment.status.clone().and_then(|status| status.conditions).unwrap_or_default();
    let found = conditions.into_iter().find(|one| one.type_ == type_).expect("it has the condition");
    (found.status, found.reason.unwrap_or_default())
}

#[test]
fn a_new_deployment_makes_one_replica_set_and_becomes_complete() {
    let mut world = World::new(deployment(|_| ()));
    let notes = {
        let plan = world.reconcile();
        world.apply(plan)
    };
    assert_eq!(notes.len(), 1);
    assert!(notes[0].starts_with("Scaled up replica set echo-"), "{notes:?}");
    world.run(all);
    assert_eq!(world.sizes(), BTreeMap::from([("echo:1".into(), 4)]));
    let deployment = world.deployment();
    let status = deployment.status.clone().expect("a status");
    assert_eq!(
        (status.updated_replicas, status.available_replicas, status.observed_generation),
        (Some(4), Some(4), Some(1))
    );
    assert_eq!(condition(&deployment, "Available").0, "True");
    assert_eq!(condition(&deployment, "Progressing"), ("True".into(), "NewReplicaSetAvailable".into()));
    let annotations = deployment.metadata.annotations.expect("annotations");
    assert_eq!(annotations[replica_sets::REVISION], "1");
    let set = &world.view.replica_sets.all()[0];
    let hash = &set.metadata.labels.as_ref().expect("labels")[replica_sets::HASH_LABEL];
    assert_eq!(set.metadata.name.as_deref(), Some(format!("echo-{hash}").as_str()));
    assert_eq!(set.spec.as_ref().expect("a spec").selector.match_labels.as_ref().expect("labels").len(), 2);
}

#[test]
fn a_rolling_update_keeps_within_its_limits() {
    let mut world = World::new(deployment(|_| ()));
    world.run(all);
    world.edit(|d| d["spec"]["template"]["spec"]["containers"][0]["image"] = "echo:2".into());
    let history = world.run(all);
    for sizes in &history {
        let total: i32 = sizes.values().sum();
        assert!((3..=5).contains(&total), "25 % of 4 more or less: {history:?}");
    }
    assert_eq!(history.last().expect("some"), &BTreeMap::from([("echo:1".into(), 0), ("echo:2".into(), 4)]));
    assert_eq!(world.deployment().metadata.annotations.expect("some")[replica_sets::REVISION], "2");
}

#[test]
fn a_rollout_stops_when_the_new_pods_do_not_work() {
    let mut world = World::new(deployment(|_| ()));
    world.run(all);
    world.edit(|d| d["spec"]["template"]["spec"]["containers"][0]["image"] = "broken".into());
    world.run(|image, size| if image == "broken" { 0 } else { size });
    assert_eq!(world.sizes(), BTreeMap::from([("broken".into(), 2), ("echo:1".into(), 3)]));
    assert_eq!(condition(&world.deployment(), "Available").0, "True");
    let plan = world.reconcile();
    assert_eq!(plan.again_in, Some(Duration::from_secs(600)), "it looks again at the deadline");
    world.now = "2026-01-01T00:10:01Z".parse().expect("a time");
    let plan = world.reconcile();
    world.apply(plan);
    assert_eq!(
        condition(&world.deployment(), "Progressing"),
        ("False".into(), "ProgressDeadlineExceeded".into())
    );
}

#[test]
fn going_back_takes_the_old_replica_set_again() {
    let mut world = World::new(deployment(|_| ()));
    world.run(all);
    for image in ["echo:2", "echo:1"] {
        world.edit(|d| d["spec"]["template"]["spec"]["containers"][0]["image"] = image.into());
        world.run(all);
    }
    assert_eq!(world.sizes(), BTreeMap::from([("echo:1".into(), 4), ("echo:2".into(), 0)]));
    assert_eq!(world.deployment().metadata.annotations.expect("some")[replica_sets::REVISION], "3");
}

#[test]
fn recreate_waits_for_the_last_old_pod() {
    let recreate = |d: &mut Value| d["spec"]["strategy"] = json!({"type": "Recreate"});
    let mut world = World::new(deployment(recreate));
    world.run(all);
    let set = world.view.replica_sets.all()[0].clone();
    let owner = json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": set.metadata.name, "uid": set.metadata.uid, "controller": true}]);
    let pod = json!({"metadata": {"namespace": "demo", "name": "p", "uid": "p", "ownerReferences": owner}, "status": {"phase": "Running"}});
    world.view.pods.put(serde_json::from_value(pod).expect("a pod"));
    world.edit(|d| d["spec"]["template"]["spec"]["containers"][0]["image"] = "echo:2".into());
    world.run(all);
    assert_eq!(world.sizes(), BTreeMap::from([("echo:1".into(), 0)]));
    world.view.pods.delete(&Key::new("demo", "p"), Some("p"));
    world.run(all);
    assert_eq!(world.sizes(), BTreeMap::from([("echo:1".into(), 0), ("echo:2".into(), 4)]));
}

#[test]
fn scaling_changes_the_size_and_makes_no_new_replica_set() {
    let mut world = World::new(deployment(|_| ()));
    world.run(all);
    for replicas in [7, 2, 0] {
        world.edit(|d| d["spec"]["replicas"] = replicas.into());
        world.run(all);
        assert_eq!(world.sizes(), BTreeMap::from([("echo:1".into(), replicas)]));
    }
}

#[test]
fn scaling_in_the_middle_of_a_rollout_shares_out() {
    let mut world = World::new(deployment(|_| ()));
    world.run(all);
    world.edit(|d| d["spec"]["template"]["spec"]["containers"][0]["image"] = "broken".into());
    let broken = |image: &str, size: i32| if image == "broken" { 0 } else { size };
    world.run(broken);
    world.edit(|d| d["spec"]["replicas"] = 8.into());
    world.run(broken);
    let sizes = world.sizes();
    assert_eq!(sizes.values().sum::<i32>(), 10, "8 and a surge of 2: {sizes:?}");
    assert!(sizes["echo:1"] >= 6, "{sizes:?}");
}

#[test]
fn a_paused_deployment_does_not_roll_but_scales() {
    let mut world = World::new(deployment(|_| ()));
    world.run(all);
    world.edit(|d| {
        d["spec"]["paused"] = true.into();
        d["spec"]["template"]["spec"]["containers"][0]["image"] = "echo:2".into();
        d["spec"]["replicas"] = 6.into();
    });
    world.run(all);
    assert_eq!(world.sizes(), BTreeMap::from([("echo:1".into(), 6)]));
}

#[test]
fn the_history_is_limited() {
    let mut world = World::new(deployment(|d| d["spec"]["revisionHistoryLimit"] = 1.into()));
    world.run(all);
    for image in ["echo:2", "echo:3", "echo:4"] {
        world.edit(|d| d["spec"]["template"]["spec"]["containers"][0]["image"] = image.into());
        world.run(all);
    }
    assert_eq!(world.sizes(), BTreeMap::from([("echo:3".into(), 0), ("echo:4".into(), 4)]));
}

#[test]
fn limits_round_as_upstream_rounds() {
    let rows = [
        (json!({}), 10, (3, 2)),
        (json!({"maxSurge": "30%", "maxUnavailable": "30%"}), 3, (1, 0)),
        (json!({"maxSurge": 0, "maxUnavailable": "10%"}), 3, (0, 1)),
        (json!({"maxSurge": 2, "maxUnavailable": 1}), 3, (2, 1)),
    ];
    for (rolling, replicas, expected) in rows {
        let one = deployment(|d| {
            d["spec"]["replicas"] = replicas.into();
            d["spec"]["strategy"] = json!({"type": "RollingUpdate", "rollingUpdate": rolling});
        });
        assert_eq!(rollout::limits(&one.spec.expect("a spec")), expected);
    }
}
