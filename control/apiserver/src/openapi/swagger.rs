//! JSON schemas in the forms of OpenAPI v2: JSON, and protobuf (gnostic's `openapi.v2`); also part of the build script.

use serde_json::{Map, Value, json};

/// A field of bytes, a text or a message.
pub(crate) fn put(out: &mut Vec<u8>, field: u8, content: impl AsRef<[u8]>) {
    let content = content.as_ref();
    varint(out, usize::from(field) << 3 | 2);
    varint(out, content.len());
    out.extend(content);
}

/// A field of a number or truth.
pub(crate) fn varint(out: &mut Vec<u8>, mut value: usize) {
    while value > 0x7f {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// `NamedSchema`, `NamedPathItem` and the like: a name and a message.
pub(crate) fn named(name: &str, message: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out, 1, name);
    put(&mut out, 2, message);
    out
}

/// The extensions among the entries of an object, each a `NamedAny` that holds YAML, of which JSON is a part.
pub(crate) fn extensions(out: &mut Vec<u8>, field: u8, of: &Value) {
    for (name, value) in of.as_object().into_iter().flatten().filter(|(name, _)| name.starts_with("x-")) {
        let mut any = Vec::new();
        put(&mut any, 2, format!("{value}\n"));
        put(out, field, named(name, &any));
    }
}

/// A `Schema`.
pub(crate) fn schema(of: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    let reference = of["$ref"].as_str().or(of["allOf"][0]["$ref"].as_str());
    if let Some(name) = reference.and_then(|reference| reference.strip_prefix("#/components/schemas/")) {
        put(&mut out, 1, format!("#/definitions/{name}"));
    }
    // Version 2 knows no alternatives: numbers may be written as texts.
    let form = if of["oneOf"].is_array() { Some("string") } else { of["type"].as_str() };
    if let Some(format) = of["format"].as_str() {
        put(&mut out, 2, format);
    }
    if let Some(description) = of["description"].as_str() {
        put(&mut out, 4, description);
    }
    for name in of["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        put(&mut out, 19, name);
    }
    if of["additionalProperties"].is_object() {
        let mut item = Vec::new();
        put(&mut item, 1, schema(&of["additionalProperties"]));
        put(&mut out, 21, item);
    }
    if let Some(form) = form {
        let mut item = Vec::new();
        put(&mut item, 1, form);
        put(&mut out, 22, item);
    }
    if of["items"].is_object() {
        let mut item = Vec::new();
        put(&mut item, 1, schema(&of["items"]));
        put(&mut out, 23, item);
    }
    if let Some(properties) = of["properties"].as_object() {
        let mut all = Vec::new();
        for (name, property) in properties {
            put(&mut all, 1, named(name, &schema(property)));
        }
        put(&mut out, 25, all);
    }
    extensions(&mut out, 31, of);
    out
}

/// A schema of version 3 as version 2 writes it.
pub(crate) fn plain(of: &Value) -> Value {
    let mut out = Map::new();
    for (name, value) in of.as_object().into_iter().flatten() {
        match name.as_str() {
            "$ref" => drop(out.insert("$ref".to_owned(), definition(value))),
            // Only a way to give a reference a description.
            "allOf" => drop(out.insert("$ref".to_owned(), definition(&value[0]["$ref"]))),
            // Version 2 knows no alternatives: numbers may be written as texts.
            "oneOf" => drop(out.insert("type".to_owned(), json!("string"))),
            "properties" => {
                let properties = value.as_object().into_iter().flatten();
                let properties = properties.map(|(name, property)| (name.clone(), plain(property)));
                out.insert(name.clone(), properties.collect());
            }
            "items" | "additionalProperties" if value.is_object() => {
                out.insert(name.clone(), plain(value));
            }
            _ => drop(out.insert(name.clone(), value.clone())),
        }
    }
    Value::Object(out)
}

fn definition(reference: &Value) -> Value {
    let text = reference.as_str().unwrap_or_default();
    json!(text.replacen("#/components/schemas/", "#/definitions/", 1))
}
