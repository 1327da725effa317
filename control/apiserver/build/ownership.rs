//! The shapes of the kinds as server-side apply sees them: what has an owner of its own, and what only as a whole.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::Value;

use crate::merges::{Merges, Strategy, flat};
use crate::messages::Message;
use crate::schemas::{REFERENCE, Schemas};

/// Types that are owned as a whole (upstream's `structType=atomic`).
const ATOMIC: &[&str] = &[
    "ConfigMapKeySelector",
    "CrossVersionObjectReference",
    "EndpointAddress",
    "EndpointPort",
    "FileKeySelector",
    "LabelSelector",
    "LocalObjectReference",
    "MatchResources",
    "NamedRuleWithOperations",
    "NodeSelector",
    "NodeSelectorTerm",
    "ObjectFieldSelector",
    "ObjectReference",
    "OwnerReference",
    "ParamKind",
    "ParamRef",
    "ResourceFieldSelector",
    "RoleRef",
    "ScopeSelector",
    "SecretKeySelector",
    "SecretReference",
    "ServiceBackendPort",
    "Subject",
    "TopologySelectorTerm",
    "TypedLocalObjectReference",
];

/// Key fields, each with what its absence means.
type Keys = &'static [(&'static str, &'static str)];

/// Lists whose elements more than the key of a strategic patch identifies.
const KEYS: &[(&str, &str, Keys)] = &[
    ("Container", "ports", &[("containerPort", ""), ("protocol", "TCP")]),
    ("EphemeralContainer", "ports", &[("containerPort", ""), ("protocol", "TCP")]),
    ("PodSpec", "topologySpreadConstraints", &[("topologyKey", ""), ("whenUnsatisfiable", "")]),
    ("ServiceSpec", "ports", &[("port", ""), ("protocol", "TCP")]),
];

/// Lists that merge in a strategic patch, but have one owner.
const ATOMIC_LISTS: &[(&str, &str)] = &[("PodStatus", "hostIPs")];

/// Structs that are part of their owner in Go: they are there before anybody writes them, so nobody owns them as such.
const ALWAYS_THERE: &[&str] = &[
    "jobTemplate",
    "lastState",
    "loadBalancer",
    "metadata",
    "resources",
    "spec",
    "state",
    "status",
    "strategy",
    "template",
    "updateStrategy",
];

struct Table<'a> {
    schemas: &'a Schemas,
    merges: &'a Merges,
    order: Vec<String>,
    numbers: BTreeMap<String, usize>,
}

/// The table as Rust source, of the types in `src/apply/schema.rs`.
pub(crate) fn to_rust(messages: &BTreeMap<String, Message>, schemas: &Schemas, merges: &Merges) -> String {
    let mut table = Table { schemas, merges, order: Vec::new(), numbers: BTreeMap::new() };
    let mut kinds = BTreeMap::new();
    for (message, kind) in messages.iter().filter_map(|(name, message)| Some((name, message.kind.clone()?))) {
        let package = message.rsplit_once('.').map_or("", |(package, _)| package);
        let stable = package.ends_with(".v1") || package.ends_with(".v2");
        let Some((name, _)) = schemas.find(message).filter(|_| stable) else { continue };
        kinds.insert(kind, table.number(name));
    }
    let mut structs = String::new();
    let mut next = 0;
    while let Some(name) = table.order.get(next).cloned() {
        writeln!(structs, "    // {name}\n    Struct {{ fields: &[{}] }},", table.fields(&name))
            .expect("memory");
        next += 1;
    }
    let kinds: String = kinds
        .iter()
        .map(|((version, kind), number)| format!("    ({version:?}, {kind:?}, {number}),\n"))
        .collect();
    format!(
        "pub(super) static STRUCTS: &[Struct] = &[\n{structs}];\n\npub(super) static KINDS: &[(&str, &str, u16)] = &[\n{kinds}];\n"
    )
}

impl Table<'_> {
    fn number(&mut self, name: &str) -> usize {
        let next = self.order.len();
        *self.numbers.entry(name.to_owned()).or_insert_with(|| {
            self.order.push(name.to_owned());
            next
        })
    }

    fn fields(&mut self, owner: &str) -> String {
        let schema = &self.schemas.0[owner];
        let mut properties: Vec<(&String, &Value)> =
            schema["properties"].as_object().into_iter().flatten().collect();
        properties.sort_by_key(|(name, _)| *name);
        let mut out = String::new();
        for (name, property) in properties {
            let shape = self.shape(owner, name, property);
            let always = ALWAYS_THERE.contains(&name.as_str()) && shape.starts_with("Shape::Struct");
            write!(out, "Field {{ name: {name:?}, shape: {shape}, always: {always} }}, ").expect("memory");
        }
        out
    }

    fn shape(&mut self, owner: &str, field: &str, schema: &Value) -> String {
        if let Some(name) = reference(schema) {
            let last = name.rsplit('.').next().unwrap_or_default();
            let is_struct = self.schemas.0.get(name).is_some_and(|schema| schema["properties"].is_object());
            let recursive = last == "JSONSchemaProps";
            if !is_struct || recursive || ATOMIC.contains(&last) {
                return "Shape::Leaf".to_owned();
            }
            return format!("Shape::Struct({})", self.number(name));
        }
        let last = owner.rsplit('.').next().unwrap_or_default();
        let strategy = self.merges.get(owner).and_then(|fields| fields.get(&flat(field)));
        match (strategy, schema["type"].as_str()) {
            _ if ATOMIC_LISTS.contains(&(last, field)) => "Shape::Leaf".to_owned(),
            (Some(Strategy::Set), _) => "Shape::Set".to_owned(),
            (Some(Strategy::Keys(keys)), _) => {
                let items = reference(&schema["items"]).expect("a keyed list holds objects");
                let known = KEYS.iter().find(|(of, name, _)| (*of, *name) == (last, field));
                let keys: String = match known {
                    Some((_, _, keys)) => keys.iter().map(|(key, absent)| key_row(key, absent)).collect(),
                    None => keys.iter().map(|key| key_row(self.property(items, key), "")).collect(),
                };
                // Whatever the elements are elsewhere: here they are told apart.
                format!("Shape::List {{ keys: &[{keys}], items: {} }}", self.number(items))
            }
            (Some(Strategy::Granular), Some("object")) => {
                format!("Shape::Map(&{})", self.shape(owner, "", &schema["additionalProperties"]))
            }
            _ => "Shape::Leaf".to_owned(),
        }
    }

    fn property(&self, of: &str, name: &str) -> &str {
        let properties = self.schemas.0[of]["properties"].as_object().expect("an object has properties");
        properties.keys().find(|known| flat(known) == flat(name)).expect("a key is a property")
    }
}

fn key_row(name: &str, absent: &str) -> String {
    format!("Key {{ name: {name:?}, absent: {absent:?} }}, ")
}

fn reference(schema: &Value) -> Option<&str> {
    let direct = schema.get("$ref").or_else(|| schema.pointer("/allOf/0/$ref"));
    direct.and_then(Value::as_str).and_then(|name| name.strip_prefix(REFERENCE))
}
