//! The kube client over the in-process service: what the scheduler and the controllers do.

use std::pin::pin;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Namespace, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Resource as _;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::{reflector, watcher};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::support::Server;

fn from<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn config_map(name: &str) -> ConfigMap {
    from(json!({ "metadata": { "name": name, "labels": { "app": name } }, "data": { "k": "1" } }))
}

fn pod(name: &str) -> Pod {
    from(json!({
        "metadata": { "name": name },
        "spec": { "containers": [{ "name": "c", "image": "i" }] },
    }))
}

fn code(error: kube::Error) -> (u16, String) {
    match error {
        kube::Error::Api(status) => (status.code, status.reason.clone()),
        other => panic!("not an answer of the API: {other:?}"),
    }
}

#[tokio::test]
async fn the_systems_objects_are_there() {
    let server = Server::start().await;
    let client = server.client();
    let namespaces = Api::<Namespace>::all(client.clone()).list(&ListParams::default()).await.unwrap();
    let names: Vec<_> = namespaces.items.iter().filter_map(|ns| ns.metadata.name.as_deref()).collect();
    assert_eq!(names, ["default", "kube-node-lease", "kube-public", "kube-system"]);
    let services: Api<Service> = Api::namespaced(client.clone(), "default");
    let kubernetes = services.get("kubernetes").await.unwrap().spec.unwrap();
    assert_eq!(kubernetes.cluster_ip.as_deref(), Some("10.96.0.1"));
    let dns: Api<Service> = Api::namespaced(client.clone(), "kube-system");
    let dns = dns.get("kube-dns").await.unwrap().spec.unwrap();
    assert_eq!(dns.cluster_ips.unwrap(), ["10.96.0.10", "fd00:96::a"]);
    assert_eq!(dns.traffic_distribution.as_deref(), Some("PreferSameNode"));
    let slices: Api<EndpointSlice> = Api::namespaced(client, "default");
    let of_kubernetes = ListParams::default().labels("kubernetes.io/service-name=kubernetes");
    assert_eq!(slices.list(&of_kubernetes).await.unwrap().items.len(), 2);
}

#[tokio::test]
async fn objects_survive_a_restart_and_addresses_stay_taken() {
    let server = Server::start().await;
    let services: Api<Service> = Api::default_namespaced(server.client());
    let service: Service = from(json!({
        "metadata": { "name": "a" }, "spec": { "clusterIP": "10.96.7.7", "ports": [{ "port": 80 }] },
    }));
    services.create(&PostParams::default(), &service).await.unwrap();
    let kubeconfig = std::fs::read(server.kubeconfig()).unwrap();
    drop(services);
    let server = Server::start_in(server.stop().await).await;
    let services: Api<Service> = Api::default_namespaced(server.client());
    services.get("a").await.unwrap();
    let mut other = service;
    other.metadata.name = Some("b".into());
    let error = services.create(&PostParams::default(), &other).await.unwrap_err();
    assert_eq!(code(error), (422, "Invalid".to_owned()));
    services.delete("a", &DeleteParams::default()).await.unwrap();
    services.create(&PostParams::default(), &other).await.unwrap();
    // The authority is the same: what clients hold stays valid.
    let again = std::fs::read(server.kubeconfig()).unwrap();
    let authority = |text: &[u8]| {
        String::from_utf8_lossy(text).lines().find(|line| line.contains("authority")).unwrap().to_owned()
    };
    assert_eq!(authority(&kubeconfig), authority(&again));
}

