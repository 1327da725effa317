//! What the cluster adds and refuses: quotas, limits, priorities, node ports, budgets; also with two servers on one store.

use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::Server;

const PODS: &str = "/api/v1/namespaces/default/pods";
const SERVICES: &str = "/api/v1/namespaces/default/services";
const QUOTAS: &str = "/api/v1/namespaces/default/resourcequotas";

async fn send(client: &kube::Client, method: &str, path: &str, media: &str, body: &Value) -> Response<Body> {
    let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    let request = Request::builder().method(method).uri(path).header("content-type", media);
    client.send(request.body(Body::from(body)).unwrap()).await.unwrap()
}

async fn call(client: &kube::Client, method: &str, path: &str, body: Value) -> (StatusCode, Value) {
    let media = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
    let response = send(client, method, path, media, &body).await;
    let code = response.status();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (code, serde_json::from_slice(&bytes).unwrap())
}

async fn create(client: &kube::Client, path: &str, object: Value) -> Value {
    let (code, answer) = call(client, "POST", path, object).await;
    assert_eq!(code, StatusCode::CREATED, "{answer}");
    answer
}

async fn refused(client: &kube::Client, path: &str, object: Value) -> (StatusCode, String) {
    let (code, answer) = call(client, "POST", path, object).await;
    assert!(code.is_client_error(), "{answer}");
    (code, answer["message"].as_str().unwrap().to_owned())
}

fn pod(name: &str) -> Value {
    json!({ "metadata": { "name": name }, "spec": { "containers": [{ "name": "c", "image": "i:1" }] } })
}

fn quota(hard: &Value) -> Value {
    json!({ "metadata": { "name": "q" }, "spec": { "hard": hard } })
}

