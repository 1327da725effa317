//! The paths of an OpenAPI document, read from the table of resources.

use serde_json::{Map, Value, json};

use super::Part;
use crate::resource::{Resource, served};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
const SCALE: &str = "io.k8s.api.autoscaling.v1.Scale";
const EVICTION: &str = "io.k8s.api.policy.v1.Eviction";

/// Parameters: name, JSON type, and what they do.
type Parameter = (&'static str, &'static str, &'static str);

const WRITE: &[Parameter] = &[
    ("dryRun", "string", "\"All\" lets the request go through every stage but leaves nothing behind."),
    ("fieldManager", "string", "The name of who makes the change."),
    (
        "fieldValidation",
        "string",
        "What happens to unknown and duplicate fields: Ignore, Warn (the default) or Strict.",
    ),
];
const PATCH: &[Parameter] = &[
    WRITE[0],
    WRITE[1],
    WRITE[2],
    ("force", "boolean", "Whether a server-side apply takes the fields that others own."),
];
const DELETE: &[Parameter] = &[
    ("dryRun", "string", "\"All\" lets the request go through every stage but leaves nothing behind."),
    ("gracePeriodSeconds", "integer", "How long the object may take to end; zero deletes at once."),
    ("orphanDependents", "boolean", "Whether dependents stay; use propagationPolicy."),
    ("propagationPolicy", "string", "What happens to dependents: Orphan, Background or Foreground."),
];
const LIST: &[Parameter] = &[
    ("allowWatchBookmarks", "boolean", "Whether a watch sends events that only tell the resource version."),
    ("continue", "string", "Where a list in pages goes on."),
    ("fieldSelector", "string", "Restricts the objects by their fields."),
    ("labelSelector", "string", "Restricts the objects by their labels."),
    ("limit", "integer", "How many objects are on a page."),
    ("resourceVersion", "string", "How new the answer must be, or where a watch begins."),
    ("resourceVersionMatch", "string", "How resourceVersion is applied to lists: Exact or NotOlderThan."),
    ("sendInitialEvents", "boolean", "Whether a watch begins with the objects there are."),
    ("timeoutSeconds", "integer", "How long a list or watch may last."),
    ("watch", "boolean", "Whether changes follow, as a stream."),
];
const PATCHES: &[&str] = &[
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];

/// What an operation is: HTTP method, upstream's name of the action, parameters, schema of body and answer.
struct Operation<'s> {
    method: &'static str,
    action: &'static str,
    parameters: &'static [Parameter],
    body: Option<&'s str>,
    answer: &'s str,
}

/// The object `paths` of the document of one group and version.
pub(super) fn paths(part: &Part) -> Map<String, Value> {
    let mut paths = Map::new();
    for resource in served().filter(|resource| resource.api_version() == part.api_version) {
        let root = if resource.group.is_empty() { "/api" } else { "/apis" };
        let root = format!("{root}/{}", part.api_version);
        let plural = resource.plural;
        let all = format!("{root}/{plural}");
        let (collection, place) = if resource.namespaced {
            (format!("{root}/namespaces/{{namespace}}/{plural}"), &["namespace", "name"][..])
        } else {
            (all.clone(), &["name"][..])
        };
        let kind = format!("{}.{}", part.package, resource.kind);
        let list = format!("{}.{}", part.package, resource.list_kind);
        if resource.namespaced {
            let operations = collection_operations(resource, &kind, &list);
            let lists: Vec<_> =
                operations.into_iter().filter(|operation| operation.action == "list").collect();
            if !lists.is_empty() {
                paths.insert(all, item(resource, lists, &[], ""));
            }
        }
        let operations = collection_operations(resource, &kind, &list);
        paths.insert(collection.clone(), item(resource, operations, &place[..place.len() - 1], ""));
        let one = format!("{collection}/{{name}}");
        let operations = object_operations(resource, &kind);
        if !operations.is_empty() {
            paths.insert(one.clone(), item(resource, operations, place, ""));
        }
        for sub in resource.subresources {
            let operations = subresource_operations(sub, &kind, part.package);
            paths.insert(format!("{one}/{sub}"), item(resource, operations, place, sub));
        }
    }
    paths
}

fn collection_operations<'s>(resource: &Resource, kind: &'s str, list: &'s str) -> Vec<Operation<'s>> {
    let all = [
        ("list", Operation { method: "get", action: "list", parameters: LIST, body: None, answer: list }),
        (
            "create",
            Operation { method: "post", action: "post", parameters: WRITE, body: Some(kind), answer: kind },
        ),
        (
            "deletecollection",
            Operation {
                method: "delete",
                action: "deletecollection",
                parameters: DELETE,
                body: Some("DeleteOptions"),
                answer: "Status",
            },
        ),
    ];
    all.into_iter()
        .filter(|(verb, _)| resource.verbs.contains(verb))
        .map(|(_, operation)| operation)
        .collect()
}

