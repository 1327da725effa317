//! Who am I, and what may I do.

use http::{Request, StatusCode};
use serde_json::{Value, json};

use crate::http::{get, post, send, value};
use crate::kubectl::with_kubectl;
use crate::support::Server;

#[tokio::test]
async fn questions_are_answered_and_not_kept() {
    let server = Server::start().await;
    let client = server.client();
    let ask = async |group: &str, plural: &str, kind: &str, spec: Value| {
        let review = json!({ "apiVersion": format!("{group}/v1"), "kind": kind, "spec": spec });
        let response = post(&client, &format!("/apis/{group}/v1/{plural}"), review).await;
        (response.status(), value(response).await)
    };
    let pods = json!({ "resourceAttributes": { "verb": "get", "resource": "pods" } });
    let authorization = "authorization.k8s.io";
    let (code, answer) =
        ask(authorization, "selfsubjectaccessreviews", "SelfSubjectAccessReview", pods.clone()).await;
    assert_eq!((code, &answer["status"]["allowed"]), (StatusCode::CREATED, &json!(true)));
    let (code, answer) =
        ask(authorization, "selfsubjectaccessreviews", "SelfSubjectAccessReview", json!({})).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY, "{answer}");
    let (code, answer) = ask(authorization, "subjectaccessreviews", "SubjectAccessReview", pods).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(answer["message"].as_str().unwrap().contains("at least one of user or group must be specified"));
    let rules = json!({ "namespace": "default" });
    let (_, answer) = ask(authorization, "selfsubjectrulesreviews", "SelfSubjectRulesReview", rules).await;
    assert_eq!(answer["status"]["resourceRules"][0]["verbs"], json!(["*"]));
    let response = get(&client, "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", "*/*").await;
    assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_asks_who_it_is_and_what_it_may() {
    with_kubectl(|kubectl| {
        let who = kubectl.ok("auth whoami");
        for text in ["kubernetes-admin", "system:masters", "system:authenticated"] {
            assert!(who.contains(text), "{who}");
        }
        assert_eq!(kubectl.ok("auth can-i create deployments"), "yes\n");
        assert!(kubectl.ok("auth can-i --list").contains("*.*"));
        assert_eq!(kubectl.ok("auth can-i get /healthz"), "yes\n");
        assert!(
            kubectl.ok("api-resources --api-group=authorization.k8s.io").contains("SelfSubjectAccessReview")
        );
    })
    .await;
}

#[tokio::test]
async fn aggregated_discovery_is_not_sent_twice() {
    let server = Server::start().await;
    let client = server.client();
    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    for path in ["/api", "/apis"] {
        let first = get(&client, path, accept).await;
        let tag = first.headers()["etag"].clone();
        assert!(value(first).await["items"].is_array());
        let again = Request::get(path).header("accept", accept).header("if-none-match", tag);
        assert_eq!(send(&client, again, "").await.status(), StatusCode::NOT_MODIFIED);
        let other = Request::get(path).header("accept", accept).header("if-none-match", "\"other\"");
        assert_eq!(send(&client, other, "").await.status(), StatusCode::OK);
    }
}