/// 64 writers, each on one of the servers, want more than there is; exactly what there is is given.
async fn nobody_gets_more_than_the_quota(clients: &[kube::Client]) {
    let client = &clients[0];
    create(client, PODS, pod("before")).await;
    create(client, QUOTAS, quota(&json!({ "pods": "11", "count/pods": "100" }))).await;
    let (_, counted) = call(client, "GET", &format!("{QUOTAS}/q"), Value::Null).await;
    assert_eq!(counted["status"]["used"], json!({ "pods": "1", "count/pods": "1" }));
    let mut writers = JoinSet::new();
    for n in 0..64 {
        let client = clients[n % clients.len()].clone();
        writers.spawn(async move { call(&client, "POST", PODS, pod(&format!("p{n}"))).await });
    }
    let (mut made, mut denied) = (Vec::new(), 0);
    while let Some(outcome) = writers.join_next().await {
        match outcome.unwrap() {
            (StatusCode::CREATED, pod) => made.push(pod["metadata"]["name"].as_str().unwrap().to_owned()),
            (StatusCode::FORBIDDEN, status) => {
                let message = status["message"].as_str().unwrap();
                let expected = "exceeded quota: q, requested: pods=1, used: pods=11, limited: pods=11";
                assert!(message.ends_with(expected), "{message}");
                denied += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((made.len(), denied), (10, 54));
    let (_, full) = call(client, "GET", &format!("{QUOTAS}/q"), Value::Null).await;
    assert_eq!(full["status"]["used"]["pods"], "11");
    // What goes makes room at once.
    for name in &made[..4] {
        let (code, _) =
            call(&clients[clients.len() - 1], "DELETE", &format!("{PODS}/{name}"), Value::Null).await;
        assert_eq!(code, StatusCode::OK);
    }
    let (_, rest) = call(client, "GET", &format!("{QUOTAS}/q"), Value::Null).await;
    assert_eq!(rest["status"]["used"], json!({ "pods": "7", "count/pods": "7" }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_is_never_exceeded() {
    let server = Server::start().await;
    nobody_gets_more_than_the_quota(&[server.client()]).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_on_one_store_agree_on_quotas_and_node_ports() {
    let server = Server::start().await;
    let twin = server.twin().await;
    let clients = [server.client(), twin.client()];
    nobody_gets_more_than_the_quota(&clients).await;
    let mut writers = JoinSet::new();
    for n in 0..40 {
        let client = clients[n % 2].clone();
        let ports = json!([{ "port": 80 }]);
        let service = json!({ "metadata": { "name": format!("s{n}") }, "spec": { "type": "NodePort", "ports": ports } });
        writers.spawn(async move { create(&client, SERVICES, service).await });
    }
    let mut given = std::collections::HashSet::new();
    while let Some(service) = writers.join_next().await {
        let spec = &service.unwrap()["spec"];
        assert!(given.insert(spec["clusterIP"].to_string()), "{spec}");
        assert!(given.insert(spec["ports"][0]["nodePort"].to_string()), "{spec}");
    }
    twin.stop().await;
    server.stop().await;
}

#[tokio::test]
async fn a_quota_on_compute_wants_to_know_what_a_pod_needs() {
    let server = Server::start().await;
    let client = server.client();
    create(
        &client,
        QUOTAS,
        quota(&json!({ "requests.cpu": "1", "limits.memory": "1Gi", "services.nodeports": "1" })),
    )
    .await;
    let (code, message) = refused(&client, PODS, pod("a")).await;
    assert_eq!(code, StatusCode::FORBIDDEN);
    let expected = "failed quota: q: must specify limits.memory for: c; requests.cpu for: c";
    assert!(message.ends_with(expected), "{message}");
    let mut sized = pod("a");
    sized["spec"]["containers"][0]["resources"] =
        json!({ "requests": { "cpu": "600m" }, "limits": { "memory": "1Gi" } });
    create(&client, PODS, sized.clone()).await;
    sized["metadata"]["name"] = json!("b");
    let (_, message) = refused(&client, PODS, sized).await;
    let expected = "exceeded quota: q, requested: limits.memory=1Gi,requests.cpu=600m, used: limits.memory=1Gi,\
                    requests.cpu=600m, limited: limits.memory=1Gi,requests.cpu=1";
    assert!(message.ends_with(expected), "{message}");
    let ports = json!([{ "name": "a", "port": 80 }, { "name": "b", "port": 81 }]);
    let service = json!({ "metadata": { "name": "s" }, "spec": { "type": "NodePort", "ports": ports } });
    let (_, message) = refused(&client, SERVICES, service.clone()).await;
    assert!(message.contains("requested: services.nodeports=2, used: services.nodeports=0"), "{message}");
    // A dry run is refused as well, and one that is allowed leaves nothing behind.
    let mut inside = service;
    inside["spec"]["type"] = json!("ClusterIP");
    let (code, _) = call(&client, "POST", &format!("{SERVICES}?dryRun=All"), inside).await;
    assert_eq!(code, StatusCode::CREATED);
    server.stop().await;
}

#[tokio::test]
async fn limits_and_priorities_come_from_the_cluster() {
    let server = Server::start().await;
    let client = server.client();
    let limits = json!([{ "type": "Container", "max": { "cpu": "2" }, "default": { "cpu": "1" } }]);
    let range = json!({ "metadata": { "name": "l" }, "spec": { "limits": limits } });
    create(&client, "/api/v1/namespaces/default/limitranges", range).await;
    let made = create(&client, PODS, pod("a")).await;
    assert_eq!(
        made["spec"]["containers"][0]["resources"],
        json!({ "limits": { "cpu": "1" }, "requests": { "cpu": "1" } })
    );
    assert_eq!(made["status"]["qosClass"], "Burstable");
    assert_eq!(
        (&made["spec"]["priority"], &made["spec"]["tolerations"][1]["tolerationSeconds"]),
        (&json!(0), &json!(300))
    );
    let mut greedy = pod("b");
    greedy["spec"]["containers"][0]["resources"] = json!({ "limits": { "cpu": "3" } });
    let (_, message) = refused(&client, PODS, greedy).await;
    assert!(message.ends_with("maximum cpu usage per Container is 2, but limit is 3"), "{message}");

    let classes = "/apis/scheduling.k8s.io/v1/priorityclasses";
    create(
        &client,
        classes,
        json!({ "metadata": { "name": "high" }, "value": 7, "preemptionPolicy": "Never" }),
    )
    .await;
    let mut named = pod("c");
    named["spec"]["priorityClassName"] = json!("high");
    let made = create(&client, PODS, named).await;
    assert_eq!((&made["spec"]["priority"], &made["spec"]["preemptionPolicy"]), (&json!(7), &json!("Never")));
    let mut unknown = pod("d");
    unknown["spec"]["priorityClassName"] = json!("higher");
    let (code, message) = refused(&client, PODS, unknown).await;
    assert_eq!(code, StatusCode::FORBIDDEN);
    assert_eq!(message, "pods \"d\" is forbidden: no PriorityClass with name higher was found");
    let mut system = pod("e");
    system["spec"]["priorityClassName"] = json!("system-node-critical");
    assert_eq!(create(&client, PODS, system).await["spec"]["priority"], 2_000_001_000);
    // Who replaces a pod need not repeat what the cluster added.
    let mut again = pod("a");
    again["spec"]["containers"][0]["resources"] = json!({ "limits": { "cpu": "1" } });
    let (code, answer) = call(&client, "PUT", &format!("{PODS}/a"), again).await;
    assert_eq!(code, StatusCode::OK, "{answer}");
    server.stop().await;
}

#[tokio::test]
async fn a_service_changes_its_type_and_keeps_what_it_may() {
    let server = Server::start().await;
    let client = server.client();
    let ports = json!([
        { "name": "a", "port": 53, "protocol": "TCP" }, { "name": "b", "port": 53, "protocol": "UDP" },
    ]);
    let spec = json!({ "type": "LoadBalancer", "externalTrafficPolicy": "Local", "ports": ports });
    let made = create(&client, SERVICES, json!({ "metadata": { "name": "s" }, "spec": spec })).await;
    let number = made["spec"]["ports"][0]["nodePort"].as_u64().unwrap();
    assert!((30_086..=32_767).contains(&number));
    assert_eq!(made["spec"]["ports"][1]["nodePort"], number);
    assert!(made["spec"]["healthCheckNodePort"].is_u64());
    let path = format!("{SERVICES}/s");
    let status = json!({ "status": { "loadBalancer": { "ingress": [{ "ip": "192.0.2.1" }] } } });
    let (code, answer) = call(&client, "PATCH", &format!("{path}/status"), status).await;
    assert_eq!(
        (code, &answer["status"]["loadBalancer"]["ingress"][0]["ipMode"]),
        (StatusCode::OK, &json!("VIP"))
    );
    let (_, answer) =
        call(&client, "PATCH", &format!("{path}/status"), json!({ "status": { "loadBalancer": null } }))
            .await;
    assert!(answer["status"]["loadBalancer"]["ingress"].is_null());
    let (code, answer) = call(&client, "PATCH", &path, json!({ "spec": { "type": "ClusterIP" } })).await;
    assert_eq!(code, StatusCode::OK, "{answer}");
    assert_eq!(answer["spec"]["clusterIP"], made["spec"]["clusterIP"]);
    for field in ["externalTrafficPolicy", "healthCheckNodePort", "allocateLoadBalancerNodePorts"] {
        assert!(answer["spec"][field].is_null(), "{answer}");
    }
    assert!(answer["spec"]["ports"][0]["nodePort"].is_null());
    // The number is free again, and its next owner's deletion frees it once more.
    for name in ["t", "u"] {
        let ports = json!([{ "port": 80, "nodePort": number }]);
        let other = json!({ "metadata": { "name": name }, "spec": { "type": "NodePort", "ports": ports } });
        create(&client, SERVICES, other.clone()).await;
        let mut clash = other;
        clash["metadata"]["name"] = json!("clash");
        let (code, message) = refused(&client, SERVICES, clash).await;
        assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY);
        assert!(message.ends_with("provided port is already allocated"), "{message}");
        call(&client, "DELETE", &format!("{SERVICES}/{name}"), Value::Null).await;
    }
    let address = made["spec"]["clusterIP"].as_str().unwrap();
    let (_, object) =
        call(&client, "GET", &format!("/apis/networking.k8s.io/v1/ipaddresses/{address}"), Value::Null).await;
    assert_eq!(object["spec"]["parentRef"]["name"], "s");
    server.stop().await;
}

#[tokio::test]
async fn claims_are_repaired_when_a_server_starts() {
    let server = Server::start().await;
    let client = server.client();
    let ports = json!([{ "port": 80, "nodePort": 30_500 }]);
    let service =
        |name: &str| json!({ "metadata": { "name": name }, "spec": { "type": "NodePort", "ports": ports } });
    create(&client, SERVICES, service("a")).await;
    // As in a store from before there were claims, and as after a claim whose Service never came.
    server.store.delete("/registry/ranges/servicenodeports/30500", None).await.unwrap();
    server.store.create("/registry/ranges/servicenodeports/30501", "{}".into()).await.unwrap();
    drop(client);
    let server = Server::start_in(server.stop().await).await;
    let (code, _) = refused(&server.client(), SERVICES, service("b")).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(server.store.get("/registry/ranges/servicenodeports/30501").await.unwrap().is_none());
    server.stop().await;
}

#[tokio::test]
async fn an_eviction_asks_the_disruption_budget() {
    let server = Server::start().await;
    let client = server.client();
    let mut running = pod("a");
    running["metadata"]["labels"] = json!({ "app": "x" });
    create(&client, PODS, running).await;
    let ready =
        json!({ "status": { "phase": "Running", "conditions": [{ "type": "Ready", "status": "True" }] } });
    call(&client, "PATCH", &format!("{PODS}/a/status"), ready).await;
    let budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    let budget = json!({
        "metadata": { "name": "b" },
        "spec": { "minAvailable": 1, "selector": { "matchLabels": { "app": "x" } } },
    });
    create(&client, budgets, budget).await;
    let counted = |allowed: u32| {
        json!({ "status": {
            "observedGeneration": 1, "disruptionsAllowed": allowed, "currentHealthy": 1, "desiredHealthy": 1,
            "expectedPods": 1,
        } })
    };
    call(&client, "PATCH", &format!("{budgets}/b/status"), counted(0)).await;
    let eviction = json!({ "apiVersion": "policy/v1", "kind": "Eviction", "metadata": { "name": "a" } });
    let path = format!("{PODS}/a/eviction");
    let response = send(&client, "POST", &path, "application/json", &eviction).await;
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(response.headers()["retry-after"], "10");
    let (_, status) = call(&client, "POST", &path, eviction.clone()).await;
    assert_eq!(status["message"], "Cannot evict pod as it would violate the pod's disruption budget.");
    assert_eq!(status["details"]["causes"][0]["reason"], "DisruptionBudget");
    call(&client, "PATCH", &format!("{budgets}/b/status"), counted(1)).await;
    // What is about another pod evicts neither.
    for (field, value) in [("name", "other"), ("namespace", "other")] {
        let mut mistaken = eviction.clone();
        mistaken["metadata"][field] = json!(value);
        let (code, status) = call(&client, "POST", &path, mistaken).await;
        assert_eq!((code, &status["reason"]), (StatusCode::BAD_REQUEST, &json!("BadRequest")), "{field}");
        assert_eq!(call(&client, "GET", &format!("{PODS}/a"), Value::Null).await.0, StatusCode::OK);
    }
    let (code, _) = call(&client, "POST", &path, eviction).await;
    assert_eq!(code, StatusCode::CREATED);
    let (_, after) = call(&client, "GET", &format!("{budgets}/b"), Value::Null).await;
    assert_eq!(after["status"]["disruptionsAllowed"], 0);
    assert!(after["status"]["disruptedPods"]["a"].is_string());
    server.stop().await;
}

#[tokio::test]
async fn what_belongs_to_a_subresource_is_changed_there_and_nowhere_else() {
    let server = Server::start().await;
    let client = server.client();
    create(&client, PODS, pod("a")).await;
    let sized = json!([{ "name": "c", "image": "i:1", "resources": { "requests": { "cpu": "1" }, "limits": { "cpu": "1" } } }]);
    let (code, _) =
        call(&client, "PATCH", &format!("{PODS}/a"), json!({ "spec": { "containers": sized } })).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY);
    let extra = json!([{ "name": "d", "image": "i:2" }]);
    let patch = json!({ "spec": { "ephemeralContainers": extra } });
    let (code, _) = call(&client, "PATCH", &format!("{PODS}/a"), patch.clone()).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY);
    let (code, answer) = call(&client, "PATCH", &format!("{PODS}/a/ephemeralcontainers"), patch).await;
    assert_eq!(
        (code, &answer["spec"]["ephemeralContainers"][0]["image"]),
        (StatusCode::OK, &json!("i:2")),
        "{answer}"
    );

    let mut burstable = pod("b");
    burstable["spec"]["containers"][0]["resources"] =
        json!({ "requests": { "cpu": "1" }, "limits": { "cpu": "2" } });
    create(&client, PODS, burstable).await;
    let resized = json!([{ "name": "c", "image": "i:1", "resources": { "requests": { "cpu": "1500m" }, "limits": { "cpu": "3" } } }]);
    let (code, answer) =
        call(&client, "PATCH", &format!("{PODS}/b/resize"), json!({ "spec": { "containers": resized } }))
            .await;
    assert_eq!(code, StatusCode::OK, "{answer}");
    assert_eq!(answer["spec"]["containers"][0]["resources"]["limits"]["cpu"], "3");
    let guaranteed =
        json!([{ "name": "c", "resources": { "requests": { "cpu": "1" }, "limits": { "cpu": "1" } } }]);
    let other = json!({ "spec": { "containers": guaranteed } });
    let (code, answer) = call(&client, "PATCH", &format!("{PODS}/b/resize"), other).await;
    assert_eq!(code, StatusCode::OK, "cpu alone does not make it guaranteed: {answer}");

    let requests = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    let pem =
        "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0KLS0tLS1FTkQgQ0VSVElGSUNBVEUgUkVRVUVTVC0tLS0tCg==";
    let spec = json!({ "request": pem, "signerName": "example.com/x", "usages": ["client auth"] });
    create(&client, requests, json!({ "metadata": { "name": "r" }, "spec": spec })).await;
    let approved = json!({ "status": { "conditions": [
        { "type": "Approved", "status": "True", "reason": "x", "message": "x" }] } });
    let (_, answer) = call(&client, "PATCH", &format!("{requests}/r/status"), approved.clone()).await;
    assert_eq!(answer["status"]["conditions"], json!([]), "{answer}");
    let (code, answer) = call(&client, "PATCH", &format!("{requests}/r/approval"), approved).await;
    assert_eq!(
        (code, &answer["status"]["conditions"][0]["type"]),
        (StatusCode::OK, &json!("Approved")),
        "{answer}"
    );
    server.stop().await;
}

#[tokio::test]
async fn the_system_furnishes_itself_and_every_namespace() {
    let server = Server::start().await;
    let client = server.client();
    create(&client, "/api/v1/namespaces", json!({ "metadata": { "name": "team" } })).await;
    for path in [
        "/api/v1/namespaces/team/serviceaccounts/default",
        "/api/v1/namespaces/team/configmaps/kube-root-ca.crt",
        "/api/v1/namespaces/kube-system/serviceaccounts/default",
        "/api/v1/namespaces/default/endpoints/kubernetes",
        "/apis/scheduling.k8s.io/v1/priorityclasses/system-cluster-critical",
        "/apis/networking.k8s.io/v1/servicecidrs/kubernetes",
    ] {
        let (code, answer) = call(&client, "GET", path, Value::Null).await;
        assert_eq!(code, StatusCode::OK, "{path}: {answer}");
    }
    let (_, map) =
        call(&client, "GET", "/api/v1/namespaces/team/configmaps/kube-root-ca.crt", Value::Null).await;
    assert!(map["data"]["ca.crt"].as_str().unwrap().starts_with("-----BEGIN CERTIFICATE-----"));
    server.stop().await;
}

#[tokio::test]
async fn a_job_gets_a_selector_of_its_own() {
    let server = Server::start().await;
    let client = server.client();
    let template = json!({ "metadata": { "labels": { "app": "x" } }, "spec": {
        "restartPolicy": "Never", "containers": [{ "name": "c", "image": "i:1" }] } });
    let jobs = "/apis/batch/v1/namespaces/default/jobs";
    let made =
        create(&client, jobs, json!({ "metadata": { "name": "j" }, "spec": { "template": template } })).await;
    let uid = &made["metadata"]["uid"];
    assert_eq!(&made["spec"]["selector"]["matchLabels"]["batch.kubernetes.io/controller-uid"], uid);
    assert_eq!(made["spec"]["template"]["metadata"]["labels"]["batch.kubernetes.io/job-name"], "j");
    assert_eq!(made["metadata"]["labels"], json!({ "app": "x" }));
    assert_eq!((&made["spec"]["completions"], &made["spec"]["backoffLimit"]), (&json!(1), &json!(6)));
    let (code, answer) =
        call(&client, "PATCH", &format!("{jobs}/j"), json!({ "spec": { "parallelism": 3 } })).await;
    assert_eq!((code, &answer["metadata"]["generation"]), (StatusCode::OK, &json!(2)), "{answer}");
    server.stop().await;
}

#[tokio::test]
async fn a_certificate_is_asked_for_by_the_caller_whatever_the_request_says() {
    const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    let server = Server::start().await;
    let client = crate::http::over_tls(&server, true).await;
    let forged = json!({
        "metadata": { "name": "r" },
        "spec": {
            "request": "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0K",
            "signerName": "example.com/signer",
            "usages": ["client auth"],
            "username": "somebody-else",
            "groups": ["system:nodes"],
            "uid": "7",
        },
    });
    let made = create(&client, REQUESTS, forged).await;
    assert_eq!(made["spec"]["username"], "kubernetes-admin");
    assert_eq!(made["spec"]["groups"], json!(["system:masters", "system:authenticated"]));
    assert_eq!(made["spec"]["uid"], Value::Null);
    let patch = json!({ "spec": { "username": "somebody-else" } });
    let (code, patched) = call(&client, "PATCH", &format!("{REQUESTS}/r"), patch).await;
    assert_eq!((code, &patched["spec"]["username"]), (StatusCode::OK, &json!("kubernetes-admin")));
    server.stop().await;
}
