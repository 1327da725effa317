use serde_json::{Value, json};

use super::*;

fn service(change: impl FnOnce(&mut Value)) -> Service {
    let mut service = json!({
        "metadata": {"namespace": "demo", "name": "echo", "uid": "s", "labels": {"team": "a"}},
        "spec": {"selector": {"app": "echo"}, "ipFamilies": ["IPv4"], "clusterIP": "10.96.0.7",
                 "ports": [{"name": "http", "port": 80, "targetPort": "web", "protocol": "TCP"}]},
    });
    change(&mut service);
    serde_json::from_value(service).expect("a service")
}

fn pod(number: usize, change: impl FnOnce(&mut Value)) -> Pod {
    let mut pod = json!({
        "metadata": {"namespace": "demo", "name": format!("p{number}"), "uid": format!("p{number}"), "labels": {"app": "echo"}},
        "spec": {"nodeName": "n1", "containers": [{"name": "c", "ports": [{"name": "web", "containerPort": 8080}]}]},
        "status": {"phase": "Running", "podIPs": [{"ip": format!("10.244.{}.{}", number / 250, number % 250)}, {"ip": format!("fd00:244::{number:x}")}],
                   "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:10Z"}]},
    });
    change(&mut pod);
    serde_json::from_value(pod).expect("a pod")
}

struct World {
    view: Caches,
    version: u64,
}

impl World {
    fn new(service: Service, pods: impl IntoIterator<Item = Pod>) -> Self {
        let view = Caches::default();
        view.services.put(service);
        for pod in pods {
            view.pods.put(pod);
        }
        let node = json!({"metadata": {"name": "n1", "labels": {ZONE: "z"}}});
        view.nodes.put(serde_json::from_value(node).expect("a node"));
        Self { view, version: 0 }
    }

    fn put(&mut self, mut pod: Pod) {
        self.version += 1;
        pod.metadata.resource_version = Some(self.version.to_string());
        self.view.pods.put(pod);
    }

    /// Reconciles, applies, and returns how many writes there were.
    fn run(&mut self) -> usize {
        let plan = EndpointSlices.reconcile(&self.view, &Key::new("demo", "echo"), Timestamp::UNIX_EPOCH);
        let writes = plan.writes.len();
        for write in plan.writes {
            self.version += 1;
            match write {
                Write::Create { mut object, .. } => {
                    assert_eq!(object["metadata"]["generateName"], "echo-");
                    object["metadata"]["name"] = format!("echo-{:03}", self.version).into();
                    object["metadata"]["uid"] = self.version.to_string().into();
                    object["metadata"]["resourceVersion"] = self.version.to_string().into();
                    self.view.absorb("EndpointSlice", object);
                }
                Write::Replace { mut object, .. } => {
                    object["metadata"]["resourceVersion"] = self.version.to_string().into();
                    self.view.absorb("EndpointSlice", object);
                }
                Write::Delete { target, uid, .. } => {
                    self.view.absorb_deletion("EndpointSlice", &target.key, &uid);
                }
                other => panic!("unexpected {other:?}"),
            }
        }
        writes
    }

    fn slices(&self) -> Vec<Value> {
        let slices = self.view.slices.in_namespace("demo");
        slices.iter().map(|slice| serde_json::to_value(slice.as_ref()).expect("JSON")).collect()
    }
}

fn conditions(slice: &Value) -> Vec<(bool, bool, bool)> {
    let one = |endpoint: &Value| {
        let flag = |name: &str| endpoint["conditions"][name].as_bool().expect("set");
        (flag("ready"), flag("serving"), flag("terminating"))
    };
    slice["endpoints"].as_array().expect("a list").iter().map(one).collect()
}

#[test]
fn a_slice_says_everything_about_its_endpoints() {
    let mut world = World::new(
        service(|_| ()),
        [pod(1, |pod| {
            pod["spec"]["subdomain"] = "echo".into();
            pod["spec"]["hostname"] = "first".into();
        })],
    );
    assert_eq!(world.run(), 1);
    assert_eq!(world.run(), 0, "what is written is wanted");
    let slice = &world.slices()[0];
    assert_eq!(slice["addressType"], "IPv4");
    assert_eq!(slice["ports"], json!([{"name": "http", "port": 8080, "protocol": "TCP"}]));
    let labels = &slice["metadata"]["labels"];
    assert_eq!(labels[SERVICE_NAME], "echo");
    assert_eq!(labels[MANAGED_BY], MANAGER);
    assert_eq!(labels["team"], "a");
    assert_eq!(slice["metadata"]["annotations"][TRIGGER_TIME], "2026-01-01T00:00:10Z");
    assert_eq!(slice["metadata"]["ownerReferences"][0]["uid"], "s");
    let endpoint = &slice["endpoints"][0];
    assert_eq!(endpoint["addresses"], json!(["10.244.0.1"]));
    assert_eq!(
        (&endpoint["nodeName"], &endpoint["zone"], &endpoint["hostname"]),
        (&json!("n1"), &json!("z"), &json!("first"))
    );
    assert_eq!(endpoint["targetRef"]["name"], "p1");
}

