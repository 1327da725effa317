//! The documents as a client reads them.

use http_body_util::BodyExt;

use super::*;
use crate::resource::{ListMerge, MergeRule, RESOURCES, Resource, merge_rules};

fn document(api_version: &str) -> Value {
    let found = documents().iter().find(|document| document.part.api_version == api_version);
    let compressed = found.expect("the version is served").compressed().expect("it compresses");
    serde_json::from_slice(&inflate(&compressed).expect("it is gzip")).expect("it is JSON")
}

fn schema<'d>(document: &'d Value, reference: &Value) -> &'d Value {
    let name = reference["$ref"].as_str().or(reference["allOf"][0]["$ref"].as_str()).expect("a reference");
    let name = name.strip_prefix("#/components/schemas/").expect("into the document");
    let found = &document["components"]["schemas"][name];
    assert!(found.is_object(), "{name} is referred to and not there");
    found
}

fn follow(document: &Value, value: &Value) {
    match value {
        Value::Object(entries) => {
            // A schema of schemas has a property of that name.
            if entries.get("$ref").is_some_and(Value::is_string) {
                schema(document, value);
            }
            entries.values().for_each(|value| follow(document, value));
        }
        Value::Array(items) => items.iter().for_each(|item| follow(document, item)),
        _ => {}
    }
}

#[test]
fn every_reference_leads_to_a_schema_and_every_operation_has_a_name_of_its_own() {
    for entry in documents() {
        let document = document(entry.part.api_version);
        follow(&document, &document);
        let mut names = std::collections::BTreeSet::new();
        for (path, item) in document["paths"].as_object().expect("paths") {
            for (_, operation) in
                item.as_object().expect("an item").iter().filter(|(key, _)| *key != "parameters")
            {
                let name = format!("{}{}", operation["operationId"], path.contains("{namespace}"));
                assert!(names.insert(name), "{path}: {}", operation["operationId"]);
            }
        }
    }
}

/// kubectl asks a document which kinds can be patched with fieldValidation, and leaves the checks to the server.
#[test]
fn every_kind_is_found_by_its_paths_and_its_schema() {
    for resource in RESOURCES.iter().filter(|row| row.verbs.contains(&"patch")) {
        let document = document(&resource.api_version());
        let kind = json!({ "group": resource.group, "version": resource.version, "kind": resource.kind });
        let schemas = document["components"]["schemas"].as_object().expect("schemas");
        let marked = |schema: &Value| schema["x-kubernetes-group-version-kind"] == json!([kind]);
        assert_eq!(schemas.values().filter(|schema| marked(schema)).count(), 1, "{}", resource.kind);
        let patches = document["paths"].as_object().expect("paths").values().map(|item| &item["patch"]);
        let mut patches = patches.filter(|patch| patch["x-kubernetes-group-version-kind"] == kind);
        let patch = patches.next().expect("a kind can be patched");
        for name in ["fieldValidation", "dryRun"] {
            let parameters = patch["parameters"].as_array().expect("parameters");
            assert!(parameters.iter().any(|parameter| parameter["name"] == name), "{}", resource.kind);
        }
        assert!(patch["requestBody"]["content"]["application/strategic-merge-patch+json"].is_object());
    }
}

#[test]
fn every_list_is_a_type_whose_items_are_of_the_kind() {
    for resource in RESOURCES.iter().filter(|row| row.verbs.contains(&"list")) {
        let document = document(&resource.api_version());
        let kind = json!({ "group": resource.group, "version": resource.version, "kind": resource.kind });
        let operations = document["paths"].as_object().expect("paths").values().map(|item| &item["get"]);
        let mut lists = 0;
        for list in operations.filter(|get| {
            get["x-kubernetes-action"] == "list" && get["x-kubernetes-group-version-kind"] == kind
        }) {
            let answer = &list["responses"]["200"]["content"]["application/json"]["schema"];
            let list = schema(&document, answer);
            assert!(list["properties"]["metadata"].is_object(), "{}", resource.kind);
            let item = schema(&document, &list["properties"]["items"]["items"]);
            assert_eq!(item["x-kubernetes-group-version-kind"], json!([kind]), "{}", resource.list_kind);
            lists += 1;
        }
        assert_eq!(lists, if resource.namespaced { 2 } else { 1 }, "{}", resource.kind);
    }
}

