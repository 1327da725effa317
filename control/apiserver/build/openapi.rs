//! The larger part of the OpenAPI documents: the schemas of each version of each group, compressed.
//!
//! A document is these bytes and then its paths, which the server adds because it knows which kinds it serves. Hence the
//! compressed bytes end at a byte's end and not with a final block, so that another part can follow.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write as _;
use std::path::Path;

use flate2::write::DeflateEncoder;
use flate2::{Compression, Crc};
use serde_json::{Map, Value, json};

use crate::messages::Message;
use crate::schemas::{REFERENCE, Schemas};
use crate::swagger::{self, named, put};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";

/// How a list, or a map, of a type merges in a strategic patch: type, property, strategy, key.
const MERGE: &[(&str, &str, &str, &str)] = &[
    ("CSINodeSpec", "drivers", "merge", "name"),
    ("Container", "env", "merge", "name"),
    ("Container", "ports", "merge", "containerPort"),
    ("Container", "volumeDevices", "merge", "devicePath"),
    ("Container", "volumeMounts", "merge", "mountPath"),
    ("DaemonSetStatus", "conditions", "merge", "type"),
    ("DeploymentSpec", "strategy", "retainKeys", ""),
    ("DeploymentStatus", "conditions", "merge", "type"),
    ("EphemeralContainer", "env", "merge", "name"),
    ("EphemeralContainer", "ports", "merge", "containerPort"),
    ("EphemeralContainer", "volumeDevices", "merge", "devicePath"),
    ("EphemeralContainer", "volumeMounts", "merge", "mountPath"),
    ("JobStatus", "conditions", "merge", "type"),
    ("MutatingAdmissionPolicySpec", "matchConditions", "merge", "name"),
    ("MutatingAdmissionPolicySpec", "variables", "merge", "name"),
    ("MutatingWebhook", "matchConditions", "merge", "name"),
    ("MutatingWebhookConfiguration", "webhooks", "merge", "name"),
    ("NamespaceStatus", "conditions", "merge", "type"),
    ("NodeSpec", "podCIDRs", "merge", ""),
    ("NodeStatus", "addresses", "merge", "type"),
    ("NodeStatus", "conditions", "merge", "type"),
    ("ObjectMeta", "finalizers", "merge", ""),
    ("ObjectMeta", "ownerReferences", "merge", "uid"),
    ("PersistentVolumeClaimStatus", "conditions", "merge", "type"),
    ("PodDisruptionBudgetStatus", "conditions", "merge", "type"),
    ("PodSpec", "containers", "merge", "name"),
    ("PodSpec", "ephemeralContainers", "merge", "name"),
    ("PodSpec", "hostAliases", "merge", "ip"),
    ("PodSpec", "imagePullSecrets", "merge", "name"),
    ("PodSpec", "initContainers", "merge", "name"),
    ("PodSpec", "resourceClaims", "merge,retainKeys", "name"),
    ("PodSpec", "schedulingGates", "merge", "name"),
    ("PodSpec", "topologySpreadConstraints", "merge", "topologyKey"),
    ("PodSpec", "volumes", "merge,retainKeys", "name"),
    ("PodStatus", "conditions", "merge", "type"),
    ("PodStatus", "hostIPs", "merge", "ip"),
    ("PodStatus", "podIPs", "merge", "ip"),
    ("ReplicaSetStatus", "conditions", "merge", "type"),
    ("ReplicationControllerStatus", "conditions", "merge", "type"),
    ("ServiceAccount", "secrets", "merge", "name"),
    ("ServiceSpec", "ports", "merge", "port"),
    ("ServiceStatus", "conditions", "merge", "type"),
    ("StatefulSetStatus", "conditions", "merge", "type"),
    ("ValidatingAdmissionPolicySpec", "matchConditions", "merge", "name"),
    ("ValidatingAdmissionPolicySpec", "variables", "merge", "name"),
    ("ValidatingWebhook", "matchConditions", "merge", "name"),
    ("ValidatingWebhookConfiguration", "webhooks", "merge", "name"),
];