#[test]
fn conditions_follow_the_pod() {
    let deleting = |pod: &mut Value| pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:30Z".into();
    let unready = |pod: &mut Value| pod["status"]["conditions"][0]["status"] = "False".into();
    type Row = (bool, fn(&mut Value), (bool, bool, bool));
    let rows: [Row; 5] = [
        (false, |_| (), (true, true, false)),
        (false, unready, (false, false, false)),
        (false, deleting, (false, true, true)),
        (true, unready, (true, false, false)),
        (true, deleting, (true, true, true)),
    ];
    for (publish, change, expected) in rows {
        let service = service(|service| service["spec"]["publishNotReadyAddresses"] = publish.into());
        let mut world = World::new(service, [pod(1, change)]);
        world.run();
        assert_eq!(conditions(&world.slices()[0]), [expected]);
    }
}

#[test]
fn a_traffic_distribution_is_a_hint_at_each_endpoint() {
    let same_zone = json!({"forZones": [{"name": "z"}]});
    let same_node = json!({"forNodes": [{"name": "n1"}], "forZones": [{"name": "z"}]});
    let rows = [
        (Value::Null, "n1", Value::Null),
        (json!("PreferSameZone"), "n1", same_zone.clone()),
        (json!("PreferClose"), "n1", same_zone),
        (json!("PreferSameNode"), "n1", same_node),
        (json!("PreferSameZone"), "without-zone", Value::Null),
        (json!("PreferSameNode"), "without-zone", json!({"forNodes": [{"name": "without-zone"}]})),
        (json!("example.com/another"), "n1", Value::Null),
    ];
    for (distribution, node, expected) in rows {
        let service = service(|service| service["spec"]["trafficDistribution"] = distribution.clone());
        let mut world = World::new(service, [pod(1, |pod| pod["spec"]["nodeName"] = node.into())]);
        world.run();
        assert_eq!(world.slices()[0]["endpoints"][0]["hints"], expected, "{distribution} on {node}");
        assert_eq!(world.run(), 0, "what is written is wanted");
    }
}

#[test]
fn hints_follow_the_service_and_the_zone_of_the_node() {
    let distribution =
        |wanted: &'static str| service(|service| service["spec"]["trafficDistribution"] = wanted.into());
    let zone = |name: &str| -> k8s_openapi::api::core::v1::Node {
        let node = json!({"metadata": {"name": "n1", "resourceVersion": "9", "labels": {ZONE: name}}});
        serde_json::from_value(node).expect("a node")
    };
    let mut world = World::new(service(|_| ()), [pod(1, |_| ())]);
    world.run();
    world.view.services.put(distribution("PreferSameZone"));
    assert_eq!(world.run(), 1, "a preference is written");
    world.view.nodes.put(zone("y"));
    assert_eq!(world.run(), 1, "the node has moved");
    assert_eq!(world.slices()[0]["endpoints"][0]["hints"], json!({"forZones": [{"name": "y"}]}));
    world.view.services.put(service(|_| ()));
    assert_eq!(world.run(), 1, "the preference is gone");
    assert_eq!(world.slices()[0]["endpoints"][0]["hints"], Value::Null);
}

#[test]
fn finished_pods_and_pods_without_an_address_are_no_endpoints() {
    let finished = pod(1, |pod| pod["status"]["phase"] = "Succeeded".into());
    let pending = pod(2, |pod| pod["status"]["podIPs"] = json!([]));
    let mut world = World::new(service(|_| ()), [finished, pending]);
    assert_eq!(world.run(), 1, "one empty slice");
    assert_eq!(world.run(), 0);
    assert_eq!(world.slices()[0]["endpoints"], json!([]));
    world.put(pod(3, |_| ()));
    assert_eq!(world.run(), 1);
    assert_eq!(world.slices().len(), 1, "the empty slice is used");
}