/// The kinds whose pods are made from `spec.template`.
const TEMPLATED: &[&str] =
    &["DaemonSet", "Deployment", "Job", "ReplicaSet", "ReplicationController", "StatefulSet"];

/// The property at a path of the merge table, which names no list indices.
fn property<'d>(document: &'d Value, resource: &Resource, path: &str) -> &'d Value {
    let kind = format!("#/components/schemas/{}.{}", package(resource), resource.kind);
    let mut at = schema(document, &json!({ "$ref": kind }));
    let words: Vec<&str> = path.split('.').filter(|word| !word.is_empty()).collect();
    for (index, word) in words.iter().enumerate() {
        let property = &at["properties"][word];
        assert!(property.is_object(), "{}: {path}", resource.kind);
        if index + 1 == words.len() {
            return property;
        }
        at = schema(document, if property["items"].is_object() { &property["items"] } else { property });
    }
    at
}

fn package(resource: &Resource) -> &'static str {
    let part = PARTS.iter().find(|part| part.api_version == resource.api_version());
    part.expect("every version has a document").package
}

#[test]
fn schemas_and_patches_agree_on_how_lists_merge() {
    for resource in RESOURCES.iter().filter(|row| row.verbs.contains(&"patch")) {
        let document = document(&resource.api_version());
        for (at, MergeRule { path, merge }) in merge_rules(resource) {
            let path = format!("{at}.{path}").trim_start_matches('.').to_owned();
            // The metadata of a template is in the table of every kind.
            if at.starts_with("spec.template") && !TEMPLATED.contains(&resource.kind) {
                continue;
            }
            let property = property(&document, resource, &path);
            let said = (
                property["x-kubernetes-patch-strategy"].as_str().unwrap_or_default(),
                property["x-kubernetes-patch-merge-key"].as_str().unwrap_or_default(),
            );
            let expected = match merge {
                ListMerge::ByKey(key) => ("merge", *key),
                ListMerge::ByKeyRetaining(key) => ("merge,retainKeys", *key),
                ListMerge::Set => ("merge", ""),
                ListMerge::Atomic => ("", ""),
            };
            assert_eq!(said, expected, "{}: {path}", resource.kind);
        }
    }
}

fn ask(path: &str, hash: &str, headers: &[(&str, &str)]) -> Response<Body> {
    let uri: http::Uri = format!("/?hash={hash}").parse().expect("an address");
    let query = Query::parse(&uri).expect("a query");
    let mut map = HeaderMap::new();
    for (name, text) in headers {
        let name: http::HeaderName = name.parse().expect("a name");
        map.insert(name, value(text));
    }
    answer(path, &query, &map).expect("a path of ours").expect("an answer")
}

#[tokio::test]
async fn a_document_may_be_kept_forever_under_the_address_that_the_root_gives() {
    let root = root();
    let address = root["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().expect("an address");
    let (path, hash) = address.split_once("?hash=").expect("a hash");
    let response = ask(path, hash, &[("accept-encoding", "gzip")]);
    assert_eq!(response.headers()[CACHE_CONTROL], "public, immutable");
    assert_eq!(response.headers()[CONTENT_ENCODING], "gzip");
    let tag = response.headers()[ETAG].to_str().expect("text").to_owned();
    let compressed = response.into_body().collect().await.expect("a body").to_bytes();
    let plain = ask(path, "", &[]);
    assert!(!plain.headers().contains_key(CACHE_CONTROL));
    let plain = plain.into_body().collect().await.expect("a body").to_bytes();
    assert_eq!(inflate(&compressed).expect("gzip"), plain);
    assert!(compressed.len() * 5 < plain.len(), "{} of {} bytes", compressed.len(), plain.len());

    assert_eq!(ask(path, hash, &[("if-none-match", &tag)]).status(), StatusCode::NOT_MODIFIED);
    let moved = ask(path, "ABC", &[]);
    assert_eq!(moved.status(), StatusCode::MOVED_PERMANENTLY);
    assert_eq!(moved.headers()[LOCATION], address);
}