#[tokio::test]
async fn stale_writes_conflict_and_missing_objects_are_not_found() {
    let server = Server::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(server.client());
    let params = PostParams::default();
    let created = maps.create(&params, &config_map("a")).await.unwrap();
    let error = maps.create(&params, &config_map("a")).await.unwrap_err();
    assert_eq!(code(error), (409, "AlreadyExists".to_owned()));
    let mut newer = created.clone();
    newer.data.as_mut().unwrap().insert("k".into(), "2".into());
    let newer = maps.replace("a", &params, &newer).await.unwrap();
    assert_ne!(newer.metadata.resource_version, created.metadata.resource_version);
    let error = maps.replace("a", &params, &created).await.unwrap_err();
    assert_eq!(code(error), (409, "Conflict".to_owned()));
    let same = maps.replace("a", &params, &newer).await.unwrap();
    assert_eq!(same.metadata.resource_version, newer.metadata.resource_version, "nothing was changed");
    let patch = Patch::Merge(json!({ "data": { "k": null, "l": "3" } }));
    let patched = maps.patch("a", &PatchParams::default(), &patch).await.unwrap();
    assert_eq!(patched.data.unwrap().into_iter().collect::<Vec<_>>(), [("l".to_owned(), "3".to_owned())]);
    let error = maps.get("b").await.unwrap_err();
    assert_eq!(code(error), (404, "NotFound".to_owned()));
    let elsewhere: Api<ConfigMap> = Api::namespaced(server.client(), "nowhere");
    let error = elsewhere.create(&params, &config_map("a")).await.unwrap_err();
    assert_eq!(code(error), (404, "NotFound".to_owned()));
}

#[tokio::test]
async fn lists_are_paged_and_a_watch_continues_them() {
    let server = Server::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(server.client());
    for n in 0..5 {
        maps.create(&PostParams::default(), &config_map(&format!("m{n}"))).await.unwrap();
    }
    let first = maps.list(&ListParams::default().limit(2)).await.unwrap();
    assert_eq!((first.items.len(), first.metadata.remaining_item_count), (2, Some(3)));
    maps.delete("m4", &DeleteParams::default()).await.unwrap();
    let token = first.metadata.continue_.unwrap();
    let rest = maps.list(&ListParams::default().limit(10).continue_token(&token)).await.unwrap();
    assert_eq!(rest.items.len(), 3, "the second page shows the state of the first");
    assert_eq!(rest.metadata.resource_version, first.metadata.resource_version);

    let version = rest.metadata.resource_version.unwrap();
    let mut events = pin!(maps.watch(&WatchParams::default(), &version).await.unwrap());
    let event = events.try_next().await.unwrap().unwrap();
    assert!(matches!(event, WatchEvent::Deleted(map) if map.metadata.name.as_deref() == Some("m4")));
}

#[tokio::test]
async fn a_selector_watch_sees_objects_come_in_and_leave() {
    let server = Server::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(server.client());
    let params = WatchParams::default().labels("app=x");
    let mut events = pin!(maps.watch(&params, "0").await.unwrap());
    maps.create(&PostParams::default(), &config_map("a")).await.unwrap();
    let label = |app: &str| Patch::Merge(json!({ "metadata": { "labels": { "app": app } } }));
    for app in ["x", "x", "a"] {
        let touched = json!({ "data": { "t": app } });
        maps.patch("a", &PatchParams::default(), &label(app)).await.unwrap();
        maps.patch("a", &PatchParams::default(), &Patch::Merge(touched)).await.unwrap();
    }
    assert!(matches!(events.try_next().await.unwrap(), Some(WatchEvent::Added(_))));
    assert!(matches!(events.try_next().await.unwrap(), Some(WatchEvent::Modified(_))));
    let event = events.try_next().await.unwrap();
    assert!(
        matches!(event, Some(WatchEvent::Deleted(map)) if map.metadata.labels.as_ref().unwrap()["app"] == "x")
    );
}

#[tokio::test]
async fn kube_watchers_follow_with_both_strategies() {
    let server = Server::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(server.client());
    maps.create(&PostParams::default(), &config_map("a")).await.unwrap();
    for config in [watcher::Config::default(), watcher::Config::default().streaming_lists()] {
        let mut events = pin!(watcher(maps.clone(), config));
        assert!(matches!(events.next().await.unwrap().unwrap(), watcher::Event::Init));
        assert!(matches!(events.next().await.unwrap().unwrap(), watcher::Event::InitApply(_)));
        assert!(matches!(events.next().await.unwrap().unwrap(), watcher::Event::InitDone));
        maps.create(&PostParams::default(), &config_map("b")).await.unwrap();
        assert!(matches!(events.next().await.unwrap().unwrap(), watcher::Event::Apply(_)));
        maps.delete("b", &DeleteParams::default()).await.unwrap();
        assert!(matches!(events.next().await.unwrap().unwrap(), watcher::Event::Delete(_)));
    }
}