#[test]
fn each_family_has_slices_of_its_own() {
    let dual = |service: &mut Value| service["spec"]["ipFamilies"] = json!(["IPv4", "IPv6"]);
    let mut world = World::new(service(dual), [pod(1, |_| ())]);
    world.run();
    let types: Vec<_> = world.slices().iter().map(|slice| slice["addressType"].clone()).collect();
    assert_eq!(types, ["IPv4", "IPv6"]);
    assert_eq!(world.slices()[1]["endpoints"][0]["addresses"], json!(["fd00:244::1"]));
}

#[test]
fn a_headless_service_is_labelled_and_takes_the_families_of_its_pods() {
    let headless = |service: &mut Value| {
        service["spec"]["clusterIP"] = "None".into();
        service["spec"]["ipFamilies"] = Value::Null;
    };
    let mut world = World::new(service(headless), [pod(1, |_| ())]);
    world.run();
    assert_eq!(world.slices().len(), 2);
    assert_eq!(world.slices()[0]["metadata"]["labels"][HEADLESS], "");
}

#[test]
fn pods_with_different_numbers_for_a_name_are_in_different_slices() {
    let other = |pod: &mut Value| pod["spec"]["containers"][0]["ports"][0]["containerPort"] = 9090.into();
    let mut world = World::new(service(|_| ()), [pod(1, |_| ()), pod(2, other)]);
    world.run();
    let mut ports: Vec<_> = world.slices().iter().map(|slice| slice["ports"][0]["port"].as_i64()).collect();
    ports.sort_unstable();
    assert_eq!(ports, [Some(8080), Some(9090)]);
}

#[test]
fn a_named_port_may_be_a_sidecars() {
    let rows = [("Always", json!([{"name": "http", "port": 9000, "protocol": "TCP"}])), ("Never", json!([]))];
    for (policy, expected) in rows {
        let sidecar = |pod: &mut Value| {
            pod["spec"]["containers"][0]["ports"] = json!([]);
            pod["spec"]["initContainers"] = json!([{"name": "i", "restartPolicy": policy,
                                                    "ports": [{"name": "web", "containerPort": 9000}]}]);
        };
        let mut world = World::new(service(|_| ()), [pod(1, sidecar)]);
        world.run();
        assert_eq!(world.slices()[0]["ports"], expected, "an init container that is restarted {policy}");
    }
}

#[test]
fn many_endpoints_are_spread_with_few_writes() {
    let mut world = World::new(service(|_| ()), (0..250).map(|number| pod(number, |_| ())));
    assert_eq!(world.run(), 3);
    let sizes = |world: &World| -> Vec<usize> {
        world.slices().iter().map(|slice| slice["endpoints"].as_array().map_or(0, Vec::len)).collect()
    };
    assert_eq!(sizes(&world), [100, 100, 50]);
    world.put(pod(7, |pod| pod["status"]["conditions"][0]["status"] = "False".into()));
    assert_eq!(world.run(), 1, "one endpoint changed");
    world.put(pod(300, |_| ()));
    assert_eq!(world.run(), 1, "the third slice has room");
    assert_eq!(sizes(&world), [100, 100, 51]);
    for number in 0..100 {
        world.view.pods.delete(&Key::new("demo", format!("p{number}")), None);
    }
    assert!(world.run() <= 3);
    assert_eq!(sizes(&world).iter().sum::<usize>(), 151);
}

#[test]
fn the_slices_go_with_the_service() {
    let mut world = World::new(service(|_| ()), [pod(1, |_| ())]);
    world.run();
    world.view.services.delete(&Key::new("demo", "echo"), None);
    assert_eq!(world.run(), 1);
    assert!(world.slices().is_empty());
}

#[test]
fn slices_of_others_and_services_without_a_selector_are_left_alone() {
    let mut world = World::new(service(|service| service["spec"]["selector"] = Value::Null), []);
    let other = json!({"metadata": {"namespace": "demo", "name": "own", "labels": {SERVICE_NAME: "echo"}},
                       "addressType": "IPv4", "endpoints": []});
    world.view.slices.put(serde_json::from_value(other).expect("a slice"));
    assert_eq!(world.run(), 0);
    world.view.services.delete(&Key::new("demo", "echo"), None);
    assert_eq!(world.run(), 0);
}
