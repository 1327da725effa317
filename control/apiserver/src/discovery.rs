//! Which kinds there are: `/api`, `/apis` and below, plain and aggregated, all read from the table of resources.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue, IF_NONE_MATCH, VARY};
use http::{Response, StatusCode};
use serde_json::{Value, json};

use crate::body::{self, Body};
use crate::negotiate;
use crate::resource::{Resource, served};

/// What is answered on a subresource.
struct Subresource {
    name: &'static str,
    verbs: &'static [&'static str],
    /// Group, version and kind; the resource's own when absent.
    kind: Option<(&'static str, &'static str, &'static str)>,
}

const SUBRESOURCES: &[Subresource] = &[
    Subresource { name: "status", verbs: &["get", "patch", "update"], kind: None },
    Subresource {
        name: "scale",
        verbs: &["get", "patch", "update"],
        kind: Some(("autoscaling", "v1", "Scale")),
    },
    Subresource { name: "binding", verbs: &["create"], kind: Some(("", "v1", "Binding")) },
    Subresource { name: "log", verbs: &["get"], kind: None },
    Subresource { name: "eviction", verbs: &["create"], kind: Some(("policy", "v1", "Eviction")) },
    Subresource { name: "finalize", verbs: &["update"], kind: None },
    Subresource { name: "approval", verbs: &["get", "patch", "update"], kind: None },
    Subresource { name: "ephemeralcontainers", verbs: &["get", "patch", "update"], kind: None },
    Subresource { name: "resize", verbs: &["get", "patch", "update"], kind: None },
];

/// The discovery document at `path`, if there is one.
pub(crate) fn answer(path: &str, headers: &HeaderMap) -> Option<Response<Body>> {
    let words: Vec<&str> = path.split('/').filter(|word| !word.is_empty()).collect();
    let aggregated = negotiate::discovery_version(headers);
    let value = match (words.as_slice(), aggregated) {
        (["api"], Some(version)) => return Some(aggregate(version, headers, str::is_empty)),
        (["apis"], Some(version)) => {
            return Some(aggregate(version, headers, |group| !group.is_empty()));
        }
        (["api"], None) => json!({
            "kind": "APIVersions",
            "versions": ["v1"],
            "serverAddressByClientCIDRs": [],
        }),
        (["apis"], None) => {
            let groups: Vec<Value> = groups()
                .iter()
                .filter(|(group, _)| !group.is_empty())
                .map(|(group, versions)| api_group(group, versions))
                .collect();
            json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups })
        }
        (["apis", group], _) => {
            let versions = groups().remove(*group).filter(|_| !group.is_empty())?;
            let mut value = api_group(group, &versions);
            value["kind"] = json!("APIGroup");
            value["apiVersion"] = json!("v1");
            value
        }
        (["api", version], _) => resource_list("", version)?,
        (["apis", group, version], _) => resource_list(group, version)?,
        _ => return None,
    };
    Some(body::json(StatusCode::OK, &value))
}

/// The root document: the paths there are.
pub(crate) fn root() -> Value {
    let mut paths = vec!["/api".to_owned(), "/api/v1".to_owned(), "/apis".to_owned()];
    for (group, versions) in groups().iter().filter(|(group, _)| !group.is_empty()) {
        paths.push(format!("/apis/{group}"));
        paths.extend(versions.iter().map(|version| format!("/apis/{group}/{version}")));
    }
    paths.extend(
        ["/healthz", "/livez", "/openapi/v2", "/openapi/v3", "/readyz", "/version"].map(str::to_owned),
    );
    json!({ "paths": paths })
}

/// The groups and their versions, in the table's order of versions.
fn groups() -> BTreeMap<&'static str, Vec<&'static str>> {
    let mut groups: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for resource in served() {
        let versions = groups.entry(resource.group).or_default();
        if !versions.contains(&resource.version) {
            versions.push(resource.version);
        }
    }
    groups
}

fn api_group(group: &str, versions: &[&str]) -> Value {
    let version =
        |version: &&str| json!({ "groupVersion": format!("{group}/{version}"), "version": version });
    let versions: Vec<Value> = versions.iter().map(version).collect();
    json!({ "name": group, "preferredVersion": versions[0], "versions": versions })
}

