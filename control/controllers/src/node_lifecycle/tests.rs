#![expect(clippy::needless_pass_by_value, reason = "rows of tables read better with values")]

use serde_json::{Value, json};

use super::*;

const GRACE: Duration = Duration::from_secs(40);

struct World {
    view: Caches,
    controller: NodeLifecycle,
    version: u64,
}

fn at(secs: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + secs).expect("a time")
}

impl World {
    fn new() -> Self {
        let controller = NodeLifecycle::new(GRACE, Duration::from_secs(300));
        Self { view: Caches::default(), controller, version: 0 }
    }

    fn version(&mut self) -> String {
        self.version += 1;
        self.version.to_string()
    }

    fn node(&mut self, status: &str) {
        let version = self.version();
        let conditions = json!([{"type": "Ready", "status": status}]);
        let node = json!({"metadata": {"name": "n1", "uid": "n1", "resourceVersion": version}, "status": {"conditions": conditions}});
        self.view.nodes.put(serde_json::from_value(node).expect("a node"));
    }

    fn lease(&mut self, secs: i64) {
        let version = self.version();
        let renewed = serde_json::to_value(MicroTime(at(secs))).expect("JSON");
        let lease = json!({"metadata": {"namespace": LEASES, "name": "n1", "resourceVersion": version}, "spec": {"renewTime": renewed}});
        self.view.leases.put(serde_json::from_value(lease).expect("a lease"));
    }

    fn pod(&mut self, name: &str, tolerations: Value) {
        let version = self.version();
        let pod = json!({"metadata": {"namespace": "demo", "name": name, "uid": name, "resourceVersion": version},
                         "spec": {"nodeName": "n1", "containers": [], "tolerations": tolerations},
                         "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
        self.view.pods.put(serde_json::from_value(pod).expect("a pod"));
    }

    fn reconcile(&self, secs: i64) -> Plan {
        self.controller.reconcile(&self.view, &Key::new("", "n1"), at(secs))
    }

    /// Reconciles and applies until nothing is written; returns names of deleted pods.
    fn run(&mut self, secs: i64) -> Vec<String> {
        let mut deleted = Vec::new();
        for _ in 0..10 {
            let plan = self.reconcile(secs);
            if plan.writes.is_empty() {
                break;
            }
            for write in plan.writes {
                match write {
                    Write::Patch { target, patch, .. } => {
                        let mut object = if target.kind == "Node" {
                            serde_json::to_value(self.view.nodes.get(&target.key).as_deref()).expect("JSON")
                        } else {
                            serde_json::to_value(self.view.pods.get(&target.key).as_deref()).expect("JSON")
                        };
                        for part in ["spec", "status"] {
                            for (key, value) in patch[part].as_object().into_iter().flatten() {
                                object[part][key] = value.clone();
                            }
                        }
                        object["metadata"]["resourceVersion"] = self.version().into();
                        self.view.absorb(&target.kind, object);
                    }
                    Write::Delete { target, uid, .. } => {
                        self.view.absorb_deletion("Pod", &target.key, &uid);
                        deleted.push(target.key.name);
                    }
                    Write::Notify(_) => {}
                    other => panic!("unexpected {other:?}"),
                }
            }
        }
        deleted
    }

    fn taints(&self) -> Vec<String> {
        let node = self.view.nodes.get(&Key::new("", "n1")).expect("a node");
        let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
        taints.map(|taint| format!("{}:{}", taint.key, taint.effect)).collect()
    }

    fn pod_is_ready(&self, name: &str) -> bool {
        pods::is_ready(&self.view.pods.get(&Key::new("demo", name)).expect("a pod"))
    }
}

#[test]
fn a_node_that_renews_its_lease_is_left_alone() {
    let mut world = World::new();
    world.node("True");
    for secs in (0..200).step_by(10) {
        world.lease(secs);
        assert_eq!(world.reconcile(secs).writes, []);
    }
    assert_eq!(world.reconcile(199).again_in, Some(Duration::from_secs(31)));
}

#[test]
fn a_silent_node_is_unknown_and_tainted_and_its_pods_leave_their_services() {
    let mut world = World::new();
    world.node("True");
    world.lease(0);
    world.pod("p", json!([]));
    world.run(0);
    assert_eq!(world.run(39), [""; 0]);
    assert_eq!(world.taints(), [""; 0]);
    world.run(40);
    assert_eq!(
        world.taints(),
        ["node.kubernetes.io/unreachable:NoSchedule", "node.kubernetes.io/unreachable:NoExecute"]
    );
    let node = world.view.nodes.get(&Key::new("", "n1")).expect("a node");
    assert_eq!(ready(&node).map(|ready| ready.status.as_str()), Some("Unknown"));
    assert!(!world.pod_is_ready("p"));
}

#[test]
fn after_a_restart_of_the_control_plane_an_old_lease_has_its_full_grace() {
    let mut world = World::new();
    world.node("True");
    world.lease(-500);
    assert_eq!(world.reconcile(0).writes, []);
    assert_eq!(world.reconcile(39).writes, []);
    assert!(!world.reconcile(40).writes.is_empty());
}

#[test]
fn pods_leave_a_tainted_node_when_their_toleration_ends() {
    let forever = json!([{"operator": "Exists"}]);
    let short = json!([{"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 10}]);
    let mut world = World::new();
    world.node("True");
    world.lease(0);
    world.pod("default", json!([]));
    world.pod("forever", forever);
    world.pod("short", short);
    world.run(0);
    assert_eq!(world.run(40), [""; 0]);
    assert_eq!(world.reconcile(40).again_in, Some(Duration::from_secs(10)));
    assert_eq!(world.run(50), ["short"]);
    assert_eq!(world.run(339), [""; 0]);
    assert_eq!(world.run(340), ["default"]);
}

#[test]
fn a_node_that_is_back_loses_its_taints_at_once() {
    let mut world = World::new();
    world.node("False");
    world.lease(0);
    world.run(0);
    assert_eq!(
        world.taints(),
        ["node.kubernetes.io/not-ready:NoSchedule", "node.kubernetes.io/not-ready:NoExecute"]
    );
    let node = world.view.nodes.get(&Key::new("", "n1")).expect("a node");
    let mut node = Node::clone(&node);
    node.metadata.resource_version = Some(world.version());
    node.status.get_or_insert_default().conditions.get_or_insert_default()[0].status = "True".into();
    world.view.nodes.put(node);
    world.run(1);
    assert_eq!(world.taints(), [""; 0]);
}

#[test]
fn pods_of_a_node_that_is_gone_are_deleted_at_once() {
    let mut world = World::new();
    world.pod("p", json!([]));
    assert_eq!(world.reconcile(0), Plan { writes: vec![], again_in: Some(ORPHAN_DELAY) });
    let plan = world.reconcile(2);
    assert!(matches!(&plan.writes[..], [Write::Delete { grace_secs: Some(0), .. }]));
}