/// Writes a file for each version of each group and one for version 2, and `openapi_table.rs`, which includes them.
pub(crate) fn write(out: &Path, messages: &BTreeMap<String, Message>, schemas: &Schemas) {
    let mut definitions = Map::new();
    let mut rows = String::from("static PARTS: &[Part] = &[\n");
    for (package, api_version) in packages(messages) {
        let all = components(&package, &api_version, messages, schemas);
        let name = format!("openapi_{}.deflate", api_version.replace(['/', '.'], "_"));
        let part = part(&out.join(name), head(&all).as_bytes());
        writeln!(rows, "    Part {{ api_version: {api_version:?}, package: {package:?}, head: {part} }},")
            .expect("memory");
        for (name, schema) in all {
            // Types of other groups are there too, but only in their own documents with their kinds.
            if name.starts_with(&format!("{package}.")) || !definitions.contains_key(&name) {
                definitions.insert(name, schema);
            }
        }
    }
    let version_2 = part(&out.join("openapi_v2_definitions.deflate"), &swagger_head(&definitions));
    let plain = part(&out.join("openapi_v2_json.deflate"), plain_head(&definitions).as_bytes());
    writeln!(rows, "];\n\nstatic SWAGGER: Head = {version_2};\n\nstatic SWAGGER_JSON: Head = {plain};")
        .expect("memory");
    std::fs::write(out.join("openapi_table.rs"), rows).expect("the build directory takes files");
}

/// Compresses the first part of a document into a file; returns the Rust expression that describes it.
fn part(file: &Path, document: &[u8]) -> String {
    let write = || -> std::io::Result<()> {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(document)?;
        encoder.flush()?;
        std::fs::write(file, encoder.get_ref())
    };
    write().unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let mut crc = Crc::new();
    crc.update(document);
    let mut digest = DefaultHasher::new();
    document.hash(&mut digest);
    let (crc, length, digest) = (crc.sum(), document.len(), digest.finish());
    format!("Head {{ deflated: include_bytes!({file:?}), crc: {crc}, length: {length}, digest: {digest} }}")
}

/// The fields `swagger`, `info` and `definitions` of the protobuf document of version 2.
fn swagger_head(definitions: &Map<String, Value>) -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out, 1, "2.0");
    put(&mut out, 2, named("Kubernetes", b"v1.36.0"));
    let mut all = Vec::new();
    for (name, schema) in definitions {
        put(&mut all, 1, named(name, &swagger::schema(schema)));
    }
    put(&mut out, 9, all);
    out
}

/// The JSON document of version 2 up to its paths.
fn plain_head(definitions: &Map<String, Value>) -> String {
    let definitions: Map<String, Value> =
        definitions.iter().map(|(name, schema)| (name.clone(), swagger::plain(schema))).collect();
    let mut text = json!({
        "swagger": "2.0",
        "info": { "title": "Kubernetes", "version": "v1.36.0" },
        "definitions": definitions,
    })
    .to_string();
    text.truncate(text.len() - 1);
    text.push_str(",\"paths\":");
    text
}

/// The stable versions of the groups: where their types are, and what they are called.
fn packages(messages: &BTreeMap<String, Message>) -> BTreeMap<String, String> {
    let kinds = messages.iter().filter_map(|(name, message)| Some((name, message.kind.as_ref()?)));
    let packages = kinds.filter_map(|(name, (api_version, _))| Some((name.rsplit_once('.')?.0, api_version)));
    let stable = |package: &str| {
        let known = ["io.k8s.api.", "io.k8s.apiextensions-apiserver."];
        known.iter().any(|start| package.starts_with(start))
            && (package.ends_with(".v1") || package.ends_with(".v2"))
    };
    packages
        .filter(|(package, _)| stable(package))
        .map(|(package, version)| (package.to_owned(), version.clone()))
        .collect()
}

/// A document up to its paths.
fn head(all: &Map<String, Value>) -> String {
    let mut text = json!({
        "openapi": "3.0.0",
        "info": { "title": "Kubernetes", "version": "v1.36.0" },
        "components": { "schemas": all },
    })
    .to_string();
    text.truncate(text.len() - 1);
    text.push_str(",\"paths\":");
    text
}