fn resource_list(group: &str, version: &str) -> Option<Value> {
    let mut resources = Vec::new();
    let mut api_version = String::new();
    for resource in members(group, version) {
        api_version = resource.api_version();
        let mut entry = json!({
            "name": resource.plural,
            "singularName": resource.singular,
            "namespaced": resource.namespaced,
            "kind": resource.kind,
            "verbs": resource.verbs,
        });
        if !resource.short_names.is_empty() {
            entry["shortNames"] = json!(resource.short_names);
        }
        if !resource.categories.is_empty() {
            entry["categories"] = json!(resource.categories);
        }
        resources.push(entry);
        for sub in subresources(resource) {
            let mut entry = json!({
                "name": format!("{}/{}", resource.plural, sub.name),
                "singularName": "",
                "namespaced": resource.namespaced,
                "kind": sub.kind.map_or(resource.kind, |(_, _, kind)| kind),
                "verbs": sub.verbs,
            });
            if let Some((group, version, _)) = sub.kind {
                entry["group"] = json!(group);
                entry["version"] = json!(version);
            }
            resources.push(entry);
        }
    }
    if resources.is_empty() {
        return None;
    }
    Some(json!({
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": api_version,
        "resources": resources,
    }))
}

/// The aggregated document; a client that has it already is told so.
fn aggregate(version: &str, headers: &HeaderMap, wanted: fn(&str) -> bool) -> Response<Body> {
    let items: Vec<Value> = groups()
        .iter()
        .filter(|(group, _)| wanted(group))
        .map(|(group, versions)| aggregated_group(group, versions))
        .collect();
    let value = json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": format!("apidiscovery.k8s.io/{version}"),
        "metadata": {},
        "items": items,
    });
    let text = value.to_string();
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    let tag = format!("\"{:016X}\"", hasher.finish());
    let known = headers.get(IF_NONE_MATCH).is_some_and(|known| known == tag.as_str());
    let mut response = if known {
        body::json_bytes(StatusCode::NOT_MODIFIED, Bytes::new())
    } else {
        body::json_bytes(StatusCode::OK, Bytes::from(text))
    };
    let tag = HeaderValue::try_from(tag).expect("the text is ASCII");
    response.headers_mut().insert(ETAG, tag);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public"));
    let media = format!("application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList");
    let media = HeaderValue::try_from(media).expect("the text is ASCII");
    response.headers_mut().insert(CONTENT_TYPE, media);
    response.headers_mut().insert(VARY, HeaderValue::from_static("Accept"));
    response
}

fn aggregated_group(group: &str, versions: &[&str]) -> Value {
    let version = |version: &&str| {
        let resources: Vec<Value> = members(group, version).map(aggregated_resource).collect();
        json!({ "version": version, "freshness": "Current", "resources": resources })
    };
    let mut metadata = json!({ "creationTimestamp": null });
    if !group.is_empty() {
        metadata["name"] = json!(group);
    }
    json!({ "metadata": metadata, "versions": versions.iter().map(version).collect::<Vec<_>>() })
}

fn aggregated_resource(resource: &'static Resource) -> Value {
    let kind =
        |group: &str, version: &str, kind: &str| json!({ "group": group, "version": version, "kind": kind });
    let own = kind(resource.group, resource.version, resource.kind);
    let mut entry = json!({
        "resource": resource.plural,
        "responseKind": own,
        "scope": if resource.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": resource.singular,
        "verbs": resource.verbs,
    });
    if !resource.short_names.is_empty() {
        entry["shortNames"] = json!(resource.short_names);
    }
    if !resource.categories.is_empty() {
        entry["categories"] = json!(resource.categories);
    }
    let subs: Vec<Value> = subresources(resource)
        .map(|sub| {
            let response = sub.kind.map_or(own.clone(), |(g, v, k)| kind(g, v, k));
            json!({ "subresource": sub.name, "responseKind": response, "verbs": sub.verbs })
        })
        .collect();
    if !subs.is_empty() {
        entry["subresources"] = json!(subs);
    }
    entry
}

fn members(group: &str, version: &str) -> impl Iterator<Item = &'static Resource> {
    served().filter(move |r| r.group == group && r.version == version)
}

fn subresources(resource: &'static Resource) -> impl Iterator<Item = &'static Subresource> {
    SUBRESOURCES.iter().filter(|sub| resource.subresources.contains(&sub.name))
}