#[tokio::test]
async fn a_kube_reflector_mirrors_and_its_reader_waits() {
    let server = Server::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(server.client());
    maps.create(&PostParams::default(), &config_map("a")).await.unwrap();
    let (reader, writer) = reflector::store();
    let events = reflector::reflector(writer, watcher(maps.clone(), watcher::Config::default().page_size(1)));
    let running = tokio::spawn(events.for_each(|_| async {}));
    reader.wait_until_ready().await.unwrap();
    assert_eq!(reader.state().len(), 1);
    maps.create(&PostParams::default(), &config_map("b")).await.unwrap();
    maps.delete("a", &DeleteParams::default()).await.unwrap();
    while reader.state().iter().map(|map| map.metadata.name.clone().unwrap()).collect::<Vec<_>>() != ["b"] {
        tokio::task::yield_now().await;
    }
    running.abort();
}

/// A controller that applies, of every settings map, a copy: what it wants and no more.
#[tokio::test]
async fn a_kube_controller_reconciles_with_server_side_apply() {
    let server = Server::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(server.client());
    let secrets: Api<k8s_openapi::api::core::v1::Secret> = Api::default_namespaced(server.client());
    let reconcile = |map: Arc<ConfigMap>, secrets: Arc<Api<k8s_openapi::api::core::v1::Secret>>| async move {
        let name = map.metadata.name.clone().unwrap();
        let copy = json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": { "name": name, "ownerReferences": [map.controller_owner_ref(&()).unwrap()] },
            "stringData": map.data,
        });
        let params = PatchParams::apply("copier").force();
        secrets.patch(&name, &params, &Patch::Apply(copy)).await.map(|_| Action::await_change())
    };
    let controller = Controller::new(maps.clone(), watcher::Config::default())
        .owns(secrets.clone(), watcher::Config::default())
        .run(reconcile, |_, error, _| panic!("{error}"), Arc::new(secrets.clone()));
    let running = tokio::spawn(controller.for_each(|_| async {}));
    maps.create(&PostParams::default(), &config_map("a")).await.unwrap();
    let copied = async |text: &str| {
        let wanted = text.as_bytes().to_vec();
        loop {
            let found = secrets.get_opt("a").await.unwrap().and_then(|secret| secret.data);
            if found.is_some_and(|data| data.get("k").is_some_and(|value| value.0 == wanted)) {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    copied("1").await;
    let other = Patch::Merge(json!({ "data": { "k": "2" } }));
    maps.patch("a", &PatchParams::default(), &other).await.unwrap();
    copied("2").await;
    // What somebody else changes is set right again.
    secrets
        .patch("a", &PatchParams::default(), &Patch::Merge(json!({ "data": { "k": "Mw==" } })))
        .await
        .unwrap();
    copied("2").await;
    running.abort();
}

#[tokio::test]
async fn an_assigned_pod_is_deleted_gracefully_and_an_unassigned_one_at_once() {
    let server = Server::start().await;
    let pods: Api<Pod> = Api::default_namespaced(server.client());
    for name in ["a", "b"] {
        pods.create(&PostParams::default(), &pod(name)).await.unwrap();
    }
    let binding = json!({ "target": { "kind": "Node", "name": "n1" } });
    let bind = || {
        let request = kube::core::Request::new("/api/v1/namespaces/default/pods");
        request
            .create_subresource("binding", "a", &PostParams::default(), serde_json::to_vec(&binding).unwrap())
            .unwrap()
    };
    server.client().request::<Value>(bind()).await.unwrap();
    assert_eq!(code(server.client().request::<Value>(bind()).await.unwrap_err()), (409, "Conflict".into()));
    let bound = pods.get("a").await.unwrap();
    assert_eq!(bound.spec.unwrap().node_name.as_deref(), Some("n1"));
    let conditions = bound.status.unwrap().conditions.unwrap();
    assert!(conditions.iter().any(|c| c.type_ == "PodScheduled" && c.status == "True"));
    // The same by the kind of its own, which names the pod.
    let by_name = |name: &str| {
        let binding = json!({ "metadata": { "name": name }, "target": { "kind": "Node", "name": "n1" } });
        let body = serde_json::to_vec(&binding).unwrap();
        http::Request::post("/api/v1/namespaces/default/bindings").body(body).unwrap()
    };
    let of = async |name: &str| server.client().request::<Value>(by_name(name)).await;
    pods.create(&PostParams::default(), &pod("c")).await.unwrap();
    of("c").await.unwrap();
    assert_eq!(pods.get("c").await.unwrap().spec.unwrap().node_name.as_deref(), Some("n1"));
    assert_eq!(code(of("c").await.unwrap_err()), (409, "Conflict".into()));
    assert_eq!(code(of("nobody").await.unwrap_err()), (404, "NotFound".into()));
    assert_eq!(code(of("").await.unwrap_err()), (400, "BadRequest".into()));
    pods.delete("c", &DeleteParams::default().grace_period(0)).await.unwrap();
    let on_node = pods.list(&ListParams::default().fields("spec.nodeName=n1")).await.unwrap();
    assert_eq!(on_node.items.len(), 1);

    pods.delete("b", &DeleteParams::default()).await.unwrap();
    assert!(pods.get_opt("b").await.unwrap().is_none());
    pods.delete("a", &DeleteParams::default()).await.unwrap();
    let stopping = pods.get("a").await.unwrap().metadata;
    assert_eq!(stopping.deletion_grace_period_seconds, Some(30));
    assert!(stopping.deletion_timestamp.is_some());
    pods.delete("a", &DeleteParams::default().grace_period(0)).await.unwrap();
    assert!(pods.get_opt("a").await.unwrap().is_none());

    // Less than no time is no reason to kill it.
    pods.create(&PostParams::default(), &pod("d")).await.unwrap();
    of("d").await.unwrap();
    let body = json!({ "gracePeriodSeconds": -1 }).to_string().into_bytes();
    let request = http::Request::delete("/api/v1/namespaces/default/pods/d").body(body).unwrap();
    server.client().request::<Value>(request).await.unwrap();
    assert_eq!(pods.get("d").await.unwrap().metadata.deletion_grace_period_seconds, Some(1));
}

#[tokio::test]
async fn finalizers_hold_an_object_until_they_are_gone() {
    let server = Server::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(server.client());
    maps.create(&PostParams::default(), &config_map("a")).await.unwrap();
    maps.delete("a", &DeleteParams::foreground()).await.unwrap();
    let held = maps.get("a").await.unwrap();
    assert_eq!(held.metadata.finalizers.unwrap(), ["foregroundDeletion"]);
    assert!(held.metadata.deletion_timestamp.is_some());
    let released = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
    maps.patch("a", &PatchParams::default(), &released).await.unwrap();
    assert!(maps.get_opt("a").await.unwrap().is_none());
}

#[tokio::test]
async fn a_namespace_ends_through_its_finalizer() {
    let server = Server::start().await;
    let namespaces: Api<Namespace> = Api::all(server.client());
    let demo: Namespace = from(json!({ "metadata": { "name": "demo" } }));
    namespaces.create(&PostParams::default(), &demo).await.unwrap();
    namespaces.delete("demo", &DeleteParams::default()).await.unwrap();
    let ending = namespaces.get("demo").await.unwrap();
    assert_eq!(ending.status.as_ref().unwrap().phase.as_deref(), Some("Terminating"));
    let maps: Api<ConfigMap> = Api::namespaced(server.client(), "demo");
    let error = maps.create(&PostParams::default(), &config_map("a")).await.unwrap_err();
    assert_eq!(code(error), (403, "Forbidden".to_owned()));
    let mut finalized = ending;
    finalized.spec.as_mut().unwrap().finalizers = None;
    let request = kube::core::Request::new("/api/v1/namespaces");
    let body = serde_json::to_vec(&finalized).unwrap();
    let request = request.replace_subresource("finalize", "demo", &PostParams::default(), body).unwrap();
    server.client().request::<Value>(request).await.unwrap();
    assert!(namespaces.get_opt("demo").await.unwrap().is_none());
    let error = namespaces.delete("default", &DeleteParams::default()).await.unwrap_err();
    assert_eq!(code(error), (403, "Forbidden".to_owned()));
}

#[tokio::test]
async fn status_and_spec_are_written_apart_and_only_spec_counts_generations() {
    let server = Server::start().await;
    let deployments: Api<Deployment> = Api::default_namespaced(server.client());
    let deployment: Deployment = from(json!({
        "metadata": { "name": "d" },
        "spec": {
            "replicas": 2,
            "selector": { "matchLabels": { "app": "d" } },
            "template": {
                "metadata": { "labels": { "app": "d" } },
                "spec": { "containers": [{ "name": "c", "image": "i" }] },
            },
        },
        "status": { "replicas": 9 },
    }));
    let created = deployments.create(&PostParams::default(), &deployment).await.unwrap();
    assert_eq!(created.metadata.generation, Some(1));
    assert_eq!(created.status.unwrap_or_default().replicas, None);
    let patch = Patch::Merge(json!({ "status": { "replicas": 2 }, "spec": { "replicas": 7 } }));
    let written = deployments.patch_status("d", &PatchParams::default(), &patch).await.unwrap();
    assert_eq!(written.spec.as_ref().unwrap().replicas, Some(2));
    assert_eq!((written.status.unwrap().replicas, written.metadata.generation), (Some(2), Some(1)));
    let written = deployments.patch("d", &PatchParams::default(), &patch).await.unwrap();
    assert_eq!((written.status.unwrap().replicas, written.metadata.generation), (Some(2), Some(2)));
    let scale = deployments.get_scale("d").await.unwrap();
    assert_eq!(scale.status.unwrap().selector.as_deref(), Some("app=d"));
    let patch = Patch::Merge(json!({ "spec": { "replicas": 4 } }));
    deployments.patch_scale("d", &PatchParams::default(), &patch).await.unwrap();
    assert_eq!(deployments.get("d").await.unwrap().spec.unwrap().replicas, Some(4));
}

#[tokio::test]
async fn events_are_one_kind_in_two_groups() {
    let server = Server::start().await;
    let events: Api<Event> = Api::default_namespaced(server.client());
    let event: Event = from(json!({
        "metadata": { "generateName": "e-" },
        "involvedObject": { "kind": "Pod", "name": "p", "namespace": "default" },
        "message": "hello", "reason": "Tested", "type": "Normal",
    }));
    let created = events.create(&PostParams::default(), &event).await.unwrap();
    let name = created.metadata.name.unwrap();
    assert!(name.starts_with("e-") && name.len() == 7, "{name}");
    let new: Api<k8s_openapi::api::events::v1::Event> = Api::default_namespaced(server.client());
    let listed = new.list(&ListParams::default()).await.unwrap();
    assert_eq!(listed.items[0].note.as_deref(), Some("hello"));
    let selected = ListParams::default().fields("involvedObject.name=other");
    assert!(events.list(&selected).await.unwrap().items.is_empty());
}

#[tokio::test]
async fn nodes_and_leases_are_kept_as_the_kubelet_writes_them() {
    let server = Server::start().await;
    let nodes: Api<Node> = Api::all(server.client());
    let node: Node = from(json!({
        "metadata": { "name": "n1" },
        "status": { "capacity": { "cpu": "2" }, "conditions": [] },
    }));
    nodes.create(&PostParams::default(), &node).await.unwrap();
    let condition = json!({ "type": "Ready", "status": "True", "lastHeartbeatTime": "2026-01-01T00:00:00Z" });
    let patch = Patch::Strategic(json!({ "status": { "conditions": [condition] } }));
    let node = nodes.patch_status("n1", &PatchParams::default(), &patch).await.unwrap();
    let status = node.status.unwrap();
    assert_eq!(status.conditions.unwrap()[0].type_, "Ready");
    assert!(status.capacity.unwrap().contains_key("cpu"));
    let leases: Api<Lease> = Api::namespaced(server.client(), "kube-node-lease");
    let lease: Lease = from(json!({
        "metadata": { "name": "n1" },
        "spec": { "holderIdentity": "n1", "leaseDurationSeconds": 40, "renewTime": "2026-01-01T00:00:00.000000Z" },
    }));
    let lease = leases.create(&PostParams::default(), &lease).await.unwrap();
    leases.replace("n1", &PostParams::default(), &lease).await.unwrap();
}