/// The types of the kinds of one version, and what they are made of.
fn components(
    package: &str,
    api_version: &str,
    messages: &BTreeMap<String, Message>,
    schemas: &Schemas,
) -> Map<String, Value> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let gvk = |kind: &str| json!([{ "group": group, "kind": kind, "version": version }]);
    let mut roots: BTreeSet<String> = ["DeleteOptions", "ListMeta", "Status"]
        .iter()
        .map(|name| format!("{META}.{name}"))
        .chain(["io.k8s.api.autoscaling.v1.Scale", "io.k8s.api.policy.v1.Eviction"].map(str::to_owned))
        .collect();
    let mut extra = Map::new();
    let mut kinds = BTreeMap::new();
    let start = format!("{package}.");
    let inside = messages.range(start.clone()..).take_while(|(name, _)| name.starts_with(&start));
    for (message, (_, kind)) in inside.filter_map(|(name, message)| Some((name, message.kind.as_ref()?))) {
        let Some((name, _)) = schemas.find(message) else { continue };
        roots.insert(name.to_owned());
        kinds.insert(name, gvk(kind));
        if messages.contains_key(&format!("{message}List")) {
            let mut list = list_of(name, kind);
            list["x-kubernetes-group-version-kind"] = gvk(&format!("{kind}List"));
            extra.insert(format!("{name}List"), list);
        }
    }
    let mut all = closure(roots, schemas);
    for (name, schema) in &mut all {
        complete(name, schema);
        if let Some(gvk) = kinds.remove(name.as_str()) {
            schema["x-kubernetes-group-version-kind"] = gvk;
        }
    }
    all.extend(extra);
    all.insert(
        format!("{META}.Patch"),
        json!({
            "description": "A patch in the form that its media type says.",
            "type": "object",
        }),
    );
    all
}

/// The schema of a list of objects; the types have one for all lists.
fn list_of(name: &str, kind: &str) -> Value {
    let text = |description: &str| json!({ "description": description, "type": "string" });
    json!({
        "description": format!("{kind}List is a list of {kind} objects."),
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": text("The version of the API that the list is written in."),
            "items": {
                "description": format!("The {kind} objects."),
                "type": "array",
                "items": { "$ref": format!("{REFERENCE}{name}") },
            },
            "kind": text("The kind of the list."),
            "metadata": {
                "description": "The list's own metadata.",
                "allOf": [{ "$ref": format!("{REFERENCE}{META}.ListMeta") }],
            },
        },
    })
}

/// The types that the roots are made of.
fn closure(roots: BTreeSet<String>, schemas: &Schemas) -> Map<String, Value> {
    let mut all = Map::new();
    let mut waiting: Vec<String> = roots.into_iter().collect();
    while let Some(name) = waiting.pop() {
        if all.contains_key(&name) {
            continue;
        }
        let schema = schemas.0.get(&name).unwrap_or_else(|| panic!("no schema is called {name}"));
        references(schema, &mut waiting);
        all.insert(name, schema.clone());
    }
    all
}

fn references(schema: &Value, out: &mut Vec<String>) {
    match schema {
        Value::Object(entries) => {
            out.extend(
                entries.get("$ref").and_then(Value::as_str).map(|to| to[REFERENCE.len()..].to_owned()),
            );
            entries.values().for_each(|value| references(value, out));
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, out)),
        _ => {}
    }
}

/// What OpenAPI says and the schemas of the types do not.
fn complete(name: &str, schema: &mut Value) {
    let last = name.rsplit('.').next().unwrap_or_default();
    let alternatives = match last {
        "IntOrString" => {
            json!({ "format": "int-or-string", "oneOf": [{ "type": "integer" }, { "type": "string" }] })
        }
        "Quantity" => json!({ "oneOf": [{ "type": "string" }, { "type": "number" }] }),
        _ => Value::Null,
    };
    if let (Value::Object(alternatives), Some(entries)) = (alternatives, schema.as_object_mut()) {
        entries.remove("type");
        entries.remove("x-kubernetes-int-or-string");
        entries.extend(alternatives);
    }
    for (_, property, strategy, key) in MERGE.iter().filter(|(of, ..)| *of == last) {
        let property = &mut schema["properties"][property];
        assert!(property.is_object(), "{name} lost a property that merges");
        property["x-kubernetes-patch-strategy"] = json!(strategy);
        if !key.is_empty() {
            property["x-kubernetes-patch-merge-key"] = json!(key);
        }
    }
}