fn object_operations<'s>(resource: &Resource, kind: &'s str) -> Vec<Operation<'s>> {
    let delete = Operation {
        method: "delete",
        action: "delete",
        parameters: DELETE,
        body: Some("DeleteOptions"),
        answer: "Status",
    };
    let [get, put, patch] = form_operations(kind);
    let all = [("get", get), ("update", put), ("patch", patch), ("delete", delete)];
    all.into_iter()
        .filter(|(verb, _)| resource.verbs.contains(verb))
        .map(|(_, operation)| operation)
        .collect()
}

fn subresource_operations<'s>(sub: &str, kind: &'s str, package: &str) -> Vec<Operation<'s>> {
    let post = |body| Operation {
        method: "post",
        action: "post",
        parameters: WRITE,
        body: Some(body),
        answer: "Status",
    };
    match sub {
        "status" | "approval" | "ephemeralcontainers" | "resize" => form_operations(kind).into(),
        "scale" => form_operations(SCALE).into(),
        "finalize" => {
            form_operations(kind).into_iter().filter(|operation| operation.method == "put").collect()
        }
        "eviction" => vec![post(EVICTION)],
        "binding" if package == "io.k8s.api.core.v1" => vec![post("io.k8s.api.core.v1.Binding")],
        _ => vec![Operation { method: "get", action: "connect", parameters: &[], body: None, answer: "" }],
    }
}

/// Reading, replacing and patching something of the form `kind`.
fn form_operations(kind: &str) -> [Operation<'_>; 3] {
    let operation =
        |method, action, parameters, body| Operation { method, action, parameters, body, answer: kind };
    [
        operation("get", "get", &[], None),
        operation("put", "put", WRITE, Some(kind)),
        operation("patch", "patch", PATCH, Some("Patch")),
    ]
}

/// A path item.
fn item<'s>(
    resource: &Resource,
    operations: impl IntoIterator<Item = Operation<'s>>,
    place: &[&str],
    sub: &str,
) -> Value {
    let mut item = Map::new();
    for operation in operations {
        item.insert(operation.method.to_owned(), operation.describe(resource, sub));
    }
    let in_path = |name: &&str| {
        json!({
            "name": name,
            "in": "path",
            "required": true,
            "schema": { "type": "string", "uniqueItems": true },
        })
    };
    if !place.is_empty() {
        item.insert("parameters".to_owned(), place.iter().map(in_path).collect());
    }
    Value::Object(item)
}

impl Operation<'_> {
    fn describe(&self, resource: &Resource, sub: &str) -> Value {
        let parameter = |(name, form, description): &Parameter| {
            json!({
                "name": name,
                "in": "query",
                "description": description,
                "schema": { "type": form, "uniqueItems": true },
            })
        };
        let (group, version, kind) = match sub {
            "scale" => ("autoscaling", "v1", "Scale"),
            "eviction" => ("policy", "v1", "Eviction"),
            "binding" => ("", "v1", "Binding"),
            _ => (resource.group, resource.version, resource.kind),
        };
        let code = if self.method == "post" { "201" } else { "200" };
        let mut description = json!({
            "operationId": self.id(resource, sub),
            "parameters": self.parameters.iter().map(parameter).collect::<Vec<_>>(),
            "responses": { code: { "description": "OK", "content": content(&["application/json"], self.answer) } },
            "x-kubernetes-action": self.action,
            "x-kubernetes-group-version-kind": { "group": group, "version": version, "kind": kind },
        });
        if let Some(body) = self.body {
            let types = if body == "Patch" {
                PATCHES
            } else {
                &["application/json", "application/yaml", crate::protobuf::MEDIA_TYPE]
            };
            let required = body != "DeleteOptions";
            description["requestBody"] = json!({ "content": content(types, body), "required": required });
        }
        description
    }

    /// A name that no other operation of the server has.
    fn id(&self, resource: &Resource, sub: &str) -> String {
        let capital = |word: &str| {
            let (first, rest) = word.split_at(word.len().min(1));
            first.to_uppercase() + rest
        };
        let group = resource.group.split('.').next().filter(|group| !group.is_empty()).unwrap_or("core");
        let scope = if resource.namespaced { "Namespaced" } else { "" };
        let (group, version) = (capital(group), capital(resource.version));
        format!("{}{group}{version}{scope}{}{}", self.action, resource.kind, capital(sub))
    }
}

/// Media types that all hold the same schema; a name without a dot is one of the common types.
fn content(types: &[&str], schema: &str) -> Value {
    let schema = match schema {
        "" => json!({ "type": "string" }),
        name if name.contains('.') => json!({ "$ref": format!("#/components/schemas/{name}") }),
        name => json!({ "$ref": format!("#/components/schemas/{META}.{name}") }),
    };
    types.iter().map(|media| ((*media).to_owned(), json!({ "schema": schema }))).collect::<Map<_, _>>().into()
}
